"""Reading what is joined: our own folders of scores, and any CSV, JSONL, Parquet or text of others."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vqa.data.records import RECORD_SUFFIXES, read_records
from vqa.data.score_table import read_scores
from vqa.errors import UsageError

NAME_COLUMNS = ("uri", "path", "video", "file", "name", "filename", "file_name", "video_name", "image", "1")
ID_COLUMNS = ("clip_id", "video_id")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows as they stand in a file, and which columns name a clip."""

    source: Path
    kind: str  # vqa (an --out folder), csv, jsonl, parquet, txt
    columns: tuple[str, ...]
    rows: list[Row]
    id_column: str | None
    name_column: str

    def clip_id(self, row: Row) -> str:
        """What names the clip here: its id, or its path where there are no ids."""
        return _text(row.get(self.id_column or self.name_column))

    def uri(self, row: Row) -> str:
        """Its path or URI as written; its id where no path is given."""
        return _text(row.get(self.name_column)) or self.clip_id(row)

    def number(self, index: int, column: str) -> float | None:
        """A finite number, or None for nothing, NaN and infinity. Raises UsageError for other text."""
        value = self.rows[index].get(column)
        if value is None or value == "":
            return None
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            where = f"{self.source}, row {index + 1}: {column}"
            raise UsageError(f"{where} = {value!r} is no number; say which column holds the numbers") from error
        return number if math.isfinite(number) else None

    def require(self, column: str, *, flag: str) -> None:
        """Raises UsageError where there is no such column."""
        if column not in self.columns:
            raise UsageError(
                f"{self.source}: no column {column!r}; it has {', '.join(self.columns)} (choose by {flag})"
            )


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def read_table(source: Path, *, name_column: str | None = None) -> Table:
    """The rows of an --out folder of `vqa score`, or of a file by its suffix. Raises UsageError.

    A text file has one clip a line, fields parted by commas or blanks, columns called 1, 2, 3...; the first is the
    path.
    """
    if not source.exists():
        raise UsageError(f"{source}: no such file or folder")
    if source.is_dir():
        if not (source / "scores").is_dir():
            raise UsageError(f"{source}: holds no scores; give the --out folder of `vqa score`, or a file")
        rows = read_scores(source)
        kind, columns, listed = "vqa", tuple(rows.column_names), rows.to_pylist()
    else:
        kind, columns, listed = _read_file(source)
    if not listed:
        raise UsageError(f"{source}: holds no rows")
    id_column = next((name for name in ID_COLUMNS if name in columns), None)
    if name_column is None:
        name_column = next((name for name in NAME_COLUMNS if name in columns), id_column)
    if name_column is None or name_column not in columns:
        wanted = f"no column {name_column!r}" if name_column else "no column names the clips"
        raise UsageError(f"{source}: {wanted}; it has {', '.join(columns)} (choose by --path-column)")
    table = Table(source=source, kind=kind, columns=columns, rows=listed, id_column=id_column, name_column=name_column)
    nameless = next((index for index, row in enumerate(listed) if not table.clip_id(row)), None)
    if nameless is not None:
        raise UsageError(f"{source}, row {nameless + 1}: {id_column or name_column} is empty; each row names a clip")
    return table


def _read_file(path: Path) -> tuple[str, tuple[str, ...], list[Row]]:
    suffix = path.suffix.lower()
    if suffix in RECORD_SUFFIXES:
        return suffix[1:], *read_records(path)
    if suffix != ".txt":
        raise UsageError(f"{path}: wanted a folder of scores, or a .parquet, .csv, .jsonl or .txt file")
    try:
        with path.open(encoding="utf-8-sig") as file:
            return "txt", *_fields(file, path)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error


def _fields(lines: Iterable[str], path: Path) -> tuple[tuple[str, ...], list[Row]]:
    rows: list[Sequence[str]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        rows.append([field.strip() for field in line.split(",")] if "," in line else line.split())
        if len(rows[-1]) != len(rows[0]):
            raise UsageError(f"{path}, line {number}: {len(rows[-1])} fields where the first line has {len(rows[0])}")
    names = tuple(str(index) for index in range(1, len(rows[0]) + 1)) if rows else ()
    return names, [dict(zip(names, row, strict=True)) for row in rows]


def of_split(labels: Table, split: str | None) -> Table:
    """The rows of one value of the split column; all without one. Raises UsageError."""
    if split is None:
        return labels
    labels.require("split", flag="--split")
    rows = [row for row in labels.rows if str(row["split"]) == split]
    if not rows:
        there = ", ".join(sorted({str(row["split"]) for row in labels.rows})[:10])
        raise UsageError(f"{labels.source}: no row of split {split!r}; it has {there}")
    return replace(labels, rows=rows)


def score_column(table: Table, wanted: str | None) -> str:
    """The column with the scores: as asked, else `score`, else the only other one. Raises UsageError."""
    if wanted is not None:
        table.require(wanted, flag="--column")
        return wanted
    if "score" in table.columns:
        return "score"
    return _only_other(table, flag="--column", what="score")


def opinion_column(table: Table, wanted: str | None) -> str:
    """The column with the opinions: as asked, else `mos`, else the only other one of a text file. UsageError."""
    if wanted is not None:
        table.require(wanted, flag="--mos-column")
        return wanted
    if "mos" in table.columns:
        return "mos"
    if table.kind == "txt":
        return _only_other(table, flag="--mos-column", what="mos")
    raise UsageError(f"{table.source}: no column 'mos'; it has {', '.join(table.columns)} (choose by --mos-column)")


def _only_other(table: Table, *, flag: str, what: str) -> str:
    others = [name for name in table.columns if name not in (table.name_column, table.id_column)]
    if len(others) == 1:
        return others[0]
    raise UsageError(f"{table.source}: which column is the {what}? It has {', '.join(table.columns)}; say {flag} NAME")
