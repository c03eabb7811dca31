"""`vqa data ...`: make, import and check data sets."""

from pathlib import Path
from typing import Annotated

import typer

data_app = typer.Typer(help="Make and check data sets.", no_args_is_help=True)


@data_app.command()
def synth(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="Pristine pictures, videos, folders.")],
    out: Annotated[Path, typer.Option(help="Folder for the clips and ladder.parquet.")],
    clips_per_content: Annotated[int, typer.Option(min=1, help="Distorted clips of each content.")] = 8,
    seed: Annotated[int, typer.Option(help="Another seed, another ladder.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Make a ladder of distorted clips labelled by VMAF (a stand-in for opinions, not people's)."""
    from vqa.data.synth import synthesise

    for done, planned, trouble in synthesise(
        sources, out=out, clips_per_content=clips_per_content, seed=seed, workers=workers
    ):
        if trouble or done % 50 == 0 or done == planned:
            typer.echo(f"{done}/{planned} {trouble}".rstrip(), err=True)
    typer.echo(f"{out / 'ladder.parquet'}")


@data_app.command()
def demo(out: Annotated[Path, typer.Option(help="Folder for the clips.")]) -> None:
    """Make a small ladder from the bundled clips: damaged copies, a cut-off file, a text named .mp4."""
    from vqa.data.demo import make_demo

    typer.echo(f"{len(make_demo(out))} clips in {out}")
