"""Scores for a terminal: counts, best, worst and failed clips, names escaped."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypedDict

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vqa.console import printable
from vqa.data.score_table import WITHOUT_SCORE, read_scores


class ShownRow(TypedDict):
    """The columns of the scores table that are shown."""

    clip_id: str
    status: str
    error_kind: str | None
    error: str | None
    score: float | None
    score_raw: float | None
    score_std: float | None
    score_global: float | None
    score_local: float | None
    mos: float | None
    mos_low: float | None
    mos_high: float | None
    reason: str | None


SHOWN_COLUMNS = list(ShownRow.__annotations__)
RANKING = ("score", "score_raw")  # what clips are ranked by; the second where no row has the first


def counts(rows: pa.Table, column: str) -> dict[str, int]:
    """How often each value of a column occurs, most frequent first, without nulls."""
    found = Counter({one["values"]: one["counts"] for one in pc.value_counts(rows.column(column)).to_pylist()})
    found.pop(None, None)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def ranked(rows: pa.Table) -> list[ShownRow]:
    """Rows that have a score, worst first; ties in the order of clip_id.

    Where no row has one, those with a raw score, as of a student of severity.
    """
    return list(_by_score(rows).select(SHOWN_COLUMNS).to_pylist())


def _by_score(rows: pa.Table) -> pa.Table:
    by = next((name for name in RANKING if rows.column(name).null_count < rows.num_rows), "score")
    scored = rows.filter(pc.is_valid(rows.column(by)))
    return scored.sort_by([(by, "ascending"), ("clip_id", "ascending")])


def score_table(rows: Iterable[ShownRow], *, title: str) -> Table:
    """Table of clips: score (1-5), global and local score, spread, model's reason.

    Where no row has a score, the raw ones, so headed. Where one is calibrated, opinions with their intervals too.
    """
    rows = list(rows)
    has_score, has_raw = (any(row[name] is not None for row in rows) for name in ("score", "score_raw"))
    is_raw = has_raw and not has_score
    is_calibrated = any(row["mos"] is not None for row in rows)
    table = Table(title=title, title_justify="left", expand=False)
    # On a narrow screen names and reasons fold; numbers are never squeezed.
    table.add_column("raw" if is_raw else "score", justify="right", no_wrap=True, min_width=5)
    table.add_column("clip", overflow="fold", min_width=12)
    for name in ("global", "local", "spread"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    if is_calibrated:
        table.add_column("mos", justify="right", min_width=5)
    table.add_column("reason", overflow="fold", min_width=12, max_width=80)
    for row in rows:
        own = row["score_raw"] if is_raw else row["score"]
        numbers = [_number(one) for one in (own, row["score_global"], row["score_local"], row["score_std"])]
        if is_calibrated:
            low, high = _number(row["mos_low"]), _number(row["mos_high"])
            numbers.append("" if row["mos"] is None else f"{row['mos']:.2f} ({low} to {high})")
        clip = Text(printable(row["clip_id"]))
        table.add_row(numbers[0], clip, *numbers[1:], Text(printable(row["reason"] or "")))
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def failure_table(rows: Iterable[ShownRow], *, title: str) -> Table:
    """Clips without a score and why."""
    table = Table(title=title, title_justify="left")
    table.add_column("status")
    table.add_column("clip", overflow="fold")
    table.add_column("why", overflow="fold")
    for row in rows:
        why = row["error"] or "the model's answer holds no score"
        table.add_row(row["error_kind"] or row["status"], Text(printable(row["clip_id"])), Text(printable(why)))
    return table


def count_table(by_status: Mapping[str, int], by_error: Mapping[str, int]) -> Table:
    """Clips by status, failures by kind."""
    table = Table(title="Clips by status", title_justify="left")
    table.add_column("status")
    table.add_column("clips", justify="right")
    for status, count in by_status.items():
        table.add_row(status, str(count))
        if status == "failed":
            for kind, number in by_error.items():
                table.add_row(f"  {kind}", str(number))
    return table


def overview(rows: pa.Table, *, out: Path, shown: int = 5, place: str | None = None) -> RenderableType:
    """Best and worst clips, failures, counts, and the paths of the files of a job.

    Texts that the rows do not hold are read for the clips that are shown only. `place`: the folder's
    name to the user.
    """
    by_score = _by_score(rows)
    failures = rows.filter(pc.is_in(rows.column("status"), value_set=pa.array(WITHOUT_SCORE))).sort_by("clip_id")
    many = by_score.num_rows > 2 * shown
    worst, best = (
        (by_score.slice(0, shown), by_score.slice(by_score.num_rows - shown)) if many else (by_score, by_score)
    )
    named = {name for part in (worst, best, failures.slice(0, shown)) for name in part.column("clip_id").to_pylist()}
    texts = rows if set(SHOWN_COLUMNS) <= set(rows.column_names) else read_scores(out, SHOWN_COLUMNS, clip_ids=named)
    chosen = texts.filter(pc.is_in(texts.column("clip_id"), value_set=pa.array(sorted(named), pa.string())))
    known: dict[str, ShownRow] = {row["clip_id"]: row for row in chosen.select(SHOWN_COLUMNS).to_pylist()}

    def told(part: pa.Table) -> list[ShownRow]:
        return [known[name] for name in part.column("clip_id").to_pylist()]

    parts: list[RenderableType] = []
    if many:
        parts.append(score_table(reversed(told(best)), title=f"Best {shown}"))
        parts.append(score_table(told(worst), title=f"Worst {shown}"))
    elif by_score.num_rows:
        parts.append(score_table(reversed(told(by_score)), title="Scores, best first"))
    if count := failures.num_rows:
        more = f" (the first {shown} of {count})" if count > shown else ""
        parts.append(failure_table(told(failures.slice(0, shown)), title=f"Without a score{more}"))
    parts.append(count_table(counts(rows, "status"), counts(rows, "error_kind")))
    parts.append(Text(places(out, place)))
    return Group(*parts)


def places(out: Path, place: str | None = None) -> str:
    """Paths of a job's files, one per line; `place`: the folder's name to the user."""
    names = [name for name in ("scores", "videos.parquet", "run.json", "superseded") if (out / name).exists()]
    return "\n".join(f"{name.partition('.')[0] + ':':<12}{printable(f'{place or out}/{name}')}" for name in names)
