"""The stages on Ray Data: streaming, with backpressure, here or on a cluster. With jobs/train.py the only
file that imports Ray."""

import contextlib
import logging
import os
import re
import shutil
import socket
import sys
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported; the user's own word counts
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its C++ parts write to our stderr otherwise
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import psutil
import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext
from ray.util.annotations import RayDeprecationWarning

from jobs.resume import Work
from jobs.stages import WORK_SCHEMA
from vqa.errors import ModelError, VqaError

BLOCK_BYTES = 2**20  # about one clip's views: rows leave a worker as soon as they are made
BLOCKS_AT_MOST = 20_000  # in a job of millions a task takes several files, so that the driver can keep the list
TASK_RETRIES = 3  # a worker that dies is replaced and its clips tried again this often; then they become `crashed`


@contextlib.contextmanager
def ray_session(address: str | None, *, least_cpus: int = 2) -> Iterator[dict[str, float]]:
    """Ray's resources ("CPU", "GPU") while connected: to `address` or $RAY_ADDRESS, else to a Ray of our own, here.

    Our own ends with this process, however that ends; an existing one is left running. An already connected process
    is taken as it is.
    """
    ours = not ray.is_initialized()
    local: dict[str, Any] = {}
    if ours:
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        if address == "local":
            local = {"num_cpus": max(least_cpus, len(os.sched_getaffinity(0))), "include_dashboard": False}
        _connect(address, local)
    _quieten()
    logs = Path(log_folder())
    try:
        yield dict(ray.cluster_resources())  # type: ignore[no-untyped-call]
    finally:
        if ours:
            ray.shutdown()
    if ours and local:  # all went well: nobody will look for the logs, and each run would leave some in /tmp/ray
        shutil.rmtree(logs.parent, ignore_errors=True)


def _connect(address: str, local: Mapping[str, Any]) -> None:
    """Raises VqaError where Ray cannot be had. One of our own gets three chances: its parts wait 15 seconds for each
    other, which a machine that is very busy cannot always keep."""
    tries = 3 if local else 1
    ours = set(psutil.Process().children(recursive=True))
    for number in range(1, tries + 1):
        try:
            # Ray itself would knock at a closed door for more than ten minutes.
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
                raise VqaError(f"Ray at {address!r} is not to be had ({what}); {way_out}") from error


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Ray's C++ parts announce themselves on our stderr while they start; what goes wrong comes as an exception."""
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


def _quieten() -> None:
    """Ray's reports of workers lost and tasks tried again go to its log files only; ours is the one progress line."""
    ray._private.worker._worker_logs_enabled = False  # log_to_driver=False leaves raylet messages on; contract-tested
    for handler in logging.getLogger("ray.data").handlers:
        if not isinstance(handler, logging.FileHandler) and "File" not in type(handler).__name__:
            handler.setLevel(logging.CRITICAL)


def log_folder() -> str:
    """Where Ray keeps this session's logs."""
    node = ray._private.worker._global_node if ray.is_initialized() else None
    return f"{node.get_session_dir_path()}/logs" if node else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The workers of one stage; a pool starts with one and grows to `workers` while the cluster has room."""

    stage: type
    arguments: Mapping[str, Any]  # of its constructor
    workers: int | None
    batch_size: int | None = None  # None: whatever comes at once
    cpus: float = 1.0
    gpus: float = 0.0


def stream(work: Sequence[Work], pools: Sequence[Pool], *, is_second_try: bool = False) -> Generator[pa.Table]:
    """Rows (and `kept` markers) in the order they are finished, as tables of the last stage.

    Work lost with a worker for good yields no row; the caller counts. Raises ModelError where a worker cannot start.
    In a second try each sample travels and is worked on alone, so that what kills its worker takes nothing else along.
    """
    warnings.filterwarnings("ignore", category=RayDeprecationWarning)  # ray_remote_args_fn: nothing else limits retries
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_min_block_size = 0
    context.target_max_block_size = 1 if is_second_try else BLOCK_BYTES
    # A task that failed for good costs its clips (they get rows that say so), not the job.
    context.max_errored_blocks = -1
    # A worker killed while it loads is replaced; a model that cannot be loaded is given up.
    context.max_consecutive_actor_init_deaths = 2
    # Work that waits inside a worker loses one of its tries too when that worker dies.
    in_flight = 1 if is_second_try else None
    rows: ray.data.Dataset = ray.data.from_arrow(list(_blocks(work)))
    for pool in pools:
        rows = rows.map_batches(
            pool.stage,
            fn_constructor_kwargs=dict(pool.arguments),
            batch_size=1 if is_second_try and pool.batch_size else pool.batch_size,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(min_size=1, max_size=pool.workers, max_tasks_in_flight_per_actor=in_flight),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus or None,
            ray_remote_args_fn=_restarts,
        )
    try:
        yield from rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    except ray.exceptions.RayError as error:  # tasks that fail are forgiven above, so it is a worker that cannot start
        last = str(error).strip().splitlines()[-1]
        reason = last.partition(": ")[2] if last.startswith("vqa.errors.") else f"{last} (Ray's logs: {log_folder()})"
        raise ModelError(f"no worker could start: {reason}") from error


def _restarts() -> dict[str, Any]:
    return {"max_restarts": -1, "max_task_retries": TASK_RETRIES}


def _blocks(work: Sequence[Work]) -> Iterator[pa.Table]:
    size = -(-len(work) // BLOCKS_AT_MOST)
    for start in range(0, len(work), size):
        items = [asdict(item.clip) | {"finished": list(item.finished)} for item in work[start : start + size]]
        yield pa.Table.from_pylist(items, schema=WORK_SCHEMA)
