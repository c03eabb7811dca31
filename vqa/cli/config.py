"""`vqa config`: a config with its defaults filled in, checked. Light to import."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqa.console import assigning
from vqa.errors import UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from vqa.config import Values

KINDS = (
    "score",
    "models",
    "eval",
    "data",
    "train",
    "light",
    "people",
    "hardware",
)  # names of the folders under configs/


def config(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of configs/, or one like them.")],
    kind: Annotated[str | None, typer.Option(help="What it configures; else the name of its folder tells.")] = None,
    assignments: Annotated[list[str] | None, assigning("views.keyframes=8")] = None,
) -> None:
    """Print a config with everything resolved, and check that it can be built."""
    import yaml

    typer.echo(yaml.safe_dump(resolved(file, kind=kind, assignments=assignments or ()), sort_keys=False), nl=False)


def resolved(path: Path, *, kind: str | None = None, assignments: Sequence[str] = ()) -> "Values":
    """The file's values with defaults, checked by its schema. Raises UsageError."""
    name = kind or path.resolve().parent.name
    if name not in KINDS:
        raise UsageError(
            f"{path}: cannot tell what it configures by its folder {name!r}; give --kind {'|'.join(KINDS)}"
        )
    return _built(name, path, assignments).model_dump(mode="json")


def _built(kind: str, path: Path, assignments: Sequence[str]) -> "BaseModel":
    from jobs.config import resolve, resolve_values
    from vqa.config import load_config

    if kind == "score":
        return resolve(path, assignments=assignments)
    if kind == "models":
        from vqa.model.card import ModelCard

        return load_config(path, ModelCard, assignments, base={"name": path.stem})
    if kind == "data":
        from vqa.data.public.specs import SetSpec

        return load_config(path, SetSpec, assignments)
    if kind == "people":
        from vqa.data.people import PeopleSet

        return load_config(path, PeopleSet, assignments)
    if kind in ("train", "light"):
        from vqa.light.config import DistillConfig, student_config

        if settings := path if kind == "light" else student_config(path):
            return load_config(settings, DistillConfig, assignments)
        from vqa.train.recipe import load_recipe

        return load_recipe(path, assignments)
    if kind == "hardware":
        from jobs.plan import Hardware
        from vqa.train.gpus import Gpu, is_machine

        return load_config(path, Hardware if is_machine(path) else Gpu, assignments)
    from vqa.evaluate.card import EvalCard

    card = load_config(path, EvalCard, assignments)
    return card.model_copy(update={"score": resolve_values(card.score, where=str(path)).model_dump(mode="json")})
