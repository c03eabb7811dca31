"""Pictures with people's opinions, as in configs/people, split in folds."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from vqa.config import Strict, configs_folder, load_config
from vqa.data.tables import read_rows
from vqa.errors import UsageError
from vqa.types import Pixels


class PeopleSet(Strict):
    """A set of pictures with opinions, below a folder of its name."""

    name: str
    table: str = Field(description="below the folder")
    picture: str = Field(description="column: the picture's path below the folder")
    opinion: str = Field(description="column: higher is better")
    low: float = Field(description="worst opinion of the scale")
    high: float = Field(description="best opinion of the scale")
    group: str = Field(description="column: what a split must not separate")
    shown_size: tuple[int, int] | None = Field(None, description="(width, height) people saw it enlarged to, bicubic")
    expected: int = Field(ge=1, description="pictures with opinions in the whole set as published here")
    terms: str = Field(description="licence and whom to cite, as the authors state them")
    test_fold: int = Field(ge=0, description="the fold that no setting is chosen on")
    folds: list[list[str]] | None = Field(None, description="groups of each fold")
    modulo: int | None = Field(None, ge=2, description="or: the fold is the group's number modulo this")

    @model_validator(mode="after")
    def _has_one_split(self) -> "PeopleSet":
        if (self.folds is None) == (self.modulo is None):
            raise ValueError("give either folds or modulo")
        return self

    def fold_of(self, group: str) -> int:
        """The fold of a group. Raises UsageError for one that the split does not know."""
        if self.modulo:
            if not group.isdecimal():
                raise UsageError(
                    f"{self.name}: {self.group} {group!r} is no number, but its fold is taken modulo. Give `folds`."
                )
            return int(group) % self.modulo
        for fold, groups in enumerate(self.folds or ()):
            if group in groups:
                return fold
        raise UsageError(f"{self.name}: {self.group} {group!r} is in no fold. Add it to the file of configs/people.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """A picture and what people think of it."""

    path: Path
    opinion: float
    group: str
    fold: int
    shown_size: tuple[int, int] | None

    def read(self) -> Pixels:
        """The picture as people saw it. Raises UsageError."""
        with self._opened() as image:
            shown = image.convert("RGB")
        if self.shown_size:
            shown = shown.resize(self.shown_size, Image.Resampling.BICUBIC)
        return np.asarray(shown)

    def stored_size(self) -> tuple[int, int]:
        """Width and height of the file. Raises as `read`."""
        with self._opened() as image:
            return image.size

    @contextmanager
    def _opened(self) -> Iterator[Image.Image]:
        try:
            with Image.open(self.path) as image:
                yield image
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be read as a picture ({error}). Copy the set again.") from error


def find_people_set(name: str) -> PeopleSet:
    """Find a set by name in configs/people or by a file's path. Raises UsageError."""
    folder = configs_folder() / "people"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name in known:
        return load_config(folder / f"{name}.yaml", PeopleSet)
    if Path(name).suffix in (".yaml", ".yml"):
        return load_config(name, PeopleSet)
    raise UsageError(f"people set {name!r} is unknown. Give one of {', '.join(known)}, or a .yaml file.")


def read_opinions(people: PeopleSet, folder: Path) -> list[Opinion]:
    """The opinions on each picture of a set.

    Args:
        people: The set.
        folder: Of all sets; this one's is below it.

    Raises:
        UsageError: A table or column that is not there, or an opinion that is no number.
    """
    table = folder / people.name / people.table
    names, rows = read_rows(table)
    missing = [one for one in (people.picture, people.opinion, people.group) if one not in names]
    if missing:
        raise UsageError(f"{table}: no column {missing[0]!r}; it has {', '.join(names)}")
    found = []
    for row in rows:
        try:
            value = float(row[people.opinion])
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise UsageError(
                f"{table}: {people.opinion} {row[people.opinion]!r} is no number. Mend the row, or remove it."
            )
        group = str(row[people.group])
        path = folder / people.name / str(row[people.picture])
        found.append(
            Opinion(path=path, opinion=value, group=group, fold=people.fold_of(group), shown_size=people.shown_size)
        )
    return found


def without_folds(opinions: Sequence[Opinion], folds: Sequence[int]) -> list[Opinion]:
    """Those in none of the folds."""
    return [one for one in opinions if one.fold not in folds]
