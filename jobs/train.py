"""A recipe on several workers by Ray Train: `vqa train … --workers N`.

`python -m jobs.train ARGS` is `vqa train ARGS`, for launchers that want a module. Each worker runs the recipe's stages
as a process of one torch group. A run resumes from the recipe's own checkpoints in --out, which on a cluster is a
folder that all machines see: when a worker is lost, Ray restarts the whole group, which resumes from the last
checkpoint; so does the same command after the driver is killed.
"""

import contextlib
import json
import math
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import _compat
from jobs.signals import locked
from jobs.stages import Resources
from jobs.waiting import missing, needed, say_on_stderr, wait_for_process, wait_for_room
from vqa.console import WAIT_SECONDS

if TYPE_CHECKING:
    from vqa.train.recipe import Recipe

OUTCOME = "outcome.json"  # in --out during the run: what the group made, or why no restart would help
TRY_SECONDS = 60.0  # Ray Train gives each start of a group so long, and would try without end
CHECK_SECONDS = 20.0  # between two checks that the whole group has started


def run(
    recipe: "Recipe",
    *,
    out: Path,
    data: Sequence[Path | str] = (),
    until: str | None = None,
    workers: int,
    max_restarts: int = 3,
    ray_address: str | None = None,
    wait_seconds: float = WAIT_SECONDS,
) -> Path:
    """Run the stages of a recipe on several workers, as it runs in one process.

    Args:
        recipe: The recipe.
        out: Folder for checkpoints, log and model; on a cluster one that all machines see.
        data: Folders of `vqa prepare`, ladders or manifests.
        until: Name of the last stage to run; None: all of them.
        workers: Processes, each with a GPU where there are any, else a core.
        max_restarts: How often the group is restarted after it lost a worker.
        ray_address: As of `jobs.ray_session.ray_session`.
        wait_seconds: How long to wait for room for all workers at once.

    Returns:
        The folder of the trained model.

    Raises:
        UsageError: More workers than Ray has GPUs or cores.
        VqaError: What the recipe raises; workers had no room in time, or were lost more often than `max_restarts`.
    """
    from jobs.ray_session import ray_session
    from vqa.errors import VqaError

    out = out.resolve()
    places = [str(Path(place).resolve()) if Path(place).exists() else str(place) for place in data]
    config = {"recipe": recipe, "out": str(out), "data": places, "until": until, "folder": str(Path.cwd())}
    with locked(out) as before_write, ray_session(ray_address, least_cpus=workers) as resources:
        (out / OUTCOME).unlink(missing_ok=True)
        report = _log_reporter(out / "log.jsonl")
        try:
            with _beside(report, every=1.0):
                failure = _fit(
                    config | {"before_write": before_write},
                    resources,
                    workers=workers,
                    max_restarts=max_restarts,
                    storage=out / "ray",
                    wait_seconds=wait_seconds,
                )
        finally:
            report()
    outcome = json.loads((out / OUTCOME).read_text(encoding="utf-8")) if (out / OUTCOME).is_file() else {}
    (out / OUTCOME).unlink(missing_ok=True)
    if "error" in outcome:
        error = VqaError(outcome["error"])
        error.exit_code = outcome["exit_code"]
        raise error
    if failure or "made" not in outcome:
        what = failure or "the workers ended without an outcome"
        raise VqaError(f"train: {what}; checkpoints are safe in {out}. The same command resumes.")
    shutil.rmtree(out / "ray", ignore_errors=True)
    return Path(outcome["made"])


def _fit(
    config: Mapping[str, object],
    resources: Mapping[str, float],
    *,
    workers: int,
    max_restarts: int,
    storage: Path,
    wait_seconds: float,
) -> str:
    """Run the group to its end; return what was wrong with it, or nothing."""
    os.environ["RAY_TRAIN_V2_ENABLED"] = "1"  # the default of later versions; read on import
    import ray.exceptions
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    from vqa.errors import UsageError

    unit = "GPU" if resources.get("GPU", 0) else "CPU"
    if workers > resources.get(unit, 0):
        raise UsageError(
            f"--workers {workers}: Ray has {resources.get(unit, 0):g} {unit}s, one worker needs one. Give fewer."
        )
    shares = [Resources(gpus=1.0) if unit == "GPU" else Resources(cpus=1.0)] * workers  # as of ScalingConfig
    wait_for_room(shares, wait_seconds=wait_seconds, say=say_on_stderr, less="--workers")
    wait_for_process(wait_seconds=wait_seconds, say=say_on_stderr)
    trainer = TorchTrainer(
        _worker,
        train_loop_config=dict(config),
        # What is sharded is gathered on GPUs, and offloaded or saved on CPUs.
        torch_config=TorchConfig(backend="cuda:nccl,cpu:gloo" if unit == "GPU" else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=unit == "GPU"),
        run_config=RunConfig(
            name=f"vqa-{os.getpid()}",
            storage_path=str(storage),
            failure_config=FailureConfig(
                max_failures=max_restarts,
                controller_failure_limit=math.ceil(max(wait_seconds, 1) / TRY_SECONDS),  # type: ignore[call-arg]  # mypy sees version 1
            ),
        ),
    )
    try:
        with _beside(_start_reporter(shares, wait_seconds), every=CHECK_SECONDS):
            trainer.fit()
    except TrainingFailedError as error:
        return " ".join(str(error).split())[-600:]
    except ray.exceptions.RayActorError as error:  # its own handler of Ctrl-C ends the actor that is waited for
        raise KeyboardInterrupt from error
    return ""


def _worker(config: dict[str, Any]) -> None:
    """One process of the group."""
    out = Path(config["out"])
    if (out / OUTCOME).exists():
        return  # restarted in vain: the fault is in the run
    import ray.train

    from vqa.errors import VqaError
    from vqa.files import write_json
    from vqa.imports import kept

    with kept():
        from vqa.train.runner import run_recipe
    with contextlib.suppress(OSError):
        os.chdir(config["folder"])  # Ray starts workers elsewhere; paths in the recipe are relative to this folder
    try:
        made = run_recipe(
            config["recipe"],
            out=out,
            data=config["data"],
            until=config["until"],
            before_write=config["before_write"],
        )
    except VqaError as error:
        write_json(out / OUTCOME, {"error": str(error), "exit_code": error.exit_code})
        raise
    if ray.train.get_context().get_world_rank() == 0:
        write_json(out / OUTCOME, {"made": str(made)})


def _log_reporter(log: Path) -> Callable[[], None]:
    """A function that prints workers' new log lines; their stderr stays with Ray."""
    place = log.stat().st_size if log.is_file() else 0

    def report() -> None:
        nonlocal place
        if log.is_file():
            with log.open(encoding="utf-8") as file:
                file.seek(place)
                for line in iter(file.readline, ""):
                    print(line.rstrip(), file=sys.stderr, flush=True)
                place = file.tell()

    return report


def _start_reporter(shares: Sequence[Resources], wait_seconds: float) -> Callable[[], None]:
    """A function that says, once per state, what a restarted group waits for."""
    import ray
    import ray.exceptions

    missed, printed = 0, ""

    def check() -> None:
        nonlocal missed, printed
        missed = 0 if _compat.train_workers() >= len(shares) else missed + 1
        # Ray gives these two functions no types.
        free, has = ray.available_resources(), ray.cluster_resources()  # type: ignore[no-untyped-call]
        what = missing(needed(shares), has, free)
        if missed > 1 and what and what != printed:
            say_on_stderr(f"waiting for workers: {what} (--wait {wait_seconds:g})")
            printed = what

    def report() -> None:
        with contextlib.suppress(ray.exceptions.RayError):  # `fit` raises for a Ray that is gone
            check()

    return report


@contextlib.contextmanager
def _beside(work: Callable[[], None], *, every: float) -> Iterator[None]:
    """Call `work` every so many seconds in a thread."""
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(every):
            work()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


if __name__ == "__main__":
    import runpy

    sys.argv.insert(1, "train")
    runpy.run_module("vqa.cli", run_name="__main__")
