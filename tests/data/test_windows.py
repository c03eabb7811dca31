"""Windows: they tile the span, none is a runt, and a video's row is made of exactly its own."""

import itertools
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vqa.data.windows import span_suffix, summarise_videos, video_id, windows
from vqa.types import Clip


def clip(**span: float) -> Clip:
    return Clip(clip_id="a.mp4", uri="/a.mp4", **span)


@settings(deadline=None)
@example(duration=20_000.0, length=0.5, start=None)  # 40,000 windows once, not in most draws
@given(duration=st.floats(0.04, 2_000), length=st.floats(0.5, 600), start=st.floats(0, 100) | st.none())
def test_windows_tile_the_span_and_none_is_a_runt(duration: float, length: float, start: float | None) -> None:
    whole = Clip(clip_id="a.mp4", uri="/a.mp4", start_seconds=start)
    parts = windows(whole, duration_seconds=duration, clip_seconds=length)
    if len(parts) == 1:
        assert parts == [whole]
        return
    edges = [part.start_seconds for part in parts] + [parts[-1].end_seconds]
    assert edges[0] == pytest.approx(start or 0.0, abs=1e-6)
    assert edges[-1] == duration
    assert [part.end_seconds for part in parts[:-1]] == edges[1:-1]
    lengths = [end - begin for begin, end in itertools.pairwise(edges)]
    assert max(lengths) <= 1.5 * length + 1e-5
    assert min(lengths) >= 0.5 * length - 1e-5
    assert len({part.clip_id for part in parts}) == len(parts)
    assert {video_id(part.clip_id) for part in parts} == {"a.mp4"}


@pytest.mark.parametrize(
    ("duration", "wanted"),
    [
        (30.0, ["a.mp4#t=0,10", "a.mp4#t=10,20", "a.mp4#t=20,30"]),
        (24.0, ["a.mp4#t=0,10", "a.mp4#t=10,24"]),
        (25.5, ["a.mp4#t=0,10", "a.mp4#t=10,20", "a.mp4#t=20,25.5"]),
        (12.0, ["a.mp4"]),
        (0.0, ["a.mp4"]),
        (None, ["a.mp4"]),
    ],
)
def test_windows_are_named_by_their_span(duration: float | None, wanted: list[str]) -> None:
    assert [part.clip_id for part in windows(clip(), duration_seconds=duration, clip_seconds=10.0)] == wanted


def test_without_a_length_the_clip_stays_whole() -> None:
    assert windows(clip(), duration_seconds=100.0, clip_seconds=None) == [clip()]


def test_a_listed_span_is_cut_inside_itself() -> None:
    listed = Clip(clip_id="a.mp4#t=5,25", uri="/a.mp4", start_seconds=5.0, end_seconds=25.0)
    parts = windows(listed, duration_seconds=100.0, clip_seconds=10.0)
    assert [(part.start_seconds, part.end_seconds) for part in parts] == [(5.0, 15.0), (15.0, 25.0)]
    assert {video_id(part.clip_id) for part in parts} == {listed.clip_id}
    late = Clip(clip_id="a", uri="/a.mp4", start_seconds=200.0)
    assert windows(late, duration_seconds=100.0, clip_seconds=10.0) == [late]


def test_a_span_is_written_to_the_millisecond() -> None:
    assert span_suffix(None, None) == ""
    assert span_suffix(1 / 3, 100.0) == "#t=0.333,100"
    assert span_suffix(None, 2.5) == "#t=0,2.5"


def test_a_video_row_is_the_statistics_of_its_windows() -> None:
    scores = [1.0, 2.0, 4.0, None]
    rows = [
        {"clip_id": f"a.mp4#t={n},{n + 1}", "uri": "/a.mp4", "score": score, "duration_seconds": 4.0}
        for n, score in enumerate(scores)
    ]
    rows.append({"clip_id": "b.mp4", "uri": "/b.mp4", "score": None, "duration_seconds": None})
    first, second = summarise_videos(rows)
    assert (first["video_id"], first["windows"], first["windows_scored"]) == ("a.mp4", 4, 3)
    assert first["score_mean"] == pytest.approx(7 / 3)
    assert first["score_min"] == 1.0
    assert first["score_p5"] == pytest.approx(1.1)  # linear between the two lowest
    assert first["score_harmonic_mean"] == pytest.approx(3 / 1.75)
    assert second["windows_scored"] == 0
    assert [second[name] for name in ("score_mean", "score_min", "score_p5", "score_harmonic_mean")] == [None] * 4


def test_the_harmonic_mean_is_the_lowest_of_the_means() -> None:
    rows = [
        {"clip_id": f"a#t={n},{n + 1}", "uri": "/a", "score": s, "duration_seconds": 9.0}
        for n, s in enumerate([1, 3, 5])
    ]
    (video,) = summarise_videos(rows)
    assert video["score_min"] < video["score_harmonic_mean"] < video["score_mean"]
    assert math.isclose(video["score_mean"], 3.0)


def test_a_length_out_of_this_world_is_not_cut() -> None:
    assert windows(clip(), duration_seconds=1.9e17, clip_seconds=2.0) == [clip()]
    assert len(windows(clip(), duration_seconds=86_400.0, clip_seconds=1.0)) == 86_400
