"""The stages on Ray Data: streaming, with backpressure, on this machine or a cluster."""

import gc
import os
import pickle
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

import pyarrow as pa

from jobs import _compat
from jobs.ray_session import ray_session
from jobs.resume import Work
from jobs.stages import Item, Result, Stage
from jobs.waiting import LossWatch, say_on_stderr, wait_for_process, wait_for_room
from vqa.console import WAIT_SECONDS
from vqa.errors import ModelError, VqaError

BLOCK_BYTES = 2**20  # about one clip's views: rows leave a worker as soon as they are made
BLOCKS_AT_MOST = 20_000  # in a job of millions a task takes several files, so that the driver can keep the list
TASK_RETRIES = 3  # a worker that dies is replaced and its clips retried this often; then they become `crashed`


class RayExecutor:
    """A pool of workers per stage; each starts with one worker and grows while the cluster has room."""

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        address: str | None = None,
        wait_seconds: float = WAIT_SECONDS,
        say: Callable[[str], None] = say_on_stderr,
    ) -> None:
        """Nothing is started yet.

        Args:
            stages: What each worker runs.
            address: As of `ray_session`.
            wait_seconds: How long to wait for room on the cluster, and for a first result where workers are lost.
            say: Prints what is waited for.
        """
        self._stages = stages
        self._wait_seconds, self._say = wait_seconds, say
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

    def stream(self, work: Sequence[Work], *, alone: bool = False) -> Generator[list[Result]]:
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

    def _stream(self, work: Sequence[Work], *, alone: bool) -> Generator[list[Result]]:
        import ray.data
        import ray.exceptions
        from ray.data import ActorPoolStrategy, DataContext
        from ray.util.annotations import RayDeprecationWarning

        # ray_remote_args_fn: nothing else limits retries
        warnings.filterwarnings("ignore", category=RayDeprecationWarning)
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.target_min_block_size = 0
        context.target_max_block_size = 1 if alone else BLOCK_BYTES
        # A task that failed for good costs its clips (they get rows that say so), not the job.
        context.max_errored_blocks = -1
        # A worker killed while it loads is replaced; one that cannot load is given up.
        context.max_consecutive_actor_init_deaths = 2
        # Work that waits inside a worker loses one of its tries too when that worker dies.
        in_flight = 1 if alone else None
        shares = [stage.resources(self._cluster) for stage in self._stages]
        wait_for_room(shares, wait_seconds=self._wait_seconds, say=self._say)
        wait_for_process(wait_seconds=self._wait_seconds, say=self._say)
        results: ray.data.Dataset = ray.data.from_arrow(list(_blocks(work)))
        for stage, share in zip(self._stages, shares, strict=True):
            results = results.map_batches(
                _worker_of(stage),
                fn_constructor_args=[stage],
                batch_size=1 if alone and stage.batch_size else stage.batch_size,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(min_size=1, max_size=share.workers, max_tasks_in_flight_per_actor=in_flight),
                num_cpus=share.cpus,
                num_gpus=share.gpus or None,
                ray_remote_args_fn=_restarts,
            )
        try:
            watch = LossWatch(wait_seconds=self._wait_seconds, say=self._say)
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
                yield items
        except ray.exceptions.RayError as error:  # tasks that fail are forgiven above, so a worker cannot start
            last = str(error).strip().splitlines()[-1]
            raise ModelError(f"no worker could start: {last} (Ray's logs: {_compat.log_folder()})") from error


def _restarts() -> dict[str, int]:
    return {"max_restarts": -1, "max_task_retries": TASK_RETRIES}


# --- between processes: one column of pickled items -----------------------------------------------------------------


class StageWorker:
    """A stage in an actor of Ray. An error of its `setup` is its one result: Ray would only pass on the text."""

    def __init__(self, stage: Stage) -> None:
        """Set the stage up."""
        self._stage = stage
        self._fault: VqaError | None = None
        try:
            stage.setup()
        except VqaError as error:
            self._fault = error.with_traceback(None)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """A batch of items to a batch per result."""
        if self._fault is not None:
            yield _table([self._fault])
            return
        items = _items(batch)
        try:
            for made in self._stage.process([item for item in items if not isinstance(item, VqaError)]):
                yield _table([made])
        except ModelError:
            # This process can give no more. Ray starts another and retries only where a process dies.
            os._exit(1)
        except VqaError as error:  # the machine's fault, not a clip's
            yield _table([error.with_traceback(None)])
        if faults := [item for item in items if isinstance(item, VqaError)]:
            yield _table(faults)


def _worker_of(stage: Stage) -> type[StageWorker]:
    """A StageWorker under the name of the stage, which is what Ray shows and calls its processes."""
    return type(type(stage).__name__, (StageWorker,), {"__module__": type(stage).__module__})


def _blocks(work: Sequence[Work]) -> Iterator[pa.Table]:
    size = -(-len(work) // BLOCKS_AT_MOST)
    for start in range(0, len(work), size):
        yield _table(work[start : start + size])


def _table(items: Sequence[object]) -> pa.Table:
    return pa.table({"item": pa.array([pickle.dumps(item, protocol=5) for item in items], pa.large_binary())})


def _items(table: pa.Table) -> list[Item]:
    return [pickle.loads(blob.as_buffer()) for blob in table.column("item")]  # noqa: S301 (our own bytes)
