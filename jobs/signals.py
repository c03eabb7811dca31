"""Signals that never interrupt a write, and the lock of a folder that one run writes to."""

import contextlib
import fcntl
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from vqa.errors import UsageError

Handler = Callable[[int, FrameType | None], object] | int | None  # as signal.signal takes and returns them


class Stop:
    """Handler of Ctrl-C and SIGTERM: noted always, raised as KeyboardInterrupt only while waiting, not in writes."""

    def __init__(self) -> None:
        """Change nothing before `arm`."""
        self.asked = False
        self._waiting = False
        self._before: dict[signal.Signals, Handler] = {}

    def arm(self) -> None:
        """Install the handler; again after Ray has started, which takes SIGTERM for itself."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
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
    """Make a folder and lock it for one run; the lock ends with the process, however that ends."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise UsageError(
                f"--out {out}: another run ({holder}) is writing there. Wait, or choose another folder."
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
