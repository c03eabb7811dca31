"""Function calls in a child process under a deadline and limits on resources.

A hang, a crash or a memory hog in native code costs one call. `pebble` keeps the pool of one warm child and its
deadline. This module decides how the child ends, `forked` how it starts:

- It is forked from a small server process that has the decoders loaded and nothing else. A fresh child takes
  milliseconds, inherits no threads, locks or CUDA state of its parent, and never imports the user's script, so that
  scripts need no `if __name__ == "__main__"` and Ray workers pay for no second Ray.
- It dies with its parent: the server ends when the parent's end of a pipe closes, and the kernel kills the child with
  the server.
- It ignores Ctrl-C (the parent stops it), dies at once on SIGTERM, and leaves no core files.
"""

import ctypes
import errno
import itertools
import math
import os
import pickle
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import forkserver
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, ParamSpec, Self, TypeVar

from pebble import ProcessExpired, ProcessPool

from vqa import machine
from vqa.errors import ClipError, MachineError
from vqa.media import forked
from vqa.media.storage import hosts
from vqa.types import Clip

P = ParamSpec("P")
T = TypeVar("T")

_START_SECONDS = 60.0  # allowance for a child to start on a machine that is swamped
_LOOK_SECONDS = 1.0  # between two looks whether the pool still works
_PR_SET_PDEATHSIG = 1


class Limits(NamedTuple):
    """What one call may use on top of the idle child. None: no limit."""

    memory_bytes: int | None
    cpu_seconds: int | None
    open_files: int | None


class Guard:
    """Warm child process for calls that may hang, crash or eat memory, one at a time."""

    def __init__(
        self,
        *,
        deadline_seconds: float,
        memory_bytes: int | None,
        cpu_seconds: int | None = None,
        open_files: int | None = None,
        preload: Sequence[str] = (),
        tries: int = 2,
        server: str = "",
    ) -> None:
        """Set the limits of every call; the child starts with the first call.

        Args:
            deadline_seconds: wall-clock time per call, above 0, counted from when the child takes the call.
            memory_bytes: private memory on top of the idle child, above 0 (Linux); None: no limit.
            cpu_seconds: processor time of all threads of a call together, above 0; None: no limit.
            open_files: files open at once on top of the idle child's, above 0; None: no limit.
            preload: modules that a child imports before its first call.
            tries: how often a call is begun whose child dies; once could be another process's doing.
            server: name of the fork server; guards of one name share it, with the first one's `preload` loaded.

        Raises:
            ValueError: a limit is 0 or negative.
        """
        allowed = {"deadline_seconds": deadline_seconds, "memory_bytes": memory_bytes}
        allowed |= {"cpu_seconds": cpu_seconds, "open_files": open_files}
        for name, limit in allowed.items():
            if limit is not None and not limit > 0:
                raise ValueError(f"Guard: {name} is {limit}. Give a number above 0.")
        self.deadline_seconds = deadline_seconds
        self.limits = Limits(memory_bytes, cpu_seconds, open_files)
        self._preload, self._tries, self._server = tuple(preload), tries, server
        self._pool: ProcessPool | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the child now rather than at the first call. Raises ClipError as `run`."""
        self.run(os.getpid)

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function(*args, **kwargs)` in the child.

        Args:
            function: must live in a module that the child can import, not in `__main__`. It is pickled, as are the
                arguments and the result.
            args: positional arguments; the first Clip or string among them names the call in messages.
            kwargs: keyword arguments.

        Returns:
            What the function returns.

        Raises:
            ClipError: "timeout" when the deadline passes or the processor time is used up, "too_large" when memory
                runs out or too many files are open, "crashed" when the child dies each time that the call is tried.
            MachineError: this machine or account cannot start the child, whatever the clip.
            BaseException: whatever the function raises.
        """
        call = pickle.dumps((function, args, kwargs), protocol=5)
        subject = next(
            (a.uri if isinstance(a, Clip) else a for a in args if isinstance(a, Clip | str)), function.__name__
        )
        with self._lock:
            try:
                tries = (self._attempt(call, subject) for _ in range(self._tries))
                outcome = next((made for made in tries if made is not None), None)
            except BaseException:  # also Ctrl-C: the child may still be busy with this call, so it cannot take another
                self._drop()
                raise
        if outcome is None:
            raise ClipError(
                "crashed", f"{subject}: the decoder's process died twice over it. Convert the file or leave it out."
            )
        value, error = pickle.loads(outcome)  # noqa: S301 (bytes made by our own child)
        if isinstance(error, MemoryError):
            limit = f"of {self.limits.memory_bytes} bytes" if self.limits.memory_bytes else "of the machine"
            space = resource.getrlimit(resource.RLIMIT_AS)[0]
            mapped = "" if space == resource.RLIM_INFINITY else f", or than the {space} bytes of ulimit -v"
            message = f"{subject}: needs more than the memory {limit}{mapped}. Raise the limit or scale the clip down."
            raise ClipError("too_large", message) from error
        if isinstance(error, OSError) and error.errno == errno.EMFILE:
            highest = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            if self.limits.open_files is None or 0 <= highest < self.limits.open_files:
                raise MachineError(f"decoding has to stop: {machine.shortage(error)}") from error
            message = f"{subject}: needs more than {self.limits.open_files} open files. Raise limits.open_files."
            raise ClipError("too_large", message) from error
        if isinstance(error, RuntimeError) and "start new thread" in str(error) and not machine.can_start_thread():
            raise MachineError(f"decoding has to stop: {machine.shortage(error)}") from error
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the child; a later call starts a new one."""
        with self._lock:
            self._drop()

    def __enter__(self) -> Self:
        """Return the guard; the child starts with the first call."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the child."""
        self.close()

    def _attempt(self, call: bytes, subject: str) -> bytes | None:
        """Pickled outcome, or None if the child died; ClipError at the deadline."""
        if self._pool is not None and not self._pool.active:
            self._drop()  # the idle child was killed from outside: not this call's fault
        if self._pool is None:
            forked.server_of(self._server, self._preload)
            self._pool = ProcessPool(
                max_workers=1,
                initializer=_prepare_child,
                initargs=(self._preload, hosts.is_allowed()),
                context=forked.Context(self._server),
            )
        try:
            future = self._pool.schedule(_answer, args=(call, self.limits), timeout=self.deadline_seconds)
        except (RuntimeError, OSError, MemoryError) as error:
            self._drop()
            if what := machine.shortage(forked.faults.pop(os.getpid(), error)):
                raise MachineError(f"no process for decoding can be started: {what}") from error
            if not isinstance(error, RuntimeError):
                raise
            return None  # pebble: the pool broke since the check above
        if not self._is_answered(future):
            self._drop()
            return None
        try:
            outcome: bytes = future.result()
        except TimeoutError as error:
            self._drop()
            raise ClipError(
                "timeout",
                f"{subject}: not done after {self.deadline_seconds:g} s. Raise the deadline or convert the file.",
            ) from error
        except (ProcessExpired, RuntimeError) as error:  # it died: at work, or before it took the call (broken pool)
            self._drop()
            if what := machine.shortage(forked.faults.pop(os.getpid(), error)):
                raise MachineError(f"no process for decoding can be started: {what}") from error
            if isinstance(error, ProcessExpired) and error.exitcode == -signal.SIGXCPU:
                raise ClipError(
                    "timeout",
                    f"{subject}: not done after {self.limits.cpu_seconds} s of processor time. Raise this limit or "
                    "convert the file.",
                ) from error
            return None
        return outcome

    def _is_answered(self, future: Future[bytes]) -> bool:
        """Wait for the answer; False where pebble gives none, being stuck or broken."""
        given_up, is_broken = time.monotonic() + self.deadline_seconds + _START_SECONDS, False
        while not (is_done := bool(wait([future], timeout=_LOOK_SECONDS).done)):
            if is_broken or time.monotonic() >= given_up:
                break
            is_broken = self._pool is None or not self._pool.active  # it still tells why to whom it knows
        return is_done

    def _drop(self) -> None:
        """Kill the child and forget the pool, whose locks and pipes can be in any state."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()  # type: ignore[no-untyped-call]
            ending = threading.Thread(target=pool.join, daemon=True)
            ending.start()
            ending.join(5.0)  # a child in an uninterruptible read cannot even be killed: leave it behind


# --- in the child ---------------------------------------------------------------------------------------------------


def _prepare_child(preload: Sequence[str], allows_private_hosts: bool) -> None:
    os.environ[hosts.ALLOWED] = str(int(allows_private_hosts))  # the server may be older than the setting
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a Python handler would wait for native code to return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The server ends when the last holder of this pipe is gone; this child must not be one.
    alive = forkserver._forkserver._forkserver_alive_fd  # type: ignore[attr-defined]
    if alive is not None:
        os.close(alive)
        forkserver._forkserver._forkserver_alive_fd = None  # type: ignore[attr-defined]
    for name in preload:
        import_module(name)


def _answer(call: bytes, limits: Limits) -> bytes:
    """Run one pickled call under the limits; returns pickled (value, error)."""
    try:
        function, args, kwargs = pickle.loads(call)  # noqa: S301 (bytes made by our own parent)
        with _limited(limits):
            value = function(*args, **kwargs)
        return pickle.dumps((value, None), protocol=5)
    except BaseException as error:  # even SystemExit: whatever it is, it is raised again in the parent
        if not isinstance(error, ClipError):
            error.add_note(f"In the guarded child:\n{traceback.format_exc()}")
        try:
            return pickle.dumps((None, error), protocol=5)
        except Exception:  # an exception that cannot travel: its text does
            return pickle.dumps((None, RuntimeError("".join(traceback.format_exception(error)))), protocol=5)


# --- limits on one call ---------------------------------------------------------------------------------------------


@contextmanager
def _limited(limits: Limits) -> Iterator[None]:
    """Set the kernel's limits for one call, not for the sending of its answer."""
    now: dict[int, int] = {}
    if limits.memory_bytes is not None:
        now[resource.RLIMIT_DATA] = _data_bytes() + limits.memory_bytes
    if limits.cpu_seconds is not None:
        now[resource.RLIMIT_CPU] = math.ceil(time.process_time()) + limits.cpu_seconds
    if limits.open_files is not None:
        now[resource.RLIMIT_NOFILE] = _number_of_free_file(limits.open_files)
    before = {kind: resource.getrlimit(kind) for kind in now}
    try:
        for kind, limit in now.items():
            highest = before[kind][1]
            resource.setrlimit(kind, (limit if highest < 0 else min(limit, highest), highest))
        yield
    finally:
        for kind, limits_before in before.items():
            resource.setrlimit(kind, limits_before)


def _number_of_free_file(count: int) -> int:
    """Limit on file numbers, as the kernel has it, that leaves `count` of them free."""
    listed = list(Path("/dev/fd").iterdir())
    held = {int(path.name) for path in listed if path.exists()}  # without the list's own
    free = (number for number in itertools.count() if number not in held)
    return next(itertools.islice(free, count - 1, None)) + 1


def _data_bytes() -> int:
    """Private writable memory in bytes, as RLIMIT_DATA counts it; 0 without /proc."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:")), 0)
