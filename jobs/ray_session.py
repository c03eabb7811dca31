"""Connection to a cluster or to a Ray of our own here; what is wrong, in words."""

import contextlib
import logging
import os
import re
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TypedDict

from jobs import _compat
from jobs.waiting import HeadGoneError
from vqa import machine
from vqa.errors import MachineError, VqaError

FOLDER_BYTES = 39  # longest path of Ray's folder: its sockets lie 64 bytes deeper, with the longest process id
FILE_HANDLES = 128  # with 64 Ray's processes end without a word
ADDRESS_SPACE_BYTES = 16 * 2**30  # Ray's processes and torch reserve far more than they use
THREADS = 400  # of Ray's processes and the workers, on two cores
KNOCK_SECONDS = 10.0
FETCHER_SECONDS = 10.0  # for which the end of a session waits for a block on its way
# What any gRPC server answers with settings of its own (RFC 9113, 3.4): HTTP/2's preface, and empty settings.
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
SETTINGS = 4  # type of a frame, its fourth byte


@contextlib.contextmanager
def ray_session(address: str | None, *, least_cpus: int = 2) -> Iterator[dict[str, float]]:
    """Connect to `address`, $RAY_ADDRESS or a Ray of our own; yield its resources.

    They go by Ray's names ("CPU", "GPU"). Our own Ray ends with this process, however that ends; an existing one is
    left running. An already connected process is taken as it is. Raises VqaError where Ray cannot be had.
    """
    _compat.set_environment()
    import ray

    with contextlib.ExitStack() as session:
        if not ray.is_initialized():
            address = address or os.environ.get("RAY_ADDRESS") or "local"
            if address == "local":
                _check_limits()
                folder = machine.short_folder(FOLDER_BYTES)
                session.enter_context(_compat.private_token())
                _start(_local_options(folder, least_cpus=least_cpus), folder)
                session.push(partial(_clear, folder))
            else:
                _connect(address)
            session.push(_shut_down)
        _compat.silence_worker_logs()
        yield dict(ray.cluster_resources())  # type: ignore[no-untyped-call]


def _clear(folder: Path, kind: type[BaseException] | None, *_: object) -> None:
    """Remove Ray's folder, unless something failed and somebody may read its logs."""
    if kind is None or issubclass(kind, KeyboardInterrupt):
        shutil.rmtree(folder, ignore_errors=True)


def _shut_down(kind: type[BaseException] | None, *_: object) -> None:
    """Disconnect, unless the head is gone.

    Ray would wait for it, and end this process before it can say why.
    """
    import ray

    if kind is None or not issubclass(kind, HeadGoneError):
        _compat.wait_for_fetchers(FETCHER_SECONDS)
        ray.shutdown()


class _Local(TypedDict, total=False):
    """Options of a Ray that is started here."""

    num_cpus: int
    include_dashboard: bool
    _temp_dir: str
    _memory: int
    object_store_memory: int
    object_spilling_directory: str


def _local_options(folder: Path, *, least_cpus: int) -> _Local:
    """Sizes by what this process may use; spill files go to the temporary folder."""
    memory, shared = machine.memory_bytes(), machine.shared_memory_bytes()
    wished = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    is_usable = folder.parent != Path(wished) and os.access(wished, os.W_OK | os.X_OK)
    store = max(_compat.STORE_LEAST_BYTES, int(min(0.3 * memory, 0.95 * shared if shared else 0.3 * memory)))
    return {
        "num_cpus": max(least_cpus, machine.cores()),
        "include_dashboard": False,
        "_temp_dir": str(folder),
        "_memory": max(1, memory - store),
        "object_store_memory": store,
        "object_spilling_directory": str(wished if is_usable else folder),
    }


def _check_limits() -> None:
    """Raise MachineError for limits that make Ray's processes end or wait silently."""
    import psutil

    machine.require_limits(
        "a Ray on this machine",
        [
            (resource.RLIMIT_NOFILE, "open files (ulimit -n)", FILE_HANDLES),
            (resource.RLIMIT_AS, "bytes of address space (ulimit -v)", ADDRESS_SPACE_BYTES),
        ],
    )
    limit, user = resource.getrlimit(resource.RLIMIT_NPROC)[0], os.getuid()
    if user and limit != resource.RLIM_INFINITY and limit < 100 * THREADS:  # root has no limit
        owned = [one.info for one in psutil.process_iter(["uids", "num_threads"]) if one.info["uids"]]
        used = sum(one["num_threads"] or 0 for one in owned if one["uids"].real == user)
        if limit - used < THREADS:
            raise MachineError(
                f"a Ray on this machine needs {THREADS} threads, this account may have {limit} (ulimit -u) and has "
                f"{used}. Raise the limit, or give --engine local."
            )


def _start(options: _Local, folder: Path) -> None:
    """Start a Ray, in up to three tries: its parts wait only 15 s for each other."""
    import psutil
    import ray

    ours = set(psutil.Process().children(recursive=True))
    for is_last in (False, False, True):
        try:
            with _silent_stderr(), _compat.few_processes():
                ray.init(address="local", log_to_driver=False, logging_level=logging.FATAL, **options)
            return
        except Exception as error:  # Ray raises plain Exception, ConnectionError, RuntimeError, ValueError
            ray.shutdown()
            for process in psutil.Process().children(recursive=True):
                if process not in ours:  # a start that failed half-way leaves its first half running
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
            if what := machine.shortage(error):
                raise MachineError(f"Ray cannot be started on this machine: {what}") from error
            if is_last or isinstance(error, OSError | ValueError):
                raise VqaError(f"Ray cannot be started on this machine ({_line(error)}). {_way_out(error)}") from error
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)


def _way_out(error: Exception) -> str:
    if isinstance(error, PermissionError | FileNotFoundError):
        return "Set TMPDIR to a folder that this account can write, or give --engine local."
    if "timed out" in str(error) or "imeout" in str(error):
        return "Try again when the machine is less busy, or give --engine local."
    return "Give --engine local, or the address of a Ray that runs."


def _connect(address: str) -> None:
    """Connect to a Ray that runs. Raises VqaError where none answers."""
    import ray

    token = _compat.token_file()
    if host := re.fullmatch(r"([^/]+):(\d+)", address):
        name = host[1].strip("[]")
        _knock(name, int(host[2]))
        # `ray start` on this machine asks for the account's token if there was one. A driver that sends it asks its
        # workers for it, so it must not be sent to a head that does not ask.
        with _silent_stderr():
            is_asked = bool(token) and _is_here(name) and _compat.asks_for_token(address)
        if is_asked:
            _compat.send_token()
    try:
        with _silent_stderr():
            ray.init(address=address, log_to_driver=False, logging_level=logging.FATAL)
    except Exception as error:  # as above
        ray.shutdown()
        if what := machine.shortage(error):
            raise MachineError(f"Ray at {address!r} cannot be reached: {what}") from error
        hint = f"; where its head asks for the token of {token}, set RAY_AUTH_MODE=token" if token else ""
        raise VqaError(f"Ray at {address!r} cannot be reached ({_line(error)}). Check the address{hint}.") from error


def _knock(host: str, port: int) -> None:
    """Raise VqaError where no gRPC server listens; Ray would try over ten minutes."""
    where = f"Ray at '{host}:{port}' cannot be reached"
    try:
        with socket.create_connection((host, port), timeout=KNOCK_SECONDS) as line:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                return
            line.sendall(HELLO)
            answer = b""
            while len(answer) < 4 and (more := line.recv(64)):
                answer += more
    except TimeoutError as error:
        raise VqaError(
            f"{where}: it did not answer within {KNOCK_SECONDS:g} s. Check the address, and whether Ray listens there."
        ) from error
    except OSError as error:
        raise VqaError(f"{where} ({_line(error)}). Check the address.") from error
    if len(answer) < 4 or answer[3] != SETTINGS:
        raise VqaError(
            f"{where}: something else than Ray listens there, which answers {answer[:16]!r}. Give the address that "
            "`ray start` names (port 6379 unless told otherwise)."
        )


def _is_here(host: str) -> bool:
    """Whether a host is this machine."""
    import psutil

    own = {one.address.partition("%")[0] for device in psutil.net_if_addrs().values() for one in device}
    with contextlib.suppress(OSError):
        return all(str(found[4][0]) in own for found in socket.getaddrinfo(host, None))
    return False


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep Ray's C++ output off stderr while it starts; faults come as exceptions."""
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
