"""`vqa model`: weights of other layouts to ours. Light to import."""

from pathlib import Path
from typing import Annotated

import typer

model_app = typer.Typer(help="Convert released weights.", no_args_is_help=True)


@model_app.callback()
def _commands() -> None:
    """Keep `convert-rali` a command of its own: Typer runs an only command without its name."""


@model_app.command()
def convert_rali(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Holds ckpt.pt, pca.pkl and best/.")],
    out: Annotated[Path, typer.Option(help="Folder for the student: student.safetensors and student.yaml.")],
    low: Annotated[
        float, typer.Option(help="Worst score of the scale it was trained on; its authors do not state it.")
    ],
    high: Annotated[float, typer.Option(help="Best score of that scale.")],
) -> None:
    """Convert released RALI (arXiv 2510.11369) to a student; pickles are read in a guarded child."""
    from vqa.errors import UsageError
    from vqa.light.card import student_digest
    from vqa.light.released import convert  # torch: not for --help

    if not low < high:
        raise UsageError(f"--low {low:g} --high {high:g}: no scale. Give --low below --high.")
    convert(folder, out, low=low, high=high)
    typer.echo(f"{out} ({student_digest(out)})")
