"""Weights in parts over two processes, by FSDP and (where it is installed) DeepSpeed's ZeRO-3: a run ends with the
weights that two whole copies end with.

On CPUs over gloo, where accelerate starts neither by itself: `_half` does.
"""

import importlib.util
import os
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
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
# What `accelerate launch` makes of the files in configs/train/accelerate.
LAUNCHED = {
    "fsdp": {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    },
    "zero3": {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
        "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true",
        "DS_ACCELERATOR": "cpu",
    },
}


def _half(rank: int, port: int, folder: Path, ladder: Path, kind: str) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_MIXED_PRECISION": "no"}
    os.environ["ACCELERATE_USE_CPU"] = str(kind != "zero3").lower()
    for name in RECIPES:
        run_recipe(load_recipe(folder / f"{name}.yaml"), out=folder / f"{name}-whole", data=[ladder])
    os.environ |= LAUNCHED[kind]
    AcceleratorState._reset_state(reset_partial_state=True)
    begin = PartialState.__init__

    def begin_in_parts(self: PartialState, *args: object, **kwargs: object) -> None:
        begin(self, *args, **kwargs)
        if kind == "zero3":
            import deepspeed

            deepspeed.comm.init_distributed("gloo", auto_mpi_discovery=False)
        elif self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU  # the only one that accelerate makes FSDP of

    # For good: this process ends with the test.
    PartialState.__init__ = begin_in_parts  # type: ignore[method-assign]
    for name in RECIPES:
        run_recipe(load_recipe(folder / f"{name}.yaml"), out=folder / f"{name}-parts", data=[ladder])
    torch.distributed.destroy_process_group()  # its threads may outlive the interpreter otherwise, which aborts


@pytest.mark.slow
@pytest.mark.parametrize("kind", LAUNCHED)
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
