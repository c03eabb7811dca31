"""`vqa train`: train a model by a recipe. Light to import."""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from vqa.cli.distill import distill
from vqa.console import WAIT_SECONDS, Wait, assigning


def train(
    recipe: Annotated[
        Path,
        typer.Argument(metavar="RECIPE", help="A file of configs/train, or of configs/light as for `vqa distill`."),
    ],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder of `vqa prepare`, a ladder of `vqa data synth`, or a manifest; may be given again."
        ),
    ] = None,
    ladder: Annotated[list[Path] | None, typer.Option(help="The same as --data, for ladders.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for checkpoints, log and the trained model.")] = None,
    assignments: Annotated[list[str] | None, assigning("seed=1, stages.coldstart.max_steps=500")] = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes, placed and replaced by Ray. [default: this one, without Ray]")
    ] = None,
    max_restarts: Annotated[
        int, typer.Option(min=0, help="With --workers: how often the group is restarted after it lost a worker.")
    ] = 3,
    ray_address: Annotated[str | None, typer.Option(help="With --workers: as for `vqa score`.")] = None,
    wait: Wait = WAIT_SECONDS,
    gpus: Annotated[
        str | None,
        typer.Option(
            metavar="NxGPU",
            help="Plan the memory for these GPUs of configs/hardware, such as 8xh100, and refuse what does not fit. "
            "[default: those of this machine]",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print steps, answers, memory and data, and do nothing.")
    ] = False,
) -> None:
    """Train a model by a recipe; the same command again resumes."""
    from vqa.errors import UsageError
    from vqa.imports import require, uncollected
    from vqa.light.config import student_config

    if recipe.is_file() and (settings := student_config(recipe)):
        given = {"--data": data, "--ladder": ladder, "--until": until, "--workers": workers, "--gpus": gpus}
        for option, value in (given | {"--ray-address": ray_address, "--dry-run": dry_run or None}).items():
            if value is not None:
                raise UsageError(
                    f"{option}: not used by {recipe}, which trains a student of the light tier; leave it out"
                )
        if out is None:
            raise UsageError("train: --out is missing; give a folder for the student")
        distill(settings, out, assignments)
        return
    require("train", "trl", "accelerate", "datasets", doing="vqa train")
    from vqa.train.recipe import load_recipe

    chosen = load_recipe(recipe, assignments or ())
    places = [*(data or []), *(ladder or [])]

    with uncollected():
        from vqa.train.dry_run import estimate, planned
    from vqa.train.gpus import detect_gpus, parse_gpus
    from vqa.train.plan import refuse_excess

    if dry_run:
        fleet = parse_gpus(gpus) if gpus else detect_gpus(workers)
        for line in estimate(chosen, data=places, fleet=fleet):
            typer.echo(line)
        return
    if out is None:
        raise UsageError("train: --out is missing; give a folder for checkpoints, log and model, or --dry-run")
    fleet = parse_gpus(gpus) if gpus else detect_gpus(workers or int(os.environ.get("WORLD_SIZE", "1")))
    if fleet or chosen.hardware.auto:
        chosen, plans, _ = planned(chosen, data=places, fleet=fleet)
        if not {"ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"} & set(os.environ):  # a launch file shards by itself
            refuse_excess(chosen, plans)
    if workers is None:
        from accelerate import PartialState

        from jobs.signals import locked
        from vqa.train.context import nobody_else
        from vqa.train.runner import run_recipe

        is_first = os.environ.get("RANK", "0") == "0"  # of a launcher's processes, which share the folder
        with locked(out) if is_first else nullcontext(nobody_else) as before_write:
            made = run_recipe(chosen, data=places, out=out, until=until, before_write=before_write)
        typer.echo(f"{made}")
        PartialState().destroy_process_group()  # of `accelerate launch`: its threads may outlive the interpreter
        return
    from jobs.train import run as run_on_ray

    made = run_on_ray(
        chosen,
        data=places,
        out=out,
        until=until,
        workers=workers,
        max_restarts=max_restarts,
        ray_address=ray_address,
        wait_seconds=wait,
    )
    typer.echo(f"{made}")
