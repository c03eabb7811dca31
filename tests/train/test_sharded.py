"""Weights in parts over two processes, by FSDP and (where it is installed) DeepSpeed's ZeRO-3: a run ends with the
weights that two whole copies end with.

On CPUs over gloo, in `make test-all`: of the embedded model, with what tests/train/test_hardware.py does on a tiny one.
"""

import importlib.util
import os
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from tests.support import children
from vqa.train.recipe import load_recipe
from vqa.train.runner import run_recipe

COMMON = "{start: embedded, stand_in_opinions: true, prompt: preresq_video, threads: 1, export: float32, "
RECIPES = {
    "cold": COMMON + "validation_clips: 2, stages: [{kind: coldstart, name: cold, max_steps: 1, global_batch_size: 2, "
    "per_device_train_batch_size: 1, learning_rate: 2.0e-3, vision_learning_rate: 2.0e-4, "
    "gradient_checkpointing: true}]}",
    "settle": COMMON + "validation_clips: 2, stages: [{kind: grpo, name: settle, reward: preresq_video, "
    "reward_stage: 2, max_steps: 1, clips_per_step: 2, num_generations: 4, per_device_train_batch_size: 4, "
    "learning_rate: 1.0e-4, vision_learning_rate: 1.0e-5, max_completion_length: 64, save_steps: 1, eval_steps: 1}]}",
}


def _half(rank: int, port: int, folder: Path, ladder: Path, kind: str) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_MIXED_PRECISION": "no"}
    for way, sharding in (("whole", "none"), ("parts", kind)):
        for name in RECIPES:
            recipe = load_recipe(folder / f"{name}.yaml", [f"hardware.sharding={sharding}"])
            run_recipe(recipe, out=folder / f"{name}-{way}", data=[ladder])
        AcceleratorState._reset_state(reset_partial_state=True)
    torch.distributed.destroy_process_group()  # its threads may outlive the interpreter otherwise, which aborts


@pytest.mark.full
@pytest.mark.parametrize("kind", ["fsdp2", "zero3"])
def test_a_run_with_weights_in_parts_ends_where_whole_copies_end(tmp_path: Path, ladder: Path, kind: str) -> None:
    if kind == "zero3" and not importlib.util.find_spec("deepspeed"):
        pytest.skip("deepspeed is not installed")
    for name, recipe in RECIPES.items():
        (tmp_path / f"{name}.yaml").write_text(recipe)
    children.both(_half, tmp_path, ladder, kind)
    start = load_file(Path(__file__).parents[2] / "vqa/assets/embedded/model.safetensors")
    for name in RECIPES:
        whole, parts = (load_file(tmp_path / f"{name}-{way}/model/model.safetensors") for way in ("whole", "parts"))
        assert set(whole) == set(parts)
        moved = sum(float((weights - start[key].float()).square().sum()) for key, weights in whole.items()) ** 0.5
        apart = sum(float((weights - parts[key]).square().sum()) for key, weights in whole.items()) ** 0.5
        assert apart < 1e-3 * moved, (name, apart, moved)  # Adam's first step makes much of rounding where it divides
