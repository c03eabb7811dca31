"""Each objective changes a real batch's advantages or loss as its formula says, computed here another way."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import rehearsal
from vqa.rewards.presets import REWARD_PRESETS
from vqa.train.grpo.objective import AdvantageObjective, Objective
from vqa.train.grpo.objectives.caption_kl import CaptionKl
from vqa.train.grpo.objectives.perception_kl import PerceptionKl
from vqa.train.grpo.objectives.sequence_entropy import SequenceEntropy
from vqa.train.grpo.objectives.uncertainty_weight import UncertaintyWeight
from vqa.train.grpo.objectives.zero_negative_advantages import ZeroNegativeAdvantages

pytestmark = pytest.mark.slow

CAPTION = "A rabbit on a meadow, softly blurred."


@pytest.fixture(scope="module")
def paid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A trainer and a batch of the embedded model's answers: four to each of two clips, without any hook.

    Refine-IQA's reward is for answers of one number; here it pays for the form that the embedded model writes. What is
    drawn from the same seeds again is not written again.
    """
    lines = replace(REWARD_PRESETS["refine_iqa"], demand="lines")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(REWARD_PRESETS, "refine_iqa", lines)
        near = [replace(one, opinion=max(1.0, one.opinion - 1.2)) for one in rehearsal.examples()]  # what it writes
        trainer = rehearsal.trainer(
            tmp_path_factory.mktemp("paid"), of=near, num_generations=4, temperature=1.2, reward="refine_iqa"
        )
        write, drawn = trainer._write, {}

        def write_once(model: Any, rows: Any, prompt_of: Any, *salt: int) -> list[list[int]]:
            if salt not in drawn:
                drawn[salt] = write(model, rows, prompt_of, *salt)
            return drawn[salt]

        patch.setattr(trainer, "_write", write_once)
        yield trainer, trainer._generate_and_score_completions(rows_of(trainer))


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any]]:
    """A trainer and a batch of answers of several lengths and advantages; float64, as much cancels."""
    trainer = rehearsal.trainer(
        tmp_path_factory.mktemp("hooks"),
        its_model=rehearsal.narrow(dtype=torch.float64),
        of=rehearsal.examples(caption=CAPTION),
        num_generations=4,
        max_completion_length=24,
        check_first_batch=False,
    )
    trainer.current_gradient_accumulation_steps = 1
    batch = trainer._generate_and_score_completions(rows_of(trainer))
    for row in range(8):
        batch["completion_mask"][row, 24 - row :] = 0
    batch["advantages"] = torch.linspace(-1.5, 1.5, 8, dtype=torch.float64)  # words without sense earn no reward
    trainer.model.train()
    return trainer, batch


def rows_of(trainer: Any) -> list[Any]:
    """Four of each of two clips."""
    return [row for row in trainer.train_dataset if row["place"] in (0, 1) for _ in range(4)]


@pytest.fixture(scope="module")
def seen(ready: tuple[Any, dict[str, Any]]) -> torch.Tensor:
    """`by_hand` of the batch; no test moves a weight, so that all may take gradients of it."""
    return by_hand(*ready)


@pytest.fixture(scope="module")
def plain(ready: tuple[Any, dict[str, Any]]) -> tuple[float, torch.Tensor]:
    """Loss and gradient without objectives."""
    return loss_and_gradient(*ready)


def gradient_of(loss: torch.Tensor, trainer: Any) -> torch.Tensor:
    """By all parameters; the graph stays."""
    found = torch.autograd.grad(loss, list(trainer.model.parameters()), retain_graph=True)
    return torch.cat([one.flatten() for one in found])


def with_objectives(trainer: Any, *objectives: Objective) -> None:
    trainer._settings = trainer._settings.model_copy(update={"objectives": objectives})


def loss_and_gradient(trainer: Any, batch: dict[str, Any], *objectives: Objective) -> tuple[float, torch.Tensor]:
    plain = trainer._settings
    with_objectives(trainer, *objectives)
    try:
        trainer.model.zero_grad()
        loss = trainer._compute_loss(trainer.model, dict(batch))
        loss.backward()
        return loss.item(), torch.cat([one.grad.flatten() for one in trainer.model.parameters()]).clone()
    finally:
        trainer._settings = plain


def by_hand(trainer: Any, batch: dict[str, Any], *, pixels: Any = None, blind: bool = False) -> torch.Tensor:
    """Log-probabilities [rows, T] of what was written, one row at a time through the plain model."""
    found = []
    for row in range(len(batch["place"])):
        place = int(batch["place"][row])
        length = int(batch["completion_mask"][row].sum())
        written = batch["completion_ids"][row, :length]
        if blind:
            question = trainer._examples[place]
            content = [{"type": "text", "text": f"What the pictures show: {question.caption}\n"}]
            content.append({"type": "text", "text": trainer._clips[place].chat[0]["content"][-1]["text"]})
            chat = [{"role": "user", "content": content}]
            text = trainer.processing_class.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
            inputs = dict(trainer.processing_class(text=[text], return_tensors="pt", add_special_tokens=False))
        else:
            inputs = dict(trainer._clips[place].prompt.inputs)
        if pixels is not None:
            inputs["pixel_values"] = pixels[place]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], written[None]], dim=1)
        for name in ("attention_mask", "mm_token_type_ids"):
            if name in inputs:
                more = torch.full((1, length), int(name == "attention_mask"))
                inputs[name] = torch.cat([inputs[name], more], dim=1)
        logits = trainer.model(**inputs).logits[0, -length - 1 : -1] / trainer.temperature
        logps = logits.log_softmax(dim=-1)[range(length), written]
        found.append(torch.nn.functional.pad(logps, (0, batch["completion_ids"].shape[1] - length)))
    return torch.stack(found)


def policy_loss(logps: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """GRPO's loss on fresh answers: -mean over answers of mean over tokens of ratio x advantage."""
    ratio = torch.exp(logps - logps.detach())
    return -((ratio * advantages[:, None] * mask).sum(1) / mask.sum(1)).mean()


def test_advantages_are_the_papers_and_hooks_change_them(paid: tuple[Any, dict[str, Any]]) -> None:
    trainer, batch = paid
    judged = trainer._reward.batch
    total = judged.terms["total"]
    plain = (total - total.mean(1, keepdims=True)) / (total.std(1, ddof=1, keepdims=True) + 1e-4)
    np.testing.assert_allclose(batch["advantages"].view(2, 4), plain, atol=1e-4)

    def hooked(objective: AdvantageObjective) -> np.ndarray:
        before = trainer._settings
        with_objectives(trainer, objective)
        try:
            return trainer._generate_and_score_completions(rows_of(trainer))["advantages"].view(2, 4).numpy()
        finally:
            trainer._settings = before

    factors = []
    for scores in judged.scores:
        read = [score for score in scores if not math.isnan(score)]
        mean = sum(read) / len(read)
        variance = sum((score - mean) ** 2 for score in read) / len(read)
        factors.append(math.exp(-0.2 * min(1.0, variance / 4.0)))
    assert factors[0] != 1.0
    np.testing.assert_allclose(
        hooked(UncertaintyWeight(kind="uncertainty_weight")), plain * np.array(factors)[:, None], atol=1e-4
    )
    right = (judged.terms["threshold"] == 1) & (judged.terms["format"] == 1)
    assert right.any()
    spared = np.where(right.any(1, keepdims=True), np.maximum(plain, 0.0), plain)
    assert not np.array_equal(spared, plain)
    np.testing.assert_allclose(hooked(ZeroNegativeAdvantages(kind="zero_negative_advantages")), spared, atol=1e-4)


def test_a_group_without_spread_moves_nothing(tmp_path: Path) -> None:
    """Rewards that differ by a ten-thousandth: trl blows them up to whole advantages, the filter drops them."""
    kept = {}
    for on in (False, True):
        trainer = rehearsal.trainer(
            tmp_path,
            its_model=rehearsal.narrow(),
            objectives=[{"kind": "spread_filter"}] * on,
            num_generations=4,
            max_completion_length=4,
            check_first_batch=False,
        )
        reward = trainer._reward
        real = type(reward).__call__

        def faint(*args: Any, its: Any = reward, call: Any = real, **kwargs: Any) -> list[float]:
            call(its, **kwargs)
            its.batch.terms["total"][:] = 1.0 + 1e-4 * np.arange(4), np.arange(4)
            return its.batch.terms["total"].ravel().tolist()

        trainer.reward_funcs = [faint]
        kept[on] = trainer._generate_and_score_completions(rows_of(trainer))["advantages"].view(2, 4)
    assert kept[False][0].abs().max() > 0.4 and torch.equal(kept[True][0], torch.zeros(4))
    assert torch.equal(kept[True][1], kept[False][1]) and kept[True][1].abs().max() > 0.4


def test_the_gate_learns_from_the_tokens_of_highest_entropy(
    ready: tuple[Any, dict[str, Any]], seen: torch.Tensor, plain: tuple[float, torch.Tensor]
) -> None:
    trainer, batch = ready
    mask = batch["completion_mask"].bool()
    _, entropies, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model,
        torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
        torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
        batch["completion_ids"].size(1),
        compute_entropy=True,
    )
    gate = mask & (entropies >= torch.quantile(entropies[mask], 0.8))
    assert 0.15 < gate.sum() / mask.sum() < 0.25
    ratio = torch.exp(seen - seen.detach())
    loss = -((ratio * batch["advantages"][:, None] * gate).sum(1) / mask.sum(1)).mean()
    expected = gradient_of(loss, trainer)
    trainer.top_entropy_quantile = 0.2
    found = loss_and_gradient(trainer, batch)[1]
    trainer.top_entropy_quantile = 1.0
    assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > 0.999999
    assert torch.nn.functional.cosine_similarity(found, plain[1], dim=0) < 0.99


def test_the_perception_loss_is_subtracted_as_its_formula_says(
    ready: tuple[Any, dict[str, Any]], seen: torch.Tensor, plain: tuple[float, torch.Tensor]
) -> None:
    trainer, batch = ready
    mask = batch["completion_mask"]
    pixels = {}
    asked = {place: trainer._clips[place].prompt.inputs["pixel_values"] for place in (0, 1)}
    # The noise is drawn over the clips of the batch in order, one clip once.
    both = torch.cat([asked[0], asked[1]])
    spread = 45 / 255 / np.mean(trainer.processing_class.image_processor.image_std)
    from vqa.train.clips.dataset import seed_of

    generator = torch.Generator().manual_seed(seed_of(42, 0, 0))
    noisy = both + spread * torch.randn(both.shape, generator=generator, dtype=both.dtype)
    pixels[0], pixels[1] = noisy[: len(asked[0])], noisy[len(asked[0]) :]
    with torch.no_grad():
        blurred = by_hand(trainer, batch, pixels=pixels)
    gap = blurred - seen
    gain = ((torch.exp(gap) - gap - 1) * mask).sum() / mask.sum()
    entropy = (seen * mask).sum(1).mean()
    assert gain.item() > 0
    loss = policy_loss(seen, batch["advantages"], mask) - 0.5 * gain - 0.01 * entropy
    expected = gradient_of(loss, trainer)
    value, found = loss_and_gradient(
        trainer,
        batch,
        PerceptionKl(kind="perception_kl", weight=0.5),
        SequenceEntropy(kind="sequence_entropy", weight=0.01),
    )
    assert value == pytest.approx(loss.item(), abs=1e-5)
    assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > 0.999999
    assert plain[0] != pytest.approx(value, abs=1e-3)


def test_the_caption_pulls_and_weighs_as_its_formula_says(
    ready: tuple[Any, dict[str, Any]], seen: torch.Tensor
) -> None:
    trainer, batch = ready
    mask = batch["completion_mask"]
    with torch.no_grad():
        blind = by_hand(trainer, batch, blind=True)
    gap = blind - seen
    kl = ((torch.exp(gap) - gap - 1) * mask).sum(1) / mask.sum(1)
    assert kl.max() > 0.01
    loss = policy_loss(seen, batch["advantages"] * torch.exp(-2.0 * kl.detach()), mask) + 0.3 * kl.mean()
    expected = gradient_of(loss, trainer)
    value, found = loss_and_gradient(trainer, batch, CaptionKl(kind="caption_kl", weight=0.3, tau=2.0))
    assert value == pytest.approx(loss.item(), abs=1e-5)
    assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > 0.999999
