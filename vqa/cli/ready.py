"""`vqa prepare` before training, `vqa push` after it."""

from pathlib import Path
from typing import Annotated

import typer

from vqa.console import DryRun, JsonSummary, RayAddress, assigning


def prepare(
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", help="Of vqa data import; or a ladder of vqa data synth.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the pictures; the same folder again resumes.")],
    config: Annotated[Path | None, typer.Option(help="YAML settings, as for `vqa score`: views, limits, job.")] = None,
    assignments: Annotated[list[str] | None, assigning("views.keyframes=8")] = None,
    model: Annotated[str | None, typer.Option(help="As for `vqa score`: its card may set the views.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="0: what scoring sees. Others: samplers that draw, draw anew.")] = 0,
    ray_address: RayAddress = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete what was prepared in OUT and begin again.")] = False,
    max_failed: Annotated[
        str, typer.Option(help="Exit with 3 where more clips than this (5% or a count) fail.")
    ] = "5%",
    dry_run: DryRun = False,
    json_summary: JsonSummary = False,
) -> None:
    """Decode and sample every clip of a manifest once, for training. The same command again resumes.

    Exit codes: 0 all good; 1 the job could not run; 2 wrong usage; 3 finished, but too many clips failed; 130 stopped
    by Ctrl-C or SIGTERM (what was finished is kept).
    """
    from jobs.prepare import Request, run  # Arrow, pydantic, Ray: not for --help

    request = Request(
        manifest=manifest,
        out=out,
        config=config,
        assignments=tuple(assignments or ()),
        model=model,
        seed=seed,
        ray_address=ray_address,
        fresh=fresh,
        max_failed=max_failed,
        dry_run=dry_run,
        json_summary=json_summary,
    )
    raise typer.Exit(run(request))


def push(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="The --out of a finished `vqa train`.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="owner/name on the Hugging Face hub.")],
    licence: Annotated[
        str, typer.Option(help="SPDX id, e.g. apache-2.0; weights trained from others are bound by theirs.")
    ],
    evaluation: Annotated[
        Path | None, typer.Option(help="Folder of `vqa evaluate`, for the figures on the card.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write. [default: DIR/hub]")] = None,
    upload: Annotated[bool, typer.Option("--upload", help="Upload it, with the token in HF_TOKEN.")] = False,
    public: Annotated[bool, typer.Option("--public", help="A new repository is public, not private.")] = False,
) -> None:
    """Make a trained model ready for the hub: safetensors, processor, a card with figures and recipe."""
    from vqa.train.publish import make_folder
    from vqa.train.publish import upload as send

    folder = make_folder(run, repo, licence=licence, evaluation=evaluation, out=out)
    typer.echo(f"{folder}")
    if upload:
        typer.echo(send(folder, repo, is_private=not public))
