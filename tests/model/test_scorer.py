"""The Scorer: the same clip gets the same score, and numbers are right."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.references.make_checkpoints import FAMILIES, Family, make_chain
from tests.support.clips import write_image, write_video
from tests.support.forced import saying
from tests.support.samples import random_views
from tests.support.scale import full
from tests.support.scorers import Checkpoints, scorer, small_views, texts
from vqa.errors import ClipError, UsageError
from vqa.media.storage.fingerprint import fingerprint
from vqa.model.scorer import Scorer
from vqa.types import Clip
from vqa.views import ViewsConfig, look, view_seed

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("read_once")]


# --- invariance -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [pytest.param(1, marks=pytest.mark.full), 4])
def test_many_clips_answer_token_for_token_the_same_in_any_batch_and_order(k: int, checkpoint: Checkpoints) -> None:
    count = full(200, gate=12)
    views = small_views(count)
    order = np.random.default_rng(0).permutation(count)
    answers = {}
    for batch_size in (1, 8, *[3] * full(1, gate=0)):
        model = scorer(checkpoint("qwen2_5_vl"), k=k, generation="sample", batch_size=batch_size)
        answers[batch_size] = texts(model.score(views))
        if batch_size == 8:
            shuffled = texts(model.score([views[i] for i in order]))
            assert [answers[8][i] for i in order] == shuffled
    assert all(one == answers[1] for one in answers.values())
    assert len({text for clip in answers[1] for text in clip}) > 0.95 * count * k


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_answers_alike_in_any_batch_and_with_any_k(family: Family, checkpoint: Checkpoints) -> None:
    views = small_views(full(10, gate=4))
    alone = texts(scorer(checkpoint(family), batch_size=1).score(views))
    assert texts(scorer(checkpoint(family), batch_size=8).score(views)) == alone
    one = texts(scorer(checkpoint(family), generation="sample", batch_size=7).score(views))
    four = texts(scorer(checkpoint(family), k=4, batch_size=3).score(views))
    assert [clip[:1] for clip in four] == one
    assert len(set(alone)) > 2


def test_a_small_token_budget_changes_batches_and_not_answers(checkpoint: Checkpoints) -> None:
    views = small_views(6)
    free = texts(scorer(checkpoint("qwen2_5_vl")).score(views))
    assert texts(scorer(checkpoint("qwen2_5_vl"), token_budget=1).score(views)) == free


def test_deterministic_answers_have_no_neighbours_and_logits_in_float32(checkpoint: Checkpoints) -> None:
    views = small_views(6)
    options = {"dtype": "bfloat16", "deterministic": True, "k": 3}
    model = scorer(checkpoint("qwen2_5_vl"), batch_size=8, **options)
    rows: list[int] = []
    logits: list[torch.Tensor] = []

    def note(_module: Any, _arguments: Any, named: dict[str, Any], output: Any) -> None:
        rows.append(len(named["input_ids"]))
        logits.append(output.logits)

    hook = model.engine.policy.model.register_forward_hook(note, with_kwargs=True)
    answers = texts(model.score(views))
    hook.remove()
    assert max(rows) == 3
    assert all(one.dtype == torch.float32 for one in logits)
    assert any((one != one.bfloat16().float()).any() for one in logits)
    assert model.engine.policy.model.get_input_embeddings().weight.dtype == torch.bfloat16
    alone = scorer(checkpoint("qwen2_5_vl"), batch_size=1, **options)
    assert [texts(alone.score([one]))[0] for one in reversed(views)] == answers[::-1]


def test_another_clip_id_or_seed_draws_other_answers(checkpoint: Checkpoints) -> None:
    views = random_views("a", seed=1)
    model = scorer(checkpoint("qwen2_5_vl"), k=3)
    other = scorer(checkpoint("qwen2_5_vl"), k=3, seed=1)
    renamed = random_views("b", seed=1)
    drawn = [texts(model.score([views])), texts(model.score([renamed])), texts(other.score([views]))]
    assert len({str(one) for one in drawn}) == 3
    assert texts(model.score([views])) == drawn[0]


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_greedy_scores_are_what_the_likeliest_answer_says(chain: Path) -> None:
    (score,) = scorer(chain, prompt="q_insight").score([random_views()])
    assert [answer.text for answer in score.answers] == ["3.60"]
    assert (score.score, score.score_std, score.answers_parsed) == (3.6, 0.0, 1)


def test_expected_scores_follow_from_the_chances(chain: Path) -> None:
    (score,) = scorer(chain, prompt="q_insight", readout="expected").score([random_views()])
    # Hundredths are certain; a lesser tenth may be followed by 9, a lesser whole by 0.99 (see expected_value).
    rest = 0.6 * 0.6 + 0.3 * 0.7 + 0.1 * 0.59
    assert score.score == pytest.approx(0.5 * (3 + rest) + 0.3 * 4 + 0.2 * 2.99, abs=2e-4)
    assert score.answers[0].values == (3.6,)


def test_many_rollouts_have_the_mean_and_spread_of_the_chances(chain: Path) -> None:
    (score,) = scorer(chain, prompt="q_insight", k=256, max_new_tokens=40).score([random_views()])
    # One number is an answer for one dimension, two or more are not: 0.6 of the answers end after the first.
    assert score.answers_parsed / 256 == pytest.approx(0.6, abs=0.12)
    mean = (0.2 * 2 + 0.5 * 3 + 0.3 * 4) + (0.1 * 0.5 + 0.6 * 0.6 + 0.3 * 0.7)
    assert score.score == pytest.approx(mean, abs=0.23)  # four standard deviations of 0.7 / sqrt(154)
    assert score.score_std == pytest.approx(0.7, abs=0.12)
    values = [answer.values[0] for answer in score.answers if answer.values]
    assert score.score == pytest.approx(np.mean(values))
    assert score.score_std == pytest.approx(np.std(values))


def test_two_numbers_are_global_and_local(chain: Path) -> None:
    (score,) = scorer(chain, prompt="preresq_video", k=64).score([random_views()])
    pairs = [answer.values for answer in score.answers if answer.values and len(answer.values) == 2]
    assert pairs
    assert score.score_global == pytest.approx(np.mean([pair[0] for pair in pairs]))
    assert score.score_local == pytest.approx(np.mean([pair[1] for pair in pairs]))


def test_an_answer_that_cannot_be_read_gives_no_number(tmp_path: Path) -> None:
    rambling = make_chain(tmp_path, {"\n": {"h": 1.0}, "h": {"m": 1.0}, "m": {"h": 0.9, "": 0.1}})
    (score,) = scorer(rambling, prompt="q_insight").score([random_views()])
    assert (score.score, score.score_std, score.answers_parsed) == (None, None, 0)
    assert score.answers[0].text.startswith("hmhm")


# --- as published -----------------------------------------------------------------------------------------------------


def asked(source: Path, **card: Any) -> Scorer:
    return scorer(source, **{"question": "Q <answer>", "max_new_tokens": 90, "batch_size": 1} | card)


def test_a_score_is_on_1_to_5_and_beside_it_as_the_model_gave_it(checkpoint: Checkpoints) -> None:
    model = asked(checkpoint("qwen2_5_vl"), answer={"low": 0, "high": 100, "numbers": 1}, k=2)
    with saying(model.engine.policy, lambda _: "<think>soft</think><answer>57.20</answer>"):
        (score,) = model.score([random_views()])
    assert (score.score, score.score_raw, score.reason) == (pytest.approx(3.288), 57.2, "soft")
    assert score.answers[0].values == (57.2,)
    with saying(model.engine.policy, lambda _: "<answer>120</answer>"):
        (score,) = model.score([random_views()])
    assert (score.score, score.score_raw, score.answers_parsed) == (None, None, 0)
    keys = asked(checkpoint("qwen2_5_vl"), answer={"low": 0, "high": 100, "keys": ["spatial", "temporal"]})
    with saying(keys.engine.policy, lambda _: '<answer>{"temporal": 20, "spatial": 40}</answer>'):
        (score,) = keys.score([random_views()])
    assert (score.score, score.score_raw) == (pytest.approx(2.2), 30)


def test_the_chat_is_laid_out_as_the_card_says(checkpoint: Checkpoints) -> None:
    views = random_views("a", [np.zeros((56, 56, 3), np.uint8)] * 2)
    plan = {"system": "S.", "order": "text_first", "labels": "vision_ids"}
    model = asked(checkpoint("qwen2_5_vl"), **plan)
    with saying(model.engine.policy, lambda _: "<answer>3\n4</answer>") as prompts:
        model.score([views])
    places = [prompts[0].index(text) for text in ("system\nS.", "Q <answer>", "Picture 1: <|vis", "Picture 2: <|vis")]
    assert places == sorted(places)
    assert "You are a helpful" not in prompts[0]


def test_a_video_reaches_the_model_as_one(checkpoint: Checkpoints) -> None:
    frames = [np.full((80, 56, 3), level, np.uint8) for level in (0, 60, 120, 180)]
    views = replace(random_views("a", frames[:1]), global_pictures=tuple(frames))
    pixels = {"min_pixels": 28 * 28, "max_pixels": 56 * 56}
    model = asked(checkpoint("qwen2_5_vl"), modality="video", labels="none", **pixels)
    inputs = model.engine.encode(model._question(views)).sent.inputs
    assert inputs["video_grid_thw"].tolist() == [[2, 4, 2]]  # pairs of frames, patches of 14 pixels
    assert [float(seconds) for seconds in inputs["second_per_grid_ts"]] == [1.0]
    assert "pixel_values" not in inputs
    with saying(model.engine.policy, lambda _: "<answer>3\n4</answer>"):
        (score,) = model.score([views])
    assert score.score == 3.5


def test_an_answer_is_read_as_published_and_ours_stands_beside_it(chain: Path, checkpoint: Checkpoints) -> None:
    card = {"answer": {"published_reading": "first_number"}, "readout": "published", "prompt": "preresq_image"}
    model = asked(checkpoint("qwen2_5_vl"), **card)
    text = "<answer>Saturation 2.5, or so; 1</answer>"
    with saying(model.engine.policy, lambda _: text):
        (score,) = model.score([random_views()])
    assert (score.score, score.score_expected) == (2.5, None)  # no answer by our rules
    with saying(model.engine.policy, lambda _: "<answer>1 2 3 4 5</answer>"):
        (score,) = model.score([random_views()])
    assert (score.score, score.score_expected) == (1.0, pytest.approx(3.0, abs=1e-3))
    with saying(model.engine.policy, lambda _: "no number, <answer>none</answer>"):
        (score,) = model.score([random_views()])
    assert score.score is None  # their script would draw a grade
    with pytest.raises(UsageError, match="does not say how its released script reads"):
        asked(chain, readout="published")


def test_words_are_asked_for_beside_the_score(checkpoint: Checkpoints) -> None:
    model = asked(checkpoint("qwen2_5_vl"), describe=True, description="Say what is wrong.")

    def answer(named: Any) -> str:
        text = model.engine.policy.processor.tokenizer.decode(named["input_ids"][0])
        return "<think>hm</think>Blocks in the sky." if "Say what is wrong." in text else "<answer>3\n4</answer>"

    with saying(model.engine.policy, answer) as prompts:
        (score,) = model.score([random_views()])
    assert (score.score, score.description, len(prompts)) == (3.5, "Blocks in the sky.", 2)


# --- no clips, unknown keys -------------------------------------------------------------------------------------------


def test_no_clips_are_no_scores(checkpoint: Checkpoints) -> None:
    assert scorer(checkpoint("qwen2_5_vl")).score([]) == []


def test_unknown_overrides_name_the_key(checkpoint: Checkpoints) -> None:
    with pytest.raises(UsageError, match=r"'temprature'.*Keys of this level.*dtype"):
        scorer(checkpoint("qwen2_5_vl"), temprature=0.5)
    with pytest.raises(UsageError, match="dtype"):
        scorer(checkpoint("qwen2_5_vl"), dtype="float13")
    with pytest.raises(UsageError, match="k=4 greedy"):
        scorer(checkpoint("qwen2_5_vl"), k=4, generation="greedy")


# --- a file -----------------------------------------------------------------------------------------------------------


def test_a_file_is_looked_at_and_scored(chain: Path, tmp_path: Path) -> None:
    picture = write_image(tmp_path / "a b.png")
    model = scorer(chain, prompt="q_insight", views={"local_pictures": 1})
    score = model.score_file(picture)
    assert score.score == 3.6
    with pytest.raises(ClipError) as caught:
        model.score_file(tmp_path / "absent.mp4")
    assert caught.value.kind == "not_found"


def test_a_file_is_seen_as_a_job_sees_it_where_samplers_draw(checkpoint: Checkpoints, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=40, noise=8.0)
    settings = {"temporal": "segment", "keyframes": 4, "global_pixels": 112, "spatial": "fragments"}
    model = scorer(checkpoint("qwen2_5_vl"), views=settings)
    clip = Clip(clip_id="a.mp4", uri=str(path))
    views = look(clip, ViewsConfig(**settings), seed=view_seed(fingerprint(str(path)), clip))
    other = look(clip, ViewsConfig(**settings), seed=1)
    assert not np.array_equal(views.local_pictures[0], other.local_pictures[0])
    assert texts([model.score_file(path)]) == texts(model.score([views])) != texts(model.score([other]))
