"""Convert released RALI weights to a student's folder; a child reads the pickles.

`ByteDance/Q-Insight/RALI` (Apache-2.0) holds `ckpt.pt` (key `state_dict`: `clip.*` of a CLIPModel and `scorer.*`),
`best/` (the CLIP's config and preprocessor) and `pca.pkl` (a joblib pickle of a PCA, which alone has the mean). The two
pickles are read in a child that can be killed, by readers that make arrays and numbers and nothing else. `basis.npz`
holds what `scorer.*` began as; it is not needed.
"""

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from vqa.config import Values
from vqa.errors import ClipError, ModelError
from vqa.files import replacing
from vqa.light.card import WEIGHTS, ClipConfig, StudentCard, write_card
from vqa.media.sandbox import Guard

_SCORER = ("pca_scale", "pca_components", "prototypes", "proto_scores", "logit_scale")
_DEADLINE_SECONDS = 600.0
_MEMORY_BYTES = 16 << 30  # CLIP ViT-L/14 in float32 is 1.7 GB
_NATIVE = 1 << 14  # long side: CLIP's own preprocessor scales the picture, as in the released inference


def convert(folder: Path, out: Path, *, low: float, high: float, name: str = "rali") -> StudentCard:
    """Write a student's folder from released RALI files.

    Args:
        folder: Holds ckpt.pt, pca.pkl and best/.
        out: The student's folder.
        low: Worst score of the scale that the checkpoint was trained on; the authors do not state it.
        high: Best score of it.
        name: The model_id of its rows.

    Raises:
        ModelError: A file that is missing, is none of this layout, or holds a score outside the scale.
    """
    for part in ("ckpt.pt", "pca.pkl", "best/config.json", "best/preprocessor_config.json"):
        if not (folder / part).is_file():
            raise ModelError(f"RALI {folder}: no {part}. Give the folder with ckpt.pt, pca.pkl and best/.")
    clip = ClipConfig(
        vision=_vision(_json(folder / "best/config.json")), processor=_json(folder / "best/preprocessor_config.json")
    )
    out.mkdir(parents=True, exist_ok=True)
    with (
        replacing(out / WEIGHTS) as draft,
        Guard(deadline_seconds=_DEADLINE_SECONDS, memory_bytes=_MEMORY_BYTES) as guard,
    ):
        try:
            guard.run(convert_weights, str(folder), str(draft), low, high)
        except (ClipError, MemoryError) as error:
            raise ModelError(f"RALI {folder}: cannot be read ({error}). Download it again.") from error
    card = StudentCard(
        name=name,
        encoder="clip",
        clip=clip,
        views={
            "global_kind": "frames",
            "global_pixels": _NATIVE,
            "keyframes": 4,
            "spatial": "centre",
            "local_pictures": 0,
        },
        trained_on=["weights of RALI (arXiv 2510.11369), converted; their terms are those of where they come from"],
        limits="RALI scores pictures; of a video, the mean of a few frames' features is scored.",
    )
    write_card(out, card)
    return card


def convert_weights(folder: str, out: str, low: float, high: float) -> None:
    """Read both pickles, write one file of tensors; in the child. Raises ModelError."""
    where = Path(folder)
    try:
        loaded = torch.load(where / "ckpt.pt", map_location="cpu", weights_only=True)
        state = cast(Mapping[str, torch.Tensor], loaded["state_dict"])
        vision = {
            f"encoder.tower.{name.removeprefix('clip.')}": tensor.contiguous()
            for name, tensor in state.items()
            if name.startswith(("clip.vision_model.", "clip.visual_projection.")) and not name.endswith("position_ids")
        }
        scale, components, vectors, scores, logit_scale = (state[f"scorer.{name}"].double().numpy() for name in _SCORER)
    except (OSError, pickle.UnpicklingError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        what = " ".join(str(error).split())[:200]
        raise ModelError(
            f"RALI {folder}: ckpt.pt is no checkpoint of RALI ({type(error).__name__}: {what}). It needs a "
            f"state_dict with clip.* and scorer.{{{','.join(_SCORER)}}}."
        ) from error
    with (where / "pca.pkl").open("rb") as file:
        mean = read_pca_mean(file, name=str(where / "pca.pkl"))
    if (
        scale.shape != mean.shape
        or components.shape != (len(vectors[0]), len(mean))
        or scores.shape != vectors.shape[:1]
    ):
        raise ModelError(
            f"RALI {folder}: sizes do not fit: mean {mean.shape}, scale {scale.shape}, components {components.shape}, "
            f"prototypes {vectors.shape}, scores {scores.shape}. Download it again."
        )
    if scores.min() < low or scores.max() > high:
        raise ModelError(
            f"RALI {folder}: prototypes' scores lie between {scores.min():.3f} and {scores.max():.3f}, outside "
            f"{low:g} to {high:g}. Give the scale that it was trained on as --low and --high."
        )
    projection = (components / np.abs(scale)).T
    basis = {
        "projection": projection,
        "offset": -(mean @ projection),
        "vectors": vectors,
        "scores": 1 + 4 * (scores - low) / (high - low),
    }
    tensors = {f"basis.{name}": torch.from_numpy(np.ascontiguousarray(one)).float() for name, one in basis.items()}
    tensors["basis.temperature"] = torch.tensor([1 / max(float(logit_scale), 1e-6)], dtype=torch.float64)
    save_file(vision | tensors, out)


def _json(path: Path) -> Values:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: not JSON ({error}). Download it again.") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path}: holds {type(found).__name__}, no settings. Download it again.")
    return found


def _vision(config: Values) -> Values:
    """The settings of the vision tower in a CLIP's config.json."""
    vision = config.get("vision_config")
    if config.get("model_type") != "clip" or not isinstance(vision, dict):
        raise ModelError(
            f"best/config.json: model_type {config.get('model_type')!r} is no CLIP. Give the folder of released RALI."
        )
    return vision | {"projection_dim": config.get("projection_dim", vision.get("projection_dim", 512))}


# --- pca.pkl --------------------------------------------------------------------------------------------------------


class _Fields:
    """What stands in for the pickled estimator: its attributes."""


class _ArrayHeader:
    """What joblib pickles in place of an array; the raw numbers follow in the file."""

    subclass: object
    shape: tuple[int, ...]
    order: str
    dtype: np.dtype[Any]
    numpy_array_alignment_bytes: int | None = None


_SCALAR = np.float64(0).__reduce__()[0]  # what numpy pickles its numbers by
_ALLOWED: dict[tuple[str, str], object] = {
    ("sklearn.decomposition._incremental_pca", "IncrementalPCA"): _Fields,
    ("sklearn.decomposition._pca", "PCA"): _Fields,
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): _ArrayHeader,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "scalar"): _SCALAR,
    ("numpy._core.multiarray", "scalar"): _SCALAR,
}


def _build(reader: pickle.Unpickler) -> None:
    """Python's BUILD; in place of an array's header, the array is put."""
    pickle._Unpickler.dispatch[pickle.BUILD[0]](reader)
    stack: list[object] = reader.stack  # type: ignore[attr-defined]  # of Python's own, not of C's
    if isinstance(stack[-1], _ArrayHeader):
        stack[-1] = _array(stack[-1], cast(_Reader, reader).file)


class _Reader(pickle._Unpickler):  # Python's own: C's reads ahead of the arrays
    """Reader of joblib's pickles of an estimator with arrays; refuses other names."""

    dispatch: ClassVar[dict[int, Callable[[pickle.Unpickler], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.BUILD[0]: _build,
    }

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.file = file

    def find_class(self, module: str, name: str) -> object:
        """Return a stand-in of the name. Raises UnpicklingError."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _ALLOWED[module, name]


def _array(header: _ArrayHeader, file: BinaryIO) -> NDArray[Any]:
    if header.dtype.kind not in "fiub":
        raise pickle.UnpicklingError(f"an array of {header.dtype}")
    if header.numpy_array_alignment_bytes is not None:
        file.read(file.read(1)[0])
    count = int(np.prod(header.shape, dtype=np.int64))
    found = np.frombuffer(file.read(count * header.dtype.itemsize), dtype=header.dtype)
    return found.reshape(header.shape, order="F" if header.order == "F" else "C")


def read_pca_mean(file: BinaryIO, *, name: str) -> NDArray[np.float64]:
    """The mean [J] in a joblib pickle of scikit-learn's PCA. Raises ModelError."""
    try:
        estimator = _Reader(file).load()
        mean = np.asarray(estimator.mean_, dtype=np.float64)
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, TypeError, AttributeError, KeyError) as error:
        what = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{name}: no uncompressed joblib pickle of a PCA ({type(error).__name__}: {what}). Give the file "
            "as released."
        ) from error
    if mean.ndim != 1 or not np.isfinite(mean).all():
        raise ModelError(f"{name}: mean_ has shape {mean.shape}. Give the file as released.")
    return mean
