"""One line of progress now and then, on the screen and as JSON lines in the run's folder."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback

from vqa.errors import ModelError


class Log:
    """Averages what is added between two lines."""

    def __init__(self, path: Path, stage: str) -> None:
        self._path, self._stage = path, stage
        self._values: dict[str, list[float]] = {}
        self._started = time.perf_counter()

    def add(self, name: str, value: float) -> None:
        """Takes one value of a step."""
        self._values.setdefault(name, []).append(value)

    def show(self, step: int, steps: int, **more: float) -> None:
        """Writes a line: means since the last one, and `more` as it is."""
        means = {name: sum(values) / len(values) for name, values in self._values.items()} | more
        count = max((len(values) for values in self._values.values()), default=1)
        seconds = (time.perf_counter() - self._started) / count
        line = {"stage": self._stage, "step": step, "steps": steps, "seconds_a_step": round(seconds, 3)}
        line |= {name: float(f"{value:.6g}") for name, value in means.items()}
        try:
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise ModelError(
                f"{self._path} could not be written ({error}); make room and give the same command again, it goes on "
                "from the last checkpoint"
            ) from error
        print(" ".join(f"{key}={value}" for key, value in line.items()), file=sys.stderr, flush=True)
        self._values.clear()
        self._started = time.perf_counter()


class Told(TrainerCallback):
    """Writes what a trainer of transformers logs as lines of a Log, in place of its own printing."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """One line."""
        if state.is_world_process_zero and logs:
            numbers = {name: value for name, value in logs.items() if isinstance(value, int | float)}
            self._log.show(state.global_step, state.max_steps, **numbers)


def log_held_out(trainer: Any, found: Mapping[str, float], control: Any) -> None:
    """Tells the trainer's reporters what the held-out clips say, beside the step's own numbers."""
    is_due = control.should_log
    # Past trl's own `log`, which would take the step's metrics along.
    Trainer.log(trainer, {f"held_out/{name}": value for name, value in found.items()})
    control.should_log = is_due  # `log` struck it off, and the step's own numbers would be lost
