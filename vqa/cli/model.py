"""`vqa model`: what a card asks, and the published question of a checkpoint. Light to import."""

from typing import Annotated

import typer

model_app = typer.Typer(help="Checkpoints and the questions that they were trained with.", no_args_is_help=True)


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
    """Read a checkpoint's published question where its authors put it, show it, and keep it in your config folder.

    `vqa score` then asks it, and rows say `asked: published` with its digest.
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
