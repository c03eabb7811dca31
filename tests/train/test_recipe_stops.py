"""A run that is killed in the middle of a stage, or whose disk fills, ends with the weights of one that was not."""

import os
import resource
import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from jobs import signals
from tests.support import children
from tests.support.failing_training import when_saved
from tests.support.recipes import COLDSTART, GRPO, WARMUP, small, written
from tests.support.scale import FULL, full
from vqa.cli.train import train as command
from vqa.errors import ModelError, VqaError
from vqa.train.recipe import load_recipe
from vqa.train.runner import run_recipe

pytestmark = pytest.mark.slow

LIMIT_SECONDS = 300


def train(recipe: Path, ladder: Path, out: Path, said: Path, stops: Mapping[tuple[str, int], str]) -> None:
    """What the child does: one run; what it refuses goes into a file. At the checkpoints in `stops` it is killed, or
    its disk is full."""
    import torch

    def stop(stage: str, step: int) -> None:
        what = stops.get((stage, step))
        if what == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "full":  # bytes a file may have: what a full disk looks like to a writer
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))

    torch.set_num_threads(1)
    when_saved(stop)
    try:
        run_recipe(load_recipe(recipe), data=[ladder], out=out)
    except ModelError as error:
        said.write_text(str(error))


def test_killed_in_every_stage_or_out_of_disk_the_weights_are_the_same(ladder: Path, tmp_path: Path) -> None:
    file, out, said = tmp_path / "a.yaml", tmp_path / "out", tmp_path / "said.txt"
    cold = COLDSTART | {"max_steps": 4, "ema_decay": 0.9}
    last = [GRPO | {"max_steps": 4, "num_iterations": 1}] * FULL  # of GRPO alone: grpo/test_stops.py
    written(file, small(WARMUP, cold, *last))

    def ended(where: Path, stops: Mapping[tuple[str, int], str]) -> int | None:
        child = children.forked().Process(target=train, args=(file, ladder, where, said, stops))
        child.start()
        child.join(LIMIT_SECONDS)
        return child.exitcode

    assert ended(tmp_path / "whole", {}) == 0, said.read_text() if said.exists() else "see stderr"
    for stage in ("coldstart", "grpo")[: full(2, gate=1)]:
        assert ended(out, {(stage, 2): "killed"}) == -signal.SIGKILL
        assert (out / stage / "checkpoint-2").exists()
        assert not (out / stage / "model").exists()  # in the middle, not behind

    if FULL:
        assert ended(out, {("grpo", 3): "full"}) == 0
        words = said.read_text()
        assert "checkpoint-4 could not be written" in words or "the model could not be written" in words
        assert "Make room" in words and "checkpoint-3" in words

    assert ended(out, {}) == 0
    undisturbed, stopped = (load_file(path / "model" / "model.safetensors") for path in (tmp_path / "whole", out))
    before = load_file(out / ("coldstart" if FULL else "warmup") / "model" / "model.safetensors")
    assert any(not np.array_equal(before[name], stopped[name]) for name in before)  # the last stage has moved something
    assert undisturbed.keys() == stopped.keys()
    assert all(np.array_equal(undisturbed[name], stopped[name]) for name in undisturbed)


@pytest.mark.parametrize("stage", [COLDSTART, GRPO], ids=lambda stage: stage["name"])
def test_a_run_that_another_one_took_over_writes_no_more(
    ladder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Mapping[str, object]
) -> None:
    """As where its machine slept, on a file system that several machines see."""
    from transformers.trainer_callback import DefaultFlowCallback

    out, file = tmp_path / "out", tmp_path / "a.yaml"
    written(file, small(WARMUP, stage))
    monkeypatch.setattr(signals, "is_shared", lambda _: True)
    monkeypatch.setattr(DefaultFlowCallback, "on_save", None)  # put back when the test ends

    def take_over(_: str, step: int) -> None:
        (out / ".lock.held").write_text("process 1 on elsewhere\nits token 1")

    when_saved(take_over)
    with pytest.raises(VqaError, match="another run has taken over"):
        command(file, data=[str(ladder)], out=out, workers=None)
    folder = out / str(stage["name"])
    assert [one.name for one in folder.glob("checkpoint-*")] == ["checkpoint-1"]
    assert not {"model", "unfinished"} & {one.name for one in folder.iterdir()}
    assert not (out / "model").exists()
    assert (out / ".lock.held").read_text() == "process 1 on elsewhere\nits token 1"  # the other's
