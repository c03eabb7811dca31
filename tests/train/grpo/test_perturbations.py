"""What some rewards ask again: frames out of order, and the chance of a digit."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import rehearsal
from vqa.errors import ModelError
from vqa.prompt import answer_text, locate_numbers, parse
from vqa.train import _compat
from vqa.train.grpo.dataset import load_clip
from vqa.train.grpo.perturbations import DIRECT, disorder, out_of_order, second_views, tenths_of
from vqa.train.sharding import unsharded


def test_each_way_of_disorder_is_one_of_the_papers() -> None:
    """VQAThinker's six, each found among draws; VQ-Insight's is a shuffle, always."""
    count, found = 9, set()
    for seed in range(200):
        order = disorder(count, np.random.default_rng(seed), is_shuffle=False)
        assert order.shape == (count,) and order.min() >= -1 and order.max() < count
        moved, is_whole = np.abs(order - np.arange(count)), sorted(order) == list(range(count))
        windows = all(sorted(order[i : i + 4]) == list(range(i, min(count, i + 4))) for i in range(0, count, 4))
        if (order < 0).any():
            assert 1 <= (order < 0).sum() <= 3 and set(moved[order >= 0]) == {0}
            found.add("black")
        elif list(order) == list(range(count))[::-1]:
            found.add("reversed")
        elif is_whole:
            found.add("windows" if windows else "shuffled")
        elif set(moved) <= {0, 1}:
            found.add("again" if (order <= np.arange(count)).all() else "moved")
    assert found == {"black", "reversed", "windows", "shuffled", "again", "moved"}
    for seed in range(20):
        assert sorted(disorder(count, np.random.default_rng(seed), is_shuffle=True)) == list(range(count))


@pytest.mark.parametrize("kind", ["mosaic", "frames"])
def test_frames_change_places_and_stay_as_they_are(kind: str) -> None:
    views = rehearsal.clean(rehearsal.CLIPS[0])
    count = len(views.keyframe_seconds)
    (mosaic,) = views.global_pictures
    side = math.isqrt(count)
    assert side**2 == count
    height, width = mosaic.shape[0] // side, mosaic.shape[1] // side

    def tiles(picture: Any) -> list[bytes]:
        cells = picture.reshape(side, height, side, width, 3).swapaxes(1, 2).reshape(count, height, width, 3)
        return [cell.tobytes() for cell in cells]

    if kind == "frames":
        cells = [np.frombuffer(cell, np.uint8).reshape(height, width, 3) for cell in tiles(mosaic)]
        views = replace(views, global_pictures=tuple(cells))
    other, same, different = (out_of_order(views, seed=seed, is_shuffle=True) for seed in (1, 1, 2))
    assert other is not None and same is not None and different is not None

    def shown(of: Any) -> list[bytes]:
        return tiles(of.global_pictures[0]) if kind == "mosaic" else [one.tobytes() for one in of.global_pictures]

    assert sorted(shown(other)) == sorted(shown(views)) and shown(other) != shown(views)
    assert shown(other) == shown(same) != shown(different)
    assert other.local_pictures is views.local_pictures
    lone = replace(views, global_pictures=(mosaic,), keyframe_seconds=(0.0,))
    assert out_of_order(lone, seed=1, is_shuffle=True) is None


def test_the_digit_stands_where_the_score_stood() -> None:
    text = answer_text("It looks fair.", [3.4])
    assert tenths_of(text, 4.96, numbers=1) == "<think>It looks fair.</think><answer>\n4.9"
    assert tenths_of("<answer>Score: 3.10</answer>", 5.0, numbers=1) == "<answer>Score: 5.0"
    assert tenths_of('<answer>{"rating": 3}</answer>', 5.0, numbers=1) is None  # no digit stands at the tenths
    assert tenths_of("no score", 3.0, numbers=1) is None


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, list[list[int]], list[int]]]:
    """A trainer that has judged two clips' four answers each, what was written, and how often each clip was loaded."""
    its = rehearsal.examples()
    folder = tmp_path_factory.mktemp("again")
    trainer = rehearsal.trainer(folder, of=its, num_generations=4, reward="vq_insight", check_first_batch=False)
    rows = [row for row in trainer.train_dataset if row["place"] in (0, 1) for _ in range(4)]
    batch = trainer._generate_and_score_completions(rows)
    lengths = batch["completion_mask"].sum(1).tolist()
    written = [ids[:length].tolist() for ids, length in zip(batch["completion_ids"], lengths, strict=True)]
    yield trainer, written, [one.load.loads for one in its]


def again(trainer: Any, written: list[list[int]], reward: str) -> dict[str, list[Any]]:
    """What the trainer asks again for this reward."""
    before = trainer._settings
    trainer._settings = before.model_copy(update={"reward": reward})
    try:
        with unsharded(trainer) as model:
            rows = trainer._second_rows()
            seconds = trainer._write(model, rows, trainer._second_prompt, 1) if rows else []
            found: dict[str, list[Any]] = trainer._perturbed(model, written, dict(zip(rows, seconds, strict=True)))
            return found
    finally:
        trainer._settings = before


def test_half_as_many_answers_are_written_to_shuffled_frames(ready: tuple[Any, list[list[int]], list[int]]) -> None:
    trainer, written, loads = ready
    assert loads == [1, 1, 0, 0]  # both orders come from one look
    temporal = trainer._reward.batch.terms["temporal"]
    texts = trainer._decode(written)
    paid = trainer._reward.batch.terms["regression"]
    other = again(trainer, written, "vq_insight")["perturbed"]
    assert [one is None for one in other] == [False, False, True, True] * 2
    assert not set(filter(None, other)) & set(texts)
    for clip in range(
        2
    ):  # VQ-Insight: 0.3 to answers above 0.1 where the mean is at least 0.8 of that on shuffled frames
        opinion = trainer._examples[clip].opinion  # less 1 it is a share of its 0-100
        read = [parse(one, 2) for one in other[4 * clip : 4 * clip + 2]]
        blind = [1 - min(1, abs(np.mean(one) - opinion) / (opinion - 1)) for one in read if one is not None]
        seen = [one for one, text in zip(paid[clip], texts[4 * clip :], strict=False) if parse(text, 2) is not None]
        is_better = bool(blind) and bool(seen) and np.mean(seen) >= 0.8 * np.mean(blind)
        np.testing.assert_allclose(temporal[clip], 0.3 * (is_better & (paid[clip] > 0.1)))
    assert temporal.any()
    assert None not in again(trainer, written, "vqathinker")["perturbed"]


def test_the_chance_of_the_tenths_digit_is_the_models(ready: tuple[Any, list[list[int]], list[int]]) -> None:
    """Worked out one row at a time through the plain model: in the j-th answer, and in the j-th of a second rollout."""
    trainer, written, _ = ready
    second = trainer._settings.model_copy(update={"reward": "refine_iqa"})
    views, asked = second_views(second, 0)(rehearsal.clean(rehearsal.CLIPS[0]))
    assert asked == DIRECT and views is rehearsal.clean(rehearsal.CLIPS[0])
    found = again(trainer, written, "refine_iqa")
    assert set(found) == {"think", "no_think"} and len(found["think"]) == len(written)
    row = next(row for row, one in enumerate(found["think"]) if not math.isnan(one))
    place = trainer._places[row]
    clip, rows = trainer._clips[place], range(len(written))
    with unsharded(trainer) as model:  # drawn from seeds, so the same again
        direct = trainer._decode(trainer._write(model, rows, lambda at: trainer._clips[at].second, 1))
    digit = f"{trainer._examples[place].opinion:.2f}"[2]
    trainer.model.eval()
    for name, prompt, text in (
        ("think", clip.prompt, trainer._decode(written)[row]),
        ("no_think", clip.second, direct[row]),
    ):
        reading = locate_numbers(text, 2)
        assert reading is not None
        before = text[: reading[0].start] + f"{trainer._examples[place].opinion:.2f}"[:2]
        inputs = dict(prompt.inputs)
        ids = trainer.processing_class.tokenizer(before, return_tensors="pt", add_special_tokens=False)["input_ids"]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], ids], dim=1)
        for mask in {"attention_mask", "mm_token_type_ids"} & set(inputs):
            more = torch.full_like(ids, int(mask == "attention_mask"))
            inputs[mask] = torch.cat([inputs[mask], more], dim=1)
        with torch.no_grad():
            chances = (trainer.model(**inputs).logits[0, -1] / trainer.temperature).softmax(-1)
        expected = chances[trainer.processing_class.tokenizer.convert_tokens_to_ids(digit)].item()
        assert 0 < expected < 1
        assert found[name][row] == pytest.approx(expected, rel=1e-4)
    assert again(trainer, written, "preresq_video") == {}


@pytest.mark.parametrize(("reward", "mode"), [("vq_insight", "colocate"), ("refine_iqa", "server")])
def test_vllm_is_asked_a_second_time_with_the_second_prompts_and_pictures(
    ready: tuple[Any, list[list[int]], list[int]], monkeypatch: pytest.MonkeyPatch, reward: str, mode: str
) -> None:
    """In vLLM's place, what the trainer itself writes to the same prompts: so the columns are the same."""
    trainer, written, _ = ready
    settings = trainer._settings.model_copy(update={"reward": reward, "vllm_mode": mode})
    monkeypatch.setattr(trainer, "_settings", settings)
    clips = {
        place: load_clip(
            trainer._examples[place],
            trainer.model,
            trainer.processing_class,
            prompt=settings.prompt,
            is_encoded=True,
            keeps_pictures=True,
            second=second_views(settings, place),
        )
        for place in trainer._clips
    }
    monkeypatch.setattr(trainer, "_clips", clips)
    expected = again(trainer, written, reward)
    calls: list[tuple[list[list[int]], list[list[Any]]]] = []

    def generate(its: Any, *, prompts: Any, images: Any) -> Any:
        calls.append((prompts, images))
        if len(calls) == 1:
            return prompts if mode == "server" else whole, written, [[0.0] * len(one) for one in written]
        rows = list(range(len(written))) if mode == "server" else trainer._second_rows()
        with unsharded(its) as model:
            answers = its._write(model, rows, its._second_prompt, 1)
        seen = [its._second_prompt(its._places[row]).ids.tolist() for row in rows]
        return seen, answers, [[0.0] * len(one) for one in answers]

    whole = trainer._prompt_ids()
    monkeypatch.setattr(_compat, "generate_by_vllm", generate)
    monkeypatch.setattr(_compat, "reset_vllm_encoder_cache", lambda *_, **__: None)
    found = trainer._generate_by_vllm([None] * len(written), trainer)
    assert found["completion_ids"] == written and len(found["logprobs"]) == len(written)
    for name, column in expected.items():
        assert found[name] == (column if reward == "vq_insight" else pytest.approx(column, rel=1e-5, nan_ok=True))
        assert any(value is not None and value == value for value in column)
    (first, shown), (second, shown_again) = calls
    assert len(first) == 8 and len(second) == (8 if mode == "server" else 4)
    # The second time other frames in the mosaic, and the crops as they were; or another question of the same pictures.
    (mosaic, *crops), (other, *its_crops) = shown[0], shown_again[0]
    assert (mosaic == other) == (reward == "refine_iqa") and crops == its_crops
    assert (first[0] == second[0]) == (reward == "vq_insight")


def test_a_prompt_that_vllm_reads_otherwise_stops_the_run(
    ready: tuple[Any, list[list[int]], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, written, _ = ready
    monkeypatch.setattr(_compat, "reset_vllm_encoder_cache", lambda *_, **__: None)
    monkeypatch.setattr(_compat, "generate_by_vllm", lambda *_, **__: ([[1]] * len(written), written, written))
    with pytest.raises(ModelError, match=r"a prompt is 1 tokens to vLLM and \d+ to the model"):
        trainer._generate_by_vllm([None] * len(written), trainer)
