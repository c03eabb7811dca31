"""A real update of the embedded model: it moves, it repeats to the bit, and it is trl's own for the same answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import rehearsal
from vqa.errors import UsageError
from vqa.model.load import hf
from vqa.train.modules import vocabulary_of

pytestmark = pytest.mark.slow


def first_loss(trainer: Any) -> float:
    return float(trainer.state.log_history[0]["loss"])


@pytest.mark.parametrize("recipe", ["preresq_video", pytest.param("visualquality_r1", marks=pytest.mark.full)])
def test_an_update_learns_from_rewards_that_differ_and_repeats_to_the_bit(tmp_path: Path, recipe: str) -> None:
    after = []
    for number in range(2):
        trainer = rehearsal.trainer(tmp_path / str(number), reward=recipe, num_generations=4, temperature=1.2)
        before = rehearsal.weights(trainer.model)
        trainer.train()
        judged = trainer._reward.batch
        assert np.ptp(judged.terms["total"], axis=1).max() > 0.01
        assert np.isfinite(first_loss(trainer)) and trainer.state.log_history[0]["grad_norm"] > 0
        after.append(rehearsal.weights(trainer.model))
        changed = [name for name, value in before.items() if not torch.equal(value, after[-1][name])]
        assert len(changed) == len(before)
    assert all(torch.equal(after[0][name], after[1][name]) for name in after[0])


@pytest.mark.parametrize(
    "vision_rate", [None, pytest.param(0.0, marks=pytest.mark.full)], ids=["whole", "frozen-tower"]
)
def test_recomputing_activations_changes_no_update(tmp_path: Path, vision_rate: float | None) -> None:
    """The papers' recipes have it on; rollouts, which it would slow down, turn it off and on again between steps."""
    ends = []
    for recompute in (False, True):
        trainer = rehearsal.trainer(
            tmp_path / f"{recompute}",
            its_model=rehearsal.narrow(),
            gradient_checkpointing=recompute,
            max_steps=2,
            vision_learning_rate=vision_rate,
            **rehearsal.UNPAID,
        )
        before = rehearsal.weights(trainer.model)
        trainer.train()
        assert trainer.model.is_activation_checkpointing == recompute
        ends.append(rehearsal.weights(trainer.model))
    assert any(not torch.equal(value, before[name]) for name, value in ends[0].items())
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value)


def test_shared_prompts_give_trls_own_gradient(tmp_path: Path) -> None:
    """A batch of answers of several lengths goes through trl's path too, pictures and prompts K times; float64, as much
    cancels."""
    settings = {"num_generations": 3, "max_completion_length": 24, "check_first_batch": False}
    ours = rehearsal.trainer(tmp_path / "ours", its_model=rehearsal.narrow(dtype=torch.float64), **settings)
    rows = [row for row in ours.train_dataset if row["place"] in (0, 1) for _ in range(3)]
    batch = ours._generate_and_score_completions(rows)
    batch["advantages"] = torch.linspace(-1, 1, 6, dtype=torch.float64)  # words without sense earn no reward
    for row in range(6):
        batch["completion_mask"][row, 24 - 3 * row :] = 0
    theirs = rehearsal.trainer(
        tmp_path / "theirs", its_model=rehearsal.narrow(dtype=torch.float64), shared_prefill=False, **settings
    )
    clips = [ours._examples[place].load() for place in (0, 1)]
    processor = theirs.processing_class
    texts, pictures = [], []
    for views in clips:
        chat = ours._clips[0].chat
        texts += [processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)] * 3
        pictures += [[rehearsal.picture(one) for one in views.pictures]] * 3
    encoded = processor(images=pictures, text=texts, padding=True, return_tensors="pt")
    kinds = encoded["mm_token_type_ids"]
    plain = {name: value for name, value in batch.items() if name != "place"} | {
        "pixel_values": encoded["pixel_values"],
        "image_grid_thw": encoded["image_grid_thw"],
        "mm_token_type_ids": torch.cat([kinds, kinds.new_zeros(batch["completion_ids"].shape)], dim=1),
        "num_images": [len(one) for one in pictures],
    }
    gradients = []
    for trainer, inputs in ((ours, batch), (theirs, plain)):
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        trainer.model.zero_grad()
        trainer._compute_loss(trainer.model, inputs).backward()
        gradients.append({name: one.grad for name, one in trainer.model.named_parameters()})
    for name, gradient in gradients[0].items():
        worst = (gradient - gradients[1][name]).abs().max() / gradients[1][name].abs().max()
        assert worst < 1e-4, (name, worst)


def test_each_clip_is_loaded_and_encoded_once_a_batch_whatever_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four answers a clip in two micro-batches with two updates each, over an epoch of two batches."""
    examples = rehearsal.examples()
    trainer = rehearsal.trainer(
        tmp_path,
        of=examples,
        its_model=rehearsal.narrow(),
        num_generations=4,
        per_device_train_batch_size=4,
        num_iterations=2,
        max_steps=4,
        save_steps=4,
        max_completion_length=4,
        check_first_batch=False,
    )
    encoded: list[int] = []
    images = trainer.processing_class.image_processor
    real = images.preprocess

    def counting(pictures: Any, *args: Any, **kwargs: Any) -> Any:
        encoded.append(1)
        return real(pictures, *args, **kwargs)

    monkeypatch.setattr(type(images), "preprocess", lambda self, *args, **kwargs: counting(*args, **kwargs))
    looked = {"tower": 0}
    trainer.model.model.visual.register_forward_pre_hook(
        lambda *_: looked.update(tower=looked["tower"] + 1) if not torch.is_grad_enabled() else None
    )
    assert [one.load.loads for one in examples] == [0, 0, 0, 0]
    trainer.train()
    assert [one.load.loads for one in examples] == [1, 1, 1, 1]
    assert len(encoded) == 4
    assert trainer.state.log_history[0]["rollout/clips_encoded"] == 2


def test_what_no_answer_may_hold_is_never_drawn(tmp_path: Path) -> None:
    """Hot sampling draws every word there is, and not one placeholder, although their logits are raised."""
    settings = {"temperature": 50.0, "num_generations": 4, "max_completion_length": 48, "check_first_batch": False}
    trainer = rehearsal.trainer(tmp_path, its_model=rehearsal.narrow(), **settings)
    banned = set(vocabulary_of(trainer.model, trainer.processing_class).banned)
    assert trainer.model.config.image_token_id in banned
    trainer._places, rows = [0] * 4, [row for row in trainer.train_dataset if row["place"] == 0] * 4
    batch = trainer._generate_and_score_completions(rows)
    written = set(batch["completion_ids"][batch["completion_mask"].bool()].tolist())
    assert len(written) > 100 and not written & banned
    assert trainer.generation_config is not None
    theirs = rehearsal.trainer(tmp_path, shared_prefill=False)
    assert set(theirs.generation_config.suppress_tokens) == banned


def test_a_frozen_tower_stays_and_its_own_rate_counts(tmp_path: Path) -> None:
    trainer = rehearsal.trainer(tmp_path, its_model=rehearsal.narrow(), vision_learning_rate=0.0, **rehearsal.UNPAID)
    before = rehearsal.weights(trainer.model)
    trainer.train()
    after = rehearsal.weights(trainer.model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and not any("visual" in name for name in moved)
    assert all("visual" in name for name in before.keys() - moved)
    assert not trainer.args.bf16 and trainer.accelerator.mixed_precision == "no"
    slow = rehearsal.trainer(tmp_path, vision_learning_rate=1e-7)
    assert sorted(group["lr"] for group in slow.create_optimizer().param_groups) == [1e-7, 1e-4]


def test_the_schedule_the_clip_and_the_optimiser_are_the_recipes(tmp_path: Path) -> None:
    """Q-Hawkeye's script: a cosine behind a warm-up, gradients clipped at 0.1; two updates per batch of answers."""
    trainer = rehearsal.trainer(
        tmp_path,
        its_model=rehearsal.narrow(),
        num_generations=4,
        per_device_train_batch_size=4,
        num_mini_batches=2,
        max_steps=4,
        save_steps=4,
        lr_scheduler_type="cosine",
        warmup_steps=2,
        max_completion_length=4,
        check_first_batch=False,
        max_grad_norm=1e-3,
        adam_beta2=0.95,
        optim="adamw_torch",
        vision_learning_rate=1e-5,
    )
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "learning_rate" in entry]
    rates = [entry["learning_rate"] for entry in logs]
    assert rates == pytest.approx([0.0, 5e-5, 1e-4, 5e-5])  # 0, half, the peak, half of a cosine over the other two
    assert ["rewards/format" in entry for entry in logs] == [True, False] * 2  # answers for every other update
    assert [one.load.loads for one in trainer._examples] == [1, 1, 1, 1]  # two batches of two clips, not four
    assert type(trainer.optimizer.optimizer) is torch.optim.AdamW
    assert {(group["betas"], group["weight_decay"]) for group in trainer.optimizer.param_groups} == {((0.9, 0.95), 0.0)}
    assert trainer.args.max_grad_norm == 1e-3
    with pytest.raises(UsageError, match="num_mini_batches is 3, and a batch of 8 answers is 2 forward passes"):
        rehearsal.trainer(tmp_path, num_generations=4, per_device_train_batch_size=4, num_mini_batches=3)
    with pytest.raises(UsageError, match=r"num_iterations \(1\) x num_mini_batches \(2\). Choose a multiple"):
        rehearsal.trainer(tmp_path, num_generations=4, per_device_train_batch_size=4, num_mini_batches=2, save_steps=5)


def test_the_reference_is_the_model_before_training(tmp_path: Path) -> None:
    """With beta, the second step's loss holds beta times the KL that trl's k3 gives for the two models."""
    rehearsal.narrow().save_pretrained(tmp_path / "start")

    def start() -> Any:
        return hf.AutoModelForImageTextToText.from_pretrained(tmp_path / "start")

    settings = rehearsal.UNPAID | {"beta": 0.5, "max_steps": 2, "learning_rate": 1e-3}
    trainer = rehearsal.trainer(tmp_path, its_model=start(), **settings)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "kl" in entry]
    assert logs[0]["kl"] == pytest.approx(0.0, abs=1e-6) and logs[1]["kl"] > 1e-3
    changed = start()
    with torch.no_grad():
        next(changed.model.language_model.parameters()).add_(1.0)
    with pytest.raises(UsageError, match="needs the model before training"):
        rehearsal.trainer(tmp_path, its_model=changed, beta=0.5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"per_device_train_batch_size": 4, "num_generations": 3}, "do not divide into batches of 4"),
        ({"objectives": [{"kind": "zero_negative_advantages"}]}, "needs reward refine_iqa, not preresq_video"),
        ({"num_iterations": 2, "save_steps": 3}, "Choose a multiple"),
        ({"objectives": [{"kind": "caption_kl", "weight": 0.1}]}, "clip big_buck_bunny-0 has no caption"),
        ({"objectives": [{"kind": "perception_kl"}], "shared_prefill": False}, "perception_kl needs shared_prefill"),
        ({"vllm_mode": "colocate"}, "the package is not installed"),
        ({"vllm_mode": "colocate", "vllm_enable_sleep_mode": True}, "no GPU whose memory|the package is not installed"),
        ({"clips_per_step": 5}, "has 4 clips, a batch 5"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        rehearsal.trainer(tmp_path, **settings).get_train_dataloader()


def test_attention_that_cannot_share_a_prompt_is_refused(tmp_path: Path) -> None:
    its = rehearsal.model()
    its.config.get_text_config().layer_types = ["linear_attention"] * 4
    with pytest.raises(UsageError, match="layers of linear_attention cannot share a prompt"):
        rehearsal.trainer(tmp_path, its_model=its)


def test_several_questions_change_from_step_to_step_and_are_one_for_a_clip(tmp_path: Path) -> None:
    ways = ("How good is it? A", "How good is it? B", "How good is it? C")
    settings = {"check_first_batch": False, "num_generations": 2, "max_completion_length": 4}
    trainer = rehearsal.trainer(tmp_path, its_model=rehearsal.narrow(), questions=ways, **settings)
    asked = []
    for step in range(20):
        trainer.state.global_step = step
        asked.append(trainer._question(0))
    assert set(asked) == set(ways)
    trainer.state.global_step = 3
    batch = trainer._generate_and_score_completions([trainer.train_dataset[0]] * 2)
    words = trainer.processing_class.batch_decode(batch["prompt_ids"])
    assert trainer._question(0) == asked[3] and all(asked[3] in one for one in words)
