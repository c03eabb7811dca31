"""Results in a store, on a real S3 server: the table of a run into a folder, whole for a reader at any moment."""

import io
import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import jobs.score
from jobs import mirror
from jobs.request import ScoreInputs, ScoreRequest
from jobs.score import score
from tests.support.naming import Naming
from vqa.console import Engine
from vqa.data.dialects import Row
from vqa.data.score_table import no_rows, read_scores
from vqa.errors import ClipError, UsageError
from vqa.files import replacing, write_json, write_parquet
from vqa.media.storage.objects import create_object, list_objects, put_object, read_object

CLIPS = 12


@pytest.fixture
def request_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScoreRequest:
    """A run over the first clips of a list, into a folder here."""

    def stages(inputs: ScoreInputs) -> list[Naming]:
        return [Naming(settings=inputs.settings)]

    monkeypatch.setattr(jobs.score, "stages_of", stages)
    for n in range(CLIPS):
        (tmp_path / f"{n}.mp4").write_bytes(b"x")
    for count in (CLIPS // 2, CLIPS):
        (tmp_path / f"{count}.csv").write_text("path\n" + "".join(f"{n}.mp4\n" for n in range(count)))
    assignments = ("job.seconds_per_write=0", "job.rows_per_part=4")
    options: dict[str, Any] = {"engine": Engine.LOCAL, "json_summary": True, "assignments": assignments}
    return ScoreRequest(sources=(str(tmp_path / f"{CLIPS // 2}.csv"),), out=tmp_path / "here", **options)


def rows(url: str) -> list[Row]:
    """All rows as somebody reads them who lists the store and reads each part, by clip_id."""
    found = []
    for name in list_objects(f"{url}/scores"):
        if (content := read_object(f"{url}/scores/{name}")) is not None:
            found += pq.read_table(io.BytesIO(content)).to_pylist()
    return sorted(found, key=lambda row: str(row["clip_id"]))


def test_a_draft_is_not_put(tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    write_parquet(tmp_path / "scores/part-000001.parquet", no_rows())
    with replacing(tmp_path / "scores/part-000002.parquet") as draft:
        draft.write_bytes(b"half a file")
        assert mirror._names(tmp_path) == ["scores/part-000001.parquet"]


def test_a_draft_that_goes_while_names_are_read_is_no_error(tmp_path: Path) -> None:
    over = threading.Event()

    def heartbeat() -> None:
        while not over.is_set():
            write_json(tmp_path / "run.json", {})

    writer = threading.Thread(target=heartbeat)
    writer.start()
    try:
        assert all(mirror._names(tmp_path) in ([], ["run.json"]) for _ in range(5000))
    finally:
        over.set()
        writer.join()


@pytest.mark.slow
def test_a_store_holds_what_a_folder_would(request_: ScoreRequest, bucket: str, tmp_path: Path, capfd) -> None:
    url = f"{bucket}/run"
    there = replace(request_, out=Path(url))
    over, faults = threading.Event(), []

    def read() -> None:  # what a reader sees of a run that is at work
        while not over.is_set():
            try:
                names = [row["clip_id"] for row in rows(url)]
                assert len(set(names)) == len(names)
                time.sleep(0.2)
            except Exception as error:
                faults.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert score(there) == 0
        more = (str(tmp_path / f"{CLIPS}.csv"),)
        assert score(replace(there, sources=more)) == 0
    finally:
        over.set()
        reader.join()
    assert not faults
    assert score(replace(request_, sources=more)) == 0
    first, second, here = (json.loads(line) for line in capfd.readouterr().out.splitlines())
    assert (first["out"], first["rows_new"]) == (url, CLIPS // 2)
    assert (second["rows_reused"], second["rows_new"]) == (CLIPS // 2, CLIPS // 2)
    assert rows(url) == read_scores(Path(here["out"])).sort_by("clip_id").to_pylist()
    run = json.loads(read_object(f"{url}/run.json") or b"")
    assert (run["state"], run["clips"]) == ("finished", CLIPS)
    assert ".lock.held" not in list_objects(url)
    assert score(replace(there, sources=more, assignments=(*there.assignments, "generation.k=2"))) == 0
    assert [name for name in list_objects(url) if name.startswith("superseded/")]
    assert len(rows(url)) == CLIPS


def test_a_run_that_lives_is_left_alone(request_: ScoreRequest, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{bucket}/held"
    monkeypatch.setattr("jobs.lease.LOST_SECONDS", 0.5)
    monkeypatch.setattr("jobs.lease.BEAT_SECONDS", 0.1)
    assert create_object(f"{url}/.lock.held", b"process 1 on elsewhere\ntoken 1")
    beats = iter(range(1000))
    monkeypatch.setattr(
        "time.sleep", lambda _: put_object(f"{url}/.lock.held", b"process 1 on elsewhere\ntoken %d" % next(beats))
    )
    with pytest.raises(UsageError, match=r"--out s3://films/held: another run \(process 1 on elsewhere\)"):
        score(replace(request_, out=Path(url)))
    assert list_objects(f"{url}/scores") == []


def test_what_others_have_put_beside_the_table_stays_there(request_: ScoreRequest, bucket: str, tmp_path: Path) -> None:
    """Not fetched either: a name in a store may lead out of the folder that a run has here."""
    import boto3  # not to collect tests

    url, escaped = f"{bucket}/shared", tmp_path / "escaped.parquet"
    up = "/".join([".."] * 9)
    others = [f"scores/{up}{escaped}", "scores/z/a.parquet", "scores/.b.parquet", "scores/notes.txt", "notes.txt"]
    store = boto3.client("s3")
    for name in others:
        store.put_object(Bucket="films", Key=f"shared/{name}", Body=b"x")
    pq.write_table(no_rows(), own := io.BytesIO())
    store.put_object(Bucket="films", Key="shared/scores/-.parquet", Body=own.getvalue())
    assert set(list_objects(url)) == {*others, "scores/-.parquet"}
    assert score(replace(request_, out=Path(url))) == 0
    assert set(list_objects(url)) >= {*others, "run.json", "scores/part-000001.parquet"}
    assert not escaped.exists()


def test_a_store_that_is_away_is_caught_up_with(
    request_: ScoreRequest, bucket: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    url, puts = f"{bucket}/away", iter(range(1000))

    def flaky(place: str, content: bytes) -> None:
        if 3 < next(puts) < 20:
            raise ClipError("not_readable", f"{place}: writing it failed.")
        put_object(place, content)

    monkeypatch.setattr(mirror, "put_object", flaky)
    monkeypatch.setattr(mirror, "PAUSE_SECONDS", 0.01)
    assert score(replace(request_, out=Path(url))) == 0
    assert len(rows(url)) == CLIPS // 2
    assert capfd.readouterr().err.count("follows later") == 1


def test_what_cannot_be_written_to_is_said_at_once(request_: ScoreRequest, bucket: str) -> None:
    with pytest.raises(UsageError, match="https:// can only be read"):
        score(replace(request_, out=Path("https://example.org/run")))
    with pytest.raises(Exception, match=r"--out s3://nowhere/run"):
        score(replace(request_, out=Path("s3://nowhere/run")))
