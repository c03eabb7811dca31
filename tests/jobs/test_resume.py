"""The work plan: what is finished is reused, what could end otherwise is retried, no file passes for another."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.ledger import Ledger
from jobs.resume import StoredRow, Work, WorkPlan, plan_work, run_key, stamp, stored_rows
from vqa.data.score_table import SCHEMA, ScoreRow
from vqa.data.windows import windows
from vqa.errors import UsageError
from vqa.types import Clip

SETTINGS = "s1"


def file(folder: Path, name: str = "a.mp4") -> Clip:
    path = folder / name
    path.write_bytes(b"content")
    return Clip(clip_id=name, uri=str(path))


def row(clip: Clip, *, settings: str = SETTINGS, fingerprint: str | None = "f1", **other: Any) -> dict[str, Any]:
    """The row that a finished run leaves for a clip as it is on disk now."""
    size, changed = stamp(clip.uri) or (None, None)
    span = {"start_seconds": clip.start_seconds, "end_seconds": clip.end_seconds}
    key = run_key(fingerprint or other.get("error_kind", ""), settings=settings, **span)
    values = {"clip_id": clip.clip_id, "uri": clip.uri, "run_key": key, "fingerprint": fingerprint}
    return values | span | {"source_bytes": size, "source_mtime_ns": changed} | other


def planned(clips: list[Clip], rows: list[dict[str, Any]], *, clip_seconds: float | None = None) -> WorkPlan:
    known = stored_rows(pa.Table.from_pylist(rows, schema=SCHEMA))
    return plan_work(clips, known, settings=SETTINGS, clip_seconds=clip_seconds)


def test_a_first_run_does_everything(tmp_path: Path) -> None:
    clips = [file(tmp_path, name) for name in ("a.mp4", "b.mp4")]
    assert planned(clips, []) == WorkPlan(work=[Work(clip=clip) for clip in clips], reused=[], stale=[], retried=0)


def test_an_unchanged_file_under_the_same_settings_is_kept_unopened(tmp_path: Path) -> None:
    clip = file(tmp_path)
    assert planned([clip], [row(clip)]) == WorkPlan(work=[], reused=["a.mp4"], stale=[], retried=0)


def test_a_final_failure_is_kept_too(tmp_path: Path) -> None:
    clip = file(tmp_path)
    assert planned([clip], [row(clip, status="failed", error_kind="corrupt")]).reused == ["a.mp4"]


@pytest.mark.parametrize("kind", ["crashed", "timeout", "model", "too_large"])
def test_a_failure_that_could_pass_is_tried_again(tmp_path: Path, kind: str) -> None:
    clip = file(tmp_path)
    plan = planned([clip], [row(clip, status="failed", error_kind=kind)])
    assert (plan.work, plan.stale, plan.retried) == ([Work(clip=clip)], ["a.mp4"], 1)


def test_other_settings_make_the_row_stale(tmp_path: Path) -> None:
    clip = file(tmp_path)
    plan = planned([clip], [row(clip, settings="s0")])
    assert (plan.work, plan.stale, plan.retried) == ([Work(clip=clip)], ["a.mp4"], 0)


def test_a_touched_file_is_looked_at_again_but_its_row_stays_for_now(tmp_path: Path) -> None:
    clip = file(tmp_path)
    old = row(clip)
    os.utime(clip.uri, ns=(1, 1))
    plan = planned([clip], [old])
    assert plan.work == [Work(clip=clip, finished=(old["run_key"],), rows=("a.mp4",))]
    assert plan.stale == []


def test_a_missing_file_is_asked_for_again_each_time(tmp_path: Path) -> None:
    clip = Clip(clip_id="gone.mp4", uri=str(tmp_path / "gone.mp4"))
    old = row(clip, fingerprint=None, status="failed", error_kind="not_found")
    plan = planned([clip], [old])
    assert plan.work == [Work(clip=clip, finished=(old["run_key"],), rows=("gone.mp4",))]


def test_a_row_of_another_file_that_still_exists_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    mine, other = file(tmp_path / "x"), file(tmp_path / "y")
    with pytest.raises(UsageError, match="another --out"):
        planned([mine], [row(other)])


def test_a_moved_file_is_looked_at_and_may_keep_its_row(tmp_path: Path) -> None:
    clip = file(tmp_path)
    plan = planned([clip], [row(clip, uri="/gone/a.mp4")])
    assert plan.work[0].rows == ("a.mp4",)


def test_rows_of_clips_not_asked_for_are_left_alone(tmp_path: Path) -> None:
    clip, other = file(tmp_path), file(tmp_path, "b.mp4")
    assert planned([clip], [row(clip), row(other, settings="s0")]).stale == []


def test_windows_are_kept_when_all_are_there_and_looked_at_when_one_is_not(tmp_path: Path) -> None:
    clip = file(tmp_path)
    parts = windows(clip, duration_seconds=30.0, clip_seconds=10.0)
    rows = [row(part, duration_seconds=30.0) for part in parts]
    assert planned([clip], rows, clip_seconds=10.0).reused == [part.clip_id for part in parts]
    (work,) = planned([clip], rows[:2], clip_seconds=10.0).work
    assert work.finished == tuple(old["run_key"] for old in rows[:2])


def test_a_whole_file_row_does_not_stand_for_its_windows(tmp_path: Path) -> None:
    clip = file(tmp_path)
    assert planned([clip], [row(clip, duration_seconds=30.0)], clip_seconds=10.0).work


def test_a_key_names_content_span_and_settings() -> None:
    base = {"source": "f", "start_seconds": None, "end_seconds": None, "settings": "s"}
    others = [{"source": "g"}, {"start_seconds": 0.0}, {"end_seconds": 1.0}, {"settings": "t"}]
    keys = {run_key(**(base | other)) for other in [{}, *others]}
    assert len(keys) == 5
    assert run_key(**base) == run_key(**base)


# --- the ledger -------------------------------------------------------------------------------------------------------


def back(*clips: Clip, seconds: float | None = None) -> list[ScoreRow]:
    return [ScoreRow(clip_id=clip.clip_id, uri=clip.uri, run_key="k", duration_seconds=seconds) for clip in clips]


def handed_out(*work: Work, clip_seconds: float | None = None) -> Ledger:
    ledger = Ledger.of(work, clip_seconds=clip_seconds)
    assert list(ledger.hand_out()) == list(work)
    return ledger


def test_a_row_that_comes_twice_is_taken_once() -> None:
    clip = Clip(clip_id="a", uri="/a")
    ledger = handed_out(Work(clip=clip))
    assert [len(ledger.take(back(clip, clip))[0]), len(ledger.take(back(clip))[0])] == [1, 0]


def test_what_never_came_is_known_down_to_the_window() -> None:
    one, two, three = (Clip(clip_id=name, uri=f"/{name}") for name in "abc")
    parts = windows(one, duration_seconds=30.0, clip_seconds=10.0)
    ledger = handed_out(*(Work(clip=clip) for clip in (one, two, three)), clip_seconds=10.0)
    _, share = ledger.take(back(*parts[:2], seconds=30.0))
    assert share == pytest.approx(2 / 3)
    ledger.take(back(three))  # failed as a whole
    assert [clip.clip_id for clip in ledger.lost()] == [parts[2].clip_id, "b"]


def test_old_rows_that_a_changed_file_no_longer_gives_are_named() -> None:
    clip = Clip(clip_id="a", uri="/a")
    work = Work(clip=clip, rows=("a#t=0,10", "a#t=10,20", "a#t=20,30"))
    ledger = handed_out(work, clip_seconds=10.0)
    ledger.take(back(*windows(clip, duration_seconds=20.0, clip_seconds=10.0), seconds=20.0))
    assert ledger.vanished() == ["a#t=20,30"]


def test_stored_rows_read_exactly_their_columns(tmp_path: Path) -> None:
    (known,) = stored_rows(pa.Table.from_pylist([row(file(tmp_path), duration_seconds=2.0)], schema=SCHEMA))
    assert isinstance(known, StoredRow)
    assert (known.clip_id, known.fingerprint, known.duration_seconds) == ("a.mp4", "f1", 2.0)
