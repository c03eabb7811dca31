"""Reproduction cards (configs/eval/*.yaml): checkpoint, set, settings, numbers."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from vqa.config import Strict, Values, configs_folder, load_config
from vqa.errors import UsageError


class Published(Strict):
    """Published correlations of a checkpoint on a set; null if none were found."""

    srcc: float | None = Field(None, ge=-1, le=1)
    plcc: float | None = Field(None, ge=-1, le=1)
    clips: int | None = Field(None, ge=1, description="number of clips of the set, as published")
    source: str = Field(description="where they are published, or why there are none")

    @model_validator(mode="after")
    def _both(self) -> "Published":
        if (self.srcc is None) != (self.plcc is None):
            raise ValueError("give srcc and plcc, or neither")
        return self


class EvalCard(Strict):
    """A checkpoint on a set, for `vqa evaluate --card FILE --labels M --out DIR`."""

    dataset: str = Field(description="name of the set, as of configs/data")
    score: Values = Field(description="settings of `vqa score`, as in configs/score")
    asked: Literal["published", "own"] = Field("published", description="own: the model has no such question")
    split: str | None = Field(None, description="value of the split column of the labels; null: all clips")
    by: tuple[str, ...] = Field((), description="columns whose values are evaluated as groups")
    published: Published


def load_card(name: str | Path) -> EvalCard:
    """Load a card from a file or by its name in configs/eval. Raises UsageError."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return load_config(path, EvalCard)
    folder = configs_folder() / "eval"
    known = sorted(found.stem for found in folder.glob("*.yaml"))
    if path.name not in known:
        raise UsageError(
            f"card {str(name)!r} is no YAML file. Give one, or a name of configs/eval: {', '.join(known)}."
        )
    return load_config(folder / f"{path.name}.yaml", EvalCard)
