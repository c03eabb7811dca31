"""Files and revision of a model: hub commit or folder digest; imports no torch."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from vqa.config import build
from vqa.errors import ModelError, first_few
from vqa.model.card import GenerationConfig

EMBEDDED = Path(__file__).resolve().parents[1] / "assets" / "embedded"

SAMPLING = ("temperature", "top_p", "top_k", "repetition_penalty")
ADAPTER = "adapter_config.json"
# What answers depend on; READMEs and the like may change freely.
_CONFIG_SUFFIXES = (".json", ".jinja", ".txt", ".model", ".py")


@dataclass(frozen=True)
class Location:
    """A model that was found: give `place` and `commit` to `from_pretrained`."""

    model_id: str
    place: str  # folder or hub id
    commit: str | None  # None for a folder
    subfolder: str = ""  # of a hub id

    @cached_property
    def revision(self) -> str:
        """Hub commit, or `blake2b:...` of a folder's files (about a second per gigabyte)."""
        return self.commit or f"blake2b:{_folder_digest(Path(self.place))}"


def locate_model(source: str, *, revision: str = "main", subfolder: str | None = None) -> Location:
    """Find a model: "embedded", a folder, or a hub id (only its config is fetched).

    `subfolder`: of the folder or id, where it holds several models.

    Raises ModelError where there is none, or it has no safetensors weights.
    """
    if source == "embedded":
        if not (EMBEDDED / "config.json").is_file():
            raise ModelError(f"the embedded model is not in {EMBEDDED}; reinstall vqa, or name another model")
        _check_weights(EMBEDDED)
        return Location("embedded", str(EMBEDDED), None)
    path = Path(source).expanduser()
    if subfolder and path.is_dir():
        path /= subfolder
        if not path.is_dir():
            raise ModelError(f"model {source}: no folder {subfolder} in it. Check the card's subfolder.")
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"model folder {path}: {_without_config(path)}")
        _check_weights(path)
        if (path / ADAPTER).is_file() and not find_spec("peft"):
            raise ModelError(
                f"model folder {path}: an adapter lies beside the weights. Install the extra to apply it "
                "(pip install 'vqa[train]'), or merge it (peft's merge_and_unload) and give that folder."
            )
        return Location(str(path.resolve()), str(path.resolve()), None)
    if path.exists():
        raise ModelError(f"model {source}: a file; give the folder it lies in")
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise ModelError(f"model {source}: no such folder. Give one, or an id of the Hugging Face hub (owner/name).")
    inside = subfolder or ""
    return Location(f"{source}/{inside}" if inside else source, source, _commit(source, revision, inside), inside)


def folder_sampling(location: Location) -> dict[str, float | int]:
    """Sampling settings of a model's folder, which `generate` takes as defaults.

    Returns:
        Of temperature, top_p, top_k and repetition_penalty those in its generation_config.json.

    Raises:
        ModelError: the file cannot be read.
    """
    name = "generation_config.json"
    path = Path(location.place) / name if location.commit is None else _hub_file(location, name)
    try:
        values = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise ModelError(
            f"model {location.model_id}: its {name} cannot be read ({error}); download it again"
        ) from error
    return {key: values[key] for key in SAMPLING if values.get(key) is not None}


def _hub_file(location: Location, name: str) -> Path | None:
    """File of the model in the hub's cache, fetched if absent; None if it has none."""
    from huggingface_hub import hf_hub_download  # an HTTP client, a quarter of a second: not for folders
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            hf_hub_download(location.place, name, revision=location.commit, subfolder=location.subfolder or None)
        )
    except LocalEntryNotFoundError as error:
        raise ModelError(f"model {location.model_id}: its {name} is not downloaded yet; get online once") from error
    except EntryNotFoundError:
        return None
    except (ValueError, OSError, HfHubHTTPError) as error:
        raise ModelError(
            f"model {location.model_id}: its {name} cannot be read ({error}); download it again"
        ) from error


def _without_config(folder: Path) -> str:
    """Why a folder without config.json is no model, and the way out."""
    if (folder / ADAPTER).is_file():
        return "an adapter without its base model. Merge it (peft's merge_and_unload) and give the merged folder."
    inside = sorted(
        path.parent.name for path in folder.glob("*/config.json") if list(path.parent.glob("*.safetensors"))
    )
    if inside:
        names = first_few([str(folder / name) for name in inside])
        return f"no config.json, but models inside it. Give one of them: {names}."
    return "no config.json; give the folder that save_pretrained wrote"


def with_folder_sampling(generation: GenerationConfig, location: Location) -> GenerationConfig:
    """Fill in settings from the model's folder, where `folder_sampling` asks for it."""
    if not generation.folder_sampling:
        return generation
    left = {key: value for key, value in folder_sampling(location).items() if key not in generation.model_fields_set}
    values = generation.model_dump() | left | {"folder_sampling": False}
    return build(GenerationConfig, values, where=f"model {location.model_id}, generation_config.json")


def _commit(source: str, revision: str, subfolder: str) -> str:
    # An HTTP client, a quarter of a second: not for folders.
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"model {source} at revision {revision}"
    try:
        config = hf_hub_download(source, "config.json", revision=revision, subfolder=subfolder or None)
    except GatedRepoError as error:
        raise ModelError(f"{where}: gated; accept its terms on the hub and log in with `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{where}: no such folder here, and no such id on the hub. If it is private, log in with `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"{where}: the hub knows the model, but not this revision. Give a branch, tag or commit of it."
        ) from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{where}: not downloaded yet and the hub cannot be reached; get online or give a folder"
        ) from error
    except (HFValidationError, OSError) as error:  # every HTTP error of the hub is an OSError
        raise ModelError(f"{where}: {' '.join(str(error).split())}") from error
    # The cache keeps each commit in a folder of its name.
    return Path(config).parents[len(Path(subfolder).parts)].name


def _check_weights(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
        except (ValueError, KeyError, AttributeError) as error:
            raise ModelError(f"{index}: not an index of weights ({error}); download it again") from error
        missing = sorted(name for name in shards if not (folder / name).is_file())
        if missing:
            raise ModelError(
                f"model folder {folder}: {len(missing)} of {len(shards)} weight files missing: {missing[0]}. Copy or "
                "download them again."
            )
    elif not [path for path in folder.glob("*.safetensors") if not path.name.startswith("adapter_")]:
        if (folder / ADAPTER).is_file():
            raise ModelError(
                f"model folder {folder}: an adapter without its base model. Merge it (peft's merge_and_unload) "
                "and give the merged folder."
            )
        pickled = sorted(path.name for suffix in ("bin", "pt", "pth", "ckpt") for path in folder.glob(f"*.{suffix}"))
        if pickled:
            raise ModelError(
                f"model folder {folder}: {pickled[0]} is a pickle, which can run code; save it as safetensors "
                "(save_pretrained of transformers does)"
            )
        raise ModelError(f"model folder {folder}: no weights (*.safetensors). Copy or download them again.")


def _folder_digest(folder: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    kept = {*_CONFIG_SUFFIXES, ".safetensors"}
    for path in sorted(path for path in folder.iterdir() if path.suffix in kept and path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).digest()
        digest.update(path.name.encode() + b"\0" + content)
    return digest.hexdigest()
