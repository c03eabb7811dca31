"""Folder of a trained model for the Hugging Face hub, with its model card.

OUT/README.md              the model card: figures, recipe, licence, how to use it
OUT/vqa.yaml               its card for `vqa score --model`: prompt, views, picture sizes
OUT/stages.json            the settings of every stage, as trained
OUT/*.safetensors, *.json  what plain transformers loads; nothing pickled
"""

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, HfApi, ModelCardData, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, but not in __all__

from vqa.errors import UsageError, VqaError
from vqa.files import discard, write_json
from vqa.model.card import find_card
from vqa.model.resolve import locate_model
from vqa.prompt import PROMPTS
from vqa.train.recipe import STAGE_FILE
from vqa.train.types import Record

TAKEN = (".safetensors", ".json", ".jinja", ".txt", ".model")  # what save_pretrained writes that is no code, no pickle
SCALE = "opinions on 1-5, higher is better"


def make_folder(run: Path, repo: str, *, licence: str, evaluation: Path | None = None, out: Path | None = None) -> Path:
    """Make the folder for the hub, as a whole.

    Args:
        run: the --out of `vqa train`.
        repo: owner/name on the hub.
        licence: an SPDX id.
        evaluation: a folder of `vqa evaluate`, whose figures go on the card.
        out: by default RUN/hub; replaced.

    Raises:
        UsageError: for a name or licence that does not fit, and a run that has not ended.
        ModelError: for weights that are not whole.
    """
    _check_name(repo)
    if not licence.strip():
        raise UsageError("--licence is empty. Give an SPDX id such as apache-2.0.")
    model, out = run / "model", out or run / "hub"
    if not model.is_dir():
        raise UsageError(f"{run}: holds no model folder. Give the --out of a `vqa train` that has ended.")
    if out.exists() and not (out / "stages.json").is_file():
        raise UsageError(f"--out {out}: exists and was not made by `vqa push`. Give another folder.")
    locate_model(str(model))
    if not any((model / name).is_file() for name in ("processor_config.json", "preprocessor_config.json")):
        raise UsageError(f"{model}: no processor beside the weights. Run the last stage of `vqa train` again.")
    stages, log = _stages(run), _log(run)
    stages.sort(key=lambda stage: next((n for n, line in enumerate(log) if line.get("stage") == stage["name"]), -1))
    draft = out.with_name(f".{out.name}.tmp")
    discard(draft)
    draft.mkdir(parents=True)
    for path in sorted(model.iterdir()):
        if path.suffix in TAKEN and path.is_file():
            _link(path, draft / path.name)
    write_json(draft / "stages.json", {"stages": stages})
    card = _card(stages, repo)
    (draft / "vqa.yaml").write_text(f"# vqa score VIDEOS --out OUT --model vqa.yaml\n{yaml.safe_dump(card)}", "utf-8")
    measured = _measured(evaluation) if evaluation else {}
    text = _readme(repo, licence=licence, stages=stages, log=log, measured=measured, card=card)
    (draft / "README.md").write_text(text, encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    draft.replace(out)
    return out


def upload(folder: Path, repo: str, *, is_private: bool = True) -> str:
    """Upload the folder and return its address.

    Raises:
        UsageError: without a token.
        VqaError: where the hub refuses or cannot be reached; the folder stays.
    """
    if not get_token():
        raise UsageError("push: no token. Set HF_TOKEN to one that may write, or run `hf auth login`.")
    api = HfApi()
    try:
        url = api.create_repo(repo, private=is_private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="vqa push")
    except Exception as error:  # of the client's HTTP library, of the hub, of the file transfer: kinds that change
        what = " ".join(str(error).split())[:300]
        raise VqaError(
            f"push: {repo} could not be uploaded ({type(error).__name__}: {what}). {folder} is whole: try again, or "
            f"run `hf upload {repo} {folder}`."
        ) from error
    return str(url)


def _check_name(repo: str) -> None:
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UsageError(f"REPO {repo!r}: {' '.join(str(error).split())}") from error
    if repo.count("/") != 1:
        raise UsageError(f"REPO {repo!r}: no name on the hub. Give owner/name.")


def _link(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it where the file system cannot: it may be large."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _stages(run: Path) -> list[Record]:
    found = []
    for path in sorted(run.glob(f"*/{STAGE_FILE}")):
        stage = json.loads(path.read_text(encoding="utf-8"))
        if not stage["is_finished"]:
            raise UsageError(f"{path}: this stage is not finished. Run the `vqa train` command again.")
        found.append({"name": path.parent.name} | stage["settings"])
    if not found:
        raise UsageError(f"{run}: no stages there (*/{STAGE_FILE}); give the --out of `vqa train`")
    return found


def _log(run: Path) -> list[Record]:
    path = run / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def _card(stages: Sequence[Record], repo: str) -> Record:
    last = [stage for stage in stages if stage.get("kind") != "write"][-1]
    sizes = {name: value for name, value in last["card"].items() if value}
    return {"name": repo.partition("/")[2], "source": repo, "prompt": last.get("prompt") or last["asked"]} | sizes


def _origin(stages: Sequence[Record]) -> str:
    base = _base(stages)
    return f" from {base}" if base else " from another model" if stages[0].get("from") else " from nothing"


def _base(stages: Sequence[Record]) -> str | None:
    """The hub id that the first stage began with."""
    begun = stages[0].get("from")
    if not isinstance(begun, str):
        return None
    try:
        source = str(find_card(begun).get("source", ""))
        validate_repo_id(source)
    except (UsageError, HFValidationError):
        return None
    return source if source.count("/") == 1 else None


def _measured(evaluation: Path) -> dict[str, Record]:
    """Statistics by data set, of a folder of `vqa evaluate`."""
    path = evaluation / "metrics.json"
    try:
        sets = json.loads(path.read_text(encoding="utf-8"))["datasets"]
        return {name: {"used": one["used"], **one["statistics"]} for name, one in sets.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--evaluation {path}: not written by `vqa evaluate` ({error!r}). Give its --out.") from error


def _held_out(log: Sequence[Record]) -> list[tuple[str, int, dict[str, float]]]:
    """(stage, step, figures) of the last validation in each stage."""
    last: dict[str, tuple[str, int, dict[str, float]]] = {}
    for line in log:
        figures = {
            name.rpartition("/")[2]: float(value)
            for name, value in line.items()
            if name.rpartition("/")[2] in ("srcc", "plcc", "parsed") and value is not None and math.isfinite(value)
        }
        if figures:
            last[line["stage"]] = (line["stage"], line["step"], figures)
    return list(last.values())


def _readme(
    repo: str,
    *,
    licence: str,
    stages: Sequence[Record],
    log: Sequence[Record],
    measured: Mapping[str, Record],
    card: Record,
) -> str:
    results = [
        EvalResult(
            task_type="video-quality-assessment",
            dataset_type=name,
            dataset_name=name,
            metric_type=kind,
            metric_value=round(one[kind]["value"], 4),
        )
        for name, one in measured.items()
        for kind in ("srcc", "plcc")
        if one[kind]["value"] is not None
    ]
    data = ModelCardData(
        license=licence,
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        base_model=_base(stages),
        tags=["video-quality-assessment"],
        model_name=repo if results else None,
        eval_results=results or None,
    )
    question = "\n".join(f"> {line}" for line in PROMPTS[card["prompt"]].question.splitlines())
    parts = [
        f"---\n{data.to_yaml()}\n---\n\n# {repo}\n\nScores how good a video looks ({SCALE}): a reason, then "
        f"the number{'s' if PROMPTS[card['prompt']].dimensions > 1 else ''}. Trained with `vqa train`"
        f"{_origin(stages)}. Licence: {licence}.",
        "## Figures\n\n" + _figures(measured, _held_out(log)),
        "## How to use it\n\n`vqa score VIDEOS --out OUT --model vqa.yaml`, with the file beside this one: it holds "
        "the prompt and how pictures are taken from a clip. With plain transformers: `AutoModelForImageTextToText` and "
        f"`AutoProcessor`, the pictures in order and this question:\n\n{question}",
        f"## How it was trained\n\n{_recipe(stages)}\n\nEvery setting: `stages.json`.",
        "## Limits\n\nIt knows the kinds of clips and the opinions it was trained on; figures on other data can differ "
        "widely. `vqa evaluate` measures them on yours.",
    ]
    return "\n\n".join(parts) + "\n"


def _figures(measured: Mapping[str, Record], held_out: Sequence[tuple[str, int, Mapping[str, float]]]) -> str:
    lines = []
    if measured:
        lines += ["| data set | clips | SRCC | PLCC |", "| --- | --- | --- | --- |"]
        for name, one in measured.items():
            values = [one[kind]["value"] for kind in ("srcc", "plcc")]
            lines.append(f"| {name} | {one['used']} | {' | '.join('' if v is None else f'{v:.4f}' for v in values)} |")
        lines += ["", "By `vqa evaluate`."]
    if held_out:
        lines += ["", "| stage | step | SRCC | PLCC | answers read |", "| --- | --- | --- | --- | --- |"]
        for stage, step, figures in held_out:
            cells = [f"{figures[kind]:.4f}" if kind in figures else "" for kind in ("srcc", "plcc", "parsed")]
            lines.append(f"| {stage} | {step} | {' | '.join(cells)} |")
        lines += [
            "",
            "On the clips held out during training, at the last validation of each stage; they also chose checkpoints.",
        ]
    return "\n".join(lines).strip() or "None were measured."


def _recipe(stages: Sequence[Record]) -> str:
    lines = ["| stage | kind | steps | rate | reward | clips |", "| --- | --- | --- | --- | --- | --- |"]
    for stage in stages:
        cells = (stage.get(name) for name in ("name", "kind", "max_steps", "learning_rate", "reward", "clips"))
        lines.append(f"| {' | '.join('' if cell is None else str(cell) for cell in cells)} |")
    return "\n".join(lines)
