"""The stages on Ray Data, streaming with backpressure, here or on a cluster."""

import faulthandler
import gc
import io
import itertools
import math
import os
import pickle
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import pyarrow as pa

from jobs import _compat
from jobs.guarded import ChildLostError, GuardedStage, in_child
from jobs.ray_session import ray_session
from jobs.resume import Work
from jobs.stages import Item, Result, Stage
from jobs.waiting import LossWatch, say_on_stderr, wait_for_process, wait_for_room
from vqa.console import WAIT_SECONDS
from vqa.errors import ModelError, VqaError

if TYPE_CHECKING:
    from ray.data import Dataset

# Each task of Ray takes the driver 30 ms or more. Where clips are finished faster than it could hand them out one by
# one, several travel together; at more tasks a second than it can start they would never become more.
TASKS_PER_SECOND = 10  # so many files as are finished in a second make so many tasks
TASK_FILES = 64  # in a task at most
SPAN_SECONDS = 2.0  # over which files are counted: from the start, where a start is slow, a rate would lag for minutes
# What waits was cut at the rate of the past. A core has so many tasks on their way to it; more come one by one, as fast
# as tasks are meant to come.
TASKS_PER_CORE = 32
PACKET_SECONDS = 0.1  # what is made within leaves a worker together
POLL_SECONDS = 0.05  # how soon work that is planned reaches Ray
# A clip is tried twice: with its neighbours in a batch, then, where their worker died, alone (as a GuardedStage does
# where the model's process died). Each such end costs a worker that must load its model anew, so Ray itself retries
# nothing; the ledger knows what did not come back.
TASK_RETRIES = 0


class RayExecutor:
    """A pool of workers per stage that grows from its least while there is room."""

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        address: str | None = None,
        wait_seconds: float = WAIT_SECONDS,
        say: Callable[[str], None] = say_on_stderr,
        store_mb: int | None = None,
        stall_seconds: float | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            stages: What each worker runs.
            address: As of `ray_session`.
            wait_seconds: How long to wait for room on the cluster, and for a first result where workers are lost.
            say: Prints what is waited for.
            store_mb: Views that wait in Ray's object stores at most; None: by Ray.
            stall_seconds: After which a worker that has made nothing more is ended, as if it had died; None: never.
        """
        self._stages, self._stall_seconds = stages, stall_seconds
        self._wait_seconds, self._say, self._store_mb = wait_seconds, say, store_mb
        self._session = ray_session(address)
        self._cluster: Mapping[str, float] = {}

    def __enter__(self) -> Self:
        """Connect. Raises VqaError where Ray cannot be had."""
        self._cluster = self._session.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect, and end a Ray of our own."""
        self._session.__exit__(kind, error, trace)

    def stream(self, work: Iterable[Work], *, alone: bool = False) -> Generator[list[Result]]:
        """Results in the order they are finished.

        Work lost with a worker for good yields nothing; the caller counts. With `alone` each clip travels and is
        processed by itself, so that what kills its worker takes nothing else along. Raises ModelError where a worker
        cannot start, VqaError where none has room or none lives.
        """
        try:
            yield from self._stream(work, alone=alone)
        finally:
            # Ray Data leaves the handle of a worker that died over its last try in a cycle of references. Until that is
            # collected, Ray keeps the worker's replacement, and its CPUs, from whoever waits for them, such as a second
            # try or a group of Ray Train; a process that only waits allocates nothing, and so collects nothing.
            gc.collect()

    def workers(self) -> dict[str, int]:
        """Actors that live now, of the first stage and of the others."""
        first, *rest = (_compat.alive_actors(type(stage).__name__) for stage in self._stages)
        return {"decoding": first, "scoring": sum(rest)}

    def waiting(self) -> dict[str, int]:
        """Nothing: Ray's own metric `ray_data_operator_queued_blocks` has the queues."""
        return {}

    def _cores(self) -> float:
        """Those of the cluster now, which may grow."""
        import ray

        with suppress(Exception):  # a cluster that is gone is told of elsewhere
            self._cluster = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return self._cluster.get("CPU", 1.0)

    def _stream(self, work: Iterable[Work], *, alone: bool) -> Generator[list[Result]]:
        import ray.exceptions
        from ray.data import ActorPoolStrategy, DataContext, ExecutionResources
        from ray.util.annotations import RayDeprecationWarning

        # ray_remote_args_fn: nothing else limits retries
        warnings.filterwarnings("ignore", category=RayDeprecationWarning)
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.target_min_block_size = 0
        context.target_max_block_size = 1  # each row, a packet of items, leaves a worker as soon as it is made
        # A task that failed for good costs its clips (they get rows that say so), not the job.
        context.max_errored_blocks = -1
        # A worker killed while it loads is replaced; one that cannot load is given up.
        context.max_consecutive_actor_init_deaths = 2
        # Work that waits inside a worker loses one of its tries too when that worker dies.
        in_flight = 1 if alone else None
        shares = [stage.resources(self._cluster) for stage in self._stages]
        wait_for_room(shares, wait_seconds=self._wait_seconds, say=self._say)
        wait_for_process(wait_seconds=self._wait_seconds, say=self._say)
        if self._store_mb:
            context.execution_options.resource_limits = ExecutionResources.for_limits(
                object_store_memory=self._store_mb * 2**20
            )
        feed = _Feed(work, most=1 if alone else TASK_FILES, cores=self._cores)
        results = feed.dataset()
        for stage, share in zip(self._stages, shares, strict=True):
            results = results.map_batches(
                _worker_of(stage),
                fn_constructor_args=[stage, self._stall_seconds, 0.0 if alone else PACKET_SECONDS],
                batch_size=1 if alone and stage.batch_size else stage.batch_size,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(
                    min_size=share.least, max_size=share.workers, max_tasks_in_flight_per_actor=in_flight
                ),
                num_cpus=share.cpus,
                num_gpus=share.gpus or None,
                resources=dict(share.custom) or None,
                accelerator_type=share.accelerator_type,
                ray_remote_args_fn=_restarts,
            )
        try:
            with LossWatch(wait_seconds=self._wait_seconds, say=self._say) as watch:
                with watch.pulling():  # Ray waits here for the first workers
                    batches = iter(results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
                while True:
                    with watch.pulling():
                        batch = next(batches, None)
                    if batch is None:
                        break
                    items = _items(batch)
                    for item in items:
                        if isinstance(item, VqaError):
                            raise item
                    feed.finished(len(items))
                    yield items
            if feed.fault:
                raise feed.fault
        except ray.exceptions.RayError as error:  # tasks that fail are forgiven above, so a worker cannot start
            last = str(error).strip().splitlines()[-1]
            raise ModelError(f"no worker could start: {last} (Ray's logs: {_compat.log_folder()})") from error
        finally:
            feed.stop()


def _restarts() -> dict[str, int]:
    return {"max_restarts": -1, "max_task_retries": TASK_RETRIES}


# --- between processes: one column of pickled packets -----------------------------------------------------------------


class StageWorker:
    """A stage in an actor of Ray.

    An error of its `setup` is its one result: Ray would only pass on the text.
    """

    def __init__(self, stage: Stage, stall_seconds: float | None = None, packet_seconds: float = 0.0) -> None:
        """Set the stage up; what it makes within `packet_seconds` travels together."""
        self._stage = in_child(stage, stall_seconds)
        self._packet_seconds = packet_seconds
        self._stall_seconds = None if isinstance(self._stage, GuardedStage) else stall_seconds
        self._fault: VqaError | None = None
        try:
            self._stage.setup()
        except ChildLostError:  # a worker that dies is replaced, a few times in a row
            os._exit(1)
        except VqaError as error:
            self._fault = error.with_traceback(None)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """A batch of packets to packets of results."""
        if self._fault is not None:
            yield _table([self._fault])
            return
        items = _items(batch)
        try:
            given = [item for item in items if not isinstance(item, VqaError)]
            if size := self._stage.batch_size:  # a batch of packets may hold more
                for at in range(0, len(given), size):
                    yield _table(list(self._timed(self._stage.process(given[at : at + size]))))
            else:
                yield from map(_table, _packets_of(self._timed(self._stage.process(given)), self._packet_seconds))
        except ModelError:
            # This process can give no more. Ray starts another and retries only where a process dies.
            os._exit(1)
        except VqaError as error:  # the machine's fault, not a clip's
            yield _table([error.with_traceback(None)])
        if faults := [item for item in items if isinstance(item, VqaError)]:
            yield _table(faults)

    def _timed(self, made: Iterator[Item]) -> Iterator[Item]:
        """The same; ends this process where an item stalls, even one that holds the GIL."""
        while True:
            if self._stall_seconds is not None:
                faulthandler.dump_traceback_later(self._stall_seconds, file=2, exit=True)  # needs no Python to run
            try:
                one = next(made)
            except StopIteration:
                return
            finally:
                faulthandler.cancel_dump_traceback_later()
            yield one


def _packets_of(made: Iterable[Item], seconds: float) -> Iterator[list[Item]]:
    """Packets of what is made within `seconds`.

    Ray takes some 20 of them a second from a worker.
    """
    packet: list[Item] = []
    began = time.monotonic()
    for one in made:
        packet.append(one)
        if time.monotonic() - began >= seconds:
            yield packet
            packet, began = [], time.monotonic()
    if packet:
        yield packet


def _worker_of(stage: Stage) -> type[StageWorker]:
    """A StageWorker under the stage's name, which Ray shows and gives its processes."""
    return type(type(stage).__name__, (StageWorker,), {"__module__": type(stage).__module__})


def _table(items: Sequence[object]) -> pa.Table:
    """One row: a packet of items."""
    return pa.table({"packet": pa.array([pickle.dumps(items, protocol=5)], pa.large_binary())})


def _items(table: pa.Table) -> list[Item]:
    packets = (pickle.loads(blob.as_buffer()) for blob in table.column("packet"))  # noqa: S301 (our own bytes)
    return list(itertools.chain.from_iterable(packets))


# --- from the driver to Ray Data, which reads a list of any length as it grows --------------------------------------


class _Feed:
    """Packets of work that a thread appends to a file and a local Ray task follows.

    Whatever is read again, after a fault, is the same.
    """

    def __init__(self, work: Iterable[Work], *, most: int, cores: Callable[[], float]) -> None:
        """Start the thread; `most`: files in a packet; `cores`: those of the cluster now."""
        self.fault: VqaError | None = None
        self._cores, self._done = cores, 0
        self._last = time.monotonic()  # when results were last counted
        self._open: deque[int] = deque()  # files written up to the end of each packet that is not known to be done
        self._marks: list[tuple[float, int]] = []  # when so many were finished: before and after the last SPAN_SECONDS
        self._folder = tempfile.TemporaryDirectory(prefix="vqa-feed-", ignore_cleanup_errors=True)
        self._path = Path(self._folder.name) / "work"
        self._path.touch()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._write, args=(work, most), daemon=True)
        self._thread.start()

    def _write(self, work: Iterable[Work], most: int) -> None:
        items, written = iter(work), 0
        with self._path.open("ab", buffering=0) as file:
            try:
                while not self._is_over.is_set():
                    packet = list(itertools.islice(items, self._size(most)))
                    if not packet:
                        break
                    _append(file, pickle.dumps(packet, protocol=5))
                    written += len(packet)
                    self._open.append(written)
                    self._wait_for_room()
            except VqaError as error:
                self.fault = error
            except Exception as error:  # a list that cannot be read on must not pass for one that has ended
                self.fault = VqaError(f"listing the clips failed: {type(error).__name__}: {error}")
            finally:
                _append(file, b"")

    def _wait_for_room(self) -> None:
        """Wait until few packets are open, at most for the time that one may take.

        Work that is lost with its worker is never known to be done.
        """
        until, room = time.monotonic() + 1 / TASKS_PER_SECOND, 0.0
        while not self._is_over.is_set():
            while self._open and self._open[0] <= self._done:
                self._open.popleft()
            if len(self._open) < (room := room or TASKS_PER_CORE * self._cores()) or time.monotonic() >= until:
                return
            self._is_over.wait(POLL_SECONDS / 5)

    def finished(self, results: int) -> None:
        """Count results, by whose rate packets grow."""
        if not self._marks or self._last - self._marks[-1][0] >= SPAN_SECONDS:
            self._marks = [*self._marks[-1:], (self._last, self._done)]
        self._done, self._last = self._done + results, time.monotonic()

    def _size(self, most: int) -> int:
        since, before = self._marks[0] if self._marks else (math.inf, 0)
        per_second = (self._done - before) / max(1.0, time.monotonic() - since)
        return max(1, min(most, math.ceil(per_second / TASKS_PER_SECOND)))

    def dataset(self) -> "Dataset":
        """The packets, a block each."""
        import ray
        from ray.data import read_datasource
        from ray.data.block import BlockMetadata
        from ray.data.datasource import Datasource, ReadTask
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        facts = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        task = ReadTask(partial(_packets, str(self._path)), facts)

        class Packets(Datasource):
            """One reading task."""

            def get_read_tasks(self, parallelism: int, *_: object, **__: object) -> list[ReadTask]:
                return [task]

            def estimate_inmemory_data_size(self) -> int | None:
                return None

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        where = {"num_cpus": 0, "scheduling_strategy": here}
        packets: Dataset = read_datasource(Packets(), override_num_blocks=1, ray_remote_args=where)  # type: ignore[no-untyped-call]
        return packets

    def stop(self) -> None:
        """End the thread and the reading task, and remove the file."""
        self._is_over.set()
        self._thread.join(10 * POLL_SECONDS)  # at work on a list it ends with the next clip, and nobody waits for it
        self._folder.cleanup()


def _append(file: io.FileIO, data: bytes) -> None:
    file.write(len(data).to_bytes(8, "little") + data)


def _packets(path: str) -> Iterator[pa.Table]:
    """The packets of a file that grows, up to the empty one."""
    with open(path, "rb") as file:  # noqa: PTH123
        while True:
            place = file.tell()
            head = file.read(8)
            size = int.from_bytes(head, "little")
            data = file.read(size)
            if len(head) < 8 or len(data) < size:
                file.seek(place)
                time.sleep(POLL_SECONDS)
            elif not size:
                return
            else:
                yield pa.table({"packet": pa.array([data], pa.large_binary())})
