"""`vqa distill`: train a student of the light tier. Light to import."""

from pathlib import Path
from typing import Annotated

import typer

from vqa.console import assigning


def distill(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A file of configs/light.")],
    out: Annotated[Path, typer.Option(help="Folder for the student: student.safetensors and student.yaml.")],
    assignments: Annotated[list[str] | None, assigning("regression.strength=0.01")] = None,
) -> None:
    """Train a student of the light tier on people's opinions and on ladders.

    Embeddings made before are reused.
    """
    from vqa.config import load_config
    from vqa.light.card import student_digest
    from vqa.light.config import DistillConfig  # pydantic: not for --help
    from vqa.light.distill import distill as run

    student = run(load_config(config, DistillConfig, assignments or ()), lambda line: typer.echo(line, err=True))
    student.save(out)
    typer.echo(f"{out} ({student_digest(out)})")
