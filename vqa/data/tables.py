"""Readers of CSV, TXT, JSON, JSON Lines, Parquet, XLSX and MATLAB tables.

`read_rows` reads tables whose rows name clips (lists of files, scores, opinions), `read_columns` label files and
ratings in whatever layout their authors ship, `read_lines` plain lists. Cells of text files are text, others keep
their type. Columns of a file without a header are named 1, 2, 3, ...; variables of a .mat file keep their name, those
inside a struct are `struct.field`.
"""

import codecs
import csv
import json
import zipfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, TextIO, get_args

from vqa.data.dialects import (
    AS_SEEN,
    CHUNK_ROWS,
    Column,
    Columns,
    Dialect,
    Row,
    Separator,
    csv_columns,
    csv_rows,
    lines_of,
    text_columns,
    text_rows,
)
from vqa.errors import UsageError
from vqa.imports import require

ROW_SUFFIXES = frozenset({".csv", ".jsonl", ".parquet", ".txt"})
TableFormat = Literal["csv", "txt", "mat", "json", "jsonl", "xlsx", "parquet"]

_ZERO_BYTES = "it holds zero bytes, as UTF-16 without its mark does. Save it as UTF-8"
_MAX_UNPACKED_BYTES = 1 << 29  # of a .xlsx, which is a zip file: a million rows of a label file take a fifth


def read_rows(
    path: Path, *, only: Collection[str] | None = None, errors: str = "strict", dialect: Dialect = AS_SEEN
) -> tuple[tuple[str, ...], list[Row]]:
    """Read a table as rows.

    Args:
        path: A .csv, .jsonl, .parquet or .txt file. Text is UTF-8, or UTF-16 with a mark. A .txt file has a header only
            where a column holds numbers below a word; its fields are separated by tabs, semicolons, commas or blanks.
        only: Columns to read of a Parquet file; the other formats are read whole.
        errors: What to do with bytes that are not UTF-8, as in `open`.
        dialect: Of a text file.

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
        text = _unicode(path.read_bytes(), errors)
        if kind == "csv":
            columns = csv_columns(text, path, dialect, strict=True)
            return tuple(columns), [
                dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)
            ]
        if kind == "txt":
            return text_rows(text, path, dialect)
        rows = list(_objects(lines_of(text), path))
        return tuple(dict.fromkeys(key for row in rows for key in row)), rows


def read_columns(
    path: Path, *, separator: Separator = "comma", beside: Sequence[str] = (), dialect: Dialect = AS_SEEN
) -> Columns:
    """Read a label file as columns.

    Args:
        path: A file of one of the formats of `TableFormat`. Text is UTF-8 or GBK.
        separator: Separator of the fields in CSV and TXT files.
        dialect: Of a text file, over `separator`.
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
            known = dialect if dialect.delimiter or separator == "comma" else replace(dialect, delimiter=separator)
            return csv_columns(text, path, known, strict=False)
        return (
            text_columns(text, path, separator, dialect)
            if kind == "txt"
            else _json_columns(text, path, lines=kind == "jsonl")
        )


def read_lines(path: Path, *, errors: str = "strict") -> list[str]:
    """Read the non-empty lines of UTF-8 text, blanks kept. Raises UsageError."""
    with _errors_name(path, "txt"):
        text = _unicode(path.read_bytes(), errors)
    return [name for line in lines_of(text) if (name := line.rstrip("\r\n"))]


def iter_lines(path: Path, *, errors: str = "strict") -> Iterator[str]:
    """As `read_lines`, a line at a time."""
    with _errors_name(path, "txt"), _opened(path, errors) as file:
        for line in file:
            if name := _text(line).rstrip("\r\n"):
                yield name


def iter_rows(
    path: Path, *, only: Collection[str] | None = None, errors: str = "strict", dialect: Dialect = AS_SEEN
) -> Iterator[Row]:
    """As `read_rows`, CHUNK_ROWS at a time, of a .csv, .jsonl or .parquet file.

    The decimal comma of a CSV file is recognised within each chunk.
    """
    kind = path.suffix.lower().lstrip(".")
    with _errors_name(path, kind):
        if kind == "parquet":
            import pyarrow.parquet as pq

            with pq.ParquetFile(path) as file:
                names = [name for name in file.schema_arrow.names if only is None or name in only]
                for batch in file.iter_batches(CHUNK_ROWS, columns=names):
                    yield from batch.to_pylist()
            return
        with _opened(path, errors) as file:
            lines = map(_text, file)
            yield from csv_rows(lines, path, dialect) if kind == "csv" else _objects(lines, path)


@contextmanager
def _opened(path: Path, errors: str) -> Iterator[TextIO]:
    """Open a text file by its byte order mark, else UTF-8; line breaks are kept."""
    with path.open("rb") as raw:
        is_utf16 = raw.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding, how = ("utf-16", "strict") if is_utf16 else ("utf-8-sig", errors)
    with path.open(encoding=encoding, errors=how, newline="") as file:
        yield file


def _text(line: str) -> str:
    if "\0" in line:
        raise ValueError(_ZERO_BYTES)
    return line


def format_of(path: Path) -> TableFormat:
    """Format by the file's suffix. Raises UsageError for a suffix that no format has."""
    suffix = path.suffix.lower().lstrip(".")
    if suffix not in get_args(TableFormat):
        raise UsageError(
            f"{path}: the format of {suffix or 'no suffix'!r} is unknown. Give a .csv, .txt, .mat, .json, "
            ".jsonl, .xlsx or .parquet file."
        )
    return suffix  # type: ignore[return-value]


def column(columns: Columns, name: str) -> Column:
    """Cells of a column; `names[kinds]` are entries of `names` at `kinds`, from 1."""
    base, bracket, index = name.partition("[")
    if not bracket:
        return columns[name]
    return [columns[base][int(at) - 1] for at in columns[index.rstrip("]")]]


def has_column(columns: Columns, name: str) -> bool:
    """Return whether `column` finds it."""
    return all(part.rstrip("]") in columns for part in name.split("["))


@contextmanager
def _errors_name(path: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text ({error}). Save it as UTF-8.") from error
    # JSONDecodeError and pyarrow's ArrowInvalid are ValueErrors; a RecursionError is of JSON nested by the thousand.
    except (OSError, csv.Error, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as {kind} ({error}). Write it again.") from error


def _unicode(raw: bytes, errors: str = "strict") -> str:
    """Text by its byte order mark, else UTF-8."""
    if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return raw.decode("utf-16")
    if b"\0" in raw:
        raise ValueError(_ZERO_BYTES)
    return raw.decode("utf-8-sig", errors)


def _decoded(raw: bytes) -> str:
    for read in (_unicode, lambda raw: raw.decode("gbk")):  # LSVQ's CSV is read as GBK by some
        try:
            return read(raw)
        except UnicodeDecodeError:
            continue
    raise ValueError("neither UTF-8, UTF-16 with a mark, nor GBK")


def _objects(lines: Iterable[str], path: Path) -> Iterator[Row]:
    for at, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
            raise UsageError(f"{path}, line {at}: not JSON ({error}). Give an object for each line.") from error
        if not isinstance(value, dict):
            raise UsageError(f'{path}, line {at}: holds {type(value).__name__}. Give an object like {{"path": ...}}.')
        yield value


def _json_columns(text: str, path: Path, *, lines: bool) -> Columns:
    entries = list(_objects(lines_of(text), path)) if lines else json.loads(text)
    if isinstance(entries, dict):
        entries = next((value for value in entries.values() if isinstance(value, list)), [])  # {"annotations": [...]}
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("wanted a list of objects")
    flat = [_flattened(entry) for entry in entries]
    return {name: [entry.get(name) for entry in flat] for name in dict.fromkeys(key for entry in flat for key in entry)}


def _flattened(entry: Row) -> Row:
    """Entry of an R1 project, its `conversations`' answer as `gpt`, `image` one name.

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

    with zipfile.ZipFile(path) as packed:
        unpacked = sum(member.file_size for member in packed.infolist())
    if unpacked > _MAX_UNPACKED_BYTES:
        raise ValueError(f"unpacks to {unpacked} bytes, more than {_MAX_UNPACKED_BYTES}; save it as .csv")
    lines = list(load_workbook(path, read_only=True, data_only=True).worksheets[0].iter_rows(values_only=True))
    names = [str(cell).strip() for cell in lines[0]] if lines else []
    return {name: [line[at] for line in lines[1:] if line[0] is not None] for at, name in enumerate(names)}
