"""The engine of a job, and the loop that takes its work through the stages."""

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

from jobs.ledger import Ledger
from jobs.local_executor import LocalExecutor
from jobs.metrics import JobMetrics
from jobs.progress import JobProgress
from jobs.resume import Work
from jobs.signals import Stop
from jobs.stages import Result, Stage
from vqa.console import WAIT_SECONDS, Engine, printable
from vqa.data.score_table import WITHOUT_SCORE, ScoreRow, ScoreTable
from vqa.data.windows import video_id
from vqa.errors import ModelError, UsageError
from vqa.imports import arrow_without_pandas
from vqa.media.storage.stores import is_away, is_remote

LOCAL_FILES = 64  # up to this many, `auto` takes this process: Ray's start-up would cost more than its workers gain
TOO_MANY_FAILED = 3
OPEN_FILES = 10_000  # handed out and not done, at most: what the driver holds of a job of any size
FIRST_FILES = 1000  # of them before the first is done: how fast they go decides how the next ones travel
STALL_SECONDS = 60.0  # without a result, until more are handed out: clips that are lost stay open to the end
STREAK = 3  # clips in a row that a store did not give at the end of a run: it may be away
STORE_SECONDS = 120.0  # to wait for it
STORE_POLL_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """The options that all jobs over files have, as given."""

    out: Path
    config: Path | None = None
    assignments: tuple[str, ...] = ()
    model: str | None = None
    engine: Engine = Engine.AUTO
    ray_address: str | None = None
    wait: float = WAIT_SECONDS
    fresh: bool = False
    max_failed: str = "5%"
    dry_run: bool = False
    json_summary: bool = False
    log_json: bool = False
    metrics: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureLimit:
    """How many clips may fail: a share or a count."""

    number: float
    is_share: bool
    text: str

    @classmethod
    def parse(cls, text: str) -> "FailureLimit":
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


def choose_engine(options: JobOptions, *, files: int) -> Engine:
    """LOCAL or RAY for so many files. Raises UsageError for an address without use."""
    if options.engine is Engine.LOCAL and options.ray_address:
        raise UsageError(f"--ray-address {options.ray_address}: not used by --engine local; leave one of them out")
    if options.engine is not Engine.AUTO:
        return options.engine
    has_address = bool(options.ray_address or os.environ.get("RAY_ADDRESS"))
    return Engine.RAY if has_address or files > LOCAL_FILES else Engine.LOCAL


class Executor(Protocol):
    """What runs stages."""

    def stream(self, work: Iterable[Work], *, alone: bool = False) -> Generator[list[Result]]:
        """Results of the work, in the order they are finished; lost work yields none."""

    def workers(self) -> dict[str, int]:
        """How many workers each stage has now, by the names of metrics."""

    def waiting(self) -> dict[str, int]:
        """How many items wait for each stage but the first, where the executor knows."""


def run_stages(
    stages: Sequence[Stage],
    ledger: Ledger,
    table: ScoreTable,
    progress: JobProgress,
    *,
    engine: Engine,
    ray_address: str | None = None,
    wait: float = WAIT_SECONDS,
    unread_limit: int | None = None,
    store_mb: int | None = None,
    stall_seconds: float | None = None,
    metrics: JobMetrics | None = None,
    amend: Callable[[ScoreRow], ScoreRow | None] = lambda row: row,
) -> bool:
    """Take the work through the stages into the table; True where interrupted.

    `amend` gives the row that is written in the place of a new one, None for none; `metrics` are kept up to date.

    Raises ModelError where the first `unread_limit` answers all hold no score.
    """
    work = ledger.hand_out()
    if (first := next(work, None)) is None:
        return False
    over = threading.Event()
    work = _bounded(itertools.chain([first], work), ledger, over)
    places: dict[str, tuple[str, int, int]] = {}
    answered = 0
    stop = Stop()
    stop.arm()
    try:
        with contextlib.ExitStack() as session:
            with stop.waiting():
                executor = session.enter_context(
                    _executor(engine, stages, ray_address, wait, progress.say, store_mb, stall_seconds)
                )
            if engine is Engine.RAY and metrics:
                metrics.export_by_ray()
            stop.arm()  # Ray takes SIGTERM for itself when it starts
            session.enter_context(progress)
            batches = session.enter_context(contextlib.closing(_all_batches(executor, ledger, work, progress.say)))
            while True:
                with stop.waiting():
                    batch = next(batches, None)
                if metrics:
                    metrics.state(
                        done=progress.files_done,
                        open_=len(ledger.work),
                        total=progress.files_total,
                        workers=executor.workers,
                        waiting=executor.waiting,
                        is_last=batch is None,
                    )
                if batch is None:
                    break
                new, files = ledger.take(batch)
                rows = [one for one in new if isinstance(one, ScoreRow)]
                for one in new:
                    if (
                        not isinstance(one, ScoreRow)
                        and one.source_bytes is not None
                        and one.source_mtime_ns is not None
                    ):
                        places[one.clip_id] = (one.uri, one.source_bytes, one.source_mtime_ns)
                failed = sum(row.status in WITHOUT_SCORE for row in rows)
                progress.rows(rows)
                if metrics:
                    metrics.rows(rows)
                progress.advance(clips=len(rows), failed=failed, files=files)
                table.add([row for one in rows if (row := amend(one)) is not None])
                if unread_limit is not None:
                    answers = [row for row in rows if row.status in ("ok", "partial", "unparsed")]
                    answered += len(answers)
                    if any(row.status != "unparsed" for row in answers):
                        unread_limit = None  # the model can be read
                    elif answers and answered >= unread_limit:
                        _stop_unread(answered, answers[-1])
    except KeyboardInterrupt:
        pass
    except Exception:
        if not stop.asked:  # Ctrl-C reaches Ray's processes too, and their end may be noticed first
            raise
    finally:
        over.set()
        stop.disarm()
        table.flush()
    table.refresh(places)
    return stop.asked


def _stop_unread(count: int, last: ScoreRow) -> NoReturn:
    raise ModelError(
        f"none of the first {count} answers holds a score, e.g. to {last.clip_id}: {last.error}. Check that the model "
        "is asked as it was trained (its card's prompt) and may write enough (generation.max_new_tokens); "
        "--set job.unread_limit=null scores on. The rows so far are kept."
    )


def _executor(
    engine: Engine,
    stages: Sequence[Stage],
    ray_address: str | None,
    wait: float,
    say: Callable[[str], None],
    store_mb: int | None,
    stall_seconds: float | None,
) -> contextlib.AbstractContextManager[Executor]:
    if engine is Engine.LOCAL:
        arrow_without_pandas()
        return LocalExecutor(stages, stall_seconds=stall_seconds)
    from jobs.ray_executor import RayExecutor

    return RayExecutor(
        stages, address=ray_address, wait_seconds=wait, say=say, store_mb=store_mb, stall_seconds=stall_seconds
    )


def _bounded(work: Iterator[Work], ledger: Ledger, over: threading.Event) -> Iterator[Work]:
    """The work, at most OPEN_FILES of it open; read in the executor's threads."""
    most, lost = FIRST_FILES, 0
    for taken, item in enumerate(work, start=1):
        yield item
        since, still_open = time.monotonic(), len(ledger.work)
        while len(ledger.work) >= most and not over.wait(0.05):
            if len(ledger.work) != still_open:
                since, still_open = time.monotonic(), len(ledger.work)
            elif time.monotonic() - since > STALL_SECONDS:
                lost += OPEN_FILES
            done = taken - len(ledger.work)
            most = min(FIRST_FILES + done, OPEN_FILES) + lost
        if over.is_set():
            return


def _all_batches(
    executor: Executor, ledger: Ledger, work: Iterable[Work], say: Callable[[str], None]
) -> Generator[list[Result]]:
    """Everything once; then again what a store did not give, then what was lost.

    A store may have been away for a while. What was lost with a worker goes one by one, as its neighbours in a batch
    are lost too. After few clips in a row that it did not give, a clip that it did give tells whether it is away.
    """
    later: dict[str, Work] = {}
    streak, given = 0, ""  # of a store's clips that it did not give; the last one that it did
    for batch in executor.stream(work):
        kept = []
        for one in batch:
            if is_remote(one.uri):
                streak, given = (streak + 1, given) if _may_pass(one) else (0, one.uri)
            owner = one.clip_id if one.clip_id in ledger.work else video_id(one.clip_id)
            if _may_pass(one) and owner in ledger.work and len(later) < OPEN_FILES // 2:
                later[owner] = ledger.work[owner]
            else:
                kept.append(one)
        yield kept
    if later:
        _wait_for_store(next(reversed(later.values())).clip.uri if streak >= STREAK else given, say)
        yield from executor.stream(list(later.values()))
    if again := ledger.unfinished():
        yield from executor.stream(again, alone=True)


def _wait_for_store(uri: str, say: Callable[[str], None]) -> None:
    """Wait a while for a store that is away; "" is never away."""
    began = time.monotonic()
    while uri and is_away(uri) and time.monotonic() - began < STORE_SECONDS:
        if time.monotonic() - began < STORE_POLL_SECONDS:
            say(f"waiting up to {STORE_SECONDS:g} s for a store that does not answer: {printable(uri)}")
        time.sleep(STORE_POLL_SECONDS)


def _may_pass(result: Result) -> bool:
    return isinstance(result, ScoreRow) and result.error_kind in ("not_readable", "timeout") and is_remote(result.uri)
