"""`vqa report`: report.html of a scoring run or an evaluation."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="The --out folder of `vqa score` or `vqa evaluate`.")],
    *,
    against: Annotated[
        Path | None, typer.Option(help="The --out folder of a second `vqa evaluate`, shown side by side.")
    ] = None,
    calibration: Annotated[Path | None, typer.Option(help="Calibration file of `vqa calibrate` to show.")] = None,
    pictures: Annotated[
        int, typer.Option(min=0, max=24, help="Number of clips that are decoded again and shown as pictures.")
    ] = 24,
) -> None:
    """Write OUT/report.html, self-contained: scores, statistics, clips to inspect."""
    from vqa.errors import UsageError
    from vqa.report.page import write_library, write_report

    if (folder / "metrics.json").is_file():
        path = write_report(folder, against=against, calibration=calibration, pictures=pictures)
    elif against or calibration:
        raise UsageError(f"{folder} holds no evaluation. Run `vqa evaluate` before --against or --calibration.")
    else:
        path = write_library(folder, pictures=pictures)
    typer.echo(f"{path}", err=True)
