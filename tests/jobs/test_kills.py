"""Killed processes: the job resumes, by itself or by the same command, and the table is the same."""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs.request import ScoreRequest
from jobs.score import score
from tests.support import clips, failing
from tests.support.job_runs import Run, plain_loop, table
from vqa.console import Engine
from vqa.data.score_table import read_scores

FILES = 24


def inputs(folder: Path, count: int) -> Path:
    """So many clips and a text that is none."""
    folder.mkdir()
    for n in range(count):
        clips.write_video(folder / f"{n}.mp4", frames=8, seed=n)
    clips.write_text(folder / "text.mp4")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("engine", [Engine.LOCAL, pytest.param(Engine.RAY, marks=pytest.mark.ray)])
def test_kills_in_every_process_change_nothing(
    tmp_path: Path,
    model_card: Path,
    engine: Engine,
    warm_commands: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What is left is done in this process after either engine: what a run resumes from knows none."""
    folder, out = inputs(tmp_path / "in", FILES), tmp_path / "out"
    assignments = ("job.seconds_per_write=0", "job.rows_per_part=5")
    request = ScoreRequest(sources=(str(folder),), out=out, model=str(model_card), assignments=assignments)
    request = replace(request, engine=Engine.LOCAL, max_failed="1", json_summary=True)
    options = [word for assignment in assignments for word in ("--set", assignment)]
    command = [str(warm_commands / "python"), "-m", "tests.support.failing", "score", str(folder), "--out", str(out)]
    command += ["--model", str(model_card), *options, "--json", "--max-failed", "1", "--engine", engine]
    faults: dict[str, str | int] = {"decoder": "1.mp4", "scorer": "13.mp4", "driver": 12}
    if engine is Engine.RAY:
        faults |= {"sampler": "11.mp4"}
    else:  # with two decoders one may make 12 rows before the other has started
        command += ["--set", "job.sample_workers=1"]

    code, said, _ = Run(command, out, failing.environment(tmp_path / "first", **faults)).end()
    assert (code, said) == (-signal.SIGKILL, "")
    assert {mark.name for mark in (tmp_path / "first").iterdir()} == set(faults)
    rows = len(table(out))
    assert 0 < rows < FILES

    code, said, heard = Run(command, out, failing.environment(tmp_path / "second", interrupted=5)).end()
    assert code == 130, heard
    assert json.loads(said)["state"] == "interrupted"
    assert "Traceback" not in heard
    safe = read_scores(out, ["clip_id"]).num_rows
    assert rows < safe < FILES + 1

    monkeypatch.setattr("jobs.request.ScoreStage", failing.FailingScoreStage)
    assert score(request) == 0
    captured = capfd.readouterr()
    summary = json.loads(captured.out)
    assert captured.err == ""
    assert (summary["rows_reused"], summary["rows_new"]) == (safe, FILES + 1 - safe)
    assert table(out) == plain_loop(request, score_stage=failing.FailingScoreStage)
    assert not (out / "superseded").exists(), "no row had to be written twice"


@pytest.mark.full
@pytest.mark.ray
def test_kills_at_random_moments_change_nothing(tmp_path: Path, model_card: Path) -> None:
    count = 120
    folder, out = inputs(tmp_path / "in", count), tmp_path / "out"
    assignments = ("job.seconds_per_write=0", "job.rows_per_part=7", "generation.k=8", "generation.batch_size=1")
    request = ScoreRequest(sources=(str(folder),), out=out, model=str(model_card), assignments=assignments)
    options = [word for assignment in assignments for word in ("--set", assignment)]
    command = [sys.executable, "-m", "jobs.score", str(folder), "--out", str(out), "--model", str(model_card), *options]
    command += ["--json", "--max-failed", "1", "--engine", "ray"]
    rng = np.random.default_rng(5)

    first = Run(command, out)
    for kind in rng.permutation(["decoder", "sampler"]):  # at the start, while there is something to decode
        first.kill(kind, delay_seconds=rng.uniform(0.0, 0.3))
    for end in (lambda: first.kill("scorer"), lambda: None):
        first.wait_for_rows(read_scores(out, ["clip_id"]).num_rows + int(rng.integers(1, 10)))
        end()
    os.kill(first.process.pid, signal.SIGKILL)
    code, said, _ = first.end()
    assert (code, said) == (-signal.SIGKILL, "")
    table(out)

    second = Run(command, out)
    rows = read_scores(out, ["clip_id"]).num_rows
    second.wait_for_rows(rows + int(rng.integers(1, 10)))
    os.killpg(second.process.pid, signal.SIGINT)  # what Ctrl-C does
    code, said, heard = second.end()
    assert code == 130, heard
    assert json.loads(said)["state"] == "interrupted"
    assert "Traceback" not in heard
    safe = read_scores(out, ["clip_id"]).num_rows
    assert rows < safe < count + 1, "the interruption came too late to mean anything"

    code, said, heard = Run(command, out).end()
    summary = json.loads(said)
    assert (code, heard) == (0, "")
    assert (summary["rows_reused"], summary["rows_new"]) == (safe, count + 1 - safe)
    assert table(out) == plain_loop(request)
    assert not (out / "superseded").exists(), "no row had to be written twice"
