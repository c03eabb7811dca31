"""Metrics of a run: JSON lines, terminal, experiment trackers, peak memory."""

import importlib.util
import json
import math
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from vqa.errors import ModelError
from vqa.files import open_in_place


class MetricsLog:
    """Means of the values added since the last line, one line per call of `write`."""

    def __init__(self, path: Path, stage: str) -> None:
        self._path, self._stage = path, stage
        self._values: dict[str, list[float]] = {}
        self._started = time.perf_counter()

    def add(self, name: str, value: float) -> None:
        """Add one value of a step."""
        self._values.setdefault(name, []).append(value)

    def write(self, step: int, steps: int, **more: float) -> None:
        """Write a line: the means since the last one, and `more` as it is.

        Raises:
            ModelError: where the disk is full.
            UsageError: where the file is a link.
        """
        means = {name: sum(values) / len(values) for name, values in self._values.items()} | more
        count = max((len(values) for values in self._values.values()), default=1)
        seconds = (time.perf_counter() - self._started) / count
        line: dict[str, object] = {
            "stage": self._stage,
            "step": step,
            "steps": steps,
            "seconds_per_step": round(seconds, 3),
        }
        # NaN and infinity are no JSON: a figure that is not defined is null.
        line |= {name: float(f"{value:.6g}") if math.isfinite(value) else None for name, value in means.items()}
        try:
            with open_in_place(self._path, "a") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")
        except OSError as error:
            raise ModelError(
                f"{self._path} could not be written ({error}). Make room and run the same command again; it resumes "
                "from the last checkpoint."
            ) from error
        print(" ".join(f"{key}={value}" for key, value in line.items()), file=sys.stderr, flush=True)
        self._values.clear()
        self._started = time.perf_counter()


class LogCallback(TrainerCallback):
    """Callback that writes what transformers' Trainer logs as lines of a MetricsLog."""

    def __init__(self, log: MetricsLog) -> None:
        self._log = log

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Write one line, on the main process."""
        if state.is_world_process_zero and logs:
            numbers = {name: value for name, value in logs.items() if isinstance(value, int | float)}
            self._log.write(state.global_step, state.max_steps, **numbers)


def log_held_out(trainer: Trainer, found: Mapping[str, float], control: TrainerControl) -> None:
    """Log figures of held-out clips to the trackers, apart from the step's metrics."""
    is_due = control.should_log
    # Not by trl's own `log`, which would take the step's metrics along.
    Trainer.log(trainer, {f"held_out/{name}": value for name, value in found.items()})
    control.should_log = is_due  # `log` resets it, and the step's own metrics would be lost


def peak_memory_gb() -> float:
    """Peak memory of this process in GiB, of its GPU where it has one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def reporters() -> list[str]:
    """Enabled trackers: TensorBoard if installed, W&B if also configured (key, mode)."""
    found = [name for name in ("tensorboard", "tensorboardX") if importlib.util.find_spec(name)][:1]
    trackers = ["tensorboard"] if found else []
    netrc = Path.home() / ".netrc"
    is_configured = {"WANDB_API_KEY", "WANDB_MODE"} & set(os.environ) or (
        netrc.exists() and "wandb" in netrc.read_text()
    )
    return trackers + (["wandb"] if importlib.util.find_spec("wandb") and is_configured else [])
