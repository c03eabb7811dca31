"""The sampling stage: one sample for each clip whatever the file is, windows in order, and nothing opened in vain."""

import os
import pickle
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from jobs.child import pickled_views
from jobs.config import ClipLimits, JobConfig, identify, resolve
from jobs.resume import Work, stamp
from jobs.rows import Unchanged, new_row, with_score
from jobs.stages import Result, Sample, SampleStage, ScoreStage
from tests.support import clips
from tests.support.samples import random_views
from tests.support.zoo import make_zoo
from vqa.data.score_table import ScoreRow
from vqa.data.sources import list_clips
from vqa.errors import ClipError
from vqa.model.card import GenerationConfig, ModelCard
from vqa.model.readout import ReadoutForm, Said, read_rollout, summarise
from vqa.types import Clip
from vqa.views import ViewsConfig


def stage(
    *,
    clip_seconds: float | None = None,
    deadline_seconds: float = 60.0,
    settings: str = "s",
    on_damage: Literal["fail", "partial"] = "partial",
    max_frames: int = 1000,
    open_files: int | None = None,
) -> SampleStage:
    limits = ClipLimits(
        deadline_seconds=deadline_seconds,
        memory_mb=2048,
        cpu_seconds=None,
        open_files=open_files,
        max_frames=max_frames,
    )
    made = SampleStage(
        views=ViewsConfig(keyframes=4, global_pixels=128, crop_pixels=32, local_pictures=2, on_damage=on_damage),
        settings=settings,
        clip_seconds=clip_seconds,
        limits=limits,
    )
    made.setup()
    return made


@pytest.fixture(scope="module")
def sampler() -> Iterator[SampleStage]:
    yield (sampler := stage())
    sampler.close()


def only(sampler: SampleStage, clip: Clip, *finished: str) -> Sample | Result:
    (made,) = sampler.process([Work(clip=clip, finished=finished)])
    return made


def failed(sampler: SampleStage, clip: Clip) -> ScoreRow:
    row = only(sampler, clip)
    assert isinstance(row, ScoreRow)
    return row


def sampled(sampler: SampleStage, clip: Clip, *finished: str) -> Sample:
    sample = only(sampler, clip, *finished)
    assert isinstance(sample, Sample)
    return sample


def test_every_file_of_the_zoo_gets_one_sample_with_the_right_error(tmp_path: Path, sampler: SampleStage) -> None:
    wanted = make_zoo(tmp_path)
    found = {}
    for clip in list_clips([str(tmp_path / "list.txt"), str(tmp_path / "files")]).clips:
        made = only(sampler, clip)
        row = made.row if isinstance(made, Sample) else made
        assert isinstance(row, ScoreRow)
        assert isinstance(made, Sample) == (row.error_kind is None)
        assert row.run_key
        found[clip.clip_id] = row.error_kind
    assert found == wanted


def test_a_failed_file_still_tells_what_its_header_says(tmp_path: Path, sampler: SampleStage) -> None:
    path = clips.write_video(tmp_path / "a.mp4", frames=20, container_options={"movflags": "faststart"})
    clips.cut_off(path, 0.25)
    row = failed(sampler, Clip(clip_id="a", uri=str(path)))
    assert (row.error_kind, row.codec, row.width, row.height) == ("corrupt", "h264", 160, 96)
    assert row.fingerprint
    assert (row.source_bytes, row.source_mtime_ns) == stamp(str(path))


def test_a_stamp_that_a_store_did_not_give_at_first_is_asked_for_again(
    sampler: SampleStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clips.write_video(tmp_path / "a.mp4", frames=8)
    answers = iter([None, stamp(str(path))])
    monkeypatch.setattr("jobs.stages.stamp", lambda uri: next(answers))
    row = sampled(sampler, Clip(clip_id="a", uri=str(path))).row
    assert (row.source_bytes, row.source_mtime_ns) == stamp(str(path))


@pytest.mark.parametrize("on_damage", ["partial", "fail"])
def test_a_damaged_file_is_scored_in_part_or_fails_as_told_and_its_row_says_how_much_was_decoded(
    tmp_path: Path, on_damage: Literal["fail", "partial"]
) -> None:
    path = clips.write_video(tmp_path / "a.mp4", frames=50, container_options={"movflags": "faststart"})
    clips.cut_off(path, 0.75)
    told = stage(on_damage=on_damage)
    clip = Clip(clip_id="a", uri=str(path))
    if on_damage == "fail":
        row = failed(told, clip)
        assert row.error_kind == "corrupt"
        decoded, planned = row.frames_decoded, row.frames_planned
    else:
        views = sampled(told, clip).load()
        decoded, planned = views.frames_decoded, views.frames_planned
    told.close()
    assert planned == 4
    assert decoded is not None
    assert 2 <= decoded < 4


def test_a_file_without_a_single_sound_frame_says_none_of_how_many(tmp_path: Path, sampler: SampleStage) -> None:
    path = clips.write_video(tmp_path / "a.mp4", frames=50, container_options={"movflags": "faststart"})
    data = path.read_bytes()
    start = data.index(b"mdat") + 4
    path.write_bytes(data[:start] + bytes(len(data) - start))
    row = failed(sampler, Clip(clip_id="a", uri=str(path)))
    assert (row.error_kind, row.frames_decoded, row.frames_planned) == ("corrupt", 0, 4)


def test_a_long_video_becomes_windows_in_order_that_show_only_their_own_part(tmp_path: Path) -> None:
    path = clips.write_video(tmp_path / "a.mp4", fps=10, frames=70)
    windowed = stage(clip_seconds=2.0)
    samples = list(windowed.process([Work(clip=Clip(clip_id="a", uri=str(path)))]))
    windowed.close()
    keys = set()
    for sample, name in zip(samples, ["a#t=0,2", "a#t=2,4", "a#t=4,6", "a#t=6,7"], strict=True):
        assert isinstance(sample, Sample)
        row = sample.row
        assert row.clip_id == name
        assert row.start_seconds is not None and row.end_seconds is not None
        assert all(row.start_seconds <= second < row.end_seconds for second in sample.load().keyframe_seconds)
        assert row.duration_seconds == pytest.approx(7.0)
        keys.add(row.run_key)
    assert len(keys) == len(samples)


def test_what_is_finished_is_marked_and_not_decoded(tmp_path: Path, sampler: SampleStage) -> None:
    clip = Clip(clip_id="a", uri=str(clips.write_video(tmp_path / "a.mp4", frames=10)))
    first = sampled(sampler, clip).row
    again = only(sampler, clip, first.run_key)
    assert isinstance(again, Unchanged)
    os.utime(clip.uri, ns=(5, 5))
    moved = only(sampler, clip, first.run_key)
    assert isinstance(moved, Unchanged)
    assert (
        moved.source_mtime_ns == Path(clip.uri).stat().st_ctime_ns
    )  # the time of its entry, which nobody can put back
    before = Path(clip.uri).stat()
    data = bytearray(Path(clip.uri).read_bytes())
    data[-1] ^= 1
    Path(clip.uri).write_bytes(data)
    os.utime(clip.uri, ns=(before.st_atime_ns, before.st_mtime_ns))  # as cp -p and rsync do
    assert stamp(clip.uri) != (before.st_size, max(before.st_mtime_ns, before.st_ctime_ns))
    clips.write_video(tmp_path / "a.mp4", frames=11)
    assert sampled(sampler, clip, first.run_key).row.run_key != first.run_key


def test_a_missing_file_that_is_still_missing_is_finished(tmp_path: Path, sampler: SampleStage) -> None:
    clip = Clip(clip_id="a", uri=str(tmp_path / "gone.mp4"))
    assert isinstance(only(sampler, clip, failed(sampler, clip).run_key), Unchanged)


def test_the_same_content_gives_the_same_key_and_views_under_any_name(tmp_path: Path, sampler: SampleStage) -> None:
    first = clips.write_video(tmp_path / "a.mp4", frames=10)
    second = tmp_path / "b.mp4"
    second.write_bytes(first.read_bytes())
    one, two = (sampled(sampler, Clip(clip_id=p.name, uri=str(p))) for p in (first, second))
    assert one.row.run_key == two.row.run_key
    assert all((a == b).all() for a, b in zip(one.load().pictures, two.load().pictures, strict=True))
    other = stage(settings="t")
    assert sampled(other, Clip(clip_id="a.mp4", uri=str(first))).row.run_key != one.row.run_key
    other.close()


@pytest.mark.parametrize(
    ("limit", "kind", "said"),
    [
        ({"max_frames": 20}, "too_large", "declares 400 frames, above 20. Cut it up or raise limits.max_frames"),
    ],
)
def test_each_limit_costs_one_row(tmp_path: Path, limit: dict[str, int], kind: str, said: str) -> None:
    short, long = (
        clips.write_video(tmp_path / f"{n}.mp4", frames=n, width=64, height=48, options={"g": "400"}) for n in (10, 400)
    )
    limited = stage(**limit)
    row = failed(limited, Clip(clip_id="a", uri=str(long)))
    assert (row.status, row.error_kind) == ("failed", kind)
    assert row.error is not None
    assert said in row.error
    sampled(limited, Clip(clip_id="b", uri=str(short)))
    limited.close()


def test_the_largest_frame_is_the_one_set(tmp_path: Path) -> None:
    path = clips.write_video(tmp_path / "a.mp4", frames=4, width=64, height=48)
    clip = Clip(clip_id="a", uri=str(path))
    with pytest.raises(ClipError, match=r"raise views\.max_pixels"):
        pickled_views(clip, None, 100, ViewsConfig(max_pixels=64 * 48 - 1), seed=0)
    pickled_views(clip, None, 100, ViewsConfig(max_pixels=64 * 48), seed=0)


def test_a_deadline_costs_one_row(tmp_path: Path) -> None:
    path = clips.write_video(tmp_path / "a.mp4", width=640, height=480, frames=60)
    hurried = stage(deadline_seconds=0.001)
    started = time.monotonic()
    row = failed(hurried, Clip(clip_id="a", uri=str(path)))
    hurried.close()
    assert (row.status, row.error_kind) == ("failed", "timeout")
    assert time.monotonic() - started < 30


def test_stages_travel_before_they_are_set_up_and_are_cheap_to_make() -> None:
    made = SampleStage(views=ViewsConfig(keyframes=3), settings="s")  # starts no process
    assert pickle.loads(pickle.dumps(made)) == made
    scorer = ScoreStage(
        card=ModelCard(source="embedded"), generation=GenerationConfig(), model_id="m", model_revision="r"
    )
    assert pickle.loads(pickle.dumps(scorer)) == scorer


@pytest.mark.parametrize("cpus", [1.0, 2.0])
def test_a_model_has_the_threads_of_a_worker_on_any_engine(model_card: Path, cpus: float) -> None:
    """As many as Ray gives it: with another number a product's sums, and so a score, may differ."""
    before = torch.get_num_threads()
    config = resolve(flags={"model": str(model_card)})
    job = JobConfig(cpus_per_worker=cpus)
    stage = ScoreStage(
        card=config.model.model_copy(update={"cpu_threads": None}),
        generation=config.generation,
        model_id="m",
        model_revision=identify(config)[1],
        job=job,
    )
    torch.set_num_threads(3)
    try:
        stage.setup()
        assert torch.get_num_threads() == int(cpus)
    finally:
        stage.close()
        torch.set_num_threads(before)


def test_an_answer_without_a_score_is_shown() -> None:
    row = replace(new_row(Clip(clip_id="a", uri="/a"), "", settings=""), raw_low=1.0, raw_high=5.0)
    told = "<think>" + "It is sharp. " * 50 + "</think>\n<answer>97</answer>"
    given = read_rollout(Said(text=told, is_finished=True), form=ReadoutForm(dimensions=1))
    score = summarise([given], form=ReadoutForm(dimensions=1), seconds=0.0)
    error = with_score(row, random_views("a"), score).error or ""
    assert error.startswith("no score from 1 to 5 in the model's answer: '…")
    assert error.endswith("</think> <answer>97</answer>'")
    assert len(error) < 300
