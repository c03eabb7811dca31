"""Memory follows neither the length of a clip nor the number of clips; full-size figures: tests/bench/sources.py."""

from pathlib import Path

from tests.support import bounds

SMALL = {"width": 640, "height": 360, "options": {"g": "50", "preset": "ultrafast"}}


def test_a_minute_takes_the_peak_memory_of_ten_seconds(tmp_path: Path) -> None:
    short, long = (bounds.joined(tmp_path / f"{s}.mp4", seconds=s, **SMALL) for s in (10, 60))
    assert bounds.peak_mb(str(long)) <= 1.2 * bounds.peak_mb(str(short))


def test_a_worker_does_not_grow_with_the_clips_that_it_has_seen(tmp_path: Path) -> None:
    assert bounds.growth_mb(tmp_path, count=300) <= 10
