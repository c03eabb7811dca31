"""`vqa top`: watch a scoring run. Light to import."""

from pathlib import Path
from typing import Annotated

import typer


def top(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out of a `vqa score` that runs or has run.")],
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    every: Annotated[float, typer.Option(min=0.2, metavar="SECONDS", help="How often to look again.")] = 2.0,
) -> None:
    """Watch a run from any machine that sees its folder.

    Clips by status, rate, time left, stage times, slowest clips. It reads run.json and the table alone, and ends with
    the run. A killed run is named as such.
    """
    from jobs.top import top as run  # Arrow: not for --help

    run(folder, every=every, once=once)
