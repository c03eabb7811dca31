"""Real kills at random moments: the job goes on, by itself or by the same command, and the table is the same."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from jobs.score import ScoreRequest
from tests.jobs.test_score import plain_loop, table
from tests.support import clips
from vqa.data.score_table import read_scores

PATIENCE_SECONDS = 120.0
FILES = 120


class Run:
    """One start of the command, in a process group of its own, as a shell gives it."""

    def __init__(self, command: list[str], out: Path) -> None:
        self.out = out
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def wait_for_rows(self, count: int) -> None:
        self.wait_until(lambda: read_scores(self.out, ["clip_id"]).num_rows >= count)

    def wait_until(self, is_true: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_true():
            assert self.process.poll() is None, f"ended early: {self.process.communicate()}"
            assert time.monotonic() < deadline, "nothing happened for two minutes"
            time.sleep(0.02)

    def kill(self, kind: str, *, delay_seconds: float = 0.0) -> None:
        """SIGKILL to a worker of a stage, or to the process that decodes for one."""
        stage = "ScoreStage" if kind == "scorer" else "SampleStage"
        at_work = 2 if stage == "SampleStage" else 0  # its fork server and the child that decodes
        found: list[psutil.Process] = []

        def is_there() -> bool:
            for one in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    is_worker = f"MapWorker(MapBatches({stage}))" in " ".join(one.cmdline())
                    family = one.children(recursive=True) if is_worker else []
                    if is_worker and len(family) >= at_work:
                        found[:] = [one, *family]
            return bool(found)

        self.wait_until(is_there)
        time.sleep(delay_seconds)
        found[-1 if kind == "decoder" else 0].kill()

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, out, err


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(tmp_path: Path, model_card: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for n in range(FILES):
        clips.write_video(folder / f"{n}.mp4", frames=8, seed=n)
    clips.write_text(folder / "text.mp4")
    assignments = ("job.seconds_per_write=0", "job.rows_per_part=7", "generation.k=8")
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
    assert rows < safe < FILES + 1, "the interruption came too late to mean anything"

    code, said, heard = Run(command, out).end()
    summary = json.loads(said)
    assert (code, heard) == (0, "")
    assert (summary["rows_reused"], summary["rows_new"]) == (safe, FILES + 1 - safe)
    assert table(out) == plain_loop(request)
    assert not (out / "superseded").exists(), "no row had to be written twice"
