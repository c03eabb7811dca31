"""The reward in trl's shape: one process and two give the same; it travels; a torn group stops the run."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.support import children
from vqa.errors import ModelError
from vqa.prompt import PROMPTS, answer_text
from vqa.rewards import compute
from vqa.rewards.presets import REWARD_PRESETS
from vqa.train.clips.degradation import damage_answer
from vqa.train.grpo.perturbations import TERM_OF_REWARD
from vqa.train.grpo.reward import RankAndScore, spoken

K = 3


def columns(prompt: str = "preresq_video") -> dict[str, list]:
    generator, asked = np.random.default_rng(0), PROMPTS[prompt]
    values = generator.uniform(1, 5, (4 * K, asked.dimensions))
    texts = [answer_text("It looks fair.", own, asked.form) for own in values]
    texts[4] = "no answer"
    return {
        "completions": [[{"role": "assistant", "content": text}] for text in texts],
        "completion_ids": [[1] * 20 for _ in texts],
        "clip_id": [f"clip{i // K}" for i in range(4 * K)],
        "dataset": ["a"] * (4 * K),
        "opinion": [[2.0, 3.0, 4.0, 1.5][i // K] for i in range(4 * K)],
    }


def test_it_is_compute_over_the_groups() -> None:
    reward = RankAndScore("preresq_video", dimensions=2, k=K)
    given = columns()
    seen: dict[str, float] = {}
    paid = reward(**given, prompts=[""] * 12, trainer_state=None, log_metric=seen.__setitem__)
    assert reward.__name__ == "preresq_video" and reward.batch is not None
    scores = reward.batch.scores
    assert np.isnan(scores[1, 1]) and np.isnan(scores).sum() == 1
    values = [
        [[float(x) for x in one[0]["content"].split("\n")[1:3]] if "<answer>" in one[0]["content"] else [np.nan] * 2]
        for one in given["completions"]
    ]
    expected = compute("preresq_video", np.reshape(values, (4, K, 2)), [2.0, 3.0, 4.0, 1.5], ["a"] * 4)["total"]
    np.testing.assert_allclose(paid, expected.ravel())
    assert seen["rewards/format"] == pytest.approx(11 / 12)


def test_every_term_pays_something_once_it_is_fed() -> None:
    """Of all presets, over good answers of many lengths and all that the trainer adds to them."""
    damage = damage_answer(("noise", "slight"), np.random.default_rng(0), "q_insight")
    for preset in REWARD_PRESETS:
        prompt = preset if preset in PROMPTS else "visualquality_r1"
        numbers = PROMPTS[prompt].dimensions
        given = columns(prompt)
        given["completion_ids"] = [[1] * 400 for _ in given["completion_ids"]]
        given["completions"][0] = [{"role": "assistant", "content": "no answer " + "very " * 9}]
        exact = answer_text("It is fair.", [3.0] * numbers, PROMPTS[prompt].form)  # the opinion itself
        given["completions"][5] = [{"role": "assistant", "content": exact}]
        more = {
            "perturbed": [answer_text("", [1.0] * numbers)] * 12,
            "think": [0.9] * 12,
            "no_think": [0.1] * 12,
        }
        asked = given | {
            "completions": given["completions"][:9] + [[{"role": "assistant", "content": damage}]] * 3,
            "opinion": given["opinion"][:9] + [np.nan] * 3,
            "damage": [["", ""]] * 9 + [["noise", "slight"]] * 3,
        }
        reward = RankAndScore(preset, dimensions=numbers, k=K)
        reward(**asked if preset == "q_insight" else given, **more)
        assert reward.batch is not None
        assert {name for name, term in reward.batch.terms.items() if not term.any()} == set(), preset
        reward(**given)
        idle = {name for name, term in reward.batch.terms.items() if not term.any()}
        known = TERM_OF_REWARD.get(preset), "degradation" if preset == "q_insight" else None
        assert idle == {one for one in known if one}, preset


def test_the_last_grade_word_of_a_reason_is_its_score() -> None:
    words = {"bad": 1, "very poor": 1, "poor": 2, "fair": 3, "good": 4, "Excellent": 5}
    for word, score in words.items():
        assert spoken(answer_text(f"The light is good, all in all {word}.", [3.0])) == score
        assert spoken(answer_text(f"I say {word}, not good.", [3.0])) == score
    assert np.isnan(spoken(answer_text("Nice; goodness!", [3.0]))) and np.isnan(spoken("<answer>good</answer>"))


def test_it_survives_pickling_with_its_name() -> None:
    reward = pickle.loads(pickle.dumps(RankAndScore("preresq_video", dimensions=2, k=K)))
    assert reward.__name__ == "preresq_video" and len(reward(**columns())) == 12


def test_a_torn_group_stops_the_run() -> None:
    given = columns()
    given["clip_id"][0] = "clip9"
    with pytest.raises(ModelError, match="clip0, clip9"):
        RankAndScore("preresq_video", dimensions=2, k=K)(**given)


def _half(rank: int, port: int, folder: str) -> None:
    import os

    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    from accelerate import PartialState

    state = PartialState(cpu=True)
    own = {name: column[6 * rank : 6 * rank + 6] for name, column in columns().items()}
    np.save(f"{folder}/{rank}.npy", RankAndScore("preresq_video", dimensions=2, k=K)(**own))
    state.destroy_process_group()  # its threads may outlive the interpreter otherwise, which aborts


@pytest.mark.slow
def test_two_processes_pay_what_one_pays(tmp_path: Path) -> None:
    alone = RankAndScore("preresq_video", dimensions=2, k=K)(**columns())
    children.both(_half, str(tmp_path))
    halves = np.concatenate([np.load(tmp_path / f"{rank}.npy") for rank in (0, 1)])
    np.testing.assert_array_equal(halves, alone)
