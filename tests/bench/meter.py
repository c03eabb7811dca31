"""What something took: by the clock, and the processor time of all processes."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import psutil


class Cost(NamedTuple):
    """What something took, by the clock and by all processes together."""

    clock_seconds: float
    processor_seconds: float


class Meter(threading.Thread):
    """Processor seconds of this process and all it started: looked up twice a second, as one that is gone tells
    nobody."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._seconds: dict[psutil.Process, float] = {}

    def run(self) -> None:
        while True:
            self.read()
            time.sleep(0.5)

    def read(self) -> float:
        """So far."""
        me = psutil.Process()
        for process in {me, *me.children(recursive=True), *self._seconds}:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._seconds[process] = sum(process.cpu_times()[:2])
        return sum(self._seconds.values())

    def cost_of(self, task: Callable[[], object]) -> Cost:
        """Runs it once."""
        clock, processor = time.perf_counter(), self.read()
        task()
        return Cost(time.perf_counter() - clock, self.read() - processor)
