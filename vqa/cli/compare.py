"""`vqa compare`: significance of the differences between models."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vqa.cli.options import (
    SHORT,
    DecimalOption,
    DelimiterOption,
    Join,
    Json,
    LabelsPath,
    Lower,
    Missing,
    MosColumn,
    PathColumn,
    Resamples,
    Seed,
    Split,
)


def compare(
    scores: Annotated[
        list[Path],
        typer.Argument(
            metavar="A B [C...]",
            help="Scores of two or more models: --out folders of `vqa score`, or .csv, .jsonl, .parquet, .txt files.",
        ),
    ],
    *,
    labels: LabelsPath,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="Column with the score: once for all models, or once for each in turn.")
    ] = None,
    mos_column: MosColumn = None,
    path_column: PathColumn = None,
    join: Join = None,
    delimiter: DelimiterOption = None,
    decimal: DecimalOption = None,
    split: Split = None,
    lower_is_better: Lower = False,
    allow_missing: Missing = False,
    resamples: Resamples = 10_000,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Test whether models differ on the same clips.

    Paired bootstrap, Meng's and Steiger's tests, with Holm's correction.

    Exit codes: 0 success; 1 could not run; 2 wrong usage; 3 some clips are not scored by all models.
    """
    from rich.console import Console

    from vqa.cli.tables import differences_table
    from vqa.data.dialects import Dialect
    from vqa.errors import UsageError
    from vqa.evaluate.compare import compare as run_comparison
    from vqa.evaluate.evaluation import EvaluationConfig
    from vqa.evaluate.statistics import StatisticsConfig
    from vqa.files import write_json

    dialect = Dialect(delimiter=delimiter, decimal=decimal)
    columns: list[str | None] = [*column] if column else [None]  # None: the default of each
    if len(columns) == 1:
        columns *= len(scores)
    if len(columns) != len(scores):
        raise UsageError(f"compare: {len(columns)} --column for {len(scores)} SCORES. Give one, or one for each.")
    configs = [
        EvaluationConfig(
            scores=path,
            labels=labels,
            column=name,
            mos_column=mos_column,
            path_column=path_column,
            key=join,
            split=split,
            lower_is_better=lower_is_better,
            dialect=dialect,
        )
        for path, name in zip(scores, columns, strict=True)
    ]
    settings = StatisticsConfig(resamples=resamples, seed=seed, allow_missing=allow_missing)
    found = run_comparison(configs, settings=settings)
    if out is not None:
        write_json(out, found)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False, allow_nan=False))
    elif found["reported"]:
        Console().print(differences_table(found))
    typer.echo(found["reason"] or f"{found['used']} of {found['expected']} expected clips scored by all", err=True)
    raise typer.Exit(0 if found["reported"] else SHORT)
