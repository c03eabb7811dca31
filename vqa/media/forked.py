"""Processes forked from a small server that a name has.

The standard library's fork server, once for each name and process. It hears nothing of Ctrl-C, has loaded what it is
told to and never imports the user's script; a server that was killed is started again.
"""

import io
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing import context, forkserver, popen_forkserver, process, reduction, resource_tracker, spawn, util
from types import TracebackType
from typing import Any

from vqa import machine

_TEMPORARY_BYTES = machine.SOCKET_BYTES - len("/pymp-xxxxxxxx/listener-xxxxxxxx")


def _start(server: forkserver.ForkServer) -> None:
    """Start a server that hears nothing of Ctrl-C, also before it ignores it."""
    resource_tracker.ensure_running()  # it lets Ctrl-C through to what is started after it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        server.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Beginning:
    """The first that a child reads."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _begin, ()


def _begin() -> None:
    sys.excepthook = _say_unless_left


def _say_unless_left(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error, but none of a child whose parent has ended meanwhile.

    With the parent its semaphores are gone.
    """
    if not isinstance(error, FileNotFoundError | EOFError):
        sys.__excepthook__(kind, error, trace)


faults: dict[int, Exception] = {}  # by process: why its last child could not be started
# By process, as a forked one is not the parent of its parent's servers, and by name.
_servers: dict[tuple[int, str], forkserver.ForkServer] = {}


def server_of(name: str = "", preload: Sequence[str] = ()) -> forkserver.ForkServer:
    """Fork server of this process, with the first guard's `preload` loaded."""
    key = os.getpid(), name
    if key not in _servers:
        server = forkserver.ForkServer()
        _keep_sockets_short()
        server.set_forkserver_preload(["vqa.media", *preload])
        _servers.setdefault(key, server)
    return _servers[key]


def _keep_sockets_short() -> None:
    """Keep multiprocessing's sockets in a short folder where TMPDIR is too long.

    It makes TMPDIR/pymp-xxxxxxxx/listener-xxxxxxxx, and all errors of that would look like a crash over the first clip.
    """
    config = process.current_process()._config  # type: ignore[attr-defined]
    if config.get("tempdir") is None and len(os.fsencode(tempfile.gettempdir())) > _TEMPORARY_BYTES:
        folder = machine.short_folder(_TEMPORARY_BYTES + len("/pymp-xxxxxxxx"))
        util.Finalize(None, shutil.rmtree, args=(folder,), kwargs={"ignore_errors": True}, exitpriority=-100)
        config["tempdir"] = str(folder)


class _Popen(popen_forkserver.Popen):
    """Standard library's Popen on this module's server, without the parent's main."""

    _fds: list[int]
    _name: str  # of its server

    def _launch(self, process_obj: process.BaseProcess) -> None:
        self._name = getattr(process_obj, "server", "")
        data = spawn.get_preparation_data(process_obj.name)
        data = {key: value for key, value in data.items() if not key.startswith("init_main")}
        data["begin"] = _Beginning()
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
            except (EOFError, OSError) as error:  # the server was killed: an error here would stop pebble's threads
                if is_last:
                    faults[os.getpid()] = error  # pebble would only say that its pool broke
                    raise
                _servers.pop((os.getpid(), self._name), None)

    def _fork(self, buffer: io.BytesIO) -> None:
        server = server_of(self._name)
        _start(server)
        self.sentinel, writer = server.connect_to_new_process(self._fds)
        parent_writer = os.dup(writer)  # the child sees the end of its parent by this pipe
        self.finalizer = util.Finalize(self, util.close_fds, (parent_writer, self.sentinel))  # type: ignore[attr-defined]
        try:
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(buffer.getbuffer())
            self.pid = forkserver.read_signed(self.sentinel)
        except (EOFError, OSError):
            self.finalizer()
            raise


class _Process(context.ForkServerProcess):
    server: str  # its name

    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> _Popen:  # noqa: N802 (the standard library's name)
        return _Popen(process_obj)


class Context(context.ForkServerContext):
    """The standard library's, whose processes are forked from the server of a name."""

    def __init__(self, server: str) -> None:
        super().__init__()
        self._of_server = server

    def Process(self, *args: Any, **kwargs: Any) -> _Process:  # type: ignore[override]  # noqa: N802 (as above)
        """Make one; a class there, which pebble only calls."""
        made = _Process(*args, **kwargs)
        made.server = self._of_server
        return made
