"""Label files as they are shipped, whatever their format: columns of cells, nothing decided yet.

Columns of a file without a header are called 1, 2, 3...; variables of a .mat file by their name, those inside a struct
as `struct.field`; an entry of a JSON list as `key`.
"""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from vqa.errors import UsageError
from vqa.imports import require

Format = Literal["csv", "txt", "mat", "json", "jsonl", "xlsx", "parquet"]
Separator = Literal["comma", "blank", "bar", "semicolon"]
_MARKS: dict[Separator, str | None] = {"comma": ",", "blank": None, "bar": "|", "semicolon": ";"}
Cells = dict[str, list[Any]]
_ENCODINGS = ("utf-8-sig", "gbk")  # LSVQ's csv is read as gbk by some


def format_of(path: Path) -> Format:
    """The format by the file's suffix. Raises UsageError."""
    suffix = path.suffix.lower().lstrip(".")
    if suffix not in ("csv", "txt", "mat", "json", "jsonl", "xlsx", "parquet"):
        raise UsageError(f"labels {path}: wanted a .csv, .txt, .mat, .json, .jsonl, .xlsx or .parquet file")
    return suffix  # type: ignore[return-value]


def read_cells(path: Path, *, separator: Separator = "comma", beside: Sequence[str] = ()) -> Cells:
    """The columns of a label file, all of one length (for .mat: each as long as it is). Raises UsageError.

    `separator` counts for csv and txt; of a .mat file the variables of the files `beside` it count too.
    """
    kind = format_of(path)
    try:
        if kind == "mat":
            return _mat([path, *(path.with_name(name) for name in beside)])
        if kind == "xlsx":
            return _xlsx(path)
        if kind == "parquet":
            import pyarrow.parquet as pq

            return dict(pq.read_table(path).to_pydict())
        text = _text(path)
        if kind == "csv":
            return _csv(text, delimiter=_MARKS[separator] or " ")
        return _txt(text, separator) if kind == "txt" else _json(text, lines=kind == "jsonl")
    except FileNotFoundError as error:
        raise UsageError(f"labels {path}: no such file") from error
    except (OSError, ValueError, csv.Error) as error:  # JSONDecodeError and pyarrow's ArrowInvalid are ValueErrors
        raise UsageError(f"labels {path}: cannot be read as {kind} ({error})") from error


def _text(path: Path) -> str:
    raw = path.read_bytes()
    for encoding in _ENCODINGS:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ValueError(f"neither {' nor '.join(_ENCODINGS)}")


def _csv(text: str, *, delimiter: str) -> Cells:
    rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(row)]
    names = [name.strip() for name in rows[0]] if rows else []
    repeated = [name for name, count in Counter(names).items() if name and count > 1]
    if repeated:
        raise ValueError(f"the header names {', '.join(repeated[:5])} more than once")
    return {
        name: [row[at].strip() if at < len(row) else "" for row in rows[1:]] for at, name in enumerate(names) if name
    }


def _txt(text: str, separator: Separator) -> Cells:
    """As many fields as most lines have; a line with more keeps the rest in the first (a name with blanks)."""
    mark = _MARKS[separator]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    counts = Counter(len(line.split(mark)) for line in lines)
    width = counts.most_common(1)[0][0] if counts else 0
    rows = [[field.strip() for field in line.rsplit(mark, width - 1)] for line in lines]
    odd = next((number for number, row in enumerate(rows, start=1) if len(row) != width), None)
    if odd is not None:
        raise ValueError(f"line {odd} has {len(rows[odd - 1])} fields where most have {width}")
    return {str(at + 1): [row[at] for row in rows] for at in range(width)}


def _json(text: str, *, lines: bool) -> Cells:
    entries = [json.loads(line) for line in text.splitlines() if line.strip()] if lines else json.loads(text)
    if isinstance(entries, dict):
        entries = next((value for value in entries.values() if isinstance(value, list)), [])  # {"annotations": [...]}
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("wanted a list of objects")
    flat = [_flattened(entry) for entry in entries]
    return {name: [entry.get(name) for entry in flat] for name in dict.fromkeys(key for entry in flat for key in entry)}


def _flattened(entry: Mapping[str, Any]) -> dict[str, Any]:
    """R1-style rows: the answer of `conversations` as `gpt`; `image` as one name.

    Several images are the pictures made of one video, video_0.png, video_1.png...: the name is `video`.
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


def _mat(paths: Iterable[Path]) -> Cells:
    from scipy.io import loadmat

    found: Cells = {}
    for path in paths:
        try:
            variables = loadmat(path, simplify_cells=True)
        except NotImplementedError as error:  # scipy reads no HDF5
            raise ValueError(f"{path.name} is a MATLAB 7.3 file; save it again with -v7") from error
        except OSError:
            raise
        except Exception as error:  # what scipy raises for damaged files is of a dozen kinds
            raise ValueError(f"{path.name}: {error}") from error
        for name, value in variables.items():
            if not name.startswith("__"):
                _unfold(name, value, found)
    return found


def _unfold(name: str, value: Any, found: Cells) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _unfold(f"{name}.{key}", inner, found)
    elif isinstance(value, list) or getattr(value, "ndim", 0) == 1:  # no tables of split indices and the like
        found[name] = value if isinstance(value, list) else value.tolist()


def _xlsx(path: Path) -> Cells:
    require("xlsx", "openpyxl", doing=f"labels {path}: reading .xlsx")
    from openpyxl import load_workbook

    rows = list(load_workbook(path, read_only=True, data_only=True).worksheets[0].iter_rows(values_only=True))
    names = [str(cell).strip() for cell in rows[0]] if rows else []
    return {name: [row[at] for row in rows[1:] if row[0] is not None] for at, name in enumerate(names)}


def column(cells: Cells, name: str) -> list[Any]:
    """The cells of a column; `names[kinds]` is the entry of `names` that each of `kinds` counts, from 1."""
    base, bracket, index = name.partition("[")
    if not bracket:
        return cells[name]
    return [cells[base][int(at) - 1] for at in cells[index.rstrip("]")]]


def has_column(cells: Cells, name: str) -> bool:
    """Whether `column` finds it."""
    return all(part.rstrip("]") in cells for part in name.split("["))


def number(cell: Any, *, decimal_comma: bool = False) -> float | None:
    """The finite number in a cell; None for an empty one. Raises ValueError for anything else."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    value = float(cell.replace(",", ".") if decimal_comma and isinstance(cell, str) else cell)
    return value if math.isfinite(value) else None
