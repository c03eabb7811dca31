"""A run that is killed in the middle of a stage, or whose disk fills, ends with the weights of one that was not."""

import multiprocessing
import resource
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from tests.support.recipes import COLDSTART, GRPO, WARMUP, small, written
from vqa.errors import ModelError
from vqa.train.recipe import load_recipe
from vqa.train.runner import run_recipe

LIMIT_SECONDS = 300


def train(recipe: Path, ladder: Path, out: Path, said: Path) -> None:
    """What the child does: one run; what it refuses goes into a file."""
    import torch

    torch.set_num_threads(1)
    try:
        run_recipe(load_recipe(recipe), data=[ladder], out=out)
    except ModelError as error:
        said.write_text(str(error))


def started(*arguments: Path) -> BaseProcess:
    """A child that has the imports behind it: forked from a server that did nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vqa.train.runner", "test_recipe_stops"])
    child = context.Process(target=train, args=arguments)
    child.start()
    return child


def when(path: Path, child: BaseProcess, do: Callable[[], Any]) -> None:
    """Does it as soon as the path is there, while the child still works."""
    end = time.monotonic() + LIMIT_SECONDS
    while not path.exists() and child.is_alive() and time.monotonic() < end:
        time.sleep(0.002)
    do()
    child.join(LIMIT_SECONDS)


def test_killed_in_every_stage_or_out_of_disk_the_weights_are_the_same(ladder: Path, tmp_path: Path) -> None:
    file, out, said = tmp_path / "a.yaml", tmp_path / "out", tmp_path / "said.txt"
    cold = COLDSTART | {"max_steps": 4, "ema_decay": 0.9}
    written(file, small(WARMUP, cold, GRPO | {"max_steps": 4, "num_iterations": 1}))
    whole = started(file, ladder, tmp_path / "whole", said)
    whole.join(LIMIT_SECONDS)
    assert whole.exitcode == 0, said.read_text() if said.exists() else "see stderr"

    for stage in ("coldstart", "grpo"):
        child = started(file, ladder, out, said)
        when(out / stage / "checkpoint-2", child, child.kill)
        assert child.exitcode == -signal.SIGKILL
        assert not (out / stage / "model").exists()  # in the middle, not behind

    child = started(file, ladder, out, said)
    limit = (100_000, resource.RLIM_INFINITY)  # bytes a file may have: what a full disk looks like to a writer
    when(out / "grpo" / "checkpoint-3", child, lambda: resource.prlimit(child.pid or 0, resource.RLIMIT_FSIZE, limit))
    assert child.exitcode == 0
    words = said.read_text()
    assert "checkpoint-4 could not be written" in words or "the model could not be written" in words
    assert "make room" in words and "checkpoint-3" in words

    last = started(file, ladder, out, said)
    last.join(LIMIT_SECONDS)
    assert last.exitcode == 0
    undisturbed, stopped = (load_file(path / "model" / "model.safetensors") for path in (tmp_path / "whole", out))
    before = load_file(out / "coldstart" / "model" / "model.safetensors")
    assert any(not np.array_equal(before[name], stopped[name]) for name in before)  # the last stage has moved something
    assert undisturbed.keys() == stopped.keys()
    assert all(np.array_equal(undisturbed[name], stopped[name]) for name in undisturbed)
