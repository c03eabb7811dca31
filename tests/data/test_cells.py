"""No cell of a CSV file is a formula, and each is read back as it was."""

import csv
import io
from pathlib import Path

import pytest

from vqa.data.cells import SafeWriter, defused, restored
from vqa.data.export import export
from vqa.data.score_table import ScoreRow, to_table
from vqa.data.subjective.mos import write_columns
from vqa.data.tables import read_columns, read_rows

NAMES = [
    "=cmd|' /C calc'!A0",
    "+HYPERLINK(1)",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "'=already",
    "''=twice",
    "'quoted'",
    "it's",
    "-5",
    "+1.5e3",
    "plain.mp4",
    "",
]
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_comes_back_as_it_was(name: str) -> None:
    assert restored(str(defused(name))) == name


def test_what_is_written_is_no_formula_and_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        SafeWriter(file).writerows([["clip", "score"], *([name, -1.5] for name in NAMES if name)])
    cells = [row[0] for row in csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))]
    assert [cell for cell in cells if cell.startswith(FORMULA)] == ["-5", "+1.5e3"]
    wanted = [name for name in NAMES if name]
    assert [row["clip"] for row in read_rows(path)[1]] == wanted
    assert [row["score"] for row in read_rows(path)[1]] == ["-1.5"] * len(wanted)
    assert read_columns(path)["clip"][0] == wanted[0]


def test_exported_scores_and_opinions_hold_no_formula(tmp_path: Path) -> None:
    row = ScoreRow(clip_id="=1+1.mp4", uri="=1+1.mp4", run_key="k", status="ok", score=3.0, reason="@SUM(1)")
    text = io.StringIO(newline="")
    export(to_table([row]), text, kind="csv")
    (found,) = csv.DictReader(io.StringIO(text.getvalue()))
    assert (found["clip_id"], found["reason"], found["score"]) == ("'=1+1.mp4", "'@SUM(1)", "3.0")
    lines = io.StringIO()
    export(to_table([row]), lines, kind="jsonl")
    assert '"=1+1.mp4"' in lines.getvalue()  # JSON is no spreadsheet's: as it is
    write_columns(tmp_path / "mos.csv", {"clip": ["=1+1.mp4", "b.mp4"], "mos": [-1.0, 2.0]})
    assert "'=1+1.mp4" in (tmp_path / "mos.csv").read_text()
    assert [one["clip"] for one in read_rows(tmp_path / "mos.csv")[1]] == ["=1+1.mp4", "b.mp4"]
