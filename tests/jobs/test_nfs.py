"""A job's folder on a real NFS server, mounted by two machines whose locks do not see each other."""

import fcntl
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from tests.support import clips, failing, nfs
from tests.support.job_runs import Run, as_bytes
from vqa.data.score_table import read_scores

COUNT = 60
needs_nfs = pytest.mark.skipif(bool(nfs.what_is_missing()), reason=f"no NFS server here: {nfs.what_is_missing()}")


@needs_nfs
@pytest.mark.slow
def test_two_jobs_on_nfs_without_locks_and_a_reader_at_any_moment(tmp_path: Path, model_card: Path) -> None:
    """The first is killed with clips to go; its table comes out as that of a run on a disk."""
    for n in range(COUNT):
        clips.write_video(tmp_path / f"{n}.mp4", frames=8, seed=n)
    (tmp_path / "clips.csv").write_text("path\n" + "".join(f"{n}.mp4\n" for n in range(COUNT)))

    def run(out: Path, marks: str, *before: str, held: list[str]) -> Run:
        options = ["--set", "job.seconds_per_write=0", "--set", "job.rows_per_part=7", "--engine", "local"]
        command = [*before, sys.executable, "-m", "tests.support.failing", "score", str(tmp_path / "clips.csv")]
        command += ["--out", str(out), "--model", str(model_card), "--json", *options]
        return Run(command, out, failing.environment(tmp_path / marks, held=held))

    code, _, heard = run(tmp_path / "disk", "none", held=[]).end()
    assert code == 0, heard
    with nfs.exported(tmp_path, mounts=2) as (here, there):
        with (here / "x").open("a") as first, (there / "x").open("a") as second:
            for file in (first, second):  # both get it: flock says nothing of the other machine
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        over, faults, seen = threading.Event(), [], [0]

        def read() -> None:
            while not over.wait(0.02):
                try:
                    names = read_scores(there / "out", ["clip_id"]).column("clip_id").to_pylist()
                    assert len(set(names)) == len(names) >= seen[-1]
                    seen.append(len(names))
                except Exception as error:  # asserted on below: a thread cannot fail the test
                    faults.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        elsewhere = ("unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh")
        try:
            last = [f"{n}.mp4" for n in range(COUNT - 6, COUNT)]
            running = run(here / "out", "killed", held=last)
            running.wait_for_rows(COUNT // 2)
            code, _, heard = run(there / "out", "refused", *elsewhere, held=[]).end()
            assert code == 2
            assert f"another run (process {running.process.pid} on" in heard
            os.killpg(running.process.pid, signal.SIGKILL)
            running.process.wait()
            code, _, heard = run(there / "out", "second", *elsewhere, held=[]).end()
        finally:
            over.set()
            reader.join()
        assert code == 0, heard
        assert "waiting 60 s for a sign of life" in heard
        assert not faults
        assert len(set(seen)) > COUNT // 4, "the reader saw it grow"
        assert as_bytes(here / "out") == as_bytes(tmp_path / "disk")
        assert not (here / "out" / ".lock.held").exists()
