"""Settings of recipe and run that a stage needs beside its own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState

from vqa.model.card import Readout
from vqa.prompt import PromptName
from vqa.train.hardware import WHOLE, HardwareConfig
from vqa.train.metrics_log import MetricsLog


def nobody_else() -> None:
    """For a folder that no other run can take over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageContext:
    """Settings of recipe and run that a stage runs with."""

    prompt: PromptName
    readout: Readout  # of answers to held-out clips
    precision: torch.dtype  # of matrix products; the weights stay float32
    seed: int
    folder: Path  # of the stage, for checkpoints and results
    log: MetricsLog
    processes: PartialState
    hardware: HardwareConfig = WHOLE
    before_write: Callable[[], None] = nobody_else  # raises VqaError where another run has taken the folder over
