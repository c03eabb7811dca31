"""`vqa export`: the table of scores as CSV or JSON lines. Light to import."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out of an earlier `vqa score`.")],
    csv: Annotated[str | None, typer.Option(help="CSV file to write; - is stdout.")] = None,
    jsonl: Annotated[str | None, typer.Option(help="JSON-lines file to write; - is stdout.")] = None,
) -> None:
    """Write the table of scores as CSV or JSON lines."""
    from vqa.data.export import export as write
    from vqa.data.score_table import existing_scores
    from vqa.errors import UsageError
    from vqa.files import replacing

    if (csv is None) == (jsonl is None):
        raise UsageError("export: give one of --csv FILE and --jsonl FILE")
    target = csv or jsonl or ""
    rows = existing_scores(folder)
    kind: Literal["csv", "jsonl"] = "csv" if csv is not None else "jsonl"
    if target == "-":
        write(rows, sys.stdout, kind=kind)
        return
    with replacing(Path(target)) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        count = write(rows, file, kind=kind)
    typer.echo(f"{count} rows in {target}", err=True)
