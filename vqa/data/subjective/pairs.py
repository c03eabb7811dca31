"""Pairwise comparisons of a subjective test, read and checked.

A table has two columns of clips, and either a result (1: the first is better, -1: the second, 0: a tie) or the name of
the winner; columns for the subject and for how often the row was judged may follow. A manifest of pairs names its clips
by clip_id.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from vqa.data.dialects import AS_SEEN, Columns, Dialect, parse_number
from vqa.data.manifest import Manifest
from vqa.data.pair_manifest import PairManifest, is_pair_manifest, read_pair_manifest
from vqa.data.tables import read_columns
from vqa.errors import UsageError, first_few

FIRST_COLUMNS = ("first", "clip1", "clip_1", "clip_a", "image1", "image_1", "image_a", "video1", "video_1", "video_a")
SECOND_COLUMNS = ("second", "clip2", "clip_2", "clip_b", "image2", "image_2", "image_b", "video2", "video_2", "video_b")
RESULT_COLUMNS = ("result", "label", "outcome", "preference")
WINNER_COLUMNS = ("winner", "preferred", "better", "chosen")
SUBJECT_COLUMNS = ("subject", "subject_id", "observer", "worker", "worker_id", "user", "user_id")
COUNT_COLUMNS = ("count", "times", "votes", "n")
TIES = ("tie", "equal", "same", "both")

FEWEST, CHANCE = 20, 0.5  # from so many comparisons of distinct opinions on, agreement below chance is a contradiction


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparisons:
    """N comparisons: `result` is 1 where `first` is better, -1 worse, 0 a tie."""

    clips: tuple[str, ...]
    subjects: tuple[str, ...]  # empty where the table names none
    first: NDArray[np.intp]  # [N]
    second: NDArray[np.intp]  # [N]
    result: NDArray[np.int8]  # [N]
    subject: NDArray[np.intp]  # [N], zeros where the table names none
    count: NDArray[np.float64]  # [N] how often it was judged so
    dataset: str | None = None  # of a manifest of pairs, whose clip_ids begin with it


def make_comparisons(entries: Iterable[tuple[str, str, int, str | None, float]]) -> Comparisons:
    """Collect (first clip, second clip, result, subject or None, count) entries.

    Names keep the order of their first mention.

    Raises:
        ValueError: If some entries name a subject and others none.
    """
    clips: dict[str, int] = {}
    subjects: dict[str | None, int] = {}
    rows = [
        (
            clips.setdefault(first, len(clips)),
            clips.setdefault(second, len(clips)),
            result,
            subjects.setdefault(subject, len(subjects)),
            count,
        )
        for first, second, result, subject, count in entries
    ]
    named = tuple(name for name in subjects if name is not None)
    if named and None in subjects:
        raise ValueError("some comparisons name a subject and others none")
    first, second, result, subject, count = np.array(rows, np.float64).reshape(-1, 5).T
    return Comparisons(
        clips=tuple(clips),
        subjects=named,
        first=first.astype(np.intp),
        second=second.astype(np.intp),
        result=result.astype(np.int8),
        subject=subject.astype(np.intp),
        count=count,
    )


def holds_pairs(names: Iterable[str]) -> bool:
    """Whether columns of these names are a table of comparisons, not of ratings."""
    known = {name.lower() for name in names}
    return all(known.intersection(wanted) for wanted in (FIRST_COLUMNS, SECOND_COLUMNS)) and bool(
        known.intersection((*RESULT_COLUMNS, *WINNER_COLUMNS))
    )


def read_pairs(path: Path, *, dialect: Dialect = AS_SEEN, split: str | None = None) -> Comparisons:
    """Read pairwise comparisons; rows of a table without a result are skipped.

    Args:
        path: A manifest of pairs, or a .csv, .xlsx, .jsonl, .json or .parquet file with columns of the *_COLUMNS of
            this module.
        dialect: Of a text file.
        split: Of a manifest of pairs: only comparisons of this split.

    Raises:
        UsageError: If columns are missing, a result is none of 1, -1 and 0, a winner is neither clip, a clip is
            compared with itself, or a count is no positive number; the message names row and value. If a split is asked
            of what has none.
    """
    if is_pair_manifest(path):
        return _of_manifest(read_pair_manifest(path), split, path)
    if split is not None:
        raise UsageError(f"--split {split}: {path} is no manifest of pairs. Make one with `vqa data import`.")
    cells = read_columns(path, dialect=dialect)
    names = {name.lower(): name for name in cells}

    def found(wanted: Sequence[str]) -> str | None:
        return next((names[name] for name in wanted if name in names), None)

    if not holds_pairs(cells):
        raise UsageError(
            f"{path} has columns {', '.join(cells) or '(none)'}, no comparisons. Give the clips (first, second), and "
            "result (1, -1, 0) or winner; ratings of single clips go to --method p910."
        )
    by_result, by_winner = found(RESULT_COLUMNS), found(WINNER_COLUMNS)
    entries = list(
        _judged(
            cells,
            (str(found(FIRST_COLUMNS)), str(found(SECOND_COLUMNS))),
            str(by_result or by_winner),
            found(SUBJECT_COLUMNS),
            found(COUNT_COLUMNS),
            by_winner=by_result is None,
            path=path,
        )
    )
    if not entries:
        raise UsageError(f"{path} holds no comparison with a result. Give 1, -1 or 0, or the winner.")
    try:
        return make_comparisons(entries)
    except ValueError as error:
        raise UsageError(f"{path}: {error}. Fill the column {found(SUBJECT_COLUMNS)}, or leave it out.") from error


def _of_manifest(manifest: PairManifest, split: str | None, path: Path) -> Comparisons:
    columns = manifest.table.select(["first", "second", "result", "subject", "count", "split"]).to_pydict().values()
    entries = [entry for *entry, part in zip(*columns, strict=True) if split is None or part == split]
    if not entries:
        known = sorted({part or "(none)" for part in manifest.table.column("split").to_pylist()})
        raise UsageError(f"--split {split}: no comparison in {path} is of it. Its splits are {', '.join(known)}.")
    try:
        return replace(make_comparisons(map(tuple, entries)), dataset=manifest.dataset)
    except ValueError as error:
        raise UsageError(f"{path}: {error}. Import the comparisons again.") from error


def by_file_name(pairs: Comparisons) -> Comparisons:
    """Name clips of a manifest of pairs by the path below the data set's folder.

    So `vqa data import` names them, which adds the data set. Those of a table stay.
    """
    if pairs.dataset is None:
        return pairs
    return replace(pairs, clips=tuple(clip.removeprefix(f"{pairs.dataset}/") for clip in pairs.clips))


def read_anchors(path: Path, *, dialect: Dialect = AS_SEEN) -> dict[str, float]:
    """Read opinions on 1-5 by clip: columns `file_name` and `mos`. Raises UsageError."""
    cells = read_columns(path, dialect=dialect)
    if "file_name" not in cells or "mos" not in cells:
        raise UsageError(f"{path} has columns {', '.join(cells) or '(none)'}. Give file_name and mos.")
    found: dict[str, float] = {}
    for at, (name, cell) in enumerate(zip(cells["file_name"], cells["mos"], strict=True), start=1):
        try:
            value = parse_number(cell)
        except (TypeError, ValueError):
            value = math.nan
        if value is not None and not 1 <= value <= 5:
            raise UsageError(f"{path}, row {at}: mos = {cell!r} is no opinion on 1 to 5. Map the scale to 1-5 first.")
        if value is not None:
            found[str(name)] = value
    return found


def _judged(
    cells: Columns,
    clips: tuple[str, str],
    outcome: str,
    subject: str | None,
    count: str | None,
    *,
    by_winner: bool,
    path: Path,
) -> Iterator[tuple[str, str, int, str | None, float]]:
    for at, (one, other, cell) in enumerate(zip(cells[clips[0]], cells[clips[1]], cells[outcome], strict=True)):
        first, second, where = str(one).strip(), str(other).strip(), f"{path}, row {at + 1}"
        if cell is None or not str(cell).strip():
            continue
        if not first or not second or first == second:
            raise UsageError(f"{where}: compares {first!r} with {second!r}. Name two different clips.")
        result = _won(cell, first, second) if by_winner else _sign(cell)
        if result is None:
            wanted = f"{first}, {second} or tie" if by_winner else "1 (first better), -1 (second better) or 0 (tie)"
            raise UsageError(f"{where}: {outcome} = {cell!r} is no result. Give {wanted}.")
        try:
            times = 1.0 if count is None else parse_number(cells[count][at])
        except (TypeError, ValueError):
            times = None
        if times is None or times <= 0:
            raise UsageError(f"{where}: {count} = {cells[count or ''][at]!r} is no count. Give a number above 0.")
        who = None if subject is None else str(cells[subject][at] if cells[subject][at] is not None else "").strip()
        yield first, second, result, who or None, times


def _won(cell: object, first: str, second: str) -> int | None:
    said = str(cell).strip()
    return {first: 1, second: -1}.get(said, 0 if said.lower() in TIES else None)


def _sign(cell: object) -> int | None:
    try:
        value = parse_number(cell)
    except (TypeError, ValueError):
        return None
    return int(value) if value in (1, -1, 0) else None


def refuse_parts(pairs: Comparisons, *, source: str) -> None:
    """Raise UsageError if comparisons leave parts whose values cannot be compared."""
    size = len(pairs.clips)
    graph = coo_array((pairs.count, (pairs.first, pairs.second)), shape=(size, size))
    parts, part = connected_components(graph, directed=False)
    if parts > 1:
        by_size = np.argsort(-np.bincount(part), kind="stable")
        members = [[pairs.clips[at] for at in np.flatnonzero(part == one)] for one in by_size]
        named = "; ".join(f"{first_few(names, most=3)} ({len(names)})" for names in members[:4])
        more = f"; and {parts - 4} more" if parts > 4 else ""
        raise UsageError(
            f"{source}: the comparisons fall into {parts} parts without a comparison between them: {named}{more}. "
            "Judge pairs that join the parts, or recover each part on its own."
        )


def match_clips(clips: Sequence[str], manifest: Manifest, *, source: str) -> list[int]:
    """Find clips of a table in a manifest.

    Args:
        clips: Names; each is looked for as clip_id, URI, file name, and file name without suffix, in this order.
        manifest: Where to look.
        source: Name of the table, for messages.

    Returns:
        The row of each clip.

    Raises:
        UsageError: If a clip is not there, or its name fits several rows.
    """
    places: list[dict[str, list[int]]] = [{}, {}, {}, {}]
    for at, row in enumerate(manifest.table.select(["clip_id", "uri"]).to_pylist()):
        file = PurePosixPath(row["uri"].replace("\\", "/"))
        for names, name in zip(places, (row["clip_id"], row["uri"], file.name, file.stem), strict=True):
            names.setdefault(name, []).append(at)
    found = [next((names[clip] for names in places if clip in names), []) for clip in clips]
    lost = [clip for clip, rows in zip(clips, found, strict=True) if len(rows) != 1]
    if lost:
        raise UsageError(
            f"{source}: {len(lost)} of {len(clips)} clips are not in the manifest, or fit several of its rows: "
            f"{first_few(lost, most=3)}. Give the table of the manifest's clips, or name them by clip_id."
        )
    return [rows[0] for rows in found]


def refuse_contradiction(pairs: Comparisons, manifest: Manifest, *, source: str) -> None:
    """Raise UsageError if a manifest lacks clips or fits under half the comparisons."""
    opinions = manifest.table.column("mos").to_numpy()[match_clips(pairs.clips, manifest, source=source)]
    refuse_other_order(pairs, opinions, source=source)


def refuse_other_order(pairs: Comparisons, opinion: NDArray[np.float64], *, source: str) -> None:
    """Raise UsageError if under half the comparisons fit opinions [E]; NaN: unknown."""
    gap = np.sign(opinion[pairs.first] - opinion[pairs.second])
    telling = (gap != 0) & ~np.isnan(gap) & (pairs.result != 0)
    total = pairs.count[telling].sum()
    agree = pairs.count[telling & (gap == pairs.result)].sum()
    if total >= FEWEST and agree < CHANCE * total:
        raise UsageError(
            f"{source}: {agree:g} of {total:g} comparisons agree with the opinions of the clips, fewer than half. "
            "Check that result 1 means that the first clip is better, and that both are of the same clips."
        )
