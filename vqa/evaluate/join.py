"""Scores and opinions of the same clips, side by side; what finds no partner is counted and listed, never dropped."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from vqa.data.sources import MEDIA_SUFFIXES
from vqa.data.windows import WINDOW_ID
from vqa.errors import UsageError
from vqa.evaluate.tables import Row, Table, opinion_column, score_column

Key = Literal["clip_id", "uri", "tail", "name"]
KEYS: tuple[Key, ...] = get_args(Key)
# What is left of a table's row when it is known by a key.
_KEYS: dict[Key, Callable[[str, str], str]] = {
    "clip_id": lambda clip_id, _: clip_id,
    "uri": lambda _, uri: uri,
    "tail": lambda _, uri: "/".join(_parts(uri)[-2:]),
    "name": lambda _, uri: _parts(uri)[-1],
}


def _parts(uri: str) -> tuple[str, ...]:
    path = PurePosixPath(uri.replace("\\", "/"))
    return (path.with_suffix("") if path.suffix.lower() in MEDIA_SUFFIXES else path).parts or ("",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """One expected clip: its opinion, and the score it got or why there is none."""

    clip_id: str
    uri: str
    dataset: str
    label: Row
    mos: float
    status: str  # see vqa.evaluate
    score: float | None
    row: Row = field(default_factory=dict)  # of the scores; empty where there is none

    @property
    def used(self) -> bool:
        """Whether the clip counts in the figures."""
        return self.score is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A row that is no part of the figures; of the labels' also those whose clip has no score, with its status."""

    side: Literal["scores", "labels"]
    row: int  # from 1
    clip: str
    why: str  # scores: unmatched, duplicate; labels: no opinion, or the clip's status (see vqa.evaluate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """All expected clips, and all that was left out."""

    pairings: list[Pairing]
    left: list[Left]
    key: Key
    score_column: str
    mos_column: str

    def counts(self) -> dict[str, Any]:
        """How many were expected and used, by status, and what was left out."""
        why = Counter((left.side, left.why) for left in self.left)
        return {
            "expected": len(self.pairings),
            "used": sum(pairing.used for pairing in self.pairings),
            "by_status": dict(Counter(pairing.status for pairing in self.pairings).most_common()),
            "unmatched_scores": why["scores", "unmatched"],
            "duplicate_scores": why["scores", "duplicate"],
            "labels_without_opinion": why["labels", "no opinion"],
        }


def join(
    scores: Table,
    labels: Table,
    *,
    column: str | None = None,
    mos_column: str | None = None,
    key: Key | None = None,
    lower_is_better: bool = False,
) -> Joined:
    """Pairs every labelled clip with its score.

    The key is the first of clip_id, uri, tail (folder and base name) and base name under which any clip finds a score:
    where names agree in full for some clips, the others are missing, not hidden under a looser name. Media suffixes do
    not count in the last two. Raises UsageError where nothing matches, where a name stands for several clips, and where
    labels name a clip twice.
    """
    column, mos_column = score_column(scores, column), opinion_column(labels, mos_column)
    opinions = [labels.number(index, mos_column) for index in range(len(labels.rows))]
    _refuse_repeats(labels)
    left = [
        Left(side="labels", row=index + 1, clip=labels.clip_id(labels.rows[index]), why="no opinion")
        for index, opinion in enumerate(opinions)
        if opinion is None
    ]
    if len(left) == len(labels.rows):
        raise UsageError(f"{labels.source}: no row has an opinion in column {mos_column!r}")
    chosen, found = _choose(scores, labels, key)
    pairings = []
    matched: set[int] = set()
    for index, opinion in enumerate(opinions):
        rows = found.get(index, [])
        matched.update(rows)
        if opinion is None:
            continue
        numbers = [scores.number(row, column) for row in rows]
        status, score, row = _settle(scores, rows, numbers)
        if score is None:
            left.append(Left(side="labels", row=index + 1, clip=labels.clip_id(labels.rows[index]), why=status))
        again = rows[1:] if status != "duplicate" else rows
        left += [Left(side="scores", row=at + 1, clip=scores.clip_id(scores.rows[at]), why="duplicate") for at in again]
        label = labels.rows[index]
        pairings.append(
            Pairing(
                clip_id=labels.clip_id(label),
                uri=labels.uri(label),
                dataset=str(label.get("dataset") or labels.source.stem),
                label=label,
                mos=opinion,
                status=status,
                score=-score if lower_is_better and score is not None else score,
                row=row,
            )
        )
    left += [
        Left(side="scores", row=index + 1, clip=scores.clip_id(row), why="unmatched")
        for index, row in enumerate(scores.rows)
        if index not in matched
    ]
    return Joined(pairings=pairings, left=left, key=chosen, score_column=column, mos_column=mos_column)


def _settle(scores: Table, rows: Sequence[int], numbers: Sequence[float | None]) -> tuple[str, float | None, Row]:
    """Status, score and row of a clip from all rows that name it."""
    if not rows:
        return "missing", None, {}
    row = scores.rows[rows[0]]
    if len(set(numbers)) > 1:
        return "duplicate", None, {}
    status = str(row.get("status") or "ok") if scores.kind == "vqa" else "ok"
    if numbers[0] is None:
        return (status if status in ("unparsed", "failed") else "unscored"), None, row
    return status, numbers[0], row


def _refuse_repeats(labels: Table) -> None:
    repeated = [name for name, count in Counter(map(labels.clip_id, labels.rows)).items() if count > 1]
    if repeated:
        names = ", ".join(repr(name) for name in repeated[:5])
        raise UsageError(f"{labels.source}: names {len(repeated)} clips more than once ({names}); each needs one row")


def _choose(scores: Table, labels: Table, key: Key | None) -> tuple[Key, dict[int, list[int]]]:
    """The key, and for each label that has any the rows of its scores."""
    for candidate in (key,) if key else KEYS:
        found = _match(scores, labels, candidate)
        if found:
            _refuse_ambiguous(scores, labels, candidate, found)
            return candidate, found
    ours, theirs = _example(scores), _example(labels)
    windows = any(WINDOW_ID.search(scores.clip_id(row)) for row in scores.rows[:100])
    hint = f"; for windows give {scores.source}/videos.parquet --column score_mean" if windows else ""
    raise UsageError(
        f"no clip of {labels.source} (such as {theirs!r}) has a score in {scores.source} (such as {ours!r}) by "
        f"{key or 'clip_id, uri, or base name'}; name clips alike in both, or choose the column by --path-column{hint}"
    )


def _example(table: Table) -> str:
    return table.uri(table.rows[0])


def _names(table: Table, key: Key) -> Iterator[str]:
    return (_KEYS[key](table.clip_id(row), table.uri(row)) for row in table.rows)


def _match(scores: Table, labels: Table, key: Key) -> dict[int, list[int]]:
    rows: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(_names(scores, key)):
        rows[name].append(index)
    return {index: rows[name] for index, name in enumerate(_names(labels, key)) if name in rows}


def _refuse_ambiguous(scores: Table, labels: Table, key: Key, found: dict[int, list[int]]) -> None:
    """Raises UsageError where the key puts different clips under one name."""
    claimed: dict[int, int] = {}
    for label, rows in found.items():
        places = sorted({scores.uri(scores.rows[row]) for row in rows} if key != "clip_id" else ())
        if rows[0] in claimed:
            places = sorted({labels.uri(labels.rows[other]) for other in (claimed[rows[0]], label)})
        claimed[rows[0]] = label
        if len(places) > 1:
            name = _KEYS[key](labels.clip_id(labels.rows[label]), labels.uri(labels.rows[label]))
            raise UsageError(
                f"by {key}, {name!r} stands for several clips ({', '.join(places[:3])}); give both files the same "
                f"clip_id or uri, or choose by --join {'|'.join(KEYS)}"
            )
