"""What every job over files does: the planned work through Ray into a table, whatever is killed or interrupted."""

import contextlib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.ledger import Book
from jobs.progress import JobProgress
from jobs.resume import Plan
from jobs.signals import Stop, locked
from jobs.stages import KEPT, crashed_row
from vqa.data.score_table import SCHEMA, ScoreTable
from vqa.errors import UsageError

if TYPE_CHECKING:
    from jobs.ray_executor import Pool

TOO_MANY_FAILED = 3
LOST = "its worker process died each time it was tried; run the same command to try again"
WITHOUT = pa.array(["unparsed", "failed"])  # statuses of clips that nothing came of


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The arguments that the commands of all jobs over files have, as given."""

    out: Path
    config: Path | None = None
    assignments: tuple[str, ...] = ()
    model: str | None = None
    ray_address: str | None = None
    fresh: bool = False
    max_failed: str = "5%"
    dry_run: bool = False
    json_summary: bool = False


def carry_out(asked: Asked, *, foretell: Callable[[], Mapping[str, Any]], work: Callable[[], int]) -> int:
    """Says what would be done, or does it as the only run in the folder; the exit code."""
    if asked.dry_run:
        print(json.dumps(foretell(), indent=2, ensure_ascii=False))
        return 0
    with locked(asked.out):
        return work()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How many clips may fail: a share or a count."""

    number: float
    is_share: bool
    text: str

    @classmethod
    def parse(cls, text: str) -> "Limit":
        """`5%` or `12`. Raises UsageError."""
        is_share = text.strip().endswith("%")
        try:
            number = float(text.strip().removesuffix("%"))
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf") or (is_share and number > 100) or (not is_share and number % 1):
            raise UsageError(f"--max-failed {text!r}: wanted a share like 5% or a count like 12")
        return cls(number=number, is_share=is_share, text=text)

    def is_exceeded(self, failed: int, *, of: int) -> bool:
        """Whether more have failed than may."""
        return failed > (self.number / 100 * of if self.is_share else self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """How files become rows: the stages on a machine or cluster with given resources, and what its rows say."""

    pools: Callable[[Mapping[str, float]], Sequence["Pool"]]
    settings: str  # digest, for the rows of clips that were lost
    clip_seconds: float | None = None
    ray_address: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)  # constants of every row


def count_without(rows: pa.Table) -> int:
    """How many of the rows nothing came of."""
    return int(pc.sum(pc.is_in(rows.column("status"), value_set=WITHOUT)).as_py() or 0)


def work_off(plan: Plan, table: ScoreTable, progress: JobProgress, *, line: Line) -> bool:
    """Runs the stages over the plan's work and fills the table; True where it was stopped before the end."""
    if not plan.work:
        return False
    from jobs import ray_executor  # Ray: seconds that a run with nothing to do is spared

    book = Book.of(plan.work, clip_seconds=line.clip_seconds)
    places: dict[str, tuple[str, int, int]] = {}
    stop = Stop()
    stop.arm()
    try:
        with contextlib.ExitStack() as session:
            with stop.waiting():
                resources = session.enter_context(ray_executor.ray_session(line.ray_address))
            stop.arm()
            session.enter_context(progress)
            batches = session.enter_context(contextlib.closing(_batches(book, line.pools(resources))))
            while True:
                with stop.waiting():
                    batch = next(batches, None)
                if batch is None:
                    break
                fresh, files = book.take(batch)
                is_kept = pc.equal(fresh.column("status"), KEPT)
                for row in fresh.filter(is_kept).to_pylist():
                    places[row["clip_id"]] = (row["uri"], row["source_bytes"], row["source_mtime_ns"])
                new = fresh.filter(pc.invert(is_kept))
                progress.advance(clips=new.num_rows, failed=count_without(new), files=files)
                table.add(new)
    except KeyboardInterrupt:
        pass
    except Exception:
        if not stop.asked:  # Ctrl-C reaches Ray's processes too, and their end may be heard first
            raise
    finally:
        stop.disarm()
        table.flush()
    table.refresh({name: place for name, place in places.items() if None not in place})
    if not stop.asked:
        lost = [crashed_row(clip, settings=line.settings, message=f"{clip.uri}: {LOST}") for clip in book.lost()]
        table.add(pa.Table.from_pylist([row | dict(line.columns) for row in lost], schema=SCHEMA))
        table.flush()
        table.supersede(book.vanished())
    return stop.asked


def _batches(book: Book, pools: Sequence["Pool"]) -> Generator[pa.Table]:
    """Everything once; then what was lost with a worker (its neighbours in a batch are lost too) once more, alone."""
    from jobs import ray_executor

    yield from ray_executor.stream(list(book.work.values()), pools)
    if again := book.unfinished():
        yield from ray_executor.stream(again, pools, is_second_try=True)
