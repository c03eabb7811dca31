"""A list of any length: read while it grows, planned as it is taken, and never held."""

import itertools
import os
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

import jobs.score
from jobs import listing, resume
from jobs.ledger import Ledger
from jobs.listing import CHUNK, ClipList
from jobs.request import ScoreRequest
from jobs.resume import PLAN_CHUNK, Planner, StoredRow, StoredRows, run_key, stamp
from tests.support import clips as media_files
from tests.support.naming import Naming
from tests.support.scale import full
from vqa.console import Engine
from vqa.data import sources
from vqa.data.score_table import SCHEMA, ScoreRow, ScoreTable, read_scores, to_table
from vqa.data.sources import Tally, stream_clips, walk
from vqa.errors import UsageError
from vqa.types import Clip

SETTINGS = "settings"


def clip(number: int) -> Clip:
    return Clip(clip_id=f"{number:07}", uri=f"/nowhere/{number:07}.mp4")


def listed(path: Path) -> ClipList:
    tally = Tally()
    return ClipList(stream_clips([str(path)], tally), tally)


def planner(clips: ClipList, rows: pa.Table, **options: object) -> Planner:
    known = StoredRows(rows.select(StoredRow._fields))
    return Planner(clips, known, settings=SETTINGS, clip_seconds=None, **options)  # type: ignore[arg-type]


def test_a_short_list_is_known_whole_once_its_first_clips_are_planned(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    clips = listed(tmp_path)
    clips.settle(CHUNK)
    plan = planner(clips, to_table([]))
    assert not plan.is_complete
    assert (plan.look_ahead(0), plan.files, plan.is_complete) == (2, 2, True)


def test_clips_are_read_while_others_are_still_listed() -> None:
    goes_on = [False]

    def clips() -> Iterator[Clip]:
        yield from map(clip, range(CHUNK))
        while not goes_on[0]:
            time.sleep(0.01)
        yield from map(clip, range(CHUNK, 2 * CHUNK + 5))

    found = ClipList(clips(), Tally())
    first = list(itertools.islice(found, CHUNK))
    assert not found.is_complete
    goes_on[0] = True
    assert first == [clip(n) for n in range(CHUNK)]
    assert list(found) == list(found) == [clip(n) for n in range(2 * CHUNK + 5)]


def test_a_few_clips_are_read_while_others_are_found_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a chunk nor the plan of one waits for so many clips as it may hold."""
    monkeypatch.setattr(listing, "CHUNK_SECONDS", 0.05)
    monkeypatch.setattr(listing, "SETTLE_SECONDS", 0.2)
    is_over = [False]

    def clips() -> Iterator[Clip]:
        for number in itertools.count():
            if is_over[0]:
                return
            yield clip(number)
            time.sleep(0.02)

    found = ClipList(clips(), Tally())
    found.settle(PLAN_CHUNK)
    assert not found.is_complete
    plan = planner(found, SCHEMA.empty_table())
    assert next(iter(plan)).clip == clip(0) and 1 <= plan.files < CHUNK and not found.is_complete
    is_over[0] = True
    assert [item.clip for item in plan] == list(found)[1:]


def test_rows_are_written_while_a_folder_is_still_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that gives its names slowly, until there are rows: `vqa score` has begun with the first of them."""
    media, out, before = tmp_path / "media", tmp_path / "out", list[int]()
    (media / "0").mkdir(parents=True)
    media_files.write_text(media / "0" / "0000.mp4")
    for number in range(1, 400):
        (media / str(number // 40)).mkdir(exist_ok=True)
        (media / str(number // 40) / f"{number:04}.mp4").hardlink_to(media / "0" / "0000.mp4")

    def slowly(folder: str, tally: Tally) -> Iterator[str]:
        for number, path in enumerate(walk(folder, tally)):
            if number >= 200 and not any(out.glob("scores/part-*.parquet")):
                time.sleep(0.1)  # twenty seconds in all, where nothing is scored before the end of the list
            if number == 399:
                before.append(read_scores(out, ["clip_id"]).num_rows)
            yield path

    monkeypatch.setattr(sources, "walk", slowly)
    monkeypatch.setattr(listing, "SETTLE_SECONDS", 0.5)
    monkeypatch.setattr(jobs.score, "stages_of", lambda inputs: [Naming(settings=inputs.settings)])
    more = ("job.seconds_per_write=0.2", "job.rows_per_part=1")
    request = ScoreRequest(sources=(str(media),), out=out, engine=Engine.LOCAL, assignments=more, json_summary=True)
    assert jobs.score.score(request) == 0
    assert before[0] > 0, "no row was written before the last names were listed"
    assert sorted(read_scores(out)["clip_id"].to_pylist()) == [f"{n // 40}/{n:04}.mp4" for n in range(400)]


def test_what_is_wrong_far_down_a_list_is_raised_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("path,start_seconds\n" + "".join(f"{n}.mp4,\n" for n in range(2 * CHUNK)) + "last.mp4,soon\n")
    found = listed(path)
    assert [one.clip_id for one in itertools.islice(found, 3)] == ["0.mp4", "1.mp4", "2.mp4"]
    with pytest.raises(UsageError, match=rf"row {2 * CHUNK + 1}: start_seconds = 'soon' is no time"):
        list(found)
    with pytest.raises(UsageError, match="'soon' is no time"):
        found.settle(10**9)


@pytest.mark.slow
def test_a_job_of_many_clips_holds_few_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    count = full(60_000, gate=12_000)
    monkeypatch.setattr(resume, "PLAN_CHUNK", count // 6)
    clips, table = ClipList(map(clip, range(count)), Tally()), SCHEMA.empty_table()
    tracemalloc.start()
    ledger = Ledger.of(planner(clips, table), clip_seconds=None)
    for item in ledger.hand_out():
        row = ScoreRow(clip_id=item.clip.clip_id, uri=item.clip.uri, run_key="k")
        assert len(ledger.take([row])[0]) == 1
        assert ledger.take([row]) == ([], 0.0), "a repetition, of a clip that is done"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not ledger.work
    assert peak < 400 * count, "clips, work and what came back would take more than a thousand bytes each"


def test_a_finished_run_has_nothing_to_do_and_a_changed_one_its_changes(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    names = [f"{n}.mp4" for n in range(30)]
    rows = []
    for name in names:
        (media / name).write_text(name)
        size, changed = stamp(str(media / name)) or (0, 0)
        key = run_key(name, start_seconds=None, end_seconds=None, settings=SETTINGS)
        row = {"clip_id": name, "uri": str(media / name), "fingerprint": name, "run_key": key, "status": "ok"}
        rows.append(ScoreRow(**row, source_bytes=size, source_mtime_ns=changed))  # type: ignore[arg-type]
    table = to_table(rows)
    plan = planner(listed(media), table)
    assert (plan.look_ahead(64), plan.reused, plan.files, plan.is_complete) == (0, 30, 30, True)
    os.truncate(media / "7.mp4", 1)
    retired: list[str] = []
    other = to_table([ScoreRow(clip_id="8.mp4", uri=str(media / "8.mp4"), run_key="of other settings")])
    kept = pa.concat_tables([table.filter(pa.array([name != "8.mp4" for name in names])), other])
    plan = planner(listed(media), kept, retire=retired.extend)
    assert [item.clip.clip_id for item in plan] == ["7.mp4", "8.mp4"]
    assert (plan.reused, plan.stale, retired) == (28, 1, ["8.mp4"])


def test_a_span_that_is_listed_far_from_its_video_is_none_of_its_windows(tmp_path: Path) -> None:
    """The video is planned before the span of it, which was scored before, is listed."""
    (tmp_path / "a.mp4").write_text("a")
    path = tmp_path / "list.csv"
    others = "".join(f"{n}.mp4,,\n" for n in range(PLAN_CHUNK))
    path.write_text(f"path,start_seconds,end_seconds\na.mp4,,\n{others}a.mp4,0,1\n")
    span, uri = "a.mp4#t=0,1", str(tmp_path / "a.mp4")
    size, changed = stamp(uri) or (0, 0)
    row = {"clip_id": span, "uri": uri, "start_seconds": 0.0, "end_seconds": 1.0, "fingerprint": "a", "status": "ok"}
    row["run_key"] = run_key("a", start_seconds=0.0, end_seconds=1.0, settings=SETTINGS)
    known = to_table([ScoreRow(**row, source_bytes=size, source_mtime_ns=changed)])  # type: ignore[arg-type]
    tally, goes_on, retired = Tally(), threading.Event(), list[str]()

    def clips() -> Iterator[Clip]:
        found = stream_clips([str(path)], tally)
        yield from itertools.islice(found, PLAN_CHUNK)
        goes_on.wait(60)
        yield from found

    plan = planner(ClipList(clips(), tally), known, retire=retired.extend)
    work = iter(plan)
    assert next(work).clip.clip_id == "a.mp4"
    goes_on.set()
    assert span not in {item.clip.clip_id for item in work}
    assert (plan.reused, retired) == (1, [])
    assert plan.unlisted([span, "a.mp4#t=1,2"]) == ["a.mp4#t=1,2"]


def test_rows_that_retire_leave_with_the_next_write(tmp_path: Path) -> None:
    table = ScoreTable(tmp_path)
    table.add([ScoreRow(clip_id=name, uri=f"/{name}", run_key="old") for name in "abc"])
    table.flush()
    table.retire(["a", "b"])
    assert read_scores(tmp_path).num_rows == 3
    table.add([ScoreRow(clip_id="a", uri="/a", run_key="new")])
    table.flush()
    assert sorted(zip(*(read_scores(tmp_path)[name].to_pylist() for name in ("clip_id", "run_key")))) == [  # noqa: B905
        ("a", "new"),
        ("c", "old"),
    ]


def test_many_short_runs_make_few_parts(tmp_path: Path) -> None:
    for n in range(12):
        table = ScoreTable(tmp_path, rows_per_part=5)
        table.add([ScoreRow(clip_id=str(n), uri=f"/{n}", run_key=str(n))])
        table.flush()
    assert sorted(map(int, read_scores(tmp_path)["clip_id"].to_pylist())) == list(range(12))
    assert len(list((tmp_path / "scores").glob("*.parquet"))) == 3
