"""The stages on Ray Data: streaming, with backpressure, on this machine or a cluster."""

import contextlib
import gc
import logging
import os
import pickle
import re
import shutil
import socket
import sys
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict

import pyarrow as pa

from jobs import _compat
from jobs.resume import Work
from jobs.stages import Item, Result, Stage
from vqa.errors import ModelError, VqaError

BLOCK_BYTES = 2**20  # about one clip's views: rows leave a worker as soon as they are made
BLOCKS_AT_MOST = 20_000  # in a job of millions a task takes several files, so that the driver can keep the list
TASK_RETRIES = 3  # a worker that dies is replaced and its clips retried this often; then they become `crashed`


@contextlib.contextmanager
def ray_session(address: str | None, *, least_cpus: int = 2) -> Iterator[dict[str, float]]:
    """Ray's resources ("CPU", "GPU") while connected: to `address` or $RAY_ADDRESS, else to a Ray of our own, here.

    Our own ends with this process, however that ends; an existing one is left running. An already connected process
    is taken as it is.
    """
    _compat.set_environment()
    import ray

    ours = not ray.is_initialized()
    local: _Local = {}
    if ours:
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        if address == "local":
            local = {"num_cpus": max(least_cpus, len(os.sched_getaffinity(0))), "include_dashboard": False}
        _connect(address, local)
    _compat.silence_worker_logs()
    logs = Path(_compat.log_folder())
    try:
        yield dict(ray.cluster_resources())  # type: ignore[no-untyped-call]
    finally:
        if ours:
            ray.shutdown()
    if ours and local:  # all went well: nobody will read the logs, and each run would leave some in /tmp/ray
        shutil.rmtree(logs.parent, ignore_errors=True)


class _Local(TypedDict, total=False):
    """Options of a Ray that is started here."""

    num_cpus: int
    include_dashboard: bool


def _connect(address: str, local: _Local) -> None:
    """Connect or start. Raises VqaError where Ray cannot be had.

    A Ray of our own gets three tries: its parts wait 15 seconds for each other, too little on a very busy machine.
    """
    import psutil
    import ray

    tries = 3 if local else 1
    ours = set(psutil.Process().children(recursive=True))
    for number in range(1, tries + 1):
        try:
            # Ray itself would try a closed port for more than ten minutes.
            if host := re.fullmatch(r"([^/]+):(\d+)", address):
                socket.create_connection((host[1], int(host[2])), timeout=10).close()
            with _silent_stderr():
                ray.init(address=address, log_to_driver=False, logging_level=logging.FATAL, **local)
            return
        except Exception as error:  # Ray raises plain Exception, ConnectionError, RuntimeError, ValueError
            ray.shutdown()
            for process in psutil.Process().children(recursive=True):
                if process not in ours:  # a start that failed half-way leaves its first half running
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
            if number == tries:
                what = " ".join(str(error).split())
                way_out = "try again when the machine is less busy" if local else "check the address"
                raise VqaError(f"Ray at {address!r} cannot be reached or started ({what}); {way_out}") from error


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep what Ray's C++ parts print while they start off our stderr; what goes wrong comes as an exception."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class RayExecutor:
    """A pool of workers per stage; each starts with one worker and grows while the cluster has room."""

    def __init__(self, stages: Sequence[Stage], *, address: str | None = None) -> None:
        """Nothing is started yet; `address` as of `ray_session`."""
        self._stages = stages
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
        cannot start.
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
        results: ray.data.Dataset = ray.data.from_arrow(list(_blocks(work)))
        for stage in self._stages:
            share = stage.resources(self._cluster)
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
            for batch in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
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
