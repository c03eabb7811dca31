"""`vqa config`: which schema a file is for, and its resolved values."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from jobs.config import resolve, resolve_values
from vqa.config import load
from vqa.data.public.specs import SetSpec
from vqa.errors import UsageError
from vqa.evaluate.card import EvalCard
from vqa.model.card import ModelCard
from vqa.train.recipe import load_recipe


def _evaluation(path: Path, assignments: Sequence[str]) -> BaseModel:
    card = load(path, EvalCard, assignments)
    return card.model_copy(update={"score": resolve_values(card.score, where=str(path)).model_dump(mode="json")})


# By the name of the folder under configs/.
KINDS: dict[str, Callable[[Path, Sequence[str]], BaseModel]] = {
    "score": lambda path, assignments: resolve(path, assignments=assignments),
    "models": lambda path, assignments: load(path, ModelCard, assignments, base={"name": path.stem}),
    "eval": _evaluation,
    "data": lambda path, assignments: load(path, SetSpec, assignments),
    "train": lambda path, assignments: load_recipe(path, assignments),
}


def resolved(path: Path, *, kind: str | None = None, assignments: Sequence[str] = ()) -> dict[str, Any]:
    """The file's values with defaults filled in, checked by its schema. Raises UsageError."""
    name = kind or path.resolve().parent.name
    if name not in KINDS:
        raise UsageError(
            f"{path}: cannot tell what it configures by its folder {name!r}; give --kind {'|'.join(KINDS)}"
        )
    return KINDS[name](path, assignments).model_dump(mode="json")
