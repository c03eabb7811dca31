"""`vqa rewards ...`: see what the published recipes pay for."""

from pathlib import Path
from typing import Annotated

import typer

rewards_app = typer.Typer(help="Look at the rewards of the published recipes.", no_args_is_help=True)


@rewards_app.command()
def plot(
    out: Annotated[Path, typer.Option(help="Folder for the pictures, one PNG a preset.")],
    presets: Annotated[list[str] | None, typer.Argument(metavar="[PRESET]...", help="Default: all of them.")] = None,
) -> None:
    """Draw reward against predicted score for given opinions, in total and term by term."""
    from vqa.report.rewards import plot as draw
    from vqa.rewards import REWARD_PRESETS

    pictures = {name: draw(name) for name in presets or REWARD_PRESETS}
    out.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        picture.save(out / f"{name}.png")
        typer.echo(f"{out / name}.png")
