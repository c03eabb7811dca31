"""What is not there for a while: room on the disk, a store. The rows in the end are those of an undisturbed run."""

import errno
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import jobs.engine
import jobs.score
from jobs.engine import run_stages
from jobs.ledger import Ledger
from jobs.progress import JobProgress
from jobs.request import ScoreInputs, ScoreRequest
from jobs.resume import Work
from jobs.score import score
from tests.support.job_runs import table
from tests.support.naming import Naming
from tests.support.scale import full
from vqa.console import Engine
from vqa.data.score_table import ScoreTable, read_scores
from vqa.errors import ClipError, VqaError
from vqa.media import probe
from vqa.media.storage.stores import is_away
from vqa.types import Clip

CLIPS = full(300, gate=100)


@pytest.mark.slow
def test_a_full_disk_ends_the_run_in_words_and_takes_no_row_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stages(inputs: ScoreInputs) -> list[Naming]:
        return [Naming(settings=inputs.settings)]

    monkeypatch.setattr(jobs.score, "stages_of", stages)
    (tmp_path / "list.csv").write_text("path\n" + "".join(f"{n}.mp4\n" for n in range(CLIPS)))
    options: dict[str, Any] = {"sources": (str(tmp_path / "list.csv"),), "engine": Engine.LOCAL, "json_summary": True}
    assignments = ("job.seconds_per_write=0", "job.rows_per_part=50")
    out, plain = (ScoreRequest(out=tmp_path / name, assignments=assignments, **options) for name in ("out", "plain"))
    write, writes = pq.write_table, [0]
    full_at = set(np.random.default_rng(3).integers(CLIPS // 15, CLIPS * 5 // 6, 3).tolist())

    def filling(rows: Any, place: Path, **how: Any) -> None:
        writes[0] += 1
        if min(full_at, default=10**9) <= writes[0]:
            Path(place).write_bytes(b"PAR1 and half of")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(rows, place, **how)

    monkeypatch.setattr(pq, "write_table", filling)
    while full_at:
        before = writes[0]
        with pytest.raises(VqaError, match=r"cannot be written to any more \(No space left.*the same command resumes"):
            score(out)
        assert not list((tmp_path / "out").rglob(".*.tmp")), "a draft takes what others could use"
        assert read_scores(tmp_path / "out").num_rows >= before - 5
        full_at.discard(min(full_at))
    assert score(out) == 0
    assert score(plain) == 0
    assert table(tmp_path / "out") == table(tmp_path / "plain")
    assert len(table(tmp_path / "out")) == CLIPS


def test_what_a_store_did_not_give_is_asked_for_again_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.engine, "is_away", lambda uri: False)
    names = [f"{n:03}" for n in range(CLIPS)]
    gone = np.random.default_rng(4).choice(names, 40, replace=False).tolist()
    away = {**dict.fromkeys(gone[1:], 1), gone[0]: 9, "local": 1}
    work = [Work(clip=Clip(clip_id=name, uri=f"s3://bucket/{name}.mp4")) for name in names]
    work.append(Work(clip=Clip(clip_id="local", uri="/local.mp4")))
    ledger, scores = Ledger.of(work, clip_seconds=None), ScoreTable(tmp_path)
    assert not run_stages([Naming(away=away)], ledger, scores, JobProgress(0, quiet=True), engine=Engine.LOCAL)
    rows = table(tmp_path)
    assert set(rows) == {*names, "local"}
    assert {name for name, row in rows.items() if row["status"] != "ok"} == {gone[0], "local"}
    assert rows[gone[0]]["error_kind"] == "not_readable"
    assert not ledger.work


@pytest.mark.parametrize(("not_given", "asked_for"), [(10, "29"), (1, "28")])
def test_a_store_that_is_away_at_the_end_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], not_given: int, asked_for: str
) -> None:
    """After one clip that may be bad by itself, the store is asked for one that it gave before."""
    names = [f"{n:02}" for n in range(30)]
    answers = iter([True, True, False])
    monkeypatch.setattr(jobs.engine, "STORE_POLL_SECONDS", 0.01)
    monkeypatch.setattr(jobs.engine, "is_away", lambda uri: next(answers))
    work = [Work(clip=Clip(clip_id=name, uri=f"s3://bucket/{name}.mp4")) for name in names]
    ledger, scores = Ledger.of(work, clip_seconds=None), ScoreTable(tmp_path)
    away = dict.fromkeys(names[-not_given:], 1)
    assert not run_stages([Naming(away=away)], ledger, scores, JobProgress(0, quiet=False), engine=Engine.LOCAL)
    assert {row["status"] for row in table(tmp_path).values()} == {"ok"}
    assert next(answers, None) is None
    assert (
        f"waiting up to 120 s for a store that does not answer: s3://bucket/{asked_for}.mp4" in capsys.readouterr().err
    )


def test_only_what_may_pass_is_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert is_away(f"http://127.0.0.1:{port}/a.mp4")
    assert is_away(f"ftp://127.0.0.1:{port}/a.mp4"), "its client connects when it is made"
    with pytest.raises(ClipError, match=r"ftp://.*: connecting to it failed 3 times \(.*refused") as error:
        probe(f"ftp://127.0.0.1:{port}/a.mp4")
    assert error.value.kind == "not_readable"
    assert not is_away("nonsense://a.mp4")
