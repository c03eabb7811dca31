"""CSV cells that no spreadsheet runs as formulas, and that read back unchanged.

Names of files, people and clips, error messages and a model's words come from elsewhere. A cell that begins with =, +,
-, @, a tab or a carriage return is run by a spreadsheet that opens the file (CSV injection: OWASP, CWE-1236), so it is
written with an apostrophe before it, which makes it text there, and read without.
"""

import csv
import re
from collections.abc import Iterable
from typing import Any, TextIO

_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # apostrophes before one of ours are kept apart from ours by one more
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def defused(cell: object) -> object:
    """Defuse a cell for spreadsheets; numbers and what is no text stay as they are."""
    is_formula = isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell)
    return f"'{cell}" if is_formula else cell


def restored(cell: str) -> str:
    """A cell before it was defused; every other one stays as it is."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


class SafeWriter:
    """A CSV writer whose cells are defused."""

    def __init__(self, file: TextIO) -> None:
        """Write to a file that was opened with newline=""."""
        self._writer = csv.writer(file, lineterminator="\n")

    def writerow(self, cells: Iterable[Any]) -> None:
        """Write one row."""
        self._writer.writerow(map(defused, cells))

    def writerows(self, rows: Iterable[Iterable[Any]]) -> None:
        """Write rows."""
        for row in rows:
            self.writerow(row)
