"""What stops a run, what is left then, and how it goes on: NaN, a full disk, SIGKILL, answers that teach nothing."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from tests.support import children, rehearsal
from tests.support.recipes import COLDSTART, small, written
from vqa.errors import ModelError
from vqa.train.metrics_log import reporters
from vqa.train.runner import run_recipe

pytestmark = pytest.mark.slow


def narrow(folder: Path, **settings: Any) -> Any:
    """A trainer of a model of which only weights and steps matter here."""
    return rehearsal.trainer(folder, its_model=rehearsal.narrow(), **{"check_first_batch": False} | settings)


class At(TrainerCallback):
    """Calls something when a step has ended."""

    def __init__(self, step: int, call: Any) -> None:
        self.step, self.call = step, call

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            self.call()


def poison(trainer: Any) -> None:
    with torch.no_grad():
        trainer.model.model.language_model.norm.weight[0] = float("nan")


def test_nan_stops_before_a_step_and_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    trainer = narrow(tmp_path, num_generations=2, max_steps=3, save_steps=1, max_completion_length=8)
    trainer.add_callback(At(1, lambda: poison(trainer)))
    with pytest.raises(
        ModelError, match=rf"nan at step 1\. Lower `learning_rate` and resume from {tmp_path}/checkpoint-1"
    ):
        trainer.train()


def test_a_gradient_that_is_none_moves_nothing(tmp_path: Path) -> None:
    trainer = narrow(tmp_path, num_generations=2, max_completion_length=8)
    before = rehearsal.weights(trainer.model)
    trainer.model.lm_head.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(
        ModelError, match=r"gradient's norm is (nan|inf) at step 0\. Lower `learning_rate` and begin again"
    ):
        trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in rehearsal.weights(trainer.model).items())


@contextmanager
def small_disk(limit_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond the limit: the kernel refuses the write, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)


@pytest.mark.parametrize("share", [0.2, 1.2])  # of the weights' bytes: inside them, and inside the optimiser's state
def test_a_disk_that_fills_up_leaves_the_last_checkpoint_whole(tmp_path: Path, share: float) -> None:
    settings = {"num_generations": 2, "max_steps": 2, "save_steps": 1, "max_completion_length": 8}
    trainer = narrow(tmp_path, **settings)
    disk = small_disk(int(share * sum(one.nbytes for one in trainer.model.parameters())))
    trainer.add_callback(At(2, disk.__enter__))
    try:
        with pytest.raises(ModelError, match=r"checkpoint-2 could not be written to .* GB are free there\. Make room"):
            trainer.train()
    finally:
        disk.__exit__(None, None, None)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["checkpoint-1"]
    again = narrow(tmp_path, **settings)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 2 and (tmp_path / "checkpoint-2").is_dir()


SETTINGS = rehearsal.UNPAID | {
    "max_steps": 4,
    "save_steps": 2,
    "num_iterations": 2,
    "per_device_train_batch_size": 2,
}


def killed(folder: str) -> None:
    trainer = narrow(Path(folder), **SETTINGS)
    trainer.add_callback(At(3, lambda: os.kill(os.getpid(), signal.SIGKILL)))
    trainer.train()


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """Killed between two updates of the same answers, one step behind its checkpoint, in the second of two epochs."""
    child = children.forked().Process(target=killed, args=(str(tmp_path / "killed"),))
    child.start()
    straight = narrow(tmp_path / "straight", **SETTINGS)
    straight.train()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["checkpoint-2"]
    resumed = narrow(tmp_path / "killed", **SETTINGS)
    resumed.train(resume_from_checkpoint=True)
    before, final = rehearsal.weights(rehearsal.narrow()), rehearsal.weights(resumed.model)
    assert any(not torch.equal(value, final[name]) for name, value in before.items())
    assert all(torch.equal(value, final[name]) for name, value in rehearsal.weights(straight.model).items())


def test_a_run_that_cannot_learn_is_refused_before_its_first_step(tmp_path: Path) -> None:
    trainer = narrow(tmp_path, num_generations=2, max_completion_length=4, check_first_batch=True)
    before = rehearsal.weights(trainer.model)
    with pytest.raises(ModelError, match="from its first answers: no answer could be parsed"):
        trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in rehearsal.weights(trainer.model).items())
    cold = rehearsal.trainer(tmp_path, num_generations=2, temperature=1e-5)
    with pytest.raises(ModelError, match="the answers to each clip are all the same"):
        cold.train()


def test_the_log_shows_speed_memory_and_the_held_out_slice(tmp_path: Path) -> None:
    looked: list[bool] = []

    def judge(model: Any) -> dict[str, float]:
        looked.append(model.training)
        return {"srcc": 0.5}

    settings = {"num_generations": 2, "max_steps": 2, "max_completion_length": 8, "eval_steps": 2}
    trainer = narrow(tmp_path, evaluate=judge, **settings)
    trainer.train()
    logs = trainer.state.log_history
    assert [entry["step"] for entry in logs if "held_out/srcc" in entry] == [0, 2] and looked == [False, False]
    steps = [entry for entry in logs if "loss" in entry]
    for name in ("rollout/tokens_per_second", "clips_per_second", "peak_memory_gb"):
        assert [entry[name] > 0 for entry in steps] == [True, True]


def test_tensorboard_holds_what_the_held_out_clips_say(ladder: Path, tmp_path: Path) -> None:
    """Of GRPO, and of a cold start run as a recipe, whose model knows nothing yet: NaN stands there too."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def told(folder: Path, name: str) -> dict[int, float]:
        (file,) = folder.rglob("events.out.tfevents.*")
        found = events.EventAccumulator(str(file))
        found.Reload()
        return {one.step: one.value for one in found.Scalars(f"train/{name}")}

    settings = {"num_generations": 2, "max_steps": 2, "max_completion_length": 8, "eval_steps": 2}
    said = {"srcc": 0.5, "plcc": 0.25}
    narrow(tmp_path / "grpo", evaluate=lambda _: said, report_to="tensorboard", **settings).train()
    assert {name: told(tmp_path / "grpo", f"held_out/{name}") for name in said} == {
        name: {0: value, 2: value} for name, value in said.items()
    }
    assert set(told(tmp_path / "grpo", "loss")) == {1, 2}
    recipe = written(tmp_path / "a.yaml", small(COLDSTART | {"steps": 2}))
    run_recipe(recipe, data=[ladder], out=tmp_path / "out")
    for name in ("srcc", "plcc"):
        assert set(told(tmp_path / "out", f"held_out/{name}")) == {1, 2}


def test_wandb_is_told_only_where_it_can_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert "wandb" not in reporters()
