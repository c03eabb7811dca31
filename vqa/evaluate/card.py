"""Reproduction cards, configs/eval/*.yaml: a checkpoint, a public set, the published settings and figures."""

from pathlib import Path

from pydantic import Field, model_validator

from vqa.config import Strict, Values, configs_folder, load
from vqa.errors import UsageError


class Published(Strict):
    """Figures as printed somewhere; null where none were found."""

    srcc: float | None = Field(None, ge=-1, le=1)
    plcc: float | None = Field(None, ge=-1, le=1)
    clips: int | None = Field(None, ge=1, description="in the set as its authors counted it")
    source: str = Field(description="where it is printed, or why there is none")

    @model_validator(mode="after")
    def _both(self) -> "Published":
        if (self.srcc is None) != (self.plcc is None):
            raise ValueError("give srcc and plcc, or neither")
        return self


class EvalCard(Strict):
    """One checkpoint on one set: `vqa evaluate --card FILE --labels M --out DIR` scores and evaluates."""

    dataset: str = Field(description="name of the set, as vqa data import knows it")
    score: Values = Field(description="settings of vqa score, as in configs/score")
    split: str | None = Field(None, description="value of the labels' split column; null = all clips")
    by: tuple[str, ...] = Field((), description="group columns")
    published: Published


def load_card(name: str | Path) -> EvalCard:
    """A card by file, or by its name in configs/eval. Raises UsageError naming those there are."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return load(path, EvalCard)
    folder = configs_folder() / "eval"
    known = sorted(found.stem for found in folder.glob("*.yaml"))
    if path.name not in known:
        raise UsageError(f"card {str(name)!r}: no file and none of configs/eval ({', '.join(known)})")
    return load(folder / f"{path.name}.yaml", EvalCard)
