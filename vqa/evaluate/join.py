"""Join scores and opinions per clip; count and list rows without a partner."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal, get_args

from vqa.data.dialects import Row
from vqa.data.sources import MEDIA_SUFFIXES
from vqa.data.windows import WINDOW_ID
from vqa.errors import UsageError
from vqa.evaluate.inputs import InputTable, opinion_column, score_column
from vqa.evaluate.schema import ClipCounts, JoinKey
from vqa.media.storage.open import composed

JOIN_KEYS: tuple[JoinKey, ...] = get_args(JoinKey)
# The name of a clip by each key, from its id and URI.
_KEYS: dict[JoinKey, Callable[[str, str], str]] = {
    "clip_id": lambda clip_id, _: composed(clip_id),
    "uri": lambda _, uri: composed(uri),
    "folder_and_name": lambda _, uri: "/".join(_parts(uri)[-2:]),
    "name": lambda _, uri: _parts(uri)[-1],
}


def _parts(uri: str) -> tuple[str, ...]:
    path = PurePosixPath(composed(uri).replace("\\", "/"))
    return (path.with_suffix("") if path.suffix.lower() in MEDIA_SUFFIXES else path).parts or ("",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """One expected clip: its opinion, and its score or why there is none."""

    clip_id: str
    uri: str
    dataset: str
    label: Row
    mos: float
    status: str  # see vqa.evaluate
    score: float | None
    row: Row = field(default_factory=dict)  # of the scores; empty if there is none

    @property
    def used(self) -> bool:
        """Whether the clip counts in the statistics."""
        return self.score is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusedRow:
    """A row that does not count in the statistics."""

    side: Literal["scores", "labels"]
    row: int  # from 1
    clip: str
    reason: str  # scores: unmatched, duplicate; labels: no opinion, or the status of a clip without a score


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """All expected clips, and all rows that do not count."""

    pairings: list[Pairing]
    unused: list[UnusedRow]
    key: JoinKey
    score_column: str
    mos_column: str

    def counts(self) -> ClipCounts:
        """Return the numbers of clips expected and used, by status, and of rows skipped."""
        reasons = Counter((row.side, row.reason) for row in self.unused)
        return {
            "expected": len(self.pairings),
            "used": sum(pairing.used for pairing in self.pairings),
            "by_status": dict(Counter(pairing.status for pairing in self.pairings).most_common()),
            "unmatched_scores": reasons["scores", "unmatched"],
            "duplicate_scores": reasons["scores", "duplicate"],
            "labels_without_opinion": reasons["labels", "no opinion"],
        }


def join(
    scores: InputTable,
    labels: InputTable,
    *,
    column: str | None = None,
    mos_column: str | None = None,
    key: JoinKey | None = None,
    lower_is_better: bool = False,
) -> Joined:
    """Join every labelled clip with its score.

    Args:
        scores: Rows with a score per clip.
        labels: Rows with an opinion per clip.
        column: Column of the scores, see `score_column`.
        mos_column: Column of the opinions, see `opinion_column`.
        key: What to join by: clip_id, uri, the last folder and file name, or the file name (both without media
            suffix). By default the first of these under which any clip finds a score: if some clips match by a strict
            key, the others are missing and are not looked up by a looser one.
        lower_is_better: Negate the scores.

    Raises:
        UsageError: If no clip matches, a name is ambiguous, or the labels name a clip twice.
    """
    column, mos_column = score_column(scores, column), opinion_column(labels, mos_column)
    opinions = [labels.number(index, mos_column) for index in range(len(labels.rows))]
    _refuse_repeats(labels)
    unused = [
        UnusedRow(side="labels", row=index + 1, clip=labels.clip_id(labels.rows[index]), reason="no opinion")
        for index, opinion in enumerate(opinions)
        if opinion is None
    ]
    if len(unused) == len(labels.rows):
        raise UsageError(f"{labels.source}: no row has an opinion in column {mos_column!r}. Choose it by --mos-column.")
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
            unused.append(
                UnusedRow(side="labels", row=index + 1, clip=labels.clip_id(labels.rows[index]), reason=status)
            )
        again = rows[1:] if status != "duplicate" else rows
        unused += [
            UnusedRow(side="scores", row=at + 1, clip=scores.clip_id(scores.rows[at]), reason="duplicate")
            for at in again
        ]
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
    unused += [
        UnusedRow(side="scores", row=index + 1, clip=scores.clip_id(row), reason="unmatched")
        for index, row in enumerate(scores.rows)
        if index not in matched
    ]
    return Joined(pairings=pairings, unused=unused, key=chosen, score_column=column, mos_column=mos_column)


def _settle(scores: InputTable, rows: Sequence[int], numbers: Sequence[float | None]) -> tuple[str, float | None, Row]:
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


def _refuse_repeats(labels: InputTable) -> None:
    repeated = [name for name, count in Counter(map(labels.clip_id, labels.rows)).items() if count > 1]
    if repeated:
        names = ", ".join(repr(name) for name in repeated[:5])
        raise UsageError(f"{labels.source} names {len(repeated)} clips more than once ({names}). Each needs one row.")


def _choose(scores: InputTable, labels: InputTable, key: JoinKey | None) -> tuple[JoinKey, dict[int, list[int]]]:
    """The key, and the rows of the scores by row of the labels."""
    for candidate in (key,) if key else JOIN_KEYS:
        found = _match(scores, labels, candidate)
        if found:
            _refuse_ambiguous(scores, labels, candidate, found)
            return candidate, found
    windows = any(WINDOW_ID.search(scores.clip_id(row)) for row in scores.rows[:100])
    hint = f" For windows, give {scores.source}/videos.parquet --column score_mean." if windows else ""
    raise UsageError(
        f"no clip of {labels.source} (such as {_example(labels)!r}) has a score in {scores.source} (such as "
        f"{_example(scores)!r}) by {key or 'clip_id, uri or file name'}. Use the same names in both, "
        "or choose the column "
        f"by --path-column.{hint}"
    )


def _example(table: InputTable) -> str:
    return table.uri(table.rows[0])


def _names(table: InputTable, key: JoinKey) -> Iterator[str]:
    return (_KEYS[key](table.clip_id(row), table.uri(row)) for row in table.rows)


def _match(scores: InputTable, labels: InputTable, key: JoinKey) -> dict[int, list[int]]:
    rows: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(_names(scores, key)):
        rows[name].append(index)
    return {index: rows[name] for index, name in enumerate(_names(labels, key)) if name in rows}


def _refuse_ambiguous(scores: InputTable, labels: InputTable, key: JoinKey, found: dict[int, list[int]]) -> None:
    """Raise UsageError if different clips have the same name by this key."""
    claimed: dict[int, int] = {}
    for label, rows in found.items():
        places = sorted({scores.uri(scores.rows[row]) for row in rows} if key != "clip_id" else ())
        if rows[0] in claimed:
            places = sorted({labels.uri(labels.rows[other]) for other in (claimed[rows[0]], label)})
        claimed[rows[0]] = label
        if len(places) > 1:
            name = _KEYS[key](labels.clip_id(labels.rows[label]), labels.uri(labels.rows[label]))
            raise UsageError(
                f"by {key}, {name!r} matches several clips ({', '.join(places[:3])}). Give both files the same clip_id "
                f"or uri, or choose the key by --join {'|'.join(JOIN_KEYS)}."
            )
