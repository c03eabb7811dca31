"""Signals that never interrupt a write, and the lock of a folder that one run writes to."""

import contextlib
import errno
import fcntl
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from vqa.console import printable, was_interrupted
from vqa.data.sources import is_utf8
from vqa.errors import UsageError, VqaError

# What file systems without locks answer; 524 is the kernel's own ENOTSUPP, which NFS servers let through.
NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, 524})
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE})

Handler = Callable[[int, FrameType | None], object] | int | None  # as signal.signal takes and returns them


class Stop:
    """Handler of Ctrl-C, SIGTERM and SIGUSR1, Slurm's warning: raised as KeyboardInterrupt only while waiting.

    Elsewhere, as in a write, it is noted.
    """

    def __init__(self) -> None:
        """Change nothing before `arm`."""
        self.asked = was_interrupted()  # an import may have swallowed it
        self._waiting = False
        self._before: dict[signal.Signals, Handler] = {}

    def arm(self) -> None:
        """Install the handler; again after Ray has started, which takes SIGTERM for itself."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                before = signal.signal(number, self._note)
                self._before.setdefault(number, before)

    def disarm(self) -> None:
        """Restore the handlers from before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_second = self.asked
        self.asked = True
        if self._waiting or is_second:  # a second signal counts at once; every write is whole or not there
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Code that a signal may interrupt."""
        self._waiting = True
        try:
            if self.asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._waiting = False


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Make a folder and lock it for one run; the lock ends with the process, however that ends.

    Where the file system has no locks (some mounts of NFS and Lustre), a file that only one run can make stands for it.
    A run that was killed leaves that file: the next one on the same machine takes it over.

    Raises:
        UsageError: another run holds the folder, or its name is not UTF-8, which Arrow and Ray need.
        VqaError: the file system refuses for another reason.
    """
    if not is_utf8(str(out)):
        raise UsageError(f"--out {printable(str(out))}: this name is not UTF-8. Choose another folder.")
    if found := re.match(r"([a-z][a-z0-9+.-]+):/", str(out)):  # pathlib makes one slash of two
        raise UsageError(
            f"--out {out}: is an address of {found[1]}://, and results are written to folders, where a file can be "
            "replaced at once. Give a folder, and copy it when the run has ended."
        )
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_LOCKS:
                with _lease(out):
                    yield
                return
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise VqaError(f"--out {out}: cannot be locked ({error.strerror}). Choose another folder.") from error
            file.seek(0)
            raise UsageError(_held(out, file.read().strip())) from error
        file.truncate(0)
        file.write(_this_run())
        file.flush()
        yield


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Raise VqaError, with a way out, where the file system takes no more; what was written before is whole."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise VqaError(
            f"--out {out}: cannot be written to any more ({os.strerror(error.errno)}). The rows that were written are "
            "safe; make room, and the same command resumes."
        ) from error


@contextlib.contextmanager
def _lease(out: Path) -> Iterator[None]:
    """The lock by a file that only one run can make (O_EXCL)."""
    path = out / ".lock.held"
    for is_last in (False, True):
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(_this_run())
            break
        except FileExistsError as error:
            holder = path.read_text(encoding="utf-8", errors="replace").strip()
            if is_last or not is_dead(holder):
                way_out = f" If that run has ended, delete {path}."
                raise UsageError(_held(out, holder) + way_out) from error
            path.unlink(missing_ok=True)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _this_run() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _held(out: Path, holder: str) -> str:
    return f"--out {out}: another run ({holder or 'unknown'}) is writing there. Wait, or choose another folder."


def is_dead(holder: str) -> bool:
    """Whether a run that had this machine's name is no longer there; of others nothing is known."""
    found = re.fullmatch(r"process (\d+) on (.+)", holder)
    if found is None or found[2] != socket.gethostname():
        return False
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
