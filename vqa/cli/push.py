"""`vqa push`: make a trained model ready for the hub. Light to import."""

from pathlib import Path
from typing import Annotated

import typer


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
    """Make a trained model ready for the hub.

    The folder has the weights as safetensors, the processor, and a card with figures and recipe.
    """
    from vqa.train.publish import make_folder
    from vqa.train.publish import upload as send

    folder = make_folder(run, repo, licence=licence, evaluation=evaluation, out=out)
    typer.echo(f"{folder}")
    if upload:
        typer.echo(send(folder, repo, is_private=not public))
