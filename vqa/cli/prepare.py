"""`vqa prepare`: decode and sample the clips of a manifest once. Light to import."""

from pathlib import Path
from typing import Annotated

import typer

from vqa.console import WAIT_SECONDS, DryRun, Engine, EngineOption, JsonSummary, RayAddress, Wait, assigning


def prepare(
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", help="Of vqa data import; or a ladder of vqa data synth.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the pictures; the same folder again resumes.")],
    config: Annotated[Path | None, typer.Option(help="YAML settings, as for `vqa score`: views, limits, job.")] = None,
    assignments: Annotated[list[str] | None, assigning("views.keyframes=8")] = None,
    model: Annotated[str | None, typer.Option(help="As for `vqa score`: its card may set the views.")] = None,
    recipe: Annotated[
        Path | None,
        typer.Option("--for", metavar="RECIPE", help="A file of configs/train: takes its views; not with --model."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="0: what scoring sees. Others: samplers that draw, draw anew.")] = 0,
    engine: EngineOption = Engine.AUTO,
    ray_address: RayAddress = None,
    wait: Wait = WAIT_SECONDS,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete what was prepared in OUT and begin again.")] = False,
    max_failed: Annotated[
        str, typer.Option(help="Exit with 3 where more clips than this (5% or a count) fail.")
    ] = "5%",
    dry_run: DryRun = False,
    json_summary: JsonSummary = False,
) -> None:
    """Decode and sample every clip of a manifest once, for training.

    The same command again resumes.

    Exit codes: 0 all good; 1 the job could not run; 2 wrong usage; 3 finished, but too many clips failed; 130
    interrupted by Ctrl-C or SIGTERM (what was decoded is on disk).
    """
    from jobs.prepare import PrepareRequest
    from jobs.prepare import prepare as run  # Arrow, pydantic: not for --help

    request = PrepareRequest(
        manifest=manifest,
        out=out,
        config=config,
        assignments=tuple(assignments or ()),
        model=model,
        recipe=recipe,
        seed=seed,
        engine=engine,
        ray_address=ray_address,
        wait=wait,
        fresh=fresh,
        max_failed=max_failed,
        dry_run=dry_run,
        json_summary=json_summary,
    )
    raise typer.Exit(run(request))
