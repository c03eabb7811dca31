"""The sampling stage: one sample for each clip whatever the file is, windows in order, and nothing opened in vain."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest

from jobs.resume import stamp
from jobs.stages import KEPT, Sample, SampleStage
from tests.support import clips
from tests.support.zoo import make_zoo
from vqa.data.score_table import SCHEMA
from vqa.data.sources import list_clips
from vqa.types import Clip
from vqa.views import ViewsConfig


def stage(
    *,
    clip_seconds: float | None = None,
    deadline_seconds: float = 60.0,
    settings: str = "s",
    on_damage: Literal["fail", "partial"] = "partial",
    max_frames: int = 1000,
    **limits: int,
) -> SampleStage:
    return SampleStage(
        views=ViewsConfig(keyframes=4, global_pixels=128, crop_pixels=32, local_pictures=2, on_damage=on_damage),
        settings=settings,
        clip_seconds=clip_seconds,
        guard={"deadline_seconds": deadline_seconds, "memory_bytes": 2**31, **limits},
        max_frames=max_frames,
    )


@pytest.fixture(scope="module")
def sampler() -> Iterator[SampleStage]:
    yield (sampler := stage())
    sampler.close()


def only(samples: Iterator[Sample]) -> Sample:
    (sample,) = samples
    return sample


def test_every_file_of_the_zoo_gets_one_sample_with_the_right_error(tmp_path: Path, sampler: SampleStage) -> None:
    wanted = make_zoo(tmp_path)
    found = {}
    for clip in list_clips([str(tmp_path / "list.txt"), str(tmp_path / "files")]).clips:
        sample = only(sampler.samples(clip))
        pa.Table.from_pylist([sample.row], schema=SCHEMA)
        assert set(sample.row) <= set(SCHEMA.names)
        assert (sample.views is None) == (sample.row.get("status") == "failed")
        assert sample.row["run_key"]
        found[clip.clip_id] = sample.row.get("error_kind")
    assert found == wanted


def test_a_failed_file_still_tells_what_its_header_says(tmp_path: Path, sampler: SampleStage) -> None:
    path = clips.write_video(tmp_path / "a.mp4", frames=20, container_options={"movflags": "faststart"})
    clips.cut_off(path, 0.25)
    row = only(sampler.samples(Clip(clip_id="a", uri=str(path)))).row
    assert (row["error_kind"], row["codec"], row["width"], row["height"]) == ("corrupt", "h264", 160, 96)
    assert row["fingerprint"]
    assert (row["source_bytes"], row["source_mtime_ns"]) == stamp(str(path))


@pytest.mark.parametrize("on_damage", ["partial", "fail"])
def test_a_damaged_file_is_scored_in_part_or_fails_as_told_and_its_row_says_how_much_was_decoded(
    tmp_path: Path, on_damage: str
) -> None:
    path = clips.write_video(tmp_path / "a.mp4", frames=50, container_options={"movflags": "faststart"})
    clips.cut_off(path, 0.75)
    told = stage(on_damage=on_damage)
    sample = only(told.samples(Clip(clip_id="a", uri=str(path))))
    told.close()
    assert sample.row["frames_planned"] == 4
    assert 2 <= sample.row["frames_decoded"] < 4
    assert (sample.views is None) == (on_damage == "fail")
    assert sample.row.get("error_kind") == ("corrupt" if on_damage == "fail" else None)


def test_a_file_without_a_single_sound_frame_says_none_of_how_many(tmp_path: Path, sampler: SampleStage) -> None:
    path = clips.write_video(tmp_path / "a.mp4", frames=50, container_options={"movflags": "faststart"})
    data = path.read_bytes()
    start = data.index(b"mdat") + 4
    path.write_bytes(data[:start] + bytes(len(data) - start))
    row = only(sampler.samples(Clip(clip_id="a", uri=str(path)))).row
    assert (row["error_kind"], row["frames_decoded"], row["frames_planned"]) == ("corrupt", 0, 4)


def test_a_long_video_becomes_windows_in_order_that_look_only_at_their_own_part(tmp_path: Path) -> None:
    path = clips.write_video(tmp_path / "a.mp4", fps=10, frames=70)
    windowed = stage(clip_seconds=2.0)
    samples = list(windowed.samples(Clip(clip_id="a", uri=str(path))))
    windowed.close()
    assert [sample.row["clip_id"] for sample in samples] == ["a#t=0,2", "a#t=2,4", "a#t=4,6", "a#t=6,7"]
    for sample in samples:
        assert sample.views is not None
        row = sample.row
        assert all(row["start_seconds"] <= second < row["end_seconds"] for second in row["keyframe_seconds"])
        assert row["duration_seconds"] == pytest.approx(7.0)
    assert len({sample.row["run_key"] for sample in samples}) == len(samples)


def test_what_is_finished_is_marked_and_not_decoded(tmp_path: Path, sampler: SampleStage) -> None:
    clip = Clip(clip_id="a", uri=str(clips.write_video(tmp_path / "a.mp4", frames=10)))
    first = only(sampler.samples(clip)).row
    again = only(sampler.samples(clip, finished=frozenset({first["run_key"]})))
    assert (again.row["status"], again.views) == (KEPT, None)
    os.utime(clip.uri, ns=(5, 5))
    moved = only(sampler.samples(clip, finished=frozenset({first["run_key"]})))
    assert (moved.row["status"], moved.row["source_mtime_ns"]) == (KEPT, 5)
    clips.write_video(tmp_path / "a.mp4", frames=11)
    changed = only(sampler.samples(clip, finished=frozenset({first["run_key"]})))
    assert changed.views is not None
    assert changed.row["run_key"] != first["run_key"]


def test_a_missing_file_that_is_still_missing_is_finished(tmp_path: Path, sampler: SampleStage) -> None:
    clip = Clip(clip_id="a", uri=str(tmp_path / "gone.mp4"))
    key = only(sampler.samples(clip)).row["run_key"]
    assert only(sampler.samples(clip, finished=frozenset({key}))).row["status"] == KEPT


def test_the_same_content_gives_the_same_key_and_views_under_any_name(tmp_path: Path, sampler: SampleStage) -> None:
    first = clips.write_video(tmp_path / "a.mp4", frames=10)
    second = tmp_path / "b.mp4"
    second.write_bytes(first.read_bytes())
    one, two = (only(sampler.samples(Clip(clip_id=p.name, uri=str(p)))) for p in (first, second))
    assert one.row["run_key"] == two.row["run_key"]
    assert one.views is not None
    assert two.views is not None
    assert all((a == b).all() for a, b in zip(one.views.pictures, two.views.pictures, strict=True))
    other = stage(settings="t")
    assert only(other.samples(Clip(clip_id="a.mp4", uri=str(first)))).row["run_key"] != one.row["run_key"]
    other.close()


@pytest.mark.parametrize(
    ("limit", "kind", "said"),
    [
        ({"open_files": 1}, "too_large", "open files"),
        ({"max_frames": 20}, "too_large", "declares 400 frames, above 20; cut it up or raise max_frames"),
    ],
)
def test_each_limit_costs_one_row(tmp_path: Path, limit: dict[str, int], kind: str, said: str) -> None:
    short, long = (
        clips.write_video(tmp_path / f"{n}.mp4", frames=n, width=64, height=48, options={"g": "400"}) for n in (10, 400)
    )
    limited = stage(**limit)
    row = only(limited.samples(Clip(clip_id="a", uri=str(long)))).row
    assert (row["status"], row["error_kind"]) == ("failed", kind)
    assert said in row["error"]
    if "open_files" not in limit:
        assert only(limited.samples(Clip(clip_id="b", uri=str(short)))).views is not None
    limited.close()


def test_a_deadline_costs_one_row(tmp_path: Path) -> None:
    path = clips.write_video(tmp_path / "a.mp4", width=640, height=480, frames=60)
    hurried = stage(deadline_seconds=0.001)
    started = time.monotonic()
    row = only(hurried.samples(Clip(clip_id="a", uri=str(path)))).row
    hurried.close()
    assert (row["status"], row["error_kind"]) == ("failed", "timeout")
    assert time.monotonic() - started < 30
