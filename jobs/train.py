"""A recipe on several workers by Ray Train: `vqa train … --workers N`.

`python -m jobs.train ARGS` is `vqa train ARGS`, for launchers that want a module. Each worker runs the recipe's stages
as a process of one torch group. A run resumes from the recipe's own checkpoints in --out, which on a cluster is a
folder that all machines see: when a worker is lost, Ray restarts the whole group, which resumes from the last
checkpoint; so does the same command after the driver is killed.
"""

import contextlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import _compat
from jobs.signals import locked

if TYPE_CHECKING:
    from vqa.train.recipe import Recipe

OUTCOME = "outcome.json"  # in --out while it runs: what the group made, or why no restart would mend it
START_TRIES = 60  # Ray Train gives each a minute, and would go on for ever
LOOK_SECONDS = 20.0  # how often it is looked whether the group is there


def run(
    recipe: "Recipe",
    *,
    out: Path,
    data: Sequence[Path | str] = (),
    until: str | None = None,
    workers: int,
    max_restarts: int = 3,
    ray_address: str | None = None,
) -> Path:
    """As `vqa.train.runner.run_recipe`: the stages of a Recipe (up to `until`); returns the folder of the model.

    Raises UsageError where the workers do not fit the machines, VqaError as the recipe itself, and where workers were
    lost more often than `max_restarts`.
    """
    from jobs import ray_executor
    from vqa.errors import VqaError

    out = out.resolve()
    places = [str(Path(place).resolve()) if Path(place).exists() else str(place) for place in data]
    config = {"recipe": recipe, "out": str(out), "data": places, "until": until, "folder": str(Path.cwd())}
    with locked(out), ray_executor.ray_session(ray_address, least_cpus=workers) as resources:
        (out / OUTCOME).unlink(missing_ok=True)
        tell = _told_on(out / "log.jsonl")
        try:
            with _beside(tell, every=1.0):
                failure = _fit(config, resources, workers=workers, max_restarts=max_restarts, storage=out / "ray")
        finally:
            tell()
    outcome = json.loads((out / OUTCOME).read_text(encoding="utf-8")) if (out / OUTCOME).is_file() else {}
    (out / OUTCOME).unlink(missing_ok=True)
    if "error" in outcome:
        error = VqaError(outcome["error"])
        error.exit_code = outcome["exit_code"]
        raise error
    if failure or "made" not in outcome:
        what = failure or "the workers ended without a word"
        raise VqaError(f"train: {what}; what was trained is safe in {out}: the same command goes on from there")
    shutil.rmtree(out / "ray", ignore_errors=True)
    return Path(outcome["made"])


def _fit(
    config: Mapping[str, Any], resources: Mapping[str, float], *, workers: int, max_restarts: int, storage: Path
) -> str:
    """Runs the group to its end; what was wrong with it in the end, or nothing."""
    os.environ["RAY_TRAIN_V2_ENABLED"] = "1"  # the default of later versions; read on import
    import ray.exceptions
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    from vqa.errors import UsageError

    unit = "GPU" if resources.get("GPU", 0) else "CPU"
    if workers > resources.get(unit, 0):
        raise UsageError(f"--workers {workers}: Ray has {resources.get(unit, 0):g} {unit}s, one worker needs one")
    trainer = TorchTrainer(
        _worker,
        train_loop_config=dict(config),
        torch_config=TorchConfig(backend="nccl" if unit == "GPU" else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=unit == "GPU"),
        run_config=RunConfig(
            name=f"vqa-{os.getpid()}",
            storage_path=str(storage),
            failure_config=FailureConfig(
                max_failures=max_restarts,
                controller_failure_limit=START_TRIES,  # type: ignore[call-arg]  # mypy sees version 1
            ),
        ),
    )
    try:
        with _beside(_told_what_is_awaited(workers, unit), every=LOOK_SECONDS):
            trainer.fit()
    except TrainingFailedError as error:
        return " ".join(str(error).split())[-600:]
    except ray.exceptions.RayActorError as error:  # its own handler of Ctrl-C ends the actor that is waited for
        raise KeyboardInterrupt from error
    return ""


def _worker(config: dict[str, Any]) -> None:
    """One process of the group."""
    import ray.train

    from vqa.errors import VqaError
    from vqa.files import write_json
    from vqa.train.runner import run_recipe

    out = Path(config["out"])
    if (out / OUTCOME).exists():
        return  # the group was started again for nothing: the fault is in the run
    with contextlib.suppress(OSError):
        os.chdir(config["folder"])  # Ray puts workers elsewhere; paths in the recipe count from here
    try:
        made = run_recipe(config["recipe"], out=out, data=config["data"], until=config["until"])
    except VqaError as error:
        write_json(out / OUTCOME, {"error": str(error), "exit_code": error.exit_code})
        raise
    if ray.train.get_context().get_world_rank() == 0:
        write_json(out / OUTCOME, {"made": str(made)})


def _told_on(log: Path) -> Callable[[], None]:
    """Puts on stderr what workers have written to the run's log since the last call: theirs stays with Ray."""
    place = log.stat().st_size if log.is_file() else 0

    def tell() -> None:
        nonlocal place
        if log.is_file():
            with log.open(encoding="utf-8") as file:
                file.seek(place)
                for line in iter(file.readline, ""):
                    print(line.rstrip(), file=sys.stderr, flush=True)
                place = file.tell()

    return tell


def _told_what_is_awaited(workers: int, unit: str) -> Callable[[], None]:
    """Says on stderr, once for each state, what a group waits for that was not there in two calls: Ray does not."""
    import ray
    import ray.exceptions

    missed, told = 0, ""

    def look() -> None:
        nonlocal missed, told
        missed = 0 if _compat.train_workers() >= workers else missed + 1
        # Ray gives these two functions no types.
        free, has = ray.available_resources().get(unit, 0), ray.cluster_resources().get(unit, 0)  # type: ignore[no-untyped-call]
        text = f"train: waiting for {workers} workers, one {unit} each: {free:g} of Ray's {has:g} {unit}s are free"
        if missed > 1 and text != told:
            print(text, file=sys.stderr, flush=True)
            told = text

    def tell() -> None:
        with contextlib.suppress(ray.exceptions.RayError):  # a Ray that is gone is heard of where it is waited for
            look()

    return tell


@contextlib.contextmanager
def _beside(work: Callable[[], None], *, every: float) -> Iterator[None]:
    """Calls `work` every so many seconds in a thread."""
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
