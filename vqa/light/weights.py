"""Tensors of a student's files."""

from pathlib import Path

import torch
from safetensors.torch import load_file


def finite_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name.

    Raises as `load_file` does, and ValueError where a number is not finite: no score would be.
    """
    tensors = load_file(path)
    wrong = [name for name, one in tensors.items() if not one.isfinite().all()]
    if wrong:
        raise ValueError(f"not every number of {wrong[0]} is finite")
    return tensors
