"""Settings that a stage shares with its recipe: prompt, readout, precision, seed, folder, log, processes."""

from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState

from vqa.model.card import Readout
from vqa.prompt import PromptName
from vqa.train.hardware import WHOLE, HardwareConfig
from vqa.train.metrics_log import MetricsLog


@dataclass(frozen=True, slots=True, kw_only=True)
class StageContext:
    """What a stage is run with beside its own settings."""

    prompt: PromptName
    readout: Readout  # of answers to held-out clips
    precision: torch.dtype  # of matrix products; the weights stay float32
    seed: int
    folder: Path  # of the stage, for checkpoints and results
    log: MetricsLog
    processes: PartialState
    hardware: HardwareConfig = WHOLE
