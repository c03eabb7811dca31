"""One process and two (gloo) write the same answers, pay the same rewards and take the same first step.

They find the same on held-out clips too, each of which one of the two looks at.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import children, rehearsal
from vqa.train.clips.dataset import TrainingClip
from vqa.train.validation import validate

# Three clips on two processes: the second clip's answers lie on both.
SETTINGS = {
    "clips_per_step": 3,
    "per_device_train_batch_size": 12,
    "learning_rate": 1e-2,
    "optim": "sgd",
    "max_grad_norm": 1e9,
    "max_completion_length": 32,
}
# Answers compared, four to a clip; and those to shuffled frames, one to two of a clip.
REWARDS = {"preresq_video": 4, "vq_insight": 2}

JUDGED = "preresq_video"


def one_step(folder: str, reward: str, *, processes: int) -> dict[str, object]:
    # float64 and plain gradient descent, so that rounding neither cancels nor is blown up by Adam's first step.
    looks = [one.load for one in rehearsal.examples(sigmas=(0.0,))]
    held_out = [
        TrainingClip(clip_id=f"{place}", dataset="held out", opinion=1.5 + place, load=load)
        for place, load in enumerate(looks)
    ]
    judged = reward == JUDGED  # the held-out clips know nothing of rewards
    asking = {"prompt": "preresq_video", "readout": "answer", "max_new_tokens": 64}
    trainer = rehearsal.trainer(
        Path(folder),
        its_model=rehearsal.model(dtype=torch.float64),
        processes=processes,
        reward=reward,
        num_generations=REWARDS[reward],
        evaluate=partial(validate, processor=rehearsal.processor(), clips=held_out, **asking) if judged else None,
        eval_steps=1,
        **SETTINGS,
    )
    before = rehearsal.weights(trainer.model)
    trainer.train()
    paid = trainer._reward.batch
    update = {name: value - before[name] for name, value in rehearsal.weights(trainer.model).items()}
    found = [
        [entry[f"held_out/{name}"] for name in ("srcc", "plcc", "parsed")]
        for entry in trainer.state.log_history
        if "held_out/srcc" in entry
    ]
    return {
        "texts": paid.texts,
        "total": torch.from_numpy(paid.terms["total"]),
        "update": update,
        "held_out": torch.tensor(found),
        "looks": sum(look.loads for look in looks),
    }


def _half(rank: int, port: int, folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "1"}
    for reward in REWARDS:
        torch.save(one_step(str(folder / reward), reward, processes=2), folder / f"{reward}-{rank}.pt")
    torch.distributed.destroy_process_group()  # its threads may outlive the interpreter otherwise, which aborts


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What one process found, by reward."""
    folder = tmp_path_factory.mktemp("one")
    return {reward: one_step(str(folder / reward), reward, processes=1) for reward in REWARDS}


@pytest.fixture(scope="module")
def halves(whole: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each of two processes found: `REWARD-RANK.pt`; they are forked when model and clips are read."""
    folder = tmp_path_factory.mktemp("both")
    children.both(_half, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("reward", REWARDS)
def test_two_processes_take_the_step_that_one_takes(
    whole: dict[str, dict[str, Any]], halves: Path, reward: str
) -> None:
    alone = whole[reward]
    for rank in range(2):
        half = torch.load(halves / f"{reward}-{rank}.pt", weights_only=False)
        assert half["texts"] == alone["texts"]
        torch.testing.assert_close(half["total"], alone["total"], rtol=0, atol=0)
        assert (half["total"].std(dim=1) > 0.01).all(), "each clip's answers are paid differently"
        torch.testing.assert_close(half["held_out"], alone["held_out"], equal_nan=True)
        judged = (2, 4, 2) if reward == JUDGED else (0, 0, 0)  # before and after the step
        assert (len(alone["held_out"]), alone["looks"], half["looks"]) == judged
        for name, update in alone["update"].items():
            worst = (half["update"][name] - update).norm() / update.norm()
            assert worst < 1e-6, (name, worst)
