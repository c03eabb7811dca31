"""Frames that a damaged file has lost are in its packet table; good files have none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support import clips
from tests.support.structure import find, packets
from tests.support.zoo_good import GOOD, good
from vqa.media import decode, probe

VP9 = {"codec": "libvpx-vp9", "options": {"g": "8"}}


def damaged_table(path: Path) -> tuple[int, int]:
    """Frames in the table, and how many of them are lost."""
    _, table = probe(str(path))
    return len(table.seconds), int(table.is_damaged.sum())


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "libvpx-vp9"), ("mkv", "libx264")])
@pytest.mark.parametrize("audio", [False, True])
def test_blocks_that_the_demuxer_steps_over_are_counted_as_lost(tmp_path: Path, suffix, codec, audio) -> None:
    path = clips.write_video(tmp_path / f"a.{suffix}", codec=codec, frames=40, options={"g": "8"}, audio=audio)
    good_seconds = probe(str(path))[1].seconds
    data = bytearray(path.read_bytes())
    at = find(bytes(data), "a3", nth=30).start
    data[at : at + 3] = b"\xff\xff\xff"  # id and size of a block: the reader looks for the next cluster
    path.write_bytes(data)
    info, table = probe(str(path))
    assert table.is_damaged.any() and len(table.seconds) == pytest.approx(40, abs=1)
    assert table.seconds[-1] == pytest.approx(good_seconds[-1], abs=0.041)
    frames = decode(str(path), table.seconds, sizes=[None] * len(table.seconds), info=info, packets=table)
    assert len(frames.pixels) <= int((~table.is_damaged).sum()) < 40
    assert [clips.read_number(p) for p in frames.pixels] == [round(s * 25) for s in frames.seconds]


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_cut_off_matroska_file_has_the_length_that_its_header_says(tmp_path: Path, share: float) -> None:
    path = clips.write_video(tmp_path / "a.mkv", frames=40)
    good_seconds = probe(str(path))[1].seconds
    clips.cut_off(path, share)
    _, table = probe(str(path))
    count, lost = len(table.seconds), int(table.is_damaged.sum())
    assert count == pytest.approx(40, abs=1) and 40 * (1 - share) * 0.5 < lost < 40
    assert np.abs(table.seconds[:39] - good_seconds[:39]).max() < 0.005


def vary(path: Path, seconds: list[float], **more: object) -> Path:
    return clips.write_video(path, seconds=seconds, **more)  # type: ignore[arg-type]


RNG = np.random.default_rng(0)
VARIABLE: dict[str, Callable[[Path], Path]] = {
    "jitter.webm": lambda p: vary(p, np.cumsum(RNG.uniform(0.01, 0.1, 40)).tolist(), **VP9),
    "a long pause.webm": lambda p: vary(p, [*(np.arange(20) / 25), *(30 + np.arange(20) / 25)], **VP9),
    "doubles dropped.mkv": lambda p: vary(p, (np.array([0, 1, 2, 3, 4, 6, 7, 8, 11, 12, 13, 14, 20]) / 25).tolist()),
    "pauses and reordering.mkv": lambda p: vary(p, np.cumsum(RNG.choice([0.04, 0.04, 0.04, 2], 60)).tolist()),
    "pauses in mp4.mp4": lambda p: vary(p, np.cumsum(RNG.choice([0.04, 0.04, 0.04, 2], 40)).tolist()),
    "pauses in groups of blocks.webm": lambda p: vary(  # with alpha, FFmpeg writes a BlockGroup for each frame
        p, np.cumsum(RNG.choice([0.04, 0.04, 0.04, 2], 40)).tolist(), **VP9, pixel_format="yuva420p"
    ),
    "slide show.mkv": lambda p: vary(p, [0, 5, 10, 30, 31]),
    "sound that lasts.mkv": lambda p: _with_long_sound(p),
    "live.mkv": lambda p: clips.write_video(p, frames=30, container_options={"live": "1"}),
}


def _with_long_sound(path: Path) -> Path:
    short = clips.write_video(path.with_suffix(".part.mkv"), frames=20, audio=True)
    sound = clips.write_audio(path.with_suffix(".mp3"), duration_seconds=6)
    clips.ffmpeg("-i", short, "-i", sound, "-map", "0:v", "-map", "1:a", "-c", "copy", path)
    return path


@pytest.mark.parametrize("name", VARIABLE)
def test_pauses_and_uneven_times_are_no_damage(tmp_path: Path, name: str) -> None:
    path = VARIABLE[name](tmp_path / name)
    count, lost = damaged_table(path)
    assert lost == 0 and count >= 5


@pytest.mark.parametrize("name", [name for name in GOOD if name != "sound.m4a"])
def test_nothing_is_lost_in_good_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(good(name))
    info, table = probe(str(path))
    frames = decode(str(path), table.seconds, sizes=[None] * len(table.seconds), info=info, packets=table)
    assert not table.is_damaged.any() and len(frames.pixels) == len(table.seconds)


@pytest.mark.parametrize("suffix", ["webm", "ivf"])
def test_frames_made_from_a_broken_one_are_not_shown(tmp_path: Path, suffix: str) -> None:
    """FFmpeg's VP9 decoder goes on with the pictures that it has, and flags nothing."""
    path = clips.write_video(tmp_path / f"a.{suffix}", frames=24, **VP9)
    info, table = probe(str(path))
    whole = decode(str(path), table.seconds, sizes=[None] * 24, info=info, packets=table)
    data = path.read_bytes()
    for number in (3, 9, 17):
        piece = packets(data)[number]
        noise = np.random.default_rng(number).bytes(piece.stop - piece.start - 8)
        path.write_bytes(data[: piece.start + 8] + noise + data[piece.stop :])
        frames = decode(str(path), table.seconds, sizes=[None] * 24)
        assert 0 < len(frames.pixels) < 24
        for request, pixels in zip(frames.requested, frames.pixels, strict=True):
            assert (pixels == whole.pixels[request]).all(), f"frame {request} is made from frame {number}"
