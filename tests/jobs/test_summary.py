"""What people see: the right rows in the right order, and no file name that can do harm on a terminal."""

import io
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console, RenderableType

from jobs.progress import JobProgress, duration
from jobs.summary import counts, overview, ranked, score_table
from vqa.console import printable
from vqa.data.score_table import SCHEMA


def table(*scores: float | None, names: list[str] | None = None) -> pa.Table:
    rows = [
        {
            "clip_id": names[n] if names else f"clip{n}",
            "score": score,
            "status": "failed" if score is None else "ok",
            "error_kind": "corrupt" if score is None else None,
            "error": "broken" if score is None else None,
        }
        for n, score in enumerate(scores)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def shown(renderable: RenderableType, *, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_worst_comes_first_and_ties_go_by_name() -> None:
    rows = ranked(table(3.0, None, 1.0, 3.0, names=["b", "c", "d", "a"]))
    assert [row["clip_id"] for row in rows] == ["d", "a", "b"]


def test_counts_are_by_frequency_and_leave_out_nulls() -> None:
    assert counts(table(1.0, None, None), "status") == {"failed": 2, "ok": 1}
    assert counts(table(1.0, None), "error_kind") == {"corrupt": 1}


@pytest.mark.parametrize("name", ["\x1b[2Jgone", "two\nlines", "\u202egnp.exe", "tab\t", "\x07bell"])
def test_control_characters_are_spelled_out(name: str) -> None:
    assert printable(name).isprintable()
    assert printable(name) != name


def test_names_are_never_markup() -> None:
    rows = [
        dict.fromkeys(SCHEMA.names) | {"clip_id": "[red]x[/red] [link=http://a]y", "score": 2.0, "reason": "[bold]r"}
    ]
    text = shown(score_table(rows, title="t"))
    assert "[red]x[/red] [link=http://a]y" in text
    assert "[bold]r" in text


def test_opinions_are_shown_where_there_are_some() -> None:
    rows = ranked(table(2.0, 3.0))
    assert "mos" not in shown(score_table(rows, title="t"))
    rows[0] |= {"mos": 2.41, "mos_low": 1.9, "mos_high": 2.92}
    text = shown(score_table(rows, title="t"))
    assert "mos" in text and "2.41 (1.90 to 2.92)" in text
    assert "None" not in text


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_table_fits_the_screen(width: int) -> None:
    row = {"clip_id": "a_name_of_some_length.mp4", "reason": "I see heavy scaling and clear compression. " * 3}
    rows = [dict.fromkeys(SCHEMA.names, 1.25) | row]
    lines = [
        line for line in shown(score_table(rows, title="t"), width=width).splitlines() if "─" in line or "│" in line
    ]
    assert {line.rstrip()[-1] for line in lines} <= set("┓┃┩│┘")


def test_an_overview_shows_best_worst_failures_and_counts(tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    text = shown(overview(table(*[1.0 + n / 10 for n in range(20)], None), out=tmp_path))
    for words in ("Best 5", "Worst 5", "2.90", "1.00", "corrupt", "broken", "failed", "20", str(tmp_path / "scores")):
        assert words in text
    assert "1.70" not in text


def test_an_overview_of_nothing_is_no_error(tmp_path: Path) -> None:
    assert "status" in shown(overview(table(), out=tmp_path))


def test_progress_off_a_terminal_speaks_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with JobProgress(4) as progress:
        progress.advance(clips=1, failed=0, files=1.0)
        progress.advance(clips=2, failed=1, files=0.5)
        progress.say(progress.line())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("1 of 4 files")
    assert "1 without a score" in captured.err
    assert "left" in captured.err


def test_quiet_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with JobProgress(4, quiet=True) as progress:
        progress.advance(clips=1, failed=0, files=1.0)
        progress.say("word")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (200, "3 min"), (9000, "2.5 h")])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text
