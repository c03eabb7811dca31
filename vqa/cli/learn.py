"""`vqa train` and what belongs to it."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A file of configs/train.")],
    ladder: Annotated[Path, typer.Option(help="Folder made by `vqa data synth`.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, log and the trained model.")],
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one setting: warmup.steps=500.")
    ] = None,
) -> None:
    """Train a model by a recipe; the same command goes on where it was stopped."""
    from vqa.config import load
    from vqa.train.recipe import Recipe, run

    typer.echo(f"{run(load(recipe, Recipe, assignments or ()), ladder=ladder, out=out)}")
