"""`vqa evaluate`: join, measure, write. What it writes is described in vqa.evaluate."""

import csv
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vqa.data.score_table import SCHEMA
from vqa.errors import UsageError
from vqa.evaluate.figures import Settings, figures, means, number
from vqa.evaluate.join import Joined, Key, Left, Pairing, join
from vqa.evaluate.tables import Table, of_split, read_table
from vqa.files import replacing, write_json, write_parquet
from vqa.metrics.fits import Fit

MOST_GROUPS = 200
BINS = 10
NAMES = ("content_id", "split", "kind", "1")  # columns that stay text though they may read as numbers
FROM_SCORES = ["start_seconds", "end_seconds", "keyframe_seconds", "crop_boxes"]
FROM_SCORES += ["width", "height", "fps", "duration_seconds", "codec"]
CLIP_FIELDS = (
    *(pa.field(name, pa.string()) for name in ("clip_id", "uri", "dataset")),
    *(pa.field(name, pa.float64()) for name in ("mos", "mos_std", "score", "score_std")),
    *(pa.field(name, pa.string()) for name in ("status", "error_kind", "error", "reason")),
    pa.field("used", pa.bool_()),
    *(pa.field(name, pa.float64()) for name in ("mapped", "residual")),
    *(SCHEMA.field(name) for name in FROM_SCORES),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of which files."""

    scores: Path
    labels: Path
    column: str | None = None
    mos_column: str | None = None
    path_column: str | None = None
    key: Key | None = None
    split: str | None = None
    by: tuple[str, ...] = ()
    lower_is_better: bool = False
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The contents of the three files."""

    metrics: dict[str, Any]
    clips: pa.Table
    left: list[Left]

    @property
    def stands(self) -> bool:
        """Whether every expected clip counted, or the user allowed less."""
        return bool(self.metrics["stands"])


def evaluate(question: Question, *, published: Mapping[str, Any] | None = None) -> Evaluation:
    """Joins scores with opinions and measures them. Raises UsageError."""
    settings = question.settings
    scores, labels, joined = read(question)
    by_set = grouped(joined.pairings, "dataset")
    groups = {column: grouped(joined.pairings, column) for column in question.by}
    sets = {name: figures(members, settings) for name, members in by_set.items()}
    whole = next(iter(sets.values())) if len(sets) == 1 else figures(joined.pairings, settings)
    clips = clip_rows(joined.pairings, {name: one.fits.get("logistic4") for name, one in sets.items()})
    counts = joined.counts()
    short = counts["used"] < counts["expected"] and not settings.allow_missing
    asked = {"split": question.split, "by": list(question.by), "lower_is_better": question.lower_is_better}
    metrics = {
        "schema": 1,
        "vqa": version("vqa"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "scores": _origin(scores) | {"column": joined.score_column},
        "labels": {"source": str(labels.source), "mos_column": joined.mos_column, "rows": len(labels.rows)},
        "join": joined.key,
        "settings": asdict(settings) | asked,
        "counts": counts,
        "stands": not short,
        "reason": f"{counts['used']} of {counts['expected']} expected clips have a score" if short else None,
        "all": whole.values,
        "datasets": {name: one.values for name, one in sets.items()},
        "groups": {
            column: {name: figures(members, settings).values for name, members in members_of.items()}
            for column, members_of in groups.items()
        },
        "means": means(sets, settings),
        "reliability": reliability(clips),
        "published": dict(published) if published else None,
    }
    table = clip_table(clips, joined, texts=labels.kind in ("csv", "txt"))
    return Evaluation(metrics=metrics, clips=table, left=joined.left)


def read(question: Question) -> tuple[Table, Table, Joined]:
    """The scores, the labels, and both side by side. Raises UsageError."""
    scores = read_table(question.scores, name_column=question.path_column)
    labels = of_split(read_table(question.labels), question.split)
    columns = {"column": question.column, "mos_column": question.mos_column}
    return scores, labels, join(scores, labels, **columns, key=question.key, lower_is_better=question.lower_is_better)


def _origin(scores: Table) -> dict[str, Any]:
    row = scores.rows[0] if scores.kind == "vqa" else {}
    found = {"source": str(scores.source), "kind": scores.kind, "rows": len(scores.rows)}
    return found | {name: row.get(name) for name in ("model_id", "model_revision")}


def grouped(pairings: Sequence[Pairing], column: str) -> dict[str, list[Pairing]]:
    """Pairings by a column of the labels or else of the scores; an empty value is the group (none)."""
    if column == "dataset":
        values = [pairing.dataset for pairing in pairings]
    elif any(column in pairing.label for pairing in pairings):
        values = [_word(pairing.label.get(column)) for pairing in pairings]
    elif any(column in pairing.row for pairing in pairings):
        values = [_word(pairing.row.get(column)) for pairing in pairings]
    else:
        labels, scores = (
            ", ".join(dict.fromkeys(name for row in rows for name in row))
            for rows in ([one.label for one in pairings], [one.row for one in pairings])
        )
        raise UsageError(f"--by {column}: neither the labels ({labels}) nor the scores ({scores}) have it")
    groups: dict[str, list[Pairing]] = defaultdict(list)
    for pairing, value in zip(pairings, values, strict=True):
        groups[value].append(pairing)
    if len(groups) > MOST_GROUPS:
        raise UsageError(f"--by {column}: {len(groups)} different values; a group column has at most {MOST_GROUPS}")
    return {name: groups[name] for name in sorted(groups)}


def _word(value: Any) -> str:
    if value is None or value == "" or value == []:
        return "(none)"
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def clip_rows(pairings: Sequence[Pairing], fits: Mapping[str, Fit | None]) -> list[dict[str, Any]]:
    """The named columns of clips.parquet, one dict a clip; `fits` maps scores to opinions for each data set."""
    names = ("clip_id", "uri", "dataset", "mos", "score", "status", "used")
    return [
        {
            **{name: getattr(pairing, name) for name in names},
            **{name: pairing.row.get(name) for name in ("error_kind", "error", "reason")},
            "mos_std": number(pairing.label.get("mos_std")),
            "score_std": number(pairing.row.get("score_std")),
            "mapped": mapped,
            "residual": None if mapped is None else mapped - pairing.mos,
        }
        for pairing, mapped in zip(pairings, _mapped(pairings, fits), strict=True)
    ]


def _mapped(pairings: Sequence[Pairing], fits: Mapping[str, Fit | None]) -> list[float | None]:
    mapped: list[float | None] = [None] * len(pairings)
    for name, fit in fits.items():
        scored = [(at, one.score) for at, one in enumerate(pairings) if one.dataset == name and one.score is not None]
        if fit and scored:
            where, scores = zip(*scored, strict=True)
            for at, value in zip(where, fit(scores).tolist(), strict=True):
                mapped[at] = value
    return mapped


def clip_table(rows: Sequence[Mapping[str, Any]], joined: Joined, *, texts: bool) -> pa.Table:
    """clips.parquet: the rows with what the scores table knows of each clip and the labels' other columns.

    `texts`: the labels come from a file in which all is text, so what reads as numbers are numbers.
    """
    from_scores = [
        {name: pairing.row.get(name) for name in FROM_SCORES} if "frames_planned" in pairing.row else {}
        for pairing in joined.pairings
    ]
    full = [{**row, **extra} for row, extra in zip(rows, from_scores, strict=True)]
    table = pa.Table.from_pylist(full, schema=pa.schema(CLIP_FIELDS))
    taken = set(table.column_names)
    told = {"clip_id", "uri", "dataset", "mos_std"} | ({"mos"} if joined.mos_column == "mos" else set())
    columns = dict.fromkeys(key for pairing in joined.pairings for key in pairing.label)
    for name in (name for name in columns if name not in told):
        values = [pairing.label.get(name) for pairing in joined.pairings]
        column = _column(values, parse=texts and name not in NAMES)
        table = table.append_column(f"label_{name}" if name in taken else name, column)
    return table


def _column(values: Sequence[Any], *, parse: bool) -> pa.Array:
    """Truth values or numbers where all are, else text; nested values as JSON."""
    plain = [None if value == "" else value for value in values]
    if all(value is None or isinstance(value, bool) for value in plain):
        return pa.array(plain, pa.bool_())
    numbers = [None if value is None else number(value) for value in plain]
    is_text = not parse and any(isinstance(value, str) for value in plain)
    if not is_text and all((found is None) == (value is None) for found, value in zip(numbers, plain, strict=True)):
        return pa.array(numbers, pa.float64())
    words = [value if value is None or isinstance(value, str) else _json(value) for value in plain]
    return pa.array(words, pa.string())


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def reliability(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]] | None:
    """How far the model is off, by how sure it says it is: ten equal bins of score_std; None where it says nothing."""
    known = [row for row in rows if row["residual"] is not None and row["score_std"] is not None]
    spread = np.array([row["score_std"] for row in known])
    if len(known) < 2 * BINS or np.ptp(spread) == 0:
        return None
    residual = np.array([row["residual"] for row in known])
    order = np.argsort(spread, kind="stable")
    return [
        {
            "n": len(part),
            "score_std": float(spread[part].mean()),
            "rmse": float(np.sqrt(np.mean(residual[part] ** 2))),
            "mae": float(np.mean(np.abs(residual[part]))),
        }
        for part in np.array_split(order, BINS)
    ]


def write(evaluation: Evaluation, out: Path) -> None:
    """The three files, each atomically."""
    out.mkdir(parents=True, exist_ok=True)
    write_parquet(out / "clips.parquet", evaluation.clips)
    with replacing(out / "unused.csv") as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["side", "row", "clip", "why"])
        writer.writerows([left.side, left.row, left.clip, left.why] for left in evaluation.left)
    write_json(out / "metrics.json", evaluation.metrics)
