"""`vqa model`: published questions, weights of other layouts. Light to import."""

from pathlib import Path
from typing import Annotated

import typer

model_app = typer.Typer(help="Published checkpoints: questions, and weights of other layouts.", no_args_is_help=True)


@model_app.command("fetch-question")
def fetch_question(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A card (configs/models), its file, or a hub id.")],
    base: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FOLDER|URL",
            help="A copy of the repository, or where OWNER/NAME/REVISION/PATH lie. [default: GitHub and the hub]",
        ),
    ] = None,
) -> None:
    """Read a checkpoint's published question, show it and keep it.

    It is read where its authors put it, and kept in your config folder. `vqa score` then asks it, and its digest and
    `asked: published` are in every row.
    """
    from vqa.console import printable
    from vqa.model.card import settle
    from vqa.model.question import fetch_question as fetch
    from vqa.model.question import questions_of, words_digest

    card, path = fetch(settle(name, {})[0], base=base)
    for kind, text in questions_of(card):
        typer.echo(f"{kind}:")
        for line in text.splitlines():
            typer.echo(f"  {printable(line)}")
    typer.echo(f"{words_digest(card)}, kept in {printable(str(path))}", err=True)


@model_app.command()
def convert_rali(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Holds ckpt.pt, pca.pkl and best/.")],
    out: Annotated[Path, typer.Option(help="Folder for the student: student.safetensors and student.yaml.")],
    low: Annotated[
        float, typer.Option(help="Worst score of the scale it was trained on; its authors do not state it.")
    ],
    high: Annotated[float, typer.Option(help="Best score of that scale.")],
) -> None:
    """Convert released RALI (arXiv 2510.11369) to a student.

    Its pickles are read in a guarded child.
    """
    from vqa.errors import UsageError
    from vqa.light.card import student_digest
    from vqa.light.released import convert  # torch: not for --help

    if not low < high:
        raise UsageError(f"--low {low:g} --high {high:g}: no scale. Give --low below --high.")
    convert(folder, out, low=low, high=high)
    typer.echo(f"{out} ({student_digest(out)})")
