"""The reward in trl's shape: one process and two give the same; it travels; a torn group stops the run."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch.multiprocessing as mp

from vqa.errors import ModelError
from vqa.prompt import answer_text
from vqa.rewards import compute
from vqa.rewards.presets import PRESETS
from vqa.train.reward import UNFED, RankAndScore

K = 3


def columns() -> dict[str, list]:
    generator = np.random.default_rng(0)
    texts = [answer_text("ok", generator.uniform(1, 5, 2)) for _ in range(4 * K)]
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
    assert reward.__name__ == "preresq_video" and reward.judged is not None
    scores = reward.judged.scores
    assert np.isnan(scores[1, 1]) and np.isnan(scores).sum() == 1
    values = [
        [[float(x) for x in one[0]["content"].split("\n")[1:3]] if "<answer>" in one[0]["content"] else [np.nan] * 2]
        for one in given["completions"]
    ]
    expected = compute("preresq_video", np.reshape(values, (4, K, 2)), [2.0, 3.0, 4.0, 1.5], ["a"] * 4)["total"]
    np.testing.assert_allclose(paid, expected.ravel())
    assert seen["rewards/format"] == pytest.approx(11 / 12)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_term_that_always_pays_nothing_is_named(preset: str) -> None:
    """Of all presets, over good answers of many lengths: what pays 0 is what UNFED says, and nothing else."""
    given = columns()
    reward = RankAndScore(preset, dimensions=2, k=K)
    given["completion_ids"] = [[1] * 400 for _ in given["completion_ids"]]
    given["completions"][0] = [{"role": "assistant", "content": "no answer " + "very " * 9}]
    reward(**given)
    assert reward.judged is not None
    idle = {name for name, term in reward.judged.terms.items() if not term.any()}
    assert idle == ({UNFED[preset].split(":")[0]} if preset in UNFED else set())


def test_it_survives_pickling_with_its_name() -> None:
    reward = pickle.loads(pickle.dumps(RankAndScore("preresq_video", dimensions=2, k=K)))
    assert reward.__name__ == "preresq_video" and len(reward(**columns())) == 12


def test_a_torn_group_stops_the_run() -> None:
    given = columns()
    given["clip_id"][0] = "clip9"
    with pytest.raises(ModelError, match="clip0, clip9"):
        RankAndScore("preresq_video", dimensions=2, k=K)(**given)


def _half(rank: int, folder: str) -> None:
    import os

    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29571"}
    from accelerate import PartialState

    PartialState(cpu=True)
    own = {name: column[6 * rank : 6 * rank + 6] for name, column in columns().items()}
    np.save(f"{folder}/{rank}.npy", RankAndScore("preresq_video", dimensions=2, k=K)(**own))


@pytest.mark.slow
def test_two_processes_pay_what_one_pays(tmp_path: Path) -> None:
    alone = RankAndScore("preresq_video", dimensions=2, k=K)(**columns())
    mp.spawn(_half, args=(str(tmp_path),), nprocs=2)
    halves = np.concatenate([np.load(tmp_path / f"{rank}.npy") for rank in (0, 1)])
    np.testing.assert_array_equal(halves, alone)
