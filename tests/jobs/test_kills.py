"""Real kills at random moments: the job goes on, by itself or by the same command, and the table is the same."""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from jobs.run_record import Request
from tests.support import clips
from tests.support.job_runs import Run, plain_loop, table
from vqa.data.score_table import read_scores

pytestmark = pytest.mark.ray

FILES = 120


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(tmp_path: Path, model_card: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for n in range(FILES):
        clips.write_video(folder / f"{n}.mp4", frames=8, seed=n)
    clips.write_text(folder / "text.mp4")
    assignments = ("job.seconds_per_write=0", "job.rows_per_part=7", "generation.k=8")
    request = Request(sources=(str(folder),), out=out, model=str(model_card), assignments=assignments)
    options = [word for assignment in assignments for word in ("--set", assignment)]
    command = [sys.executable, "-m", "jobs.score", str(folder), "--out", str(out), "--model", str(model_card), *options]
    command += ["--json", "--max-failed", "1"]
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
    assert rows < safe < FILES + 1, "the interruption came too late to mean anything"

    code, said, heard = Run(command, out).end()
    summary = json.loads(said)
    assert (code, heard) == (0, "")
    assert (summary["kept"], summary["scored_now"]) == (safe, FILES + 1 - safe)
    assert table(out) == plain_loop(request)
    assert not (out / "superseded").exists(), "no row had to be written twice"
