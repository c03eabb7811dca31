"""Options that commands over tables share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

SHORT = 3  # exit code: finished, but some expected clips have no score

LabelsPath = Annotated[
    Path, typer.Option(help="Opinions: a manifest of `vqa data import`, or a .csv, .jsonl, .parquet or .txt file.")
]
ScoreColumn = Annotated[str | None, typer.Option(help="Column of SCORES with the score. [default: score]")]
MosColumn = Annotated[str | None, typer.Option(help="Column of the labels with the opinions. [default: mos]")]
PathColumn = Annotated[
    str | None, typer.Option(help="Column of SCORES with the path of the clip. [default: uri, path, ...]")
]
Join = Annotated[
    Literal["clip_id", "uri", "folder_and_name", "name"] | None,
    typer.Option(
        help="How labels are matched to scores: by id, by path, by the last folder and file name, or by file name. "
        "[default: the first that matches any clip]"
    ),
]
Split = Annotated[str | None, typer.Option(help="Evaluate only labels with this value in the split column.")]
Lower = Annotated[bool, typer.Option("--lower-is-better", help="Lower scores mean better quality; invert them.")]
Missing = Annotated[bool, typer.Option("--allow-missing", help="Report statistics even if some clips have no score.")]
Resamples = Annotated[int, typer.Option(min=0, max=1_000_000, help="Bootstrap resamples; 0 computes no intervals.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the resamples and splits.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout instead of tables.")]
Include = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="In folders, take files of this name too, whatever the suffix; repeatable."),
]
Exclude = Annotated[
    list[str] | None, typer.Option(metavar="GLOB", help="In folders, leave out files of this name; repeatable.")
]
DelimiterOption = Annotated[
    Literal["comma", "semicolon", "tab", "bar", "blank"] | None,
    typer.Option(help="What separates the fields of text files. [default: as recognised]"),
]
DecimalOption = Annotated[
    Literal["point", "comma"] | None, typer.Option(help="Decimal mark of text files. [default: as recognised]")
]
