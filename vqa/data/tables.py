"""Readers of CSV, TXT, JSON, JSON Lines, Parquet, XLSX and MATLAB tables, and the one parser of numbers.

`read_rows` reads tables whose rows name clips (lists of files, scores, opinions), `read_columns` label files and
ratings in whatever layout their authors ship, `read_lines` plain lists. Cells of text files are text, others keep
their type. Columns of a file without a header are named 1, 2, 3, ...; variables of a .mat file keep their name, those
inside a struct are `struct.field`.

The dialect of a text file (separator, decimal comma, encoding) is recognised, or the file is refused: no cell is
dropped, and a number is never read in two ways. `Dialect` says it where it cannot be seen.
"""

import codecs
import csv
import io
import itertools
import json
import math
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TextIO, get_args

from vqa.data.cells import restored
from vqa.errors import UsageError
from vqa.imports import require

ROW_SUFFIXES = frozenset({".csv", ".jsonl", ".parquet", ".txt"})
Format = Literal["csv", "txt", "mat", "json", "jsonl", "xlsx", "parquet"]
Separator = Literal["comma", "blank", "bar", "semicolon"]
Row = dict[str, Any]  # cells by column
Column = list[Any]
Columns = dict[str, Column]

Delimiter = Literal["comma", "semicolon", "tab", "bar", "blank"]
Decimal = Literal["point", "comma"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How the fields and numbers of a text file are written; None: recognised."""

    delimiter: Delimiter | None = None
    decimal: Decimal | None = None


AS_SEEN = Dialect()
_MARKS: dict[Delimiter, str | None] = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|", "blank": None}
_WAYS_OUT = "Quote cells that hold the separator, or give --delimiter and --decimal"
_COMMA_NUMBER = re.compile(r"\s*[+-]?\d+,\d+\s*")
_SEP_LINE = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)  # Excel's
_BLANK_OR_COMMA = re.compile(r"\S.*\s[+-]?\d+,\d+")
_NAME_AND_COMMA_NUMBER = re.compile(r".*\.[A-Za-z][A-Za-z0-9]{1,3}\s+[+-]?\d+,\d+")
_SAMPLE_LINES = 1000
CHUNK_ROWS = 10_000
_ZERO_BYTES = "it holds zero bytes, as UTF-16 without its mark does. Save it as UTF-8"
_MAX_UNPACKED_BYTES = 1 << 29  # of a .xlsx, which is a zip file: a million rows of a label file take a fifth
_THOUSANDS = re.compile(r"\s*[+-]?[1-9]\d{0,2}(,\d{3})+\s*")

_SEPARATORS: dict[Separator, str | None] = {"comma": ",", "blank": None, "bar": "|", "semicolon": ";"}


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
            columns = _csv_columns(text, path, dialect, strict=True)
            return tuple(columns), [
                dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)
            ]
        if kind == "txt":
            return _fields(text, path, dialect)
        rows = list(_objects(_lines(text), path))
        return tuple(dict.fromkeys(key for row in rows for key in row)), rows


def read_columns(
    path: Path, *, separator: Separator = "comma", beside: Sequence[str] = (), dialect: Dialect = AS_SEEN
) -> Columns:
    """Read a label file as columns.

    Args:
        path: A file of one of the formats of `Format`. Text is UTF-8 or GBK.
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
            return _csv_columns(text, path, known, strict=False)
        return (
            _txt_columns(text, path, separator, dialect)
            if kind == "txt"
            else _json_columns(text, path, lines=kind == "jsonl")
        )


def read_lines(path: Path, *, errors: str = "strict") -> list[str]:
    """Read the lines of a UTF-8 text file that are not empty, blanks kept. Raises UsageError."""
    with _errors_name(path, "txt"):
        text = _unicode(path.read_bytes(), errors)
    return [name for line in _lines(text) if (name := line.rstrip("\r\n"))]


def iter_lines(path: Path, *, errors: str = "strict") -> Iterator[str]:
    """As `read_lines`, a line at a time."""
    with _errors_name(path, "txt"), _opened(path, errors) as file:
        for line in file:
            if name := _text(line).rstrip("\r\n"):
                yield name


def iter_rows(
    path: Path, *, only: Collection[str] | None = None, errors: str = "strict", dialect: Dialect = AS_SEEN
) -> Iterator[Row]:
    """As `read_rows`, of a .csv, .jsonl or .parquet file of any length: CHUNK_ROWS at a time.

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
            yield from _csv_rows(lines, path, dialect) if kind == "csv" else _objects(lines, path)


@contextmanager
def _opened(path: Path, errors: str) -> Iterator[TextIO]:
    """A text file by its byte order mark, else UTF-8; lines end at line breaks only, and keep them."""
    with path.open("rb") as raw:
        is_utf16 = raw.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding, how = ("utf-16", "strict") if is_utf16 else ("utf-8-sig", errors)
    with path.open(encoding=encoding, errors=how, newline="") as file:
        yield file


def _text(line: str) -> str:
    if "\0" in line:
        raise ValueError(_ZERO_BYTES)
    return line


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


def _lines(text: str) -> Iterable[str]:
    return io.StringIO(text, newline="")  # splits at line breaks only, unlike str.splitlines, and keeps quoted ones


def _csv_columns(text: str, path: Path, dialect: Dialect, *, strict: bool) -> Columns:
    """Cells by name of the column. A line may be short; surplus cells are refused unless they are empty."""
    marked = _SEP_LINE.match(text)
    if marked:
        text, dialect = text[marked.end() :], replace(dialect, delimiter=_name_of(marked[1]))
    mark = _MARKS[dialect.delimiter or _seen_delimiter(_lines(text))] or " "
    reader = csv.reader(_lines(text), delimiter=mark, strict=strict)
    lines = [(reader.line_num + bool(marked), line) for line in reader if line]
    lines = [(at, line) for at, line in lines if strict or any(line)]
    names = _header([name if strict else name.strip() for name in lines[0][1]]) if lines else []
    for at, line in lines[1:]:
        _refuse_surplus(line, names, f"{path}, line {at}")
    found = {
        name: [restored(line[at] if strict else line[at].strip()) if at < len(line) else "" for _, line in lines[1:]]
        for at, name in enumerate(names)
        if name or strict
    }
    return {name: _with_points(cells, f"{path}, column {name}", mark, dialect) for name, cells in found.items()}


def _csv_rows(lines: Iterator[str], path: Path, dialect: Dialect) -> Iterator[Row]:
    """As `_csv_columns` with `strict`, from lines as they are read."""
    head = list(itertools.islice(lines, _SAMPLE_LINES))
    marked = _SEP_LINE.match(head[0]) if head else None
    if marked:
        del head[0]
        dialect = replace(dialect, delimiter=_name_of(marked[1]))
    mark = _MARKS[dialect.delimiter or _seen_delimiter(head)] or " "
    reader = csv.reader(itertools.chain(head, lines), delimiter=mark, strict=True)
    names = _header(next(filter(None, reader), []))

    def rows() -> Iterator[list[str]]:
        for line in filter(None, reader):
            _refuse_surplus(line, names, f"{path}, line {reader.line_num + bool(marked)}")
            yield line

    lines_left = rows()
    while chunk := list(itertools.islice(lines_left, CHUNK_ROWS)):
        cells = [[one[at] if at < len(one) else "" for one in chunk] for at in range(len(names))]
        cells = [
            _with_points(one, f"{path}, column {name}", mark, dialect) for name, one in zip(names, cells, strict=True)
        ]
        yield from (dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True))


def _header(names: list[str]) -> list[str]:
    repeated = [name for name, count in Counter(names).items() if name and count > 1]
    if repeated:
        raise ValueError(f"the header names {', '.join(repeated[:5])} more than once")
    return names


def _refuse_surplus(cells: list[str], names: list[str], where: str) -> None:
    if any(cell.strip() for cell in cells[len(names) :]):
        raise UsageError(
            f"{where}: {len(cells)} cells where the header names {len(names)}; a decimal comma, or a "
            f"separator in a name? {_WAYS_OUT}."
        )


def _seen_delimiter(lines: Iterable[str]) -> Delimiter:
    """The separator that parts the header and gives every line as many cells, comma before others; else comma."""
    head = list(itertools.islice(lines, _SAMPLE_LINES))
    usable: list[Delimiter] = []
    for name in ("comma", "semicolon", "tab", "bar"):
        widths = [len(line) for line in csv.reader(head, delimiter=_MARKS[name] or " ") if line]
        if widths and widths[0] > 1:
            if max(widths) == widths[0]:
                return name
            usable.append(name)
    return usable[0] if usable else "comma"


def _name_of(mark: str) -> Delimiter:
    return next((name for name, one in _MARKS.items() if one == mark), "comma")


def _with_points(cells: list[str], where: str, mark: str, dialect: Dialect) -> list[Any]:
    """The cells of a column, with points in numbers that are written with a decimal comma.

    Raises UsageError where a comma may part thousands as well: `4,642` in a file that commas or tabs separate.
    """
    written = [cell for cell in cells if "," in cell]
    if not written or dialect.decimal == "point" or not all(map(_COMMA_NUMBER.fullmatch, written)):
        return cells
    if any("." in cell for cell in cells):
        return cells
    if dialect.decimal is None and mark != ";" and all(map(_THOUSANDS.fullmatch, written)):
        raise UsageError(
            f"{where}: {written[0]!r} may have a decimal comma or separated thousands. Give --decimal comma, or remove "
            "the separators of thousands."
        )
    return [cell.replace(",", ".") for cell in cells]


def _fields(text: str, path: Path, dialect: Dialect) -> tuple[tuple[str, ...], list[Row]]:
    """Rows of a text file, whose first line is a header where a column holds numbers below a word."""
    lines = [(at, line.strip("\r\n")) for at, line in enumerate(_lines(text), start=1) if line.strip()]
    mark = _MARKS[dialect.delimiter] if dialect.delimiter else _seen_mark([line for _, line in lines], path, dialect)
    rows = [[field.strip() for field in line.split(mark)] for _, line in lines]
    for (at, _), row in zip(lines, rows, strict=True):
        if len(row) != len(rows[0]):
            raise UsageError(
                f"{path}, line {at}: {len(row)} fields where the first line has {len(rows[0])}. {_WAYS_OUT}."
            )
    columns = [list(cells) for cells in zip(*rows, strict=True)]
    columns = [_with_points(cells, f"{path}, column {at + 1}", mark or "", dialect) for at, cells in enumerate(columns)]
    has_header = len(rows) > 1 and any(
        not _is_number(cells[0]) and all(map(_is_number, cells[1:])) for cells in columns[1:]
    )
    names = tuple(rows[0]) if has_header else tuple(str(at + 1) for at in range(len(columns)))
    cells = [column[has_header:] for column in columns]
    return names, [dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)]


def _seen_mark(lines: list[str], path: Path, dialect: Dialect) -> str | None:
    """The separator of a text file: a tab, semicolon or comma that all lines have equally often, else blanks."""
    for mark in ("\t", ";", ","):
        if not _parts_all(lines, mark):
            continue
        if mark == "," and dialect.decimal != "point" and all(_BLANK_OR_COMMA.fullmatch(line) for line in lines):
            if dialect.decimal == "comma":
                return None
            raise _two_ways(path, lines[0])
        return mark
    return "," if any("," in line for line in lines) and dialect.decimal != "comma" else None


def _parts_all(lines: list[str], mark: str) -> bool:
    """Whether all lines have this separator equally often."""
    counts = {line.count(mark) for line in lines}
    return len(counts) == 1 and 0 not in counts


def _two_ways(path: Path, line: str) -> UsageError:
    return UsageError(
        f"{path}: {line!r} may be separated by its blank, with a decimal comma, or by its comma. Give "
        "--delimiter blank --decimal comma, or --delimiter comma."
    )


def _is_number(cell: str) -> bool:
    return not cell or number_or_none(cell) is not None or cell.lower() in ("nan", "na", "inf", "-inf")


def _txt_columns(text: str, path: Path, separator: Separator, dialect: Dialect) -> Columns:
    """As many fields as most lines have; in a line with more, the first field takes the rest (a name with blanks)."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    mark = _MARKS[dialect.delimiter] if dialect.delimiter else _SEPARATORS[separator]
    if mark == "," and not dialect.delimiter:  # a copy may have another separator than the published file
        mark = next((one for one in ("\t", ";") if _parts_all(lines, one)), mark)
        if mark == "," and dialect.decimal is None and lines and all(map(_NAME_AND_COMMA_NUMBER.fullmatch, lines)):
            raise _two_ways(path, lines[0])
    counts = Counter(len(line.split(mark)) for line in lines)
    width = counts.most_common(1)[0][0] if counts else 0
    rows = [[field.strip() for field in line.rsplit(mark, width - 1)] for line in lines]
    odd = next((at for at, row in enumerate(rows, start=1) if len(row) != width), None)
    if odd is not None:
        raise ValueError(f"line {odd} has {len(rows[odd - 1])} fields where most have {width}")
    cells = {str(at + 1): [row[at] for row in rows] for at in range(width)}
    return {name: _with_points(column, f"{path}, column {name}", mark or "", dialect) for name, column in cells.items()}


def _objects(lines: Iterable[str], path: Path) -> Iterator[Row]:
    for at, line in enumerate(lines, start=1):
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
    entries = list(_objects(_lines(text), path)) if lines else json.loads(text)
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

    with zipfile.ZipFile(path) as packed:
        unpacked = sum(member.file_size for member in packed.infolist())
    if unpacked > _MAX_UNPACKED_BYTES:
        raise ValueError(f"unpacks to {unpacked} bytes, more than {_MAX_UNPACKED_BYTES}; save it as .csv")
    lines = list(load_workbook(path, read_only=True, data_only=True).worksheets[0].iter_rows(values_only=True))
    names = [str(cell).strip() for cell in lines[0]] if lines else []
    return {name: [line[at] for line in lines[1:] if line[0] is not None] for at, name in enumerate(names)}
