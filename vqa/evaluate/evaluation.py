"""Evaluation of scores against opinions; its files are described in vqa.evaluate."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa

from vqa.data.cells import SafeWriter
from vqa.data.dialects import AS_SEEN, Dialect, number_or_none
from vqa.data.score_table import SCHEMA
from vqa.errors import UsageError
from vqa.evaluate.card import Published
from vqa.evaluate.inputs import InputTable, filter_split, read_table
from vqa.evaluate.join import Joined, Pairing, UnusedRow, join
from vqa.evaluate.schema import ClipRow, EvaluationMetrics, JoinKey, PublishedNumbers, ReliabilityBin, ScoresSource
from vqa.evaluate.shares import share_curve
from vqa.evaluate.statistics import StatisticsConfig, compute_statistics, means
from vqa.files import replacing, write_json, write_parquet
from vqa.metrics.fits import CurveFit

MOST_GROUPS = 200
BINS = 10
NAMES = ("content_id", "split", "kind", "1")  # columns that stay text even if all their cells are numbers
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
class EvaluationConfig:
    """What to evaluate: files, their columns, and settings of the statistics."""

    scores: Path
    labels: Path
    column: str | None = None
    mos_column: str | None = None
    path_column: str | None = None
    key: JoinKey | None = None
    split: str | None = None
    by: tuple[str, ...] = ()
    lower_is_better: bool = False
    dialect: Dialect = AS_SEEN
    statistics: StatisticsConfig = field(default_factory=StatisticsConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The contents of the three files."""

    metrics: EvaluationMetrics
    clips: pa.Table
    unused: list[UnusedRow]


def evaluate(config: EvaluationConfig, *, published: Published | None = None) -> Evaluation:
    """Join scores with opinions; compute statistics of all clips, sets and groups.

    Args:
        config: Files and settings.
        published: Published numbers of a reproduction card, copied to the metrics.

    Raises:
        UsageError: If the files cannot be read or joined.
    """
    settings = config.statistics
    scores, labels, joined = read_and_join(config)
    by_set = grouped(joined.pairings, "dataset")
    groups = {column: grouped(joined.pairings, column) for column in config.by}
    sets = {name: compute_statistics(members, settings) for name, members in by_set.items()}
    whole = next(iter(sets.values())) if len(sets) == 1 else compute_statistics(joined.pairings, settings)
    clips = clip_rows(joined.pairings, {name: one.fits.get("logistic4") for name, one in sets.items()})
    counts = joined.counts()
    short = counts["used"] < counts["expected"] and not settings.allow_missing
    metrics: EvaluationMetrics = {
        "schema": 1,
        "vqa": version("vqa"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "scores": _scores_source(scores, joined.score_column),
        "labels": {"source": str(labels.source), "mos_column": joined.mos_column, "rows": len(labels.rows)},
        "join": joined.key,
        "settings": {
            "resamples": settings.resamples,
            "confidence": settings.confidence,
            "seed": settings.seed,
            "splits": settings.splits,
            "allow_missing": settings.allow_missing,
            "split": config.split,
            "by": list(config.by),
            "lower_is_better": config.lower_is_better,
        },
        "counts": counts,
        "reported": not short,
        "reason": f"{counts['used']} of {counts['expected']} expected clips have a score" if short else None,
        "all": whole.metrics,
        "datasets": {name: one.metrics for name, one in sets.items()},
        "groups": {
            column: {name: compute_statistics(members, settings).metrics for name, members in members_of.items()}
            for column, members_of in groups.items()
        },
        "means": means(sets, settings),
        "reliability": reliability(clips),
        "shares": share_curve(
            joined.pairings, resamples=settings.resamples, confidence=settings.confidence, seed=settings.seed
        ),
        "published": _published_numbers(published) if published else None,
    }
    table = clip_table(clips, joined, texts=labels.kind in ("csv", "txt"))
    return Evaluation(metrics=metrics, clips=table, unused=joined.unused)


def read_and_join(config: EvaluationConfig) -> tuple[InputTable, InputTable, Joined]:
    """Read the scores and the labels, and join them. Raises UsageError."""
    scores = read_table(config.scores, name_column=config.path_column, dialect=config.dialect)
    labels = filter_split(read_table(config.labels, dialect=config.dialect), config.split)
    joined = join(
        scores,
        labels,
        column=config.column,
        mos_column=config.mos_column,
        key=config.key,
        lower_is_better=config.lower_is_better,
    )
    return scores, labels, joined


def _scores_source(scores: InputTable, column: str) -> ScoresSource:
    row = scores.rows[0] if scores.kind == "vqa" else {}
    return {
        "source": str(scores.source),
        "kind": scores.kind,
        "rows": len(scores.rows),
        "column": column,
        "model_id": row.get("model_id"),
        "model_revision": row.get("model_revision"),
    }


def _published_numbers(published: Published) -> PublishedNumbers:
    return {
        "srcc": published.srcc,
        "plcc": published.plcc,
        "clips": published.clips,
        "source": published.source,
    }


def grouped(pairings: Sequence[Pairing], column: str) -> dict[str, list[Pairing]]:
    """Group pairings by a column of labels or else scores; empty cells are `(none)`.

    Raises:
        UsageError: If there is no such column, or it has more than MOST_GROUPS values.
    """
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
        raise UsageError(f"--by {column}: no such column. The labels have {labels}; the scores have {scores}.")
    groups: dict[str, list[Pairing]] = defaultdict(list)
    for pairing, value in zip(pairings, values, strict=True):
        groups[value].append(pairing)
    if len(groups) > MOST_GROUPS:
        raise UsageError(f"--by {column}: {len(groups)} different values, above {MOST_GROUPS}. Give a coarser column.")
    return {name: groups[name] for name in sorted(groups)}


def _word(value: object) -> str:
    if value is None or value == "" or value == []:
        return "(none)"
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def clip_rows(pairings: Sequence[Pairing], fits: Mapping[str, CurveFit | None]) -> list[ClipRow]:
    """Named columns of clips.parquet, a dict per clip; `fits`: the curve by data set."""
    return [
        {
            "clip_id": pairing.clip_id,
            "uri": pairing.uri,
            "dataset": pairing.dataset,
            "mos": pairing.mos,
            "score": pairing.score,
            "status": pairing.status,
            "used": pairing.used,
            "error_kind": pairing.row.get("error_kind"),
            "error": pairing.row.get("error"),
            "reason": pairing.row.get("reason"),
            "mos_std": number_or_none(pairing.label.get("mos_std")),
            "score_std": number_or_none(pairing.row.get("score_std")),
            "mapped": mapped,
            "residual": None if mapped is None else mapped - pairing.mos,
        }
        for pairing, mapped in zip(pairings, _mapped(pairings, fits), strict=True)
    ]


def _mapped(pairings: Sequence[Pairing], fits: Mapping[str, CurveFit | None]) -> list[float | None]:
    mapped: list[float | None] = [None] * len(pairings)
    for name, fit in fits.items():
        scored = [(at, one.score) for at, one in enumerate(pairings) if one.dataset == name and one.score is not None]
        if fit and scored:
            where, scores = zip(*scored, strict=True)
            for at, value in zip(where, fit(scores).tolist(), strict=True):
                mapped[at] = value
    return mapped


def clip_table(rows: Sequence[ClipRow], joined: Joined, *, texts: bool) -> pa.Table:
    """Build clips.parquet from rows, columns of the scores table and of the labels.

    Args:
        rows: As of `clip_rows`.
        joined: The pairings of these rows.
        texts: Whether all cells of the labels are text, so that columns of numbers have to be parsed.
    """
    from_scores = [
        {name: pairing.row.get(name) for name in FROM_SCORES} if "frames_planned" in pairing.row else {}
        for pairing in joined.pairings
    ]
    full = [{**row, **extra} for row, extra in zip(rows, from_scores, strict=True)]
    table = pa.Table.from_pylist(full, schema=pa.schema(CLIP_FIELDS))
    taken = set(table.column_names)
    copied = {"clip_id", "uri", "dataset", "mos_std"} | ({"mos"} if joined.mos_column == "mos" else set())
    columns = dict.fromkeys(key for pairing in joined.pairings for key in pairing.label)
    for name in (name for name in columns if name not in copied):
        values = [pairing.label.get(name) for pairing in joined.pairings]
        column = _column(values, parse=texts and name not in NAMES)
        table = table.append_column(f"label_{name}" if name in taken else name, column)
    return table


def _column(values: Sequence[object], *, parse: bool) -> pa.Array:
    """Booleans or numbers if all cells are, else text; nested values as JSON."""
    plain = [None if value == "" else value for value in values]
    if all(value is None or isinstance(value, bool) for value in plain):
        return pa.array(plain, pa.bool_())
    numbers = [None if value is None else number_or_none(value) for value in plain]
    is_text = not parse and any(isinstance(value, str) for value in plain)
    if not is_text and all((found is None) == (value is None) for found, value in zip(numbers, plain, strict=True)):
        return pa.array(numbers, pa.float64())
    words = [value if value is None or isinstance(value, str) else _json(value) for value in plain]
    return pa.array(words, pa.string())


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def reliability(rows: Sequence[ClipRow]) -> list[ReliabilityBin] | None:
    """Error of the scores in ten equal bins of score_std; None without a spread."""
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


def write_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Write metrics.json, clips.parquet and unused.csv to a folder, each atomically."""
    out.mkdir(parents=True, exist_ok=True)
    write_parquet(out / "clips.parquet", evaluation.clips)
    with replacing(out / "unused.csv") as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = SafeWriter(file)
        writer.writerow(["side", "row", "clip", "reason"])
        writer.writerows([row.side, row.row, row.clip, row.reason] for row in evaluation.unused)
    write_json(out / "metrics.json", evaluation.metrics)
