"""The plan's arithmetic against peaks of small models, and against the figures of the published recipes' launches."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BatchFeature, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from trl.trainer.utils import add_fused_lm_head

from tests.support import rehearsal
from tests.support.memory import measured
from vqa.train.grpo.dataset import load_clip
from vqa.train.grpo.packing import encode_prompt, pack_answers
from vqa.train.hardware import HardwareConfig
from vqa.train.memory import Workload, plan_memory
from vqa.train.modules import model_shape

IMAGE = 10


def model(dtype: torch.dtype, *, inner: int = 1024, layers: int = 3, vocabulary: int = 512) -> Any:
    torch.manual_seed(0)
    text = {
        "vocab_size": vocabulary,
        "hidden_size": 256,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "mrope_section": [8, 12, 12], "rope_theta": 10000.0},
        "bos_token_id": None,
        "eos_token_id": 2,
    }
    vision = {"depth": 2, "hidden_size": 192, "intermediate_size": 528, "num_heads": 4, "out_hidden_size": 256}
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision | {"fullatt_block_indexes": [1]},
        tie_word_embeddings=True,
        image_token_id=IMAGE,
        video_token_id=11,
        vision_start_token_id=12,
        vision_end_token_id=13,
    )
    made = Qwen2_5_VLForConditionalGeneration(config).to(dtype).train()
    add_fused_lm_head(made, outputs=("log_probs", "entropy"))
    return made


def one_pass(made: Any, work: Workload, *, side: int, is_mixed: bool) -> None:
    """Forward and backward pass of the packed answers to random pictures, twice if gradients are there before."""
    ids = torch.randint(20, 500, (1, work.prompt_tokens))
    ids[0, 5 : 5 + side * side // 4] = IMAGE
    pictures = {"pixel_values": torch.randn(side * side, 1176), "image_grid_thw": torch.tensor([[1, side, side]])}
    tokens = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": (ids == IMAGE).long()}
    prompts = [encode_prompt(made, BatchFeature(tokens | pictures)) for _ in range(work.prompts)]
    each = work.answers // work.prompts
    answers = [[torch.randint(20, 500, (work.answer_tokens,)) for _ in range(each)] for _ in prompts]
    inputs, labels = pack_answers(prompts, answers, dtype=made.dtype)
    with torch.autocast("cpu", torch.bfloat16) if is_mixed else nullcontext():
        out = made(**inputs, labels=labels, fused_lm_head=True)
    out.log_probs.sum().backward()


@pytest.mark.model
@pytest.mark.parametrize(
    ("precision", "recompute", "trains_tower", "passes"),
    [
        ("float32", False, True, 1),
        ("float32", False, False, 2),
        ("float32", True, True, 1),
        ("mixed", False, True, 1),
        ("bfloat16", True, True, 2),
    ],
)
def test_the_peak_of_a_pass_is_the_planned_one(
    monkeypatch: pytest.MonkeyPatch, precision: str, recompute: bool, trains_tower: bool, passes: int
) -> None:
    monkeypatch.setattr("trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE", 512)  # so that activations are most of it
    monkeypatch.setattr("vqa.train.memory.TILE", (4096, 512))
    is_small = precision != "float32"  # a CPU is slow in bfloat16
    work = Workload(
        prompts=1,
        answers=2,
        prompt_tokens=60 if is_small else 160,
        answer_tokens=24 if is_small else 60,
        patches=144 if is_small else 400,
        recompute=recompute,
        passes=passes,
        trains_tower=trains_tower,
    )
    made = model(torch.bfloat16 if precision == "bfloat16" else torch.float32)
    made.model.visual.requires_grad_(trains_tower)
    if recompute:
        made.gradient_checkpointing_enable({"use_reentrant": False})
    if passes > 1:
        for one in made.parameters():
            one.grad = torch.zeros_like(one) if one.requires_grad else None
    held = sum(one.nbytes + (0 if one.grad is None else one.grad.nbytes) for one in made.parameters())
    # On a processor with matrix units for bfloat16 oneDNN keeps reordered copies, which no GPU does.
    with torch.backends.mkldnn.flags(enabled=not is_small), measured() as peak:
        one_pass(made, work, side=12 if is_small else 20, is_mixed=precision == "mixed")
    hardware = HardwareConfig(master_weights=precision != "bfloat16")
    plan = plan_memory(model_shape(made), work, hardware, is_half=precision != "float32", is_gpu=False)
    planned = max(sum(phase.values()) - phase["optimizer"] for phase in plan.phases.values())
    assert planned == pytest.approx(held + peak.bytes, rel=0.15)


@pytest.mark.model
def test_the_peak_of_a_run_is_the_planned_one(tmp_path: Path) -> None:
    """Rollouts, the reference's pass, two updates and their optimiser, of the embedded model by the trainer itself."""
    trainer = rehearsal.trainer(
        tmp_path, max_steps=2, beta=0.04, save_strategy="no", check_first_batch=False, patience=9
    )
    clip = load_clip(
        rehearsal.examples()[0],
        trainer.model,
        trainer.processing_class,
        prompt="preresq_video",
        is_encoded=True,
        keeps_pictures=False,
    )
    assert clip.prompt is not None
    work = Workload(
        prompts=2,
        answers=6,
        prompt_tokens=len(clip.prompt.ids),
        answer_tokens=48,
        patches=len(clip.prompt.inputs["pixel_values"]),
        rollout_rows=6,
        held_prompts=2,
    )
    models = [one for model in (trainer.model, trainer.ref_model) for one in model.parameters()]
    with measured() as peak:
        trainer.train()
    plan = plan_memory(model_shape(trainer.model), work, HardwareConfig(), is_half=False, reference=True, is_gpu=False)
    measured_bytes = sum(one.nbytes for one in models) + peak.bytes
    assert plan.peak == pytest.approx(measured_bytes, rel=0.15)
