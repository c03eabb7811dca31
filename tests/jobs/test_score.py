"""Whole runs on either engine: every clip one row, the numbers of a plain loop, and nothing done twice."""

import json
import os
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.request import ScoreRequest, inputs_of
from jobs.score import score
from tests.support import clips
from tests.support.job_runs import plain_loop, table
from tests.support.scale import FULL
from tests.support.zoo import make_zoo
from vqa.console import Engine
from vqa.errors import UsageError


@pytest.mark.slow
def test_a_run_over_everything_that_goes_wrong(
    tmp_path: Path, model_card: Path, engine: Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    # On Ray, where each row costs more, a kind of row is there once: what a file comes to is decided by the stages.
    wanted = make_zoo(tmp_path / "in", few=engine is Engine.RAY and not FULL)
    clips.write_video(tmp_path / "in/files/long.mp4", fps=10, frames=65)
    request = ScoreRequest(
        sources=(str(tmp_path / "in/list.txt"), str(tmp_path / "in/files")),
        out=tmp_path / "out",
        model=str(model_card),
        engine=engine,
        clip_seconds=2.0,
        json_summary=True,
    )
    assert score(request) == 3
    captured = capfd.readouterr()
    summary = json.loads(captured.out)
    assert captured.err == ""

    rows = table(request.out)
    windows = [f"long.mp4#t={start},{end}" for start, end in (("0", "2"), ("2", "4"), ("4", "6.5"))]
    assert {name: row["error_kind"] for name, row in rows.items()} == wanted | dict.fromkeys(windows)
    for row in rows.values():
        assert (row["score"] is None) == (row["status"] in ("failed", "unparsed"))
        assert (row["error"] is None) == (row["error_kind"] is None)
        assert row["score"] is None or 1 <= row["score"] <= 5
    assert rows == plain_loop(request)

    assert summary == json.loads((request.out / "run.json").read_text()) | {"out": str(request.out)}
    assert (summary["clips"], summary["rows_new"], summary["rows_reused"]) == (len(rows), len(rows), 0)
    assert summary["engine"] == engine
    assert sum(summary["counts"].values()) == len(rows)
    assert summary["errors"] == Counter(kind for kind in wanted.values() if kind)
    (video,) = [row for row in pq.read_table(request.out / "videos.parquet").to_pylist() if row["windows"] > 1]
    scores = [rows[name]["score"] for name in windows]
    assert (video["video_id"], video["score_min"]) == ("long.mp4", min(scores))
    assert video["score_mean"] == pytest.approx(sum(scores) / 3)
    if engine is Engine.LOCAL:  # the count is the same on either; on Ray new workers would start for what is retried
        failed = sum(summary["errors"].values())
        assert [score(replace(request, max_failed=str(most))) for most in (failed - 1, failed)] == [3, 0]


def test_a_second_run_does_only_what_is_new(
    tmp_path: Path, model_card: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan knows no engine; test_kills.py resumes on Ray."""
    folder, out, engine = tmp_path / "in", tmp_path / "out", Engine.LOCAL
    folder.mkdir()
    for n in range(4):
        clips.write_video(folder / f"{n}.mp4", frames=8, seed=n)
    request = ScoreRequest(sources=(str(folder),), out=out, model=str(model_card), engine=engine, json_summary=True)

    def again(**changes: Any) -> dict[str, Any]:
        assert score(replace(request, **changes)) == 0
        return dict(json.loads(capsys.readouterr().out))

    assert again()["rows_new"] == 4
    before = table(out)
    assert again()["rows_new"] == 0  # starts no pipeline
    assert again(assignments=("generation.batch_size=1", "limits.deadline_seconds=50"))["rows_new"] == 0

    os.utime(folder / "0.mp4", ns=(1, 1))
    clips.write_video(folder / "1.mp4", frames=9, seed=10)
    (folder / "2.mp4").unlink()
    clips.write_video(folder / "new.mp4", frames=8, seed=4)
    summary = again()
    assert (summary["rows_new"], summary["rows_reused"]) == (2, 1)  # 3.mp4 unopened, 0.mp4 inspected
    after = table(out)
    assert after["3.mp4"] == before["3.mp4"]
    touched = (folder / "0.mp4").stat().st_ctime_ns  # the later of the times of content and entry
    assert after["0.mp4"] == before["0.mp4"] | {"source_mtime_ns": touched}
    assert after["1.mp4"]["run_key"] != before["1.mp4"]["run_key"]
    assert set(after) == {"0.mp4", "1.mp4", "2.mp4", "3.mp4", "new.mp4"}  # a row is not lost with its file
    (old,) = (row for path in (out / "superseded").iterdir() for row in pq.read_table(path).to_pylist())
    assert old["run_key"] == before["1.mp4"]["run_key"]

    capsys.readouterr()
    assert (
        score(ScoreRequest(sources=(str(folder),), out=out, model=str(model_card), engine=engine, k=2, dry_run=True))
        == 0
    )
    plan = json.loads(capsys.readouterr().out)
    assert (plan["engine"], plan["to_inspect"], plan["rows_superseded"]) == (engine, 4, 4)
    assert table(out) == after


def test_a_run_that_cannot_start_writes_nothing(tmp_path: Path, model_card: Path) -> None:
    (tmp_path / "empty").mkdir()
    for request in (
        ScoreRequest(sources=(str(tmp_path / "empty"),), out=tmp_path / "out", model=str(model_card)),
        ScoreRequest(sources=(str(tmp_path / "gone"),), out=tmp_path / "out", model=str(model_card)),
        ScoreRequest(sources=(str(model_card),), out=tmp_path / "out", model=str(model_card), max_failed="5 of 10"),
        ScoreRequest(
            sources=(str(model_card),), out=tmp_path / "out", model=str(model_card), assignments=("views.x=1",)
        ),
    ):
        with pytest.raises(UsageError):
            score(request)
    assert not (tmp_path / "out").exists()


def test_the_flags_on_damage_lie_above_the_settings(tmp_path: Path, model_card: Path) -> None:
    clips.write_video(tmp_path / "a.mp4", frames=2)
    request = {"sources": (str(tmp_path),), "out": tmp_path / "out", "model": str(model_card)}
    assignments = ("views.on_damage=partial", "views.min_decoded_share=0.3")
    views = inputs_of(ScoreRequest(**request, assignments=assignments, on_damage="fail")).config.views
    assert (views.on_damage, views.min_decoded_share, views.keyframes) == ("fail", 0.3, 4)
    views = inputs_of(ScoreRequest(**request, min_decoded_share=0.9)).config.views
    assert (views.on_damage, views.min_decoded_share, views.keyframes) == ("partial", 0.9, 4)
    with pytest.raises(UsageError, match=r"views\.on_damage = 'maybe'"):
        inputs_of(ScoreRequest(**request, on_damage="maybe"))


def test_the_module_is_the_same_door_as_the_command(tmp_path: Path, model_card: Path, warm_commands: Path) -> None:
    command = [warm_commands / "python", "-m", "jobs.score", tmp_path / "gone", "--out", tmp_path / "out"]
    done = subprocess.run([*command, "--model", model_card], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("vqa: source")
