"""`vqa rewards ...`: pictures of the rewards of published recipes."""

from pathlib import Path
from typing import Annotated

import typer

rewards_app = typer.Typer(help="Inspect the rewards of published recipes.", no_args_is_help=True)


@rewards_app.command()
def plot(
    out: Annotated[Path, typer.Option(help="Folder for the pictures, one PNG per preset.")],
    presets: Annotated[
        list[str] | None, typer.Argument(metavar="[PRESET]...", help="Names of presets. [default: all of them]")
    ] = None,
) -> None:
    """Plot reward by predicted score for several opinions, in total and per term."""
    from vqa.files import replacing
    from vqa.report.rewards import plot_preset
    from vqa.rewards import REWARD_PRESETS

    pictures = {name: plot_preset(name) for name in presets or REWARD_PRESETS}
    out.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        with replacing(out / f"{name}.png") as draft:
            picture.save(draft, format="PNG")
        typer.echo(f"{out / name}.png")
