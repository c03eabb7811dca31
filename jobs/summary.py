"""Summary of a scores table for a terminal: counts, best, worst and failed clips; names are escaped."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypedDict

import pyarrow as pa
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vqa.console import printable


class ShownRow(TypedDict):
    """The columns of the scores table that are shown."""

    clip_id: str
    status: str
    error_kind: str | None
    error: str | None
    score: float | None
    score_std: float | None
    score_global: float | None
    score_local: float | None
    reason: str | None


SHOWN_COLUMNS = list(ShownRow.__annotations__)


def counts(rows: pa.Table, column: str) -> dict[str, int]:
    """How often each value of a column occurs, most frequent first, without nulls."""
    found = Counter(value for value in rows.column(column).to_pylist() if value is not None)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def ranked(rows: pa.Table) -> list[ShownRow]:
    """Rows that have a score, worst first; ties in the order of clip_id."""
    scored = [row for row in rows.select(SHOWN_COLUMNS).to_pylist() if row["score"] is not None]
    return sorted(scored, key=lambda row: (row["score"], row["clip_id"]))


def score_table(rows: Iterable[ShownRow], *, title: str) -> Table:
    """Clips with their scores (1-5), spread, global and local score, and the model's reason."""
    table = Table(title=title, title_justify="left", expand=False)
    # On a narrow screen names and reasons fold; numbers are never squeezed.
    table.add_column("score", justify="right", no_wrap=True, min_width=5)
    table.add_column("clip", overflow="fold", min_width=12)
    for name in ("global", "local", "spread"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    table.add_column("reason", overflow="fold", min_width=12, max_width=80)
    for row in rows:
        numbers = [_number(row[name]) for name in ("score", "score_global", "score_local", "score_std")]
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


def overview(rows: pa.Table, *, out: Path, shown: int = 5) -> RenderableType:
    """Best and worst clips, failures, counts, and the paths of the files of a job."""
    by_score = ranked(rows)
    parts: list[RenderableType] = []
    if len(by_score) > 2 * shown:
        parts.append(score_table(reversed(by_score[-shown:]), title=f"Best {shown}"))
        parts.append(score_table(by_score[:shown], title=f"Worst {shown}"))
    elif by_score:
        parts.append(score_table(reversed(by_score), title="Scores, best first"))
    failures = [row for row in rows.select(SHOWN_COLUMNS).to_pylist() if row["score"] is None]
    if failures:
        more = f" (the first {shown} of {len(failures)})" if len(failures) > shown else ""
        first = sorted(failures, key=lambda row: row["clip_id"])[:shown]
        parts.append(failure_table(first, title=f"Without a score{more}"))
    parts.append(count_table(counts(rows, "status"), counts(rows, "error_kind")))
    parts.append(Text(places(out)))
    return Group(*parts)


def places(out: Path) -> str:
    """The paths of the files of a job, one per line."""
    files = [out / name for name in ("scores", "videos.parquet", "run.json", "superseded")]
    return "\n".join(f"{file.stem + ':':<12}{printable(str(file))}" for file in files if file.exists())
