"""The stages without Ray: clips are decoded ahead of the model, each in a child."""

import copy
import logging
import math
import queue
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Self

from jobs.guarded import in_child
from jobs.resume import Work
from jobs.stages import Item, Result, Stage
from vqa import machine
from vqa.errors import VqaError

_log = logging.getLogger(__name__)
HOLD_SECONDS = 5.0  # that a sample waits at most for others, where decoding is the slower: together they cost less
POLL_SECONDS = 0.2  # how soon a decoder that waits for room notices that the run has ended


class LocalExecutor:
    """The first stage in threads, the rest in the caller's; both have children."""

    def __init__(self, stages: Sequence[Stage], *, stall_seconds: float | None = None) -> None:
        """Nothing is started yet.

        Args:
            stages: The first makes what the next takes, and so on.
            stall_seconds: A batch that a model in a child takes longer for counts as one that it died over; None:
                it may take any time.
        """
        self._first, *rest = stages
        self._rest = [in_child(stage, stall_seconds) for stage in rest]
        self._are_set_up = False
        self._feed: _Feed | None = None

    def __enter__(self) -> Self:
        """Nothing is started yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the stages of this thread; those of the decoders are closed by their own."""
        for stage in self._rest:
            stage.close()

    def stream(self, work: Iterable[Work], *, alone: bool = False) -> Generator[list[Result]]:
        """Results in the order they are finished, in batches; `alone`: of one clip each.

        What a stage raises costs the batch, which the caller counts. Raises VqaError where a stage cannot be set up, or
        this process can give no more.
        """
        feed = self._feed = _Feed(self._first, work, workers=self._decoders(), room=self._room)
        try:
            if not self._are_set_up:  # while the first clips are decoded
                for stage in self._rest:
                    stage.setup()
                self._are_set_up = True
            for batch in feed.batches(1 if alone else self._room):
                try:
                    for stage in self._rest:
                        batch = list(stage.process(batch))
                except VqaError:
                    raise
                except Exception as error:  # our own fault on one odd clip must cost that clip, not the job
                    _log.warning("a batch failed: %s: %s", type(error).__name__, error)
                    continue
                yield batch
        finally:
            feed.stop()

    def workers(self) -> dict[str, int]:
        """Decoding threads, each with a child; this thread drives the model."""
        return {"decoding": self._decoders(), "scoring": len(self._rest[:1])}

    def waiting(self) -> dict[str, int]:
        """Samples that wait for the model."""
        return {"scoring": self._feed.waiting if self._feed else 0} if self._rest else {}

    @property
    def _room(self) -> int:
        """Samples that wait for the model at most, and go to it together."""
        return next((stage.batch_size for stage in self._rest if stage.batch_size), 1)

    def _decoders(self) -> int:
        """Decoding threads: as set, else all cores. Where the model is slower, they wait."""
        cores = machine.cores()
        return self._first.resources({"CPU": cores}).workers or cores


class _Feed:
    """A bounded queue of what the first stage makes, filled by threads."""

    def __init__(self, stage: Stage, work: Iterable[Work], *, workers: int, room: int) -> None:
        """Start the threads, which end with the process, and their children with them."""
        self._work = iter(work)
        self._lock = threading.Lock()
        self._made: queue.Queue[Item] = queue.Queue(room)
        self._held: list[Item] = []
        self._is_over = threading.Event()
        self._workers = self._at_work = workers
        for _ in range(workers):
            threading.Thread(target=self._drive, args=(copy.copy(stage),), daemon=True).start()

    def _drive(self, stage: Stage) -> None:
        fault: VqaError | None = None
        try:
            stage.setup()
            while not self._is_over.is_set() and (item := self._next()) is not None:
                try:
                    for made in stage.process([item]):
                        self._put(made)
                except VqaError:  # the machine's fault, not the file's
                    raise
                except Exception as error:  # as above: the caller counts what never came
                    _log.warning("%s failed: %s: %s", item.clip.uri, type(error).__name__, error)
        except VqaError as error:
            fault = error
        finally:
            stage.close()
            self._put(_End(fault))

    def _next(self) -> Work | None:
        with self._lock:
            try:
                return next(self._work, None)
            except VqaError:
                raise
            except Exception as error:  # a list that cannot be read on must not pass for one that has ended
                raise VqaError(f"listing the clips failed: {type(error).__name__}: {error}") from error

    def _put(self, made: object) -> None:
        while not self._is_over.is_set():
            try:
                self._made.put(made, timeout=POLL_SECONDS)
                return
            except queue.Full:
                continue

    def batches(self, size: int) -> Iterator[list[Item]]:
        """Batches of 1 to `size`; all but the first wait for more, up to HOLD_SECONDS.

        Near the end, where a thread has found no more work, nothing waits. Raises VqaError where a stage could not be
        set up.
        """
        hold = 0.0
        while self._at_work:
            until = math.inf
            while self._at_work and len(self._held) < size:
                ends = self._at_work < self._workers
                left = None if not self._held else 0.0 if ends else max(0.0, until - time.monotonic())
                try:
                    made = self._made.get(timeout=left)
                except queue.Empty:
                    break
                if not isinstance(made, _End):
                    self._held.append(made)
                    until = min(until, time.monotonic() + hold)
                    continue
                self._at_work -= 1
                if made.fault:
                    raise made.fault
            if self._held:
                batch, self._held = self._held, []
                yield batch
                hold = HOLD_SECONDS

    @property
    def waiting(self) -> int:
        """Items made and not yet given to the model."""
        return self._made.qsize() + len(self._held)

    def stop(self) -> None:
        """Have the threads end after the file that they are at; nobody waits for it."""
        self._is_over.set()


class _End:
    """The last that a thread puts."""

    def __init__(self, fault: VqaError | None) -> None:
        self.fault = fault
