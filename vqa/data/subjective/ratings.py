"""Raw ratings of a subjective test, read from a long table or a matrix."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqa.data.dialects import AS_SEEN, Columns, Dialect, parse_number
from vqa.data.subjective.pairs import SUBJECT_COLUMNS, holds_pairs
from vqa.data.tables import read_columns
from vqa.errors import UsageError

CLIP_COLUMNS = ("clip", "clip_id", "file_name", "video", "uri", "name", "pvs", "file", "image_name", "stimuli_file")
MARKS = frozenset({-1.0, -99.0, 99.0, 999.0})  # often written for no answer
_NUMBERED = re.compile(r"(?i)(user|subject|observer|rater|worker)[ _-]?\d+$")
RATING_COLUMNS = ("rating", "score", "vote", "opinion")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ratings:
    """N ratings: `value[k]` of `clips[clip[k]]` by `subjects[subject[k]]`.

    A subject may rate a clip more than once.
    """

    clips: tuple[str, ...]
    subjects: tuple[str, ...]
    clip: NDArray[np.intp]  # [N]
    subject: NDArray[np.intp]  # [N]
    value: NDArray[np.float64]  # [N] on the scale of the test

    def select(self, keep: NDArray[np.bool_]) -> "Ratings":
        """Ratings where `keep` [N] is true; clips and subjects stay, even without any."""
        return Ratings(
            clips=self.clips,
            subjects=self.subjects,
            clip=self.clip[keep],
            subject=self.subject[keep],
            value=self.value[keep],
        )


def make_ratings(entries: Iterable[tuple[str, str, float]]) -> Ratings:
    """Collect (clip, subject, rating) triples; names keep the order of first rating."""
    clips: dict[str, int] = {}
    subjects: dict[str, int] = {}
    numbers = [
        (clips.setdefault(clip, len(clips)), subjects.setdefault(subject, len(subjects)), value)
        for clip, subject, value in entries
    ]
    columns = np.array(numbers, np.float64).reshape(-1, 3).T
    return Ratings(
        clips=tuple(clips),
        subjects=tuple(subjects),
        clip=columns[0].astype(np.intp),
        subject=columns[1].astype(np.intp),
        value=columns[2],
    )


def read_ratings(
    path: Path,
    *,
    min_ratings: int = 1,
    scale: tuple[float, float] | None = None,
    dialect: Dialect = AS_SEEN,
) -> Ratings:
    """Read a table of ratings, long or as a matrix.

    A long table has a column each for clip, subject and rating (see the *_COLUMNS of this module). In a matrix the
    first column names the clips and the other headers the subjects (those like user1, user2, ... if there are such), or
    the other way round if the first header is one of SUBJECT_COLUMNS. An empty cell or nan is no rating.

    Args:
        path: A .csv, .xlsx or .parquet file.
        min_ratings: Subjects with fewer ratings are skipped.
        scale: Ends of the rating scale.
        dialect: Of a text file.

    Raises:
        UsageError: If the table has neither layout, names no clip or subject, or a cell is no number or not on the
            scale; the message names row and value. Without a scale, marks for no answer (-1, -99, 99, 999) are refused
            where all other ratings are 0 to 10.
    """
    cells = read_columns(path, dialect=dialect)
    if not cells:
        raise UsageError(f"{path} holds no ratings, not even a header. Give columns clip, subject and rating.")
    if holds_pairs(cells):
        raise UsageError(
            f"{path} holds comparisons of two clips, no ratings. Give --method bradley-terry or thurstone."
        )
    entries = _long(cells, path, scale) if _column(cells, RATING_COLUMNS) else _matrix(cells, path, scale)
    if scale is None:
        _refuse_marks(entries, path)
    counts = Counter(subject for _, subject, _ in entries)
    entries = [entry for entry in entries if counts[entry[1]] >= min_ratings]
    if not entries:
        few = f" by subjects with {min_ratings} or more. Give a lower --min-ratings" if counts else ". Fill its cells"
        raise UsageError(f"{path} holds no ratings{few}.")
    return make_ratings(entries)


def parse_bounds(text: str) -> tuple[float, float]:
    """Parse LOW,HIGH. Raises UsageError."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not low < high:
        raise UsageError(f"--scale {text!r} is not LOW,HIGH. Give the ends of the rating scale, e.g. 1,5.")
    return low, high


def _column(cells: Columns, names: Sequence[str]) -> str | None:
    return next((name for name in cells if name.lower() in names), None)


def _long(cells: Columns, path: Path, scale: tuple[float, float] | None) -> list[tuple[str, str, float]]:
    found = [_column(cells, names) for names in (CLIP_COLUMNS, SUBJECT_COLUMNS, RATING_COLUMNS)]
    if None in found:
        raise UsageError(
            f"{path} has columns {', '.join(cells)}. Give one of {', '.join(CLIP_COLUMNS)}; one of "
            f"{', '.join(SUBJECT_COLUMNS)}; and one of {', '.join(RATING_COLUMNS)}; or a matrix of clips and subjects."
        )
    columns = [cells[name] for name in found if name]
    nameless = next(
        (
            at
            for at, (clip, subject, _) in enumerate(zip(*columns, strict=True), start=1)
            if not (_named(clip) and _named(subject))
        ),
        None,
    )
    if nameless is not None:
        raise UsageError(
            f"{path}, row {nameless}: {found[0]} or {found[1]} is empty. Each rating needs a clip and a subject."
        )
    return _rated(
        (
            (str(clip), str(subject), cell, f"{path}, row {at}, {found[2]}")
            for at, (clip, subject, cell) in enumerate(zip(*columns, strict=True), start=1)
        ),
        scale,
    )


def _matrix(cells: Columns, path: Path, scale: tuple[float, float] | None) -> list[tuple[str, str, float]]:
    names, *others = cells
    numbered = [name for name in others if _NUMBERED.match(name)]
    others = numbered if len(numbered) > 1 else others  # user1, user2, ... among columns of other facts
    repeated = [name for name, count in Counter(map(str, cells[names])).items() if count > 1]
    if len(others) < 2 or repeated:
        what = f"{names} {', '.join(repeated[:3])} occurs more than once" if repeated else f"columns {', '.join(cells)}"
        raise UsageError(f"{path} is no matrix of ratings ({what}). Give a row per clip and a column per subject.")
    nameless = next((at for at, cell in enumerate(cells[names], start=1) if not _named(cell)), None)
    if nameless is not None:
        raise UsageError(f"{path}, row {nameless}: {names} is empty. Each row needs a name.")
    by_subject = names.lower() in SUBJECT_COLUMNS
    return _rated(
        (
            (*((other, str(row)) if by_subject else (str(row), other)), cells[other][at], f"{path}, {row}, {other}")
            for at, row in enumerate(cells[names])
            for other in others
        ),
        scale,
    )


def _named(cell: object) -> bool:
    return cell is not None and bool(str(cell).strip())


def _refuse_marks(entries: Sequence[tuple[str, str, float]], path: Path) -> None:
    """Raise UsageError for marks of no answer among ratings of a short scale."""
    values = {value for *_, value in entries}
    marks, others = values & MARKS, values - MARKS
    if marks and others and min(others) >= 0 and max(others) <= 10:
        found = ", ".join(f"{mark:g}" for mark in sorted(marks))
        raise UsageError(
            f"{path}: {found} among ratings from {min(others):g} to {max(others):g}. Leave cells without an answer "
            "empty, or give the ends of the scale by --scale LOW,HIGH."
        )


def _rated(
    cells: Iterable[tuple[str, str, object, str]], scale: tuple[float, float] | None
) -> list[tuple[str, str, float]]:
    """Clip, subject and rating of cells that hold one; the fourth value is its place."""
    entries = []
    for clip, subject, cell, where in cells:
        try:
            value = parse_number(cell)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{where} = {cell!r} is no rating. Give a number or nothing.") from error
        if value is not None and scale and not scale[0] <= value <= scale[1]:
            raise UsageError(
                f"{where} = {value:g} is not on the scale {scale[0]:g} to {scale[1]:g}. Correct the table."
            )
        if value is not None:
            entries.append((clip, subject, value))
    return entries
