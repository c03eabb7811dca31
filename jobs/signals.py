"""Ending well: signals that never cut a write in two, and a folder that only one run writes to."""

import contextlib
import fcntl
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from vqa.errors import UsageError


class Stop:
    """Ctrl-C and SIGTERM: noted always, raised as KeyboardInterrupt only while waiting for Ray, not in writes."""

    def __init__(self) -> None:
        """Takes the signals over once armed."""
        self.asked = False
        self._waiting = False
        self._before: dict[signal.Signals, Any] = {}

    def arm(self) -> None:
        """Takes the signals; again after Ray has started, which takes SIGTERM for itself."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.signal(number, self._note)
                self._before.setdefault(number, before)

    def disarm(self) -> None:
        """Gives the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_second = self.asked
        self.asked = True
        if self._waiting or is_second:  # whoever insists is heard at once; every write is whole or not there
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """The stretch in which the signal may cut in."""
        self._waiting = True
        try:
            if self.asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._waiting = False


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """One run at a time in a folder, which is made; the lock goes with the process, however it ends."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise UsageError(f"--out {out}: another run ({holder}) is writing there; wait or choose another") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
