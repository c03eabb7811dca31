"""`vqa report`: one page to look at, for a job's scores or an evaluation."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="An --out of `vqa score` or of `vqa evaluate`.")],
    *,
    against: Annotated[Path | None, typer.Option(help="Another --out of `vqa evaluate`, shown side by side.")] = None,
    calibration: Annotated[Path | None, typer.Option(help="A file of `vqa calibrate`, shown too.")] = None,
    pictures: Annotated[int, typer.Option(min=0, max=24, help="How many clips are decoded again for pictures.")] = 24,
) -> None:
    """Write OUT/report.html, one file that opens offline: what was scored, how well, and what to look at."""
    from vqa.errors import UsageError
    from vqa.report.page import write_library, write_report

    if (folder / "metrics.json").is_file():
        path = write_report(folder, against=against, calibration=calibration, pictures=pictures)
    elif against or calibration:
        raise UsageError(f"{folder}: holds no evaluation, so --against and --calibration have nothing to say")
    else:
        path = write_library(folder, pictures=pictures)
    typer.echo(f"{path}", err=True)
