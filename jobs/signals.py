"""Signals held back during writes, and the lock of what a run writes to."""

import contextlib
import errno
import fcntl
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from jobs.lease import FilePlace, Lease, held_by, is_shared, this_run
from vqa.console import printable, was_interrupted
from vqa.data.sources import is_utf8
from vqa.errors import UsageError, VqaError
from vqa.files import open_in_place

# What file systems without locks answer; 524 is the kernel's own ENOTSUPP, which NFS servers let through.
NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, 524})
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE})

Handler = Callable[[int, FrameType | None], object] | int | None  # as signal.signal takes and returns them


class Stop:
    """Handler of Ctrl-C, SIGTERM and SIGUSR1 (Slurm): interrupts only while waiting.

    Elsewhere, as in a write, the signal is noted; a second one raises KeyboardInterrupt at once.
    """

    def __init__(self) -> None:
        """Change nothing before `arm`."""
        self.asked = was_interrupted()  # an import may have swallowed it
        self._waiting = False
        self._before: dict[signal.Signals, Handler] = {}

    def arm(self) -> None:
        """Install the handler; again once Ray has started, which takes SIGTERM."""
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


def as_url(out: Path) -> str:
    """The URL in a path, with the slash that pathlib dropped; empty for a path."""
    return re.sub(r"^([a-z][a-z0-9+.-]+):/+", r"\1://", str(out)) if re.match(r"[a-z][a-z0-9+.-]+:/", str(out)) else ""


@contextlib.contextmanager
def locked(out: Path) -> Iterator[Callable[[], None]]:
    """Make a folder and lock it for one run; the lock ends with the process.

    Yields:
        As `locked_by`.

    Raises:
        UsageError: another run holds the folder, or its name is not UTF-8, which Arrow and Ray need.
        VqaError: the file system refuses for another reason.
    """
    if not is_utf8(str(out)):
        raise UsageError(f"--out {printable(str(out))}: this name is not UTF-8. Choose another folder.")
    if url := as_url(out):
        raise UsageError(f"--out {url}: is an address; here results go to a folder only. Give one, and copy it later.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VqaError(f"--out {out}: cannot be made ({error.strerror}). Give another folder.") from error
    with locked_by(out / ".lock", out=out) as before_write:
        yield before_write


@contextlib.contextmanager
def locked_by(path: Path, *, out: Path) -> Iterator[Callable[[], None]]:
    """Lock a file for one run, made if missing; the lock ends with the process.

    Where the file system has no locks, or other machines see it and its locks may hold on one of them alone, a file
    that only one run can make is held too (lease.py).

    Args:
        path: The file; its folder is there. The other one is beside it, `.held` behind its name.
        out: What messages name.

    Yields:
        To be called before each write: raises VqaError where another run has taken over.

    Raises:
        UsageError: another run holds it, or a link is in its place.
        VqaError: the file system refuses for another reason.
    """
    with open_in_place(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            has_locks = True
        except OSError as error:
            if error.errno not in NO_LOCKS | {errno.EWOULDBLOCK, errno.EACCES}:
                raise VqaError(f"--out {out}: cannot be locked ({error.strerror}). Give another one.") from error
            if error.errno not in NO_LOCKS:
                file.seek(0)
                raise UsageError(held_by(out, file.read().strip())) from error
            has_locks = False
        if has_locks:
            file.truncate(0)
            file.write(this_run())
            file.flush()
        if has_locks and not is_shared(path.parent):
            yield lambda: None
        else:
            with Lease(FilePlace(path.with_name(f"{path.name}.held")), out=str(out)).held() as lease:
                yield lease.check


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Raise VqaError, with a way out, where the file system takes no more writes."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise VqaError(
            f"--out {out}: cannot be written to any more ({os.strerror(error.errno)}). The rows that were written are "
            "safe; make room, and the same command resumes."
        ) from error
