"""Tables that people hand over, row by row: CSV, JSONL, Parquet. (Label files of public sets: `label_files`.)"""

import csv
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from vqa.errors import UsageError

RECORD_SUFFIXES = frozenset({".csv", ".jsonl", ".parquet"})
Record = dict[str, Any]


def read_records(
    path: Path, *, only: Collection[str] | None = None, errors: str = "strict"
) -> tuple[tuple[str, ...], list[Record]]:
    """The columns, and a dict for each row: text from CSV ("" for a cell that is not there), else values as typed.

    `only`: of Parquet no other columns are read. `errors`: for text that is not UTF-8, as of `open`.
    Raises UsageError naming the file, and the line where there is one.
    """
    kind = path.suffix.lower().lstrip(".")
    try:
        if kind == "parquet":
            import pyarrow.parquet as pq  # a tenth of a second that only this kind costs

            names = pq.read_schema(path).names
            table = pq.read_table(path, columns=[name for name in names if only is None or name in only])
            return tuple(table.column_names), table.to_pylist()
        # newline="" keeps quoted line breaks in CSV
        with path.open(encoding="utf-8-sig", errors=errors, newline="") as file:
            if kind == "csv":
                reader = csv.DictReader(file, restval="", strict=True)
                rows = [{key: value for key, value in row.items() if key is not None} for row in reader]
                return tuple(reader.fieldnames or ()), rows
            rows = [_object(line, f"{path}, line {at}") for at, line in enumerate(file, start=1) if line.strip()]
            return tuple(dict.fromkeys(key for row in rows for key in row)), rows
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from error
    except (OSError, csv.Error, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise UsageError(f"{path}: cannot be read as {kind} ({error})") from error


def _object(line: str, where: str) -> Record:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise UsageError(f'{where}: holds {type(value).__name__}, wanted an object like {{"path": ...}}')
    return value
