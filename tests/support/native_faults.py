"""Functions that misbehave for real, to be run in a guarded child: they hang, crash or eat memory below Python."""

import ctypes
import os
import re
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from vqa.types import Clip


def echo(value: object) -> object:
    return value


def process_id() -> int:
    return os.getpid()


def spin_holding_the_interpreter() -> None:
    """Backtrack in the regex engine for longer than the universe lasts: no signal handler of Python ever runs."""
    re.match(r"(a+)+$", "a" * 64 + "b")


def sleep_in_native_code() -> None:
    """Block in the C library without ever giving the interpreter lock back."""
    ctypes.PyDLL(None).pause()


def hang_over(clip: Clip) -> None:
    sleep_in_native_code()


def raise_this(error: BaseException) -> None:
    raise error


def segfault() -> None:
    ctypes.string_at(0)


def abort() -> None:
    ctypes.CDLL(None).abort()


def allocate(size_bytes: int) -> int:
    return len(bytearray(size_bytes))


def killed_once(marker: str) -> str:
    """Killed from outside the first time (as by the kernel's out-of-memory killer), fine the second."""
    path = Path(marker)
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "fine"


def report_then_sleep(path: str, seconds: float) -> None:
    """Write the own process id into a file, then sleep holding the interpreter lock."""
    Path(path).write_text(str(os.getpid()))
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


def loaded_modules() -> list[str]:
    return sorted(sys.modules)


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def leave() -> None:
    sys.exit(3)


class UnpicklableError(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.held = lambda: None


def raise_unpicklable() -> None:
    raise UnpicklableError("cannot travel")


def burn(seconds: float) -> float:
    """Keep a core busy for some processor time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return seconds


def open_at_once(path: str, count: int) -> int:
    with ExitStack() as files:
        for _ in range(count):
            files.enter_context(Path(path).open("rb"))
    return count


def no_thread() -> None:
    raise RuntimeError("can't start new thread")
