"""Private interfaces of trl, transformers and vLLM that vqa.train depends on.

Functions wrap what is called. OVERRIDDEN names the private methods that subclasses here replace or extend. Each entry
has its reason, and a test in tests/contracts/test_trl_contract.py; pyproject.toml pins the versions that were tried.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from PIL.Image import Image
from torch import Tensor
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from trl.extras.profiling import profiling_context
from trl.trainer import grpo_trainer
from trl.trainer.utils import split_tensor_dict

from vqa.train.sharding import is_sent_weights, tie_as_read
from vqa.train.types import Model

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import Trainer
    from trl import GRPOTrainer

# Class -> method -> why it is overridden.
OVERRIDDEN = {
    "GRPOTrainer": {
        "_get_train_sampler": "trl mixes data sets in a batch; rewards compare clips of one",
        "_prepare_inputs": "trl shuffles a batch's answers; those of a clip must stay together to share its prompt",
        "_generate_and_score_completions": "clips are loaded before it, and advantages changed after it",
        "_get_per_token_logps_and_entropies": "trl runs the prompt and its pictures once per answer",
        "_compute_loss": "terms of single papers are added, and a loss that is not finite stops the run",
    },
    "Trainer": {
        "_get_train_sampler": "the place of a draw in the run decides what is drawn, so the order is sequential",
        "_clip_grad_norm": "a gradient that is not finite stops the run before the step",
        # https://github.com/huggingface/transformers/issues/43701
        "_load_from_checkpoint": "it skips the weights of models whose names on disk differ, and only warns",
        # https://github.com/huggingface/transformers/pull/27820, of which the rename was taken out again
        "_save_checkpoint": "it writes in place, so that a kill or a full disk leaves a torn checkpoint",
        "_save_optimizer_and_scheduler": "the running mean of the weights goes beside the optimiser's state",
        "_load_optimizer_and_scheduler": "and comes back with it",
    },
}


def rotate_vision(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Apply rotary positions to queries and keys of Qwen2.5-VL's tower, for warm-up."""
    rotated: tuple[Tensor, Tensor] = apply_rotary_pos_emb_vision(query, key, cos, sin)
    return rotated


def mark_scheduler_created(trainer: "Trainer") -> None:
    """Have transformers' Trainer step and save the scheduler as one of its own."""
    trainer._created_lr_scheduler = True


def micro_step(trainer: "GRPOTrainer") -> int:
    """Forward and backward passes so far, by which trl knows when answers are due."""
    step: int = trainer._step
    return step


def split_batch(batch: dict[str, Tensor], parts: int) -> list[dict[str, Tensor]]:
    """Split the tensors of a batch in order, as trl does for gradient accumulation."""
    found: list[dict[str, Tensor]] = split_tensor_dict(batch, parts)
    return found


def add_metric(trainer: "GRPOTrainer", name: str, value: float) -> None:
    """Add a value to the means of trl's next log; its `log_metric` is for rewards."""
    trainer._metrics["train"][name].append(value)


def step_seconds(trainer: "GRPOTrainer") -> list[float]:
    """Seconds of the steps since the last log."""
    seconds: list[float] = trainer._metrics["train"].get("step_time", [])
    return seconds


def source_of(model: Model) -> str:
    """Folder or hub id the model came from, where trl loads the KL's reference."""
    name: str = model.config._name_or_path
    return name


@contextmanager
def reference_in_layers() -> Iterator[None]:
    """Context manager in which trl shards the KL's reference layer by layer.

    One process of a machine reads it. accelerate shards the policy so; trl makes one unit of the reference, which is
    gathered whole in each forward pass, and takes each process's own copy (trl 1.16, `prepare_fsdp`,
    `create_model_from_path`).
    """
    own, load = grpo_trainer.prepare_fsdp, grpo_trainer.create_model_from_path

    def create(model_id: str, **options: object) -> Model:
        reference: Model = load(model_id, **options | ({"device_map": "meta"} if is_sent_weights() else {}))
        tie_as_read(reference)
        return reference

    def prepare(model: Model, accelerator: "Accelerator") -> Model:
        if not accelerator.is_fsdp2:
            return own(model, accelerator)
        model.requires_grad_(False)
        if accelerator.mixed_precision == "bf16":
            model.to(torch.bfloat16)  # what FSDP would gather it in
        return fsdp2_prepare_model(accelerator, model).eval()

    grpo_trainer.prepare_fsdp, grpo_trainer.create_model_from_path = prepare, create
    try:
        yield
    finally:
        grpo_trainer.prepare_fsdp, grpo_trainer.create_model_from_path = own, load


def reset_vllm_encoder_cache(trainer: "GRPOTrainer", *, is_server: bool) -> None:
    """Drop vLLM's cache of encoded pictures, which trl keeps over new weights.

    See https://github.com/huggingface/trl/issues/7198.
    """
    if not is_server:
        trainer.vllm_generation.llm.llm_engine.reset_encoder_cache()
    elif trainer.accelerator.is_main_process:
        client = trainer.vllm_generation.vllm_client
        client.session.post(f"{client.base_url}/reset_encoder_cache").raise_for_status()


def generate_by_vllm(
    trainer: "GRPOTrainer", *, prompts: Sequence[Sequence[int]], images: Sequence[Sequence[Image]]
) -> tuple[list[list[int]], list[list[int]], list[list[float]]]:
    """Prompts as vLLM saw them, its answers, and their tokens' log-probabilities.

    By trl's client: with a `rollout_func` trl leaves calling it to that function, and documents no way to.
    """
    seen, written, logprobs, _ = trainer.vllm_generation.generate(
        prompts=prompts,
        images=images,
        num_generations=trainer.num_generations,
        profiler=profiling_context(trainer, "vLLM.generate"),
    )
    return seen, written, [[token[0] for token in answer] for answer in logprobs]
