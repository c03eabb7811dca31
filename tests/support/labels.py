"""Label files of public sets: excerpts, those beside the project where they are, files written for a test; imported."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from openpyxl import Workbook
from scipy.io import savemat

from vqa.data.public.importer import Import, import_labels
from vqa.data.public.layouts import ImportRequest

EXCERPTS = Path(__file__).parents[1] / "data/excerpts"
REAL = Path(__file__).resolve().parents[3] / "shared" / "labels"
PEOPLE = REAL.with_name("people")
Row = dict[str, Any]


def imported(name: str, labels: Path, root: str = "/clips", *, check: bool = False, **options: Any) -> Import:
    return import_labels(ImportRequest(name=name, labels=labels, root=root, check=check, **options))


def rows(name: str, labels: Path, **options: Any) -> list[Row]:
    found: list[Row] = imported(name, labels, **options).manifest.table.to_pylist()
    return [row | {"aspects": dict(row["aspects"] or [])} for row in found]


def written(path: Path, content: Any) -> Path:
    """A label file by its suffix: text, columns (csv, mat), lines (xlsx) or entries (json, jsonl); None: no file."""
    if isinstance(content, str):
        path.write_text(content)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([content, *zip(*content.values(), strict=True)])
    elif path.suffix == ".mat":
        savemat(path, content)
    elif path.suffix == ".xlsx" and content:
        book = Workbook()
        for line in content:
            book.active.append(line)
        book.save(path)
    elif content:
        path.write_text(json.dumps(content))
    return path


def cells(*names: str) -> Any:
    """A MATLAB cell array, a column."""
    array = np.empty((len(names), 1), object)
    array[:, 0] = names
    return array
