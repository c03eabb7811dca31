"""Readers of CSV, TXT, JSON, JSON Lines, Parquet, XLSX and MATLAB tables, and the one parser of numbers.

`read_rows` reads tables whose rows name clips (lists of files, scores, opinions), `read_columns` label files and
ratings in whatever layout their authors ship, `read_lines` plain lists. Nothing is interpreted here: cells of text
files are text, others keep their type. Columns of a file without a header are named 1, 2, 3, ...; variables of a .mat
file keep their name, those inside a struct are `struct.field`.
"""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from vqa.errors import UsageError
from vqa.imports import require

ROW_SUFFIXES = frozenset({".csv", ".jsonl", ".parquet", ".txt"})
Format = Literal["csv", "txt", "mat", "json", "jsonl", "xlsx", "parquet"]
Separator = Literal["comma", "blank", "bar", "semicolon"]
Row = dict[str, Any]  # cells by column
Column = list[Any]
Columns = dict[str, Column]

_SEPARATORS: dict[Separator, str | None] = {"comma": ",", "blank": None, "bar": "|", "semicolon": ";"}
_ENCODINGS = ("utf-8-sig", "gbk")  # of label files; LSVQ's CSV is read as GBK by some


def read_rows(
    path: Path, *, only: Collection[str] | None = None, errors: str = "strict"
) -> tuple[tuple[str, ...], list[Row]]:
    """Read a table as rows.

    Args:
        path: A .csv, .jsonl, .parquet or .txt file. Text is UTF-8. A .txt file has no header; its fields are separated
            by commas or else by blanks.
        only: Columns to read of a Parquet file; the other formats are read whole.
        errors: What to do with bytes that are not UTF-8, as in `open`.

    Returns:
        The names of the columns, and a dict for each row. A CSV row that is too short is filled with "".

    Raises:
        UsageError: If the file cannot be read; the message names the file, and the line where there is one.
    """
    kind = path.suffix.lower().lstrip(".")
    with _errors_name(path, kind):
        if kind == "parquet":
            import pyarrow.parquet as pq  # a tenth of a second that the other formats do not pay

            names = pq.read_schema(path).names
            table = pq.read_table(path, columns=[name for name in names if only is None or name in only])
            return tuple(table.column_names), table.to_pylist()
        text = path.read_bytes().decode("utf-8-sig", errors)
        if kind == "csv":
            header, *lines = _csv_lines(text, strict=True) or [[]]
            filled = ([*line, *[""] * (len(header) - len(line))] for line in lines)
            return tuple(header), [dict(zip(header, line, strict=False)) for line in filled]
        if kind == "txt":
            return _fields(text, path)
        rows = list(_objects(text, path))
        return tuple(dict.fromkeys(key for row in rows for key in row)), rows


def read_columns(path: Path, *, separator: Separator = "comma", beside: Sequence[str] = ()) -> Columns:
    """Read a label file as columns.

    Args:
        path: A file of one of the formats of `Format`. Text is UTF-8 or GBK.
        separator: Separator of the fields in CSV and TXT files.
        beside: Names of further .mat files in the same folder, whose variables are read too.

    Returns:
        Cells by name of the column, all columns equally long (of a .mat file: each as long as the variable).

    Raises:
        UsageError: If the file cannot be read or has another suffix.
    """
    kind = format_of(path)
    with _errors_name(path, kind):
        if kind == "mat":
            return _mat([path, *(path.with_name(name) for name in beside)])
        if kind == "xlsx":
            return _xlsx(path)
        if kind == "parquet":
            import pyarrow.parquet as pq

            return dict(pq.read_table(path).to_pydict())
        text = _decoded(path.read_bytes())
        if kind == "csv":
            return _csv_columns(text, delimiter=_SEPARATORS[separator] or " ")
        return _txt_columns(text, separator) if kind == "txt" else _json_columns(text, path, lines=kind == "jsonl")


def read_lines(path: Path, *, errors: str = "strict") -> list[str]:
    """Read the lines of a UTF-8 text file that are not empty, blanks kept. Raises UsageError."""
    with _errors_name(path, "txt"):
        text = path.read_bytes().decode("utf-8-sig", errors)
    return [name for line in _lines(text) if (name := line.rstrip("\r\n"))]


def format_of(path: Path) -> Format:
    """Return the format by the file's suffix. Raises UsageError for a suffix that no format has."""
    suffix = path.suffix.lower().lstrip(".")
    if suffix not in get_args(Format):
        raise UsageError(
            f"{path}: the format of {suffix or 'no suffix'!r} is unknown. Give a .csv, .txt, .mat, .json, "
            ".jsonl, .xlsx or .parquet file."
        )
    return suffix  # type: ignore[return-value]


def column(columns: Columns, name: str) -> Column:
    """Return the cells of a column; `names[kinds]` is the entry of `names` that each of `kinds` counts, from 1."""
    base, bracket, index = name.partition("[")
    if not bracket:
        return columns[name]
    return [columns[base][int(at) - 1] for at in columns[index.rstrip("]")]]


def has_column(columns: Columns, name: str) -> bool:
    """Return whether `column` finds it."""
    return all(part.rstrip("]") in columns for part in name.split("["))


def number(cell: object, *, decimal_comma: bool = False) -> float | None:
    """Return the finite number in a cell, None for an empty cell, NaN or infinity.

    Raises:
        ValueError, TypeError: If the cell holds anything else.
    """
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    value = float(cell.replace(",", ".") if decimal_comma and isinstance(cell, str) else cell)  # type: ignore[arg-type]
    return value if math.isfinite(value) else None


def number_or_none(cell: object) -> float | None:
    """Return the finite number in a cell, or None for anything else."""
    try:
        return number(cell)
    except (TypeError, ValueError):
        return None


@contextmanager
def _errors_name(path: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text ({error}). Save it as UTF-8.") from error
    except (OSError, csv.Error, ValueError) as error:  # JSONDecodeError and pyarrow's ArrowInvalid are ValueErrors
        raise UsageError(f"{path}: cannot be read as {kind} ({error}).") from error


def _decoded(raw: bytes) -> str:
    for encoding in _ENCODINGS:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ValueError(f"neither {' nor '.join(_ENCODINGS)}")


def _lines(text: str) -> Iterable[str]:
    return io.StringIO(text, newline="")  # splits at line breaks only, unlike str.splitlines, and keeps quoted ones


def _csv_lines(text: str, *, delimiter: str = ",", strict: bool = False) -> list[list[str]]:
    return [line for line in csv.reader(_lines(text), delimiter=delimiter, strict=strict) if line]


def _csv_columns(text: str, *, delimiter: str) -> Columns:
    lines = [line for line in _csv_lines(text, delimiter=delimiter) if any(line)]
    names = [name.strip() for name in lines[0]] if lines else []
    repeated = [name for name, count in Counter(names).items() if name and count > 1]
    if repeated:
        raise ValueError(f"the header names {', '.join(repeated[:5])} more than once")
    return {
        name: [line[at].strip() if at < len(line) else "" for line in lines[1:]]
        for at, name in enumerate(names)
        if name
    }


def _fields(text: str, path: Path) -> tuple[tuple[str, ...], list[Row]]:
    rows: list[list[str]] = []
    for at, line in enumerate(_lines(text), start=1):
        if not line.strip():
            continue
        rows.append([field.strip() for field in line.split(",")] if "," in line else line.split())
        if len(rows[-1]) != len(rows[0]):
            raise UsageError(f"{path}, line {at}: {len(rows[-1])} fields where the first line has {len(rows[0])}.")
    names = tuple(str(at) for at in range(1, len(rows[0]) + 1)) if rows else ()
    return names, [dict(zip(names, row, strict=True)) for row in rows]


def _txt_columns(text: str, separator: Separator) -> Columns:
    """As many fields as most lines have; in a line with more, the first field takes the rest (a name with blanks)."""
    mark = _SEPARATORS[separator]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    counts = Counter(len(line.split(mark)) for line in lines)
    width = counts.most_common(1)[0][0] if counts else 0
    rows = [[field.strip() for field in line.rsplit(mark, width - 1)] for line in lines]
    odd = next((at for at, row in enumerate(rows, start=1) if len(row) != width), None)
    if odd is not None:
        raise ValueError(f"line {odd} has {len(rows[odd - 1])} fields where most have {width}")
    return {str(at + 1): [row[at] for row in rows] for at in range(width)}


def _objects(text: str, path: Path) -> Iterator[Row]:
    for at, line in enumerate(_lines(text), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"{path}, line {at}: not JSON ({error}).") from error
        if not isinstance(value, dict):
            raise UsageError(f'{path}, line {at}: holds {type(value).__name__}. Give an object like {{"path": ...}}.')
        yield value


def _json_columns(text: str, path: Path, *, lines: bool) -> Columns:
    entries = list(_objects(text, path)) if lines else json.loads(text)
    if isinstance(entries, dict):
        entries = next((value for value in entries.values() if isinstance(value, list)), [])  # {"annotations": [...]}
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("wanted a list of objects")
    flat = [_flattened(entry) for entry in entries]
    return {name: [entry.get(name) for entry in flat] for name in dict.fromkeys(key for entry in flat for key in entry)}


def _flattened(entry: Row) -> Row:
    """The answer of `conversations` as `gpt`, `image` as one name: entries of the R1 projects.

    Several images are the pictures made of one video, video_0.png, video_1.png, ...: the name is `video`.
    """
    found = dict(entry)
    for turn in entry.get("conversations") or ():
        if turn.get("from") == "gpt":
            found["gpt"] = turn.get("value")
        elif "gpt" in turn:
            found["gpt"] = turn["gpt"]
    images = entry.get("image")
    if isinstance(images, list) and images:
        found["image"] = images[0] if len(images) == 1 else str(images[0]).removesuffix(".png").removesuffix("_0")
    return found


def _mat(paths: Iterable[Path]) -> Columns:
    from scipy.io import loadmat

    found: Columns = {}
    for path in paths:
        try:
            variables = loadmat(path, simplify_cells=True)
        except NotImplementedError as error:  # scipy reads no HDF5
            raise ValueError(f"{path.name} is a MATLAB 7.3 file; save it again with -v7") from error
        except OSError:
            raise
        except Exception as error:  # scipy raises a dozen kinds for damaged files
            raise ValueError(f"{path.name}: {error}") from error
        for name, value in variables.items():
            if not name.startswith("__"):
                _unfold(name, value, found)
    return found


def _unfold(name: str, value: object, found: Columns) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _unfold(f"{name}.{key}", inner, found)
    elif isinstance(value, list) or getattr(value, "ndim", 0) == 1:  # no tables of split indices and the like
        found[name] = value if isinstance(value, list) else value.tolist()  # type: ignore[attr-defined]  # an array


def _xlsx(path: Path) -> Columns:
    require("xlsx", "openpyxl", doing=f"{path}: reading .xlsx")
    from openpyxl import load_workbook

    lines = list(load_workbook(path, read_only=True, data_only=True).worksheets[0].iter_rows(values_only=True))
    names = [str(cell).strip() for cell in lines[0]] if lines else []
    return {name: [line[at] for line in lines[1:] if line[0] is not None] for at, name in enumerate(names)}
