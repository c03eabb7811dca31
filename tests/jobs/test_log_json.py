"""`--log-json`: every line on stderr is an object, with the id of each clip, and the last error is one too."""

import json
import logging
from pathlib import Path

import pytest

from jobs.engine import run_stages
from jobs.ledger import Ledger
from jobs.progress import JobProgress
from jobs.resume import Work
from tests.jobs.test_local_executor import Reader
from vqa import console
from vqa.console import Engine, complain, log_as_json
from vqa.data.score_table import ScoreTable
from vqa.types import Clip


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_json_lines", [])
    monkeypatch.setattr(logging.getLogger(), "handlers", [])


def test_lines_are_objects_with_clip_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log_as_json()
    names = ["a", "b\n\x1b[31m", "c"]
    work = [Work(clip=Clip(clip_id=name, uri=f"/{name}")) for name in names]
    progress = JobProgress(3, quiet=True, as_json=True)
    progress.say("3 files")
    stage = Reader(fails=("c",))
    run_stages([stage], Ledger.of(work, clip_seconds=None), ScoreTable(tmp_path), progress, engine=Engine.LOCAL)
    complain("the end\nof it")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {(line["clip_id"], line["status"], line["score"]) for line in lines if line["event"] == "clip"} == {
        ("a", "ok", 3.0),
        ("b\n\x1b[31m", "ok", 3.0),
    }
    assert next(line["message"] for line in lines if line["event"] == "message") == "3 files"
    (fault, *_) = [line for line in lines if line["level"] == "warning"]
    assert (fault["logger"], "/c failed: TypeError: c") == ("jobs.local_executor", fault["message"])
    assert (lines[-1]["event"], lines[-1]["message"]) == ("error", "the end\nof it")
    assert all(line["time"].endswith("+00:00") for line in lines)


def test_without_it_lines_are_plain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = JobProgress(1)
    work = [Work(clip=Clip(clip_id="a", uri="/a"))]
    run_stages([Reader()], Ledger.of(work, clip_seconds=None), ScoreTable(tmp_path), progress, engine=Engine.LOCAL)
    complain("no")
    assert capsys.readouterr().err == "vqa: no\n"
