"""Jumps over gaps by the container's index: the same frames, fewer bytes read."""

import av
import numpy as np
import pytest

from tests.support import clips
from vqa.media import decode, probe
from vqa.media.backends import pyav

FRAMES = 60
X264 = {"g": "10", "bf": "3"}
FILES = {
    "plain.mp4": {"options": X264},
    "open-gop.mp4": {"options": {**X264, "x264-params": "open_gop=1"}},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=none:keyint=10"}},
    "vfr.mp4": {"options": X264, "seconds": np.cumsum(np.random.default_rng(1).uniform(0.01, 0.3, FRAMES)).tolist()},
    "late.mp4": {"options": X264, "seconds": (3 + np.arange(FRAMES) / 25).tolist()},
    "plain.mkv": {"options": X264},
    "plain.ts": {"options": X264},
}


@pytest.fixture
def demuxed(monkeypatch) -> list[int]:
    """Sizes of the packets that the reader demuxes; nothing is replaced."""
    real, sizes = pyav.packets_of, []

    def watched(container, stream):
        for packet in real(container, stream):
            sizes.append(packet.size)
            yield packet

    monkeypatch.setattr(pyav, "packets_of", watched)
    monkeypatch.setattr(pyav, "_JUMP_BYTES", 0)
    return sizes


@pytest.mark.parametrize("name", FILES)
def test_gaps_are_jumped_over_and_the_frames_are_the_same(tmp_path, demuxed, name) -> None:
    path = str(clips.write_video(tmp_path / name, frames=FRAMES, **FILES[name]))
    info, table = probe(path)
    with av.open(path) as container:
        reference = {frame.pts: frame.to_ndarray() for frame in container.decode(video=0)}
    for wanted in ([55], [1, 31, 58], [29, 30]):
        demuxed.clear()
        got = dict(pyav.read_pyav(info, table, np.array(wanted), thread_count=1))
        assert sorted(got) == wanted
        for entry, frame in got.items():
            np.testing.assert_array_equal(frame.to_ndarray(), reference[int(table.ticks[table.order[entry]])])
        assert name.endswith(".ts") or len(demuxed) <= 22 * len(wanted)  # at most two groups of ten each


def test_a_file_exchanged_after_planning_is_read_anew(tmp_path) -> None:
    """Its packets are not those of the index: nothing is decoded by a table that does not fit."""
    path = clips.write_video(tmp_path / "a.mp4", frames=FRAMES, options=X264)
    info, table = probe(str(path))
    clips.write_video(path, frames=FRAMES, fps=50, options={"g": "15", "bf": "2"}, seed=3)
    frames = decode(str(path), [0.6, 1.0], sizes=[None, None], info=info, packets=table)
    assert [clips.read_number(pixels) for pixels in frames.pixels] == [30, 50]
    assert frames.seconds.tolist() == pytest.approx([0.6, 1.0])
