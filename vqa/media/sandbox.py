"""Run a function in a child process that can be killed: a hang, a crash or a memory hog in native code costs one call.

`pebble` keeps the pool of one warm child and its deadline. How the child starts and ends is ours, on three counts:

- It is forked from a small server process (the standard library's fork server) that has the decoders loaded and nothing
  else: a fresh child takes milliseconds, inherits no threads, locks or CUDA state of ours, and never imports the user's
  script, so that scripts need no `if __name__ == "__main__"` and Ray workers pay for no second Ray.
- It dies with us: the server ends when our end of a pipe closes, and the kernel kills the child with the server.
- It ignores Ctrl-C (we stop it), dies at once on SIGTERM, and leaves no core files.
"""

import ctypes
import errno
import io
import os
import pickle
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from multiprocessing import context, forkserver, popen_forkserver, process, reduction, spawn, util
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from pebble import ProcessExpired, ProcessPool

from vqa.errors import ClipError
from vqa.media.limits import Limits, limited
from vqa.types import Clip

P = ParamSpec("P")
T = TypeVar("T")

_START_SECONDS = 60.0  # allowance for a child to start on a machine that is swamped
_PR_SET_PDEATHSIG = 1


class Guard:
    """One warm child process for functions that may hang, crash or eat memory; calls from threads wait in line."""

    def __init__(
        self,
        *,
        deadline_seconds: float,
        memory_bytes: int | None,
        cpu_seconds: int | None = None,
        open_files: int | None = None,
        preload: Sequence[str] = (),
    ) -> None:
        """Nothing is started yet.

        `deadline_seconds`: per call, counted from when the child takes it up. What a call may use on top of the idle
        child (None: no limit): `memory_bytes` (Linux), `cpu_seconds` of all its threads together, `open_files` at once.
        `preload`: modules that a child imports before its first call.
        """
        allowed = {"deadline_seconds": deadline_seconds, "memory_bytes": memory_bytes}
        allowed |= {"cpu_seconds": cpu_seconds, "open_files": open_files}
        for name, limit in allowed.items():
            if limit is not None and not limit > 0:
                raise ValueError(f"guard: {name} is {limit}; give a number above 0")
        self.deadline_seconds = deadline_seconds
        self.limits = Limits(memory_bytes, cpu_seconds, open_files)
        self._preload = tuple(preload)
        self._pool: ProcessPool | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the child now instead of at the first call."""
        self.run(os.getpid)

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`function(*args, **kwargs)`, run in the child; what it raises is raised here.

        Raises ClipError "timeout" when the deadline passes or the processor time is used up, "too_large" when memory
        runs out or too many files are open, "crashed" when the child dies twice over the same call (once could be
        somebody else's doing). Function, arguments and result are pickled; the function must live in a module that the
        child can import, not in `__main__`.
        """
        call = pickle.dumps((function, args, kwargs), protocol=5)
        subject = next(
            (a.uri if isinstance(a, Clip) else a for a in args if isinstance(a, Clip | str)), function.__name__
        )
        with self._lock:
            try:
                outcome = self._attempt(call, subject) or self._attempt(call, subject)
            except BaseException:  # also Ctrl-C: the child may still be busy with this call, so it cannot take another
                self._drop()
                raise
        if outcome is None:
            raise ClipError(
                "crashed", f"{subject}: the decoder's process died twice over it; convert the file or leave it out"
            )
        value, error = pickle.loads(outcome)  # noqa: S301 (bytes made by our own child)
        if isinstance(error, MemoryError):
            limit = f"of {self.limits.memory_bytes} bytes" if self.limits.memory_bytes else "of the machine"
            said = f"{subject}: needs more than the memory {limit}; raise the limit or scale it down"
            raise ClipError("too_large", said) from error
        if isinstance(error, OSError) and error.errno == errno.EMFILE:
            said = f"{subject}: needs more than {self.limits.open_files} open files; raise the limit on them"
            raise ClipError("too_large", said) from error
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the child; a later call starts a new one."""
        with self._lock:
            self._drop()

    def __enter__(self) -> Self:
        """Nothing is started yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As `close`."""
        self.close()

    def _attempt(self, call: bytes, subject: str) -> bytes | None:
        """The pickled outcome, or None when the child died (or never came up). Raises ClipError at the deadline."""
        if self._pool is not None and not self._pool.active:
            self._drop()  # the idle child was killed from outside: not this call's fault
        if self._pool is None:
            self._pool = ProcessPool(
                max_workers=1,
                initializer=_prepare_child,
                initargs=(self._preload,),
                context=_CONTEXT,
            )
        try:
            with _sigint_blocked():
                future = self._pool.schedule(_answer, args=(call, self.limits), timeout=self.deadline_seconds)
        except RuntimeError:  # pebble: the pool broke since we looked
            self._drop()
            return None
        try:
            outcome: bytes = future.result(timeout=self.deadline_seconds + _START_SECONDS)
        except TimeoutError as error:
            is_deadline = future.done()  # else pebble itself is stuck
            self._drop()
            if not is_deadline:
                return None
            raise ClipError(
                "timeout",
                f"{subject}: not done after {self.deadline_seconds:g} s; raise the deadline or convert the file",
            ) from error
        except (ProcessExpired, RuntimeError) as error:  # it died: at work, or before it took the call (broken pool)
            self._drop()
            if isinstance(error, ProcessExpired) and error.exitcode == -signal.SIGXCPU:
                raise ClipError(
                    "timeout",
                    f"{subject}: not done after {self.limits.cpu_seconds} s of processor time; raise this limit or "
                    "convert the file",
                ) from error
            return None
        return outcome

    def _drop(self) -> None:
        """Kill the child and forget the pool: after a kill, its locks and pipes can be in any state."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()  # type: ignore[no-untyped-call]
            ending = threading.Thread(target=pool.join, daemon=True)
            ending.start()
            ending.join(5.0)  # a child in an uninterruptible read cannot even be killed: leave it behind


# --- in the child ---------------------------------------------------------------------------------------------------


def _prepare_child(preload: Sequence[str]) -> None:
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
        with limited(limits):
            value = function(*args, **kwargs)
        return pickle.dumps((value, None), protocol=5)
    except BaseException as error:  # even SystemExit: whatever it is, it is raised again in the parent
        if not isinstance(error, ClipError):
            error.add_note(f"In the guarded child:\n{traceback.format_exc()}")
        try:
            return pickle.dumps((None, error), protocol=5)
        except Exception:  # an exception that cannot travel: its text does
            return pickle.dumps((None, RuntimeError("".join(traceback.format_exception(error)))), protocol=5)


# --- how it starts --------------------------------------------------------------------------------------------------


class _sigint_blocked:  # noqa: N801 (reads as a statement)
    """While a server starts: it inherits the blocked signal, so that Ctrl-C cannot hit it before it ignores it."""

    def __enter__(self) -> None:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


def _new_server() -> None:
    global _server
    _server = forkserver.ForkServer()
    _server.set_forkserver_preload(["vqa.media"])


_server: forkserver.ForkServer
_new_server()
os.register_at_fork(after_in_child=_new_server)  # a forked process is not the parent of its parent's server


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class _Popen(popen_forkserver.Popen):
    """The standard library's, with our own server, and without the instruction to import the parent's main module."""

    _fds: list[int]

    def _launch(self, process_obj: process.BaseProcess) -> None:
        data = spawn.get_preparation_data(process_obj.name)
        data = {key: value for key, value in data.items() if not key.startswith("init_main")}
        buffer = io.BytesIO()
        context.set_spawning_popen(self)
        try:
            reduction.dump(data, buffer)
            reduction.dump(process_obj, buffer)
        finally:
            context.set_spawning_popen(None)
        for is_last in (False, False, True):
            try:
                self._fork(buffer)
                return
            except (EOFError, OSError):  # the server itself was killed: an error here would stop pebble's threads
                if is_last:
                    raise
                _new_server()

    def _fork(self, buffer: io.BytesIO) -> None:
        self.sentinel, writer = _server.connect_to_new_process(self._fds)
        parent_writer = os.dup(writer)  # the child sees the end of its parent by this pipe
        self.finalizer = util.Finalize(self, _close, (parent_writer, self.sentinel))
        try:
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(buffer.getbuffer())
            self.pid = forkserver.read_signed(self.sentinel)
        except (EOFError, OSError):
            self.finalizer()
            raise


class _Process(context.ForkServerProcess):
    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> _Popen:  # noqa: N802 (the standard library's name)
        return _Popen(process_obj)


class _Context(context.ForkServerContext):
    Process = _Process


_CONTEXT: Any = _Context()
