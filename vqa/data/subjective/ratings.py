"""Raw ratings, who said what of which clip: from a long table or a matrix, to one."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa.data.public.label_files import Cells, number, read_cells
from vqa.errors import UsageError

CLIP_COLUMNS = ("clip", "clip_id", "file_name", "video", "uri", "name", "pvs")
SUBJECT_COLUMNS = ("subject", "subject_id", "observer", "worker", "worker_id", "user")
RATING_COLUMNS = ("rating", "score", "vote", "opinion")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ratings:
    """N ratings: entry k is what `subjects[subject[k]]` said of `clips[clip[k]]`. A subject may rate a clip again."""

    clips: tuple[str, ...]
    subjects: tuple[str, ...]
    clip: NDArray[np.intp]  # [N]
    subject: NDArray[np.intp]  # [N]
    value: NDArray[np.float64]  # [N] on the scale of the experiment

    def kept(self, keep: NDArray[np.bool_]) -> "Ratings":
        """Only these ratings [N]; clips and subjects stay, also those without any."""
        return Ratings(
            clips=self.clips,
            subjects=self.subjects,
            clip=self.clip[keep],
            subject=self.subject[keep],
            value=self.value[keep],
        )


def make_ratings(entries: Iterable[tuple[str, str, float]]) -> Ratings:
    """From (clip, subject, rating); names keep the order in which they come."""
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


def read_ratings(path: Path, *, fewest: int = 1) -> Ratings:
    """A table of ratings (.csv, .xlsx, .parquet): long, or a matrix. Raises UsageError naming row and value.

    Long: a column each for clip, subject and rating (names: the *_COLUMNS above). Matrix: the first column names the
    clips and the other headers the subjects, or the other way round where the first header is one of SUBJECT_COLUMNS;
    an empty cell or nan is no rating. Subjects with fewer than `fewest` ratings are left out.
    """
    cells = read_cells(path)
    if not cells:
        raise UsageError(f"{path}: holds no ratings, not even a header")
    entries = _long(cells, path) if _column(cells, RATING_COLUMNS) else _matrix(cells, path)
    counts = Counter(subject for _, subject, _ in entries)
    entries = [entry for entry in entries if counts[entry[1]] >= fewest]
    if not entries:
        raise UsageError(f"{path}: holds no ratings" + (f" by subjects with {fewest} or more" if counts else ""))
    return make_ratings(entries)


def _column(cells: Cells, names: Sequence[str]) -> str | None:
    return next((name for name in cells if name.lower() in names), None)


def _long(cells: Cells, path: Path) -> list[tuple[str, str, float]]:
    found = [_column(cells, names) for names in (CLIP_COLUMNS, SUBJECT_COLUMNS, RATING_COLUMNS)]
    if None in found:
        raise UsageError(
            f"{path}: columns {', '.join(cells)}; wanted one of {', '.join(CLIP_COLUMNS)}; one of "
            f"{', '.join(SUBJECT_COLUMNS)}; one of {', '.join(RATING_COLUMNS)}; or a matrix of clips and subjects"
        )
    columns = [cells[name] for name in found if name]
    return _rated(
        (str(clip), str(subject), cell, f"{path}, row {at}, {found[2]}")
        for at, (clip, subject, cell) in enumerate(zip(*columns, strict=True), start=1)
    )


def _matrix(cells: Cells, path: Path) -> list[tuple[str, str, float]]:
    names, *others = cells
    repeated = [name for name, count in Counter(map(str, cells[names])).items() if count > 1]
    if len(others) < 2 or repeated:
        what = f"{names} {', '.join(repeated[:3])} comes more than once" if repeated else f"columns {', '.join(cells)}"
        raise UsageError(f"{path}: no matrix of ratings ({what}); wanted a row a clip, then a column for each subject")
    by_subject = names.lower() in SUBJECT_COLUMNS
    return _rated(
        (*((other, str(row)) if by_subject else (str(row), other)), cells[other][at], f"{path}, {row}, {other}")
        for at, row in enumerate(cells[names])
        for other in others
    )


def _rated(cells: Iterable[tuple[str, str, Any, str]]) -> list[tuple[str, str, float]]:
    """Clip, subject and rating where there is one; the fourth says where the cell stands."""
    entries = []
    for clip, subject, cell, where in cells:
        try:
            value = number(cell)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{where} = {cell!r}; wanted a number or nothing") from error
        if value is not None:
            entries.append((clip, subject, value))
    return entries
