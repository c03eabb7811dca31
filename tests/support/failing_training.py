"""Training that is stopped at a chosen checkpoint: `vqa train … --workers N` whose first worker dies once.

`python -m tests.support.failing_training train RECIPE …` is `vqa train RECIPE …`. `VQA_FAULTS` (JSON) names the
folder of `marks` and the `step` whose checkpoint is the last that the first worker writes in its first life; `saved`
in that folder lists the steps of all checkpoints as they were written.
"""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jobs.train

WORKER = jobs.train._worker


def when_saved(do: Callable[[str, int], None]) -> None:
    """Calls `do` with the stage's name and the step after each checkpoint that this process has written."""
    from transformers.trainer_callback import DefaultFlowCallback

    def on_save(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        do(Path(args.output_dir).name, state.global_step)

    DefaultFlowCallback.on_save = on_save  # one that every Trainer has


def worker(config: dict[str, Any]) -> None:
    """As `jobs.train._worker`."""
    import ray.train

    faults = json.loads(os.environ["VQA_FAULTS"])
    marks = Path(faults["marks"])

    def note(stage: str, step: int) -> None:
        with (marks / "saved").open("a") as log:
            log.write(f"{step}\n")
        if step == faults["step"] and not (marks / "killed").exists():
            (marks / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    if ray.train.get_context().get_world_rank() == 0:
        when_saved(note)
    WORKER(config)


if __name__ == "__main__":
    from tests.support import failing_training  # by a name that workers can import
    from vqa.cli import main

    jobs.train._worker = failing_training.worker
    main()
