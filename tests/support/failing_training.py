"""Training that is stopped at a chosen checkpoint: a worker of `jobs.train` that dies once."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jobs.train


def when_saved(do: Callable[[str, int], None]) -> None:
    """Calls `do` with the stage's name and the step after each checkpoint that this process has written."""
    from transformers.trainer_callback import DefaultFlowCallback

    def on_save(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        do(Path(args.output_dir).name, state.global_step)

    DefaultFlowCallback.on_save = on_save  # one that every Trainer has


def dies_once(marks: Path, *, step: int) -> Callable[[dict[str, Any]], None]:
    """As `jobs.train._worker`; the first of a group dies after the checkpoint of this step, in its first life.

    `marks` gets a file `killed`, and `saved` with the steps of all checkpoints in the order in which they were written.
    """
    usual = jobs.train._worker
    marks.mkdir()

    def worker(config: dict[str, Any]) -> None:
        import ray.train

        def note(stage: str, saved: int) -> None:
            with (marks / "saved").open("a") as log:
                log.write(f"{saved}\n")
            if saved == step and not (marks / "killed").exists():
                (marks / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)

        if ray.train.get_context().get_world_rank() == 0:
            when_saved(note)
        usual(config)

    return worker
