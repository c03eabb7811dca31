"""Text files of rows in any dialect: separator, decimal comma, header.

The dialect is recognised, or the file is refused: no cell is dropped, and a number is never read in two ways. `Dialect`
says it where it cannot be seen. Cells are text.
"""

import csv
import io
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vqa.data.cells import restored
from vqa.errors import UsageError

Row = dict[str, Any]  # cells by column
Column = list[Any]
Columns = dict[str, Column]

Separator = Literal["comma", "blank", "bar", "semicolon"]
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
_THOUSANDS = re.compile(r"\s*[+-]?[1-9]\d{0,2}(,\d{3})+\s*")
_SEPARATORS: dict[Separator, str | None] = {"comma": ",", "blank": None, "bar": "|", "semicolon": ";"}


def csv_columns(text: str, path: Path, dialect: Dialect, *, strict: bool) -> Columns:
    """Cells by column name; lines may be short, surplus cells must be empty."""
    marked = _SEP_LINE.match(text)
    if marked:
        text, dialect = text[marked.end() :], replace(dialect, delimiter=_name_of(marked[1]))
    mark = _MARKS[dialect.delimiter or _seen_delimiter(lines_of(text))] or " "
    reader = csv.reader(lines_of(text), delimiter=mark, strict=strict)
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


def csv_rows(lines: Iterator[str], path: Path, dialect: Dialect) -> Iterator[Row]:
    """As `csv_columns` with `strict`, from lines as they are read."""
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
    """First delimiter that splits the header and no line into more; comma by default."""
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
    """Cells of a column, with decimal points where numbers have decimal commas.

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


def text_rows(text: str, path: Path, dialect: Dialect) -> tuple[tuple[str, ...], list[Row]]:
    """Rows of a text file; line 1 is a header if a column has numbers below a word."""
    lines = [(at, line.strip("\r\n")) for at, line in enumerate(lines_of(text), start=1) if line.strip()]
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
    """Tab, semicolon or comma, equally often in all lines; else comma or blanks."""
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


def text_columns(text: str, path: Path, separator: Separator, dialect: Dialect) -> Columns:
    """Columns, as many as most lines have; surplus fields join the first (a name)."""
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


LARGEST = 1e15  # of numbers in tables: opinions, scores, seconds, counts


def parse_number(cell: object, *, decimal_comma: bool = False) -> float | None:
    """Return the finite number in a cell, None for an empty cell, NaN or infinity.

    Raises:
        ValueError, TypeError: If the cell holds anything else, or a number beyond LARGEST, whose square may have none.
    """
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    value = float(cell.replace(",", ".") if decimal_comma and isinstance(cell, str) else cell)  # type: ignore[arg-type]
    if not math.isfinite(value):
        return None
    if abs(value) > LARGEST:
        raise ValueError(f"above {LARGEST:g}")
    return value


def number_or_none(cell: object) -> float | None:
    """Return the finite number in a cell, or None for anything else."""
    try:
        return parse_number(cell)
    except (TypeError, ValueError):
        return None


def lines_of(text: str) -> Iterable[str]:
    """The lines of a text with their ends."""
    return io.StringIO(text, newline="")  # splits at line breaks only, unlike str.splitlines, and keeps quoted ones
