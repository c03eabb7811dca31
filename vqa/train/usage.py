"""What a run uses, and who is told."""

import importlib.util
import os
import resource
import sys
from pathlib import Path

import torch


def peak_memory_gb() -> float:
    """Most memory this process has held so far, in GiB: of its GPU where it has one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def reporters() -> list[str]:
    """Who is told of each step: TensorBoard if installed, W&B if installed and given a key or a mode."""
    found = [name for name in ("tensorboard", "tensorboardX") if importlib.util.find_spec(name)][:1]
    told = ["tensorboard"] if found else []
    netrc = Path.home() / ".netrc"
    knows = {"WANDB_API_KEY", "WANDB_MODE"} & set(os.environ) or (netrc.exists() and "wandb" in netrc.read_text())
    return told + (["wandb"] if importlib.util.find_spec("wandb") and knows else [])
