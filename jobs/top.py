"""`vqa top`: a run as its folder shows it: state, rate, stage times, slow clips."""

import heapq
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jobs.lease import is_dead
from jobs.metrics import STAGES
from jobs.progress import duration
from jobs.run_record import BEAT_SECONDS
from vqa.console import counted, printable
from vqa.data.score_table import TIMINGS
from vqa.errors import UsageError
from vqa.files import reread

SILENT_SECONDS = 12 * BEAT_SECONDS  # without a word for this long, a run may be dead
SHOWN = 5
COLUMNS = ("clip_id", "status", "error_kind", *TIMINGS)
QUANTILES = (0.5, 0.9, 0.99, 1.0)


@dataclass
class Part:
    """What is kept of a Parquet file of rows."""

    statuses: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, Any] = field(default_factory=dict)  # by stage, float64 [rows that have it]
    slowest: list[tuple[float, str, str]] = field(default_factory=list)  # seconds, clip, its status

    @classmethod
    def read(cls, path: Path) -> "Part":
        """Read a file. Raises OSError, ArrowInvalid."""
        with pq.ParquetFile(path) as file:
            rows = file.read([name for name in COLUMNS if name in file.schema_arrow.names]).to_pydict()
        none = [None] * len(rows["clip_id"])
        times = {stage: rows.get(column, none) for stage, column in STAGES.items()}
        took = (sum(one or 0.0 for one in both) for both in zip(*times.values(), strict=True))
        return cls(
            statuses=Counter(rows["status"]),
            kinds=Counter(kind for kind in rows["error_kind"] if kind),
            seconds={stage: np.array([one for one in some if one is not None]) for stage, some in times.items()},
            slowest=heapq.nlargest(SHOWN, zip(took, rows["clip_id"], rows["status"], strict=True)),
        )


class Watch:
    """The folder of a run; only parts of the table that changed are read again."""

    def __init__(self, out: Path) -> None:
        """Nothing is read yet."""
        self._out = out
        self._parts: dict[Path, tuple[tuple[int, int], Part]] = {}

    def run(self) -> dict[str, Any]:
        """What run.json says. Raises UsageError where there is none."""
        path = self._out / "run.json"
        try:
            found: dict[str, Any] = json.loads(reread(lambda: path.read_text(encoding="utf-8")))
        except OSError as error:
            raise UsageError(
                f"{path}: cannot be read ({error.strerror}); give the --out folder of a `vqa score`"
            ) from error
        except ValueError as error:
            raise UsageError(f"{path}: no JSON ({error}); give the --out folder of a `vqa score`") from error
        if not isinstance(found, dict) or not isinstance(found.get("state"), str):
            raise UsageError(f"{path}: no record of a run, which has a state; give the --out folder of a `vqa score`")
        return found

    def silent_seconds(self) -> float:
        """How long ago run.json was written, by this machine's clock."""
        return max(0.0, time.time() - (self._out / "run.json").stat().st_mtime)

    def is_dead(self) -> bool:
        """Whether the run's process was on this machine and is gone."""
        for name in (".lock", ".lock.held"):
            try:
                if is_dead((self._out / name).read_text(encoding="utf-8", errors="replace")):
                    return True
            except OSError:
                continue
        return False

    def rows(self) -> Part:
        """The rows on disk, all parts together."""
        known, self._parts = self._parts, {}

        def part_of(path: Path) -> tuple[tuple[int, int], Part]:
            status = path.stat()
            stamp = status.st_mtime_ns, status.st_size
            found = known.get(path)
            return found if found and found[0] == stamp else (stamp, Part.read(path))

        for path in sorted((self._out / "scores").glob("[!.]*.parquet")):
            try:
                self._parts[path] = reread(partial(part_of, path))
            except FileNotFoundError:  # superseded while we look
                continue
            except (OSError, pa.ArrowInvalid) as error:
                raise UsageError(f"{path}: cannot be read ({error}); move that file away") from error
        parts = [part for _, part in self._parts.values()]
        nothing: list[Any] = [np.zeros(0)]
        return Part(
            statuses=sum((part.statuses for part in parts), Counter()),
            kinds=sum((part.kinds for part in parts), Counter()),
            seconds={stage: np.concatenate(nothing + [part.seconds[stage] for part in parts]) for stage in STAGES},
            slowest=heapq.nlargest(SHOWN, (one for part in parts for one in part.slowest)),
        )


def top(out: Path, *, every: float, once: bool) -> None:
    """Show a run until it ends or Ctrl-C; `once`: one frame. Raises UsageError."""
    watch, console = Watch(out), Console()
    shown, is_over = render_run(watch, out)
    if once or is_over or not console.is_terminal:
        console.print(shown)
        return
    try:
        with Live(shown, console=console, auto_refresh=False) as live:
            while not is_over:
                time.sleep(every)
                shown, is_over = render_run(watch, out)
                live.update(shown, refresh=True)
    except KeyboardInterrupt:
        pass  # the run goes on


def render_run(watch: Watch, out: Path) -> tuple[RenderableType, bool]:
    """What is shown, and whether the run is over."""
    run, rows = watch.run(), watch.rows()
    state, is_over = _state(run, watch)
    progress = run.get("progress") or {}
    host = run.get("host") or {}
    head = (
        f"{printable(str(out))}: {state}\n{printable(str(run.get('model_id')))}, engine {run.get('engine')}, started "
        f"{run.get('started')} on {printable(str(host.get('name')))}"
    )
    parts: list[RenderableType] = [Text(head)]
    facts = [f"{rows.statuses.total():,} rows in the table"]
    if progress:
        done, total = progress["files_done"], progress["files_total"]
        line = Table.grid()  # which ends the bar's line
        line.add_row(ProgressBar(total=max(total, 1), completed=done, width=60))
        parts.append(line)
        facts.insert(0, f"{done:,.0f} of {total:,}{'' if progress['is_listed'] else '+'} files of this run")
    if (rate := progress.get("clips_per_second")) is not None:
        facts.append(f"{rate:.2f} clips/s")
    if not is_over and (left := progress.get("seconds_left")) is not None:
        facts.append(f"{duration(left)} left")
    parts.append(Text(", ".join(facts)))
    if work := _at_work(progress, is_over=is_over):
        parts.append(Text(work))
    return Group(*parts, _statuses(rows), _stages(rows), _slowest(rows)), is_over


def _at_work(progress: dict[str, Any], *, is_over: bool) -> str:
    """Lines like `scoring: 1 worker, 99% busy, 8 clips in its queue`, tokens/s, cost."""
    stages = []
    for stage, count in (progress.get("workers") or {}).items():
        words = [f"{stage}: {counted(count, 'worker')}"]
        if (busy := progress["busy"].get(stage)) is not None:
            words.append(f"{busy:.0%} busy")
        if not is_over and stage in progress["waiting"]:
            words.append(f"{counted(progress['waiting'][stage], 'clip')} in its queue")
        stages.append(", ".join(words))
    facts = [f"{rate:,.0f} {kind} tokens/s" for kind, rate in (progress.get("tokens_per_second") or {}).items()]
    if (cost := progress.get("cost")) is not None:
        facts.append(f"cost so far {cost:,.2f}")
    return "\n".join(filter(None, ("; ".join(stages), ", ".join(facts))))


def _state(run: dict[str, Any], watch: Watch) -> tuple[str, bool]:
    state = str(run.get("state"))
    if state != "running":
        error = f": {printable(str(run['error']))}" if run.get("error") else ""
        return f"{state} {run.get('ended')}{error}", True
    resume = "the same command resumes"
    if watch.is_dead():
        return f"killed, its process is gone; {resume}", True
    silent = watch.silent_seconds()
    if silent > SILENT_SECONDS:
        return f"no sign of life for {duration(silent)}: killed, or its host is cut off; {resume}", False
    started = datetime.fromisoformat(run["started"])
    return f"running for {duration(max(0.0, (datetime.now(UTC) - started).total_seconds()))}", False


def _statuses(rows: Part) -> Table:
    table = Table(title="Clips by status", title_justify="left")
    table.add_column("status")
    table.add_column("clips", justify="right")
    for status, number in rows.statuses.most_common():
        table.add_row(status, f"{number:,}")
        for kind, some in rows.kinds.most_common() if status == "failed" else ():
            table.add_row(f"  {kind}", f"{some:,}")
    return table


def _stages(rows: Part) -> Table:
    table = Table(title="Seconds of a clip", title_justify="left")
    table.add_column("stage")
    for name in ("mean", "p50", "p90", "p99", "most"):
        table.add_column(name, justify="right", no_wrap=True)
    for stage, seconds in rows.seconds.items():
        if len(seconds):
            values = [float(seconds.mean()), *np.quantile(seconds, QUANTILES).tolist()]
            table.add_row(stage, *(f"{value:.3g}" for value in values))
    return table


def _slowest(rows: Part) -> Table:
    table = Table(title="Slowest clips", title_justify="left")
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("clip", overflow="fold")
    table.add_column("status")
    for seconds, clip, status in rows.slowest:
        table.add_row(f"{seconds:.3g}", Text(printable(clip)), status)
    return table
