"""`vqa top` on the folder of a run that runs, has finished, was killed, or is none."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jobs.progress import JobProgress
from jobs.run_record import RunRecord
from jobs.top import SILENT_SECONDS, Watch, render_run
from vqa.data.score_table import ScoreRow, ScoreTable
from vqa.errors import UsageError

FACTS = {"model_id": "embedded", "engine": "local", "files": 4}


def shown(out: Path, watch: Watch | None = None) -> tuple[str, bool]:
    console = Console(width=200, force_terminal=False)
    what, is_over = render_run(watch or Watch(out), out)
    with console.capture() as capture:
        console.print(what)
    return capture.get(), is_over


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    rows = [
        ScoreRow(clip_id="a", uri="a", run_key="1", status="ok", score=3.0, decode_seconds=1.0, score_seconds=2.0),
        ScoreRow(clip_id="b", uri="b", run_key="2", status="ok", score=3.0, decode_seconds=3.0, score_seconds=4.0),
        ScoreRow(clip_id="c\x1b[31m", uri="c", run_key="3", error_kind="timeout", error="e", decode_seconds=120.0),
    ]
    table = ScoreTable(tmp_path, rows_per_part=3)
    table.add(rows)
    table.flush()
    return RunRecord(tmp_path / "run.json", FACTS)


def test_a_run_that_runs(record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.run_record.BEAT_SECONDS", 0.01)
    progress = JobProgress(4, quiet=True)
    (tmp_path / ".lock").write_text(f"process {os.getpid()} on {socket.gethostname()}")
    with record.beating(progress.facts):
        progress.advance(clips=3, failed=1, files=3.0)
        deadline = time.monotonic() + 30
        while json.loads((tmp_path / "run.json").read_text()).get("progress", {}).get("clips_done") != 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        text, is_over = shown(tmp_path)
    assert not is_over
    assert "running for" in text
    assert "\n3 of 4 files of this run, 3 rows in the table" in text, "below the bar"
    assert [line.split() for line in text.splitlines() if "decoding" in line] == [
        ["│", "decoding", "│", "41.3", "│", "3", "│", "96.6", "│", "118", "│", "120", "│"]
    ]
    assert "timeout" in text
    slowest = text[text.index("Slowest") :]
    assert slowest.index("c\\x1b[31m") < slowest.index("│       7 │ b")
    assert "\x1b" not in text, "a clip's name cannot reach the terminal"


def test_what_its_workers_do_is_shown(record: RunRecord, tmp_path: Path) -> None:
    work = {
        "workers": {"decoding": 3, "scoring": 1},
        "busy": {"scoring": 0.994},
        "waiting": {"scoring": 8},
        "tokens_per_second": {"prompt": 1234.5, "answer": 56.0},
        "cost": 3.2149,
    }
    with record.beating(lambda: JobProgress(4, quiet=True).facts() | work):
        pass
    record.finish(state="running")
    text, _ = shown(tmp_path)
    assert "\ndecoding: 3 workers; scoring: 1 worker, 99% busy, 8 clips in its queue\n" in text
    assert "\n1,234 prompt tokens/s, 56 answer tokens/s, cost so far 3.21\n" in text


def test_a_run_that_has_finished(record: RunRecord, tmp_path: Path) -> None:
    with record.beating(JobProgress(4, quiet=True).facts):
        pass
    record.finish(state="finished")
    text, is_over = shown(tmp_path)
    assert is_over
    assert f"finished {record.values['ended']}" in text
    assert "0 of 4 files of this run" in text


def test_a_run_that_was_killed(record: RunRecord, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / ".lock").write_text(f"process {gone.pid} on {socket.gethostname()}")
    text, is_over = shown(tmp_path)
    assert is_over
    assert "killed, its process is gone; the same command resumes" in text


def test_a_run_on_another_machine_that_says_nothing(record: RunRecord, tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("process 1 on elsewhere")
    text, is_over = shown(tmp_path)
    assert "running for" in text
    long_ago = time.time() - SILENT_SECONDS - 60
    os.utime(tmp_path / "run.json", (long_ago, long_ago))
    text, is_over = shown(tmp_path)
    assert not is_over, "its host may come back"
    assert "no sign of life for 2 min" in text


def test_only_a_changed_part_is_read_again(record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch, read = Watch(tmp_path), []
    from jobs.top import Part

    whole = Part.read

    def counted(path: Path) -> Any:
        read.append(path.name)
        return whole(path)

    monkeypatch.setattr(Part, "read", counted)
    assert watch.rows().statuses == watch.rows().statuses == {"ok": 2, "failed": 1}
    table = ScoreTable(tmp_path, rows_per_part=3)
    table.add([ScoreRow(clip_id="d", uri="d", run_key="4", status="partial", score=2.0)])
    table.flush()
    assert watch.rows().statuses == {"ok": 2, "failed": 1, "partial": 1}
    assert read == ["part-000001.parquet", "part-000002.parquet"]


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run\.json: cannot be read .* give the --out folder"):
        render_run(Watch(tmp_path), tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UsageError, match=r"no JSON"):
        render_run(Watch(tmp_path), tmp_path)
    for other in ("[]", "{}", '{"state": 5}'):
        (tmp_path / "run.json").write_text(other)
        with pytest.raises(UsageError, match=r"no record of a run.* give the --out folder"):
            render_run(Watch(tmp_path), tmp_path)
