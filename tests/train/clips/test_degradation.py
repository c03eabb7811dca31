"""Q-Insight's damage question: what a ladder's table makes true, how an answer is read, and what it is paid."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.support import clips, rehearsal
from tests.support.recipes import COLDSTART, GRPO, small, written
from tests.train.test_recipe_data import manifest
from vqa.errors import UsageError
from vqa.prompt import answer_text
from vqa.train.clips.dataset import damage_clips, list_training_clips, load_clips, split_clips
from vqa.train.clips.degradation import NONE, SEVERITIES, damage_answer, damage_of, parse_damage
from vqa.train.grpo.reward import RankAndScore
from vqa.train.grpo.trainer import Trainer
from vqa.train.lessons import examples_of
from vqa.train.run_context import RunContext
from vqa.train.runner import run_recipe
from vqa.views import ViewsConfig


def test_the_truth_is_the_ladders() -> None:
    assert damage_of([], []) == ("null", "null")
    assert [damage_of(["x264"], [severity]) for severity in (0.0, 0.19, 0.2, 0.5, 0.79, 1.0)] == [
        ("compression", SEVERITIES[place]) for place in (0, 0, 1, 2, 3, 4)
    ]
    assert damage_of(["motion_blur"], [0.9]) == damage_of(["defocus"], [0.9]) == ("blur", "catastrophic")
    assert damage_of(["noise", "x264"], [0.5, 0.5]) is None  # which of them?
    assert damage_of(["exposure"], [0.5]) is None  # too dark or too bright?


@pytest.mark.parametrize("truth", [("noise", "obvious"), ("null", "null")])
def test_what_a_cold_start_says_is_read_again(truth: tuple[str, str]) -> None:
    said = damage_answer(truth, np.random.default_rng(0), "q_insight")
    assert parse_damage(said) == truth
    for broken in (
        said[:-3],
        said.replace("severity", "degree"),
        said.replace(f'"{truth[1]}"', "3"),
        answer_text("", [3]),
    ):
        assert parse_damage(broken) is None
    assert parse_damage("<answer>" + "[" * 9999 + "</answer>") is None


def test_the_reward_is_the_papers_and_each_question_has_its_own_answers() -> None:
    """0.25 for the class, 0.75 more for the severity; 1 for the form (arXiv 2503.22679)."""

    def said(kind: str, degree: str) -> str:
        return damage_answer((kind, degree), np.random.default_rng(0), "q_insight")

    score = answer_text("", [3.2], "json")
    texts = [said("noise", "slight"), said("noise", "obvious"), said("blur", "slight"), score]
    texts += [score, answer_text("", [4.0], "json"), said("noise", "slight"), "nothing"]
    reward = RankAndScore("q_insight", dimensions=1, k=4)
    paid = reward(
        completions=texts,
        completion_ids=[[1]] * 8,
        clip_id=["a"] * 8,
        dataset=["ladder"] * 8,
        opinion=[float("nan")] * 4 + [3.0] * 4,
        damage=[["noise", "slight"]] * 4 + [["", ""]] * 4,
    )
    assert paid == [1 + 1, 1 + 0.25, 1, 1, 1 + 1, 1, 1, 0]  # any flat JSON has the form, as in its code
    assert reward.batch is not None and np.isnan(reward.batch.scores[0]).all()


def test_a_clip_of_a_ladder_is_asked_about_its_damage_too(
    ladder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six clips, the odd ones with noise of severity 0.5; the cold start tells both, GRPO pays both."""
    train, _ = split_clips(list_training_clips([str(ladder)]), held_out=2, seed=0)
    found = load_clips(train, views=ViewsConfig(keyframes=2, local_pictures=0, global_pixels=64), seed=0)
    assert [one.damage for one in found] == [("null", "null"), ("noise", "obvious")] * 2
    asked = damage_clips(found, "q_insight")
    (turn,) = asked[1].chat(asked[1].views())
    assert "What harmed it" in turn["content"][-1]["text"]
    assert parse_damage(asked[1].write_answer(np.random.default_rng(0), "q_insight")) == ("noise", "obvious")

    def scripted(self: Trainer, model: object, rows: Sequence[int], *_: object) -> list[list[int]]:
        """Of a clip's two answers about damage the first is right, the second wrong about how badly; no scores."""
        texts = []
        for row in rows:
            kind, degree = self._examples[self._places[row]].damage
            named = (kind, degree if row % 2 == 0 else "catastrophic")
            texts.append(damage_answer(named, np.random.default_rng(0), "q_insight") if kind else "nothing")
        tokenizer = self.processing_class.tokenizer
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]

    monkeypatch.setattr(Trainer, "_write", scripted)
    steps = {
        "reward": "q_insight",
        "prompt": "q_insight",
        "max_steps": 2,
        "clips_per_step": 8,
        "per_device_train_batch_size": 16,
        "max_completion_length": 200,
    }
    values = small(COLDSTART | {"max_steps": 1, "prompt": "q_insight"}, GRPO | steps, validation_clips=0)
    run_recipe(written(tmp_path / "a.yaml", values), data=[ladder], out=tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    # Four clips, asked about quality and about damage; of the latter 1 and 0.25, and 1 each for the form.
    paid = [(line["rewards/degradation"], line["rewards/format"]) for line in lines if "rewards/degradation" in line]
    assert paid == [(pytest.approx(4 * 1.25 / 16), pytest.approx(8 / 16))] * 2


def test_a_stand_in_opinion_is_never_taken_for_a_persons(ladder: Path, tmp_path: Path) -> None:
    """People's opinions and a ladder: of the ladder the damage question alone, unless the recipe asks for its VMAF."""
    people = manifest(tmp_path / "m.parquet", {f"p{i}": {"mos": 2.0 + i} for i in range(3)})
    for i in range(3):
        clips.write_video(tmp_path / f"p{i}.mp4", width=96, height=64, frames=4, seed=i)
    asks = GRPO | {"reward": "q_insight", "prompt": "q_insight"}

    def examples(**more: object) -> list[tuple[str, bool, bool]]:
        recipe = written(tmp_path / "a.yaml", small(asks, validation_clips=0, **more))
        run = RunContext.of(recipe, out=tmp_path, data=[people, ladder])
        (stage,) = recipe.stages
        train, _ = run.clips(stage)
        found = examples_of(stage, run.load(train), captions={})
        return [(one.clip_id, one.damage == NONE, math.isnan(one.opinion)) for one in found]

    quality = [(f"p{i}", True, False) for i in range(3)]
    damage = [(f"{i}", False, True) for i in range(2, 6)]
    assert examples(stand_in_opinions=False) == quality + damage
    assert examples(stand_in_opinions=True) == quality + [(f"{i}", True, False) for i in range(2, 6)] + damage

    def refused(stage: dict[str, object], data: list[Path]) -> None:
        recipe = written(tmp_path / "a.yaml", small(stage, stand_in_opinions=False))
        words = "6 clips in .* have stand-in opinions .VMAF., which no person gave. .* by stand_in_opinions: true"
        with pytest.raises(UsageError, match=words):
            run_recipe(recipe, data=data, out=tmp_path / "out")

    refused(GRPO, [people, ladder])  # its reward has no use for the damage
    refused(COLDSTART, [ladder])
    refused(asks, [ladder])  # nobody's opinion at all


def test_the_trainer_asks_and_pays_for_damage(tmp_path: Path) -> None:
    """In one batch: a clip's quality and another's damage, to a model that was taught neither."""
    quality, other, *_ = rehearsal.examples()
    from dataclasses import replace

    damage = replace(other, damage=("blur", "obvious"), opinion=float("nan"))
    trainer = rehearsal.trainer(
        tmp_path,
        of=[quality, damage, *rehearsal.examples()[2:]],
        its_model=rehearsal.narrow(),
        max_completion_length=8,
        reward="q_insight",
        prompt="q_insight",
        check_first_batch=False,
    )
    rows = [row for row in trainer.train_dataset if row["place"] in (0, 1) for _ in range(3)]
    trainer._generate_and_score_completions(rows)
    assert "What harmed it" in trainer._clips[1].question and "Rate the overall" in trainer._clips[0].question
    assert np.isnan(trainer._reward.batch.scores[1]).all()
