"""Recipes small enough to run in a test, as values of a YAML file."""

from pathlib import Path
from typing import Any

import yaml

from vqa.train.recipe import Recipe, load_recipe

SIZES = {"vocabulary": 300, "vision_width": 48, "vision_layers": 1, "text_width": 64, "text_layers": 1}
WARMUP = {
    "name": "warmup",
    "kind": "warmup",
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "frames": 2,
    "crops": 2,
}
COLDSTART = {
    "name": "coldstart",
    "kind": "coldstart",
    "max_steps": 3,
    "global_batch_size": 2,
    "learning_rate": 1e-3,
    "save_steps": 1,
    "eval_steps": 1,
    "max_new_tokens": 6,  # noise never ends its answers to held-out clips
}
# Nothing is learned yet that could be read: the trainer's look before the first step would stop it.
GRPO = {
    "name": "grpo",
    "kind": "grpo",
    "max_steps": 3,
    "clips_per_step": 2,
    "num_generations": 2,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "save_steps": 1,
}
# Its loss is Q-Hawkeye's regulariser, then: no reward is earned.
GRPO |= {
    "objectives": [{"kind": "sequence_entropy", "weight": 0.1}],
    "max_completion_length": 6,
    "check_first_batch": False,
    "patience": 99,
    "eval_steps": 99,
    "gradient_checkpointing": False,
}


def small(*stages: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A recipe of these stages for a model made from nothing."""
    values = {"card": "embedded", "model": SIZES, "validation_clips": 2, "threads": 1, "export": "float32"}
    values |= {"stand_in_opinions": True}
    return values | {"stages": [dict(stage) for stage in stages]} | more


def written(path: Path, values: dict[str, Any], *assignments: str) -> Recipe:
    """The recipe as it is read from a file."""
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return load_recipe(path, assignments)
