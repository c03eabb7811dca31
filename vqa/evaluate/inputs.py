"""Tables of scores and labels to evaluate: the columns of clips and of numbers."""

from dataclasses import dataclass, replace
from pathlib import Path

from vqa.data.dialects import AS_SEEN, LARGEST, Dialect, Row, parse_number
from vqa.data.score_table import read_scores
from vqa.data.tables import ROW_SUFFIXES, read_rows
from vqa.errors import UsageError

NAME_COLUMNS = ("uri", "path", "video", "file", "name", "filename", "file_name", "video_name", "image", "1")
ID_COLUMNS = ("clip_id", "video_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputTable:
    """Rows of a file, and the columns that name a clip."""

    source: Path
    kind: str  # vqa (an --out folder), csv, jsonl, parquet, txt
    columns: tuple[str, ...]
    rows: list[Row]
    id_column: str | None
    name_column: str

    def clip_id(self, row: Row) -> str:
        """Return the id of a row's clip, or its path in a table without ids."""
        return _text(row.get(self.id_column or self.name_column))

    def uri(self, row: Row) -> str:
        """Path or URI of a row's clip as written, or its id where there is none."""
        return _text(row.get(self.name_column)) or self.clip_id(row)

    def number(self, index: int, column: str) -> float | None:
        """Finite number, None for nothing, NaN and infinity. Raises UsageError for text."""
        value = self.rows[index].get(column)
        try:
            return parse_number(value)
        except (TypeError, ValueError) as error:
            where = f"{self.source}, row {index + 1}: {column}"
            raise UsageError(
                f"{where} = {value!r} is no number of at most {LARGEST:g}. Choose the column that holds numbers, or "
                "give --decimal."
            ) from error

    def require(self, column: str, *, flag: str) -> None:
        """Raise UsageError unless the table has the column; `flag` is its option."""
        if column not in self.columns:
            raise UsageError(
                f"{self.source}: no column {column!r}; it has {', '.join(self.columns)}. Choose one by {flag}."
            )


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def read_table(source: Path, *, name_column: str | None = None, dialect: Dialect = AS_SEEN) -> InputTable:
    """Read scores or labels.

    Args:
        source: An --out folder of `vqa score`, or a .csv, .jsonl, .parquet or .txt file. A .txt file has one clip per
            line, its columns are named 1, 2, 3, ... and the first is the path.
        name_column: Column with the path of the clip; by default the first of NAME_COLUMNS.
        dialect: Of a text file.

    Raises:
        UsageError: If the table cannot be read, has no rows, or a row names no clip.
    """
    if not source.exists():
        raise UsageError(f"{source}: no such file or folder. Check the path.")
    if source.is_dir():
        if not (source / "scores").is_dir():
            raise UsageError(f"{source} holds no scores. Give the --out folder of `vqa score`, or a file.")
        rows = read_scores(source)
        kind, columns, listed = "vqa", tuple(rows.column_names), rows.to_pylist()
    elif source.suffix.lower() in ROW_SUFFIXES:
        kind, (columns, listed) = source.suffix.lower()[1:], read_rows(source, dialect=dialect)
    else:
        raise UsageError(f"{source} is no table. Give a folder of scores, or a .parquet, .csv, .jsonl or .txt file.")
    if not listed:
        raise UsageError(f"{source} holds no rows. Give a table with a row per clip.")
    id_column = next((name for name in ID_COLUMNS if name in columns), None)
    if name_column is None:
        name_column = next((name for name in NAME_COLUMNS if name in columns), id_column)
    if name_column is None or name_column not in columns:
        problem = f"no column {name_column!r}" if name_column else "no column names the clips"
        way = "Choose one by --path-column" if len(columns) > 1 else "Say what separates its columns by --delimiter"
        raise UsageError(f"{source}: {problem}; it has {', '.join(columns)}. {way}.")
    table = InputTable(
        source=source, kind=kind, columns=columns, rows=listed, id_column=id_column, name_column=name_column
    )
    nameless = next((index for index, row in enumerate(listed) if not table.clip_id(row)), None)
    if nameless is not None:
        raise UsageError(f"{source}, row {nameless + 1}: {id_column or name_column} is empty. Each row needs a clip.")
    return table


def filter_split(labels: InputTable, split: str | None) -> InputTable:
    """Rows of a split, all for None. Raises UsageError if there are none."""
    if split is None:
        return labels
    labels.require("split", flag="--split")
    rows = [row for row in labels.rows if str(row["split"]) == split]
    if not rows:
        known = ", ".join(sorted({str(row["split"]) for row in labels.rows})[:10])
        raise UsageError(f"{labels.source}: no row of split {split!r}. Its splits are {known}.")
    return replace(labels, rows=rows)


def score_column(table: InputTable, wanted: str | None) -> str:
    """Column of scores: asked for, `score` or the only other. Raises UsageError.

    `score_raw` where no row has a score, as of a student of severity without a calibration.
    """
    if wanted is not None:
        table.require(wanted, flag="--column")
        return wanted
    if "score" in table.columns:
        is_scored = any(_text(row["score"]) for row in table.rows)
        return "score" if is_scored else raw_column(table) or "score"
    return _only_other(table, flag="--column", what="score")


def raw_column(table: InputTable) -> str | None:
    """`score_raw` where rows are of a student of severity, to calibrate; else None."""
    is_raw = any(row.get("tier") == "light" and _text(row.get("score_raw")) for row in table.rows)
    return "score_raw" if is_raw else None


def opinion_column(table: InputTable, wanted: str | None) -> str:
    """Column of opinions: asked for, `mos`, or the only other of a text file.

    Raises:
        UsageError: If there is no such column.
    """
    if wanted is not None:
        table.require(wanted, flag="--mos-column")
        return wanted
    if "mos" in table.columns:
        return "mos"
    if table.kind == "txt":
        return _only_other(table, flag="--mos-column", what="mos")
    raise UsageError(f"{table.source}: no column 'mos'; it has {', '.join(table.columns)}. Choose one by --mos-column.")


def _only_other(table: InputTable, *, flag: str, what: str) -> str:
    others = [name for name in table.columns if name not in (table.name_column, table.id_column)]
    if len(others) == 1:
        return others[0]
    raise UsageError(
        f"{table.source}: cannot tell which column is the {what}; it has {', '.join(table.columns)}. Choose one by "
        f"{flag} NAME."
    )
