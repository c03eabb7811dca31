"""`vqa show`: what a scoring job found. Light to import."""

from pathlib import Path
from typing import Annotated

import typer


def show(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out of an earlier `vqa score`.")],
    worst: Annotated[int | None, typer.Option(min=1, help="Only the N clips with the lowest scores.")] = None,
    best: Annotated[int | None, typer.Option(min=1, help="Only the N clips with the highest scores.")] = None,
) -> None:
    """Show best and worst clips, failures and counts of a scoring job."""
    from rich.console import Console

    from jobs.summary import overview, ranked, score_table
    from vqa.data.score_table import existing_scores
    from vqa.imports import arrow_without_pandas

    arrow_without_pandas()
    rows = existing_scores(folder)
    console = Console()
    if worst is None and best is None:
        console.print(overview(rows, out=folder))
        return
    by_score = ranked(rows)
    if best is not None:
        console.print(score_table(list(reversed(by_score))[:best], title=f"Best {best} of {len(by_score)}"))
    if worst is not None:
        console.print(score_table(by_score[:worst], title=f"Worst {worst} of {len(by_score)}"))
