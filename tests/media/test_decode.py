"""Exact frames: compared, pixel by pixel, with a full decode of the whole file by FFmpeg through PyAV."""

import gc
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from PIL import Image, ImageOps

from tests.support import clips
from vqa.errors import ClipError
from vqa.media import decode, probe
from vqa.media.backends.pyav import decode_ranges
from vqa.media.packets import nearest_frames
from vqa.types import Frames

SCALER = 0x4 | 0x40000 | 0x80000  # bicubic, accurate rounding, to the bit: what decode.py promises to use
FRAMES = 48
X264 = {"g": "12", "bf": "3"}
X265 = "log-level=none:pools=none:keyint=12:min-keyint=12:bframes=3"
RNG_TIMES = np.cumsum(np.random.default_rng(5).uniform(0.01, 0.2, FRAMES)).tolist()

# name of the file -> how it is made
ZOO = {
    "h264.mp4": {"codec": "libx264", "options": X264},
    "h264.mkv": {"codec": "libx264", "options": X264},
    "open-gop.mp4": {"codec": "libx264", "options": {**X264, "x264-params": "open_gop=1"}},
    "open-gop.ts": {"codec": "libx264", "options": {**X264, "x264-params": "open_gop=1"}},
    "intra-refresh.mp4": {"codec": "libx264", "options": {"g": "12", "x264-params": "intra-refresh=1"}},
    "interlaced.mp4": {"codec": "libx264", "options": {**X264, "x264-params": "interlaced=1"}},
    "no-times.h264": {"codec": "libx264", "options": X264, "container": "h264"},
    "no-times.avi": {"codec": "libx264", "options": X264},
    "vfr.mp4": {"codec": "libx264", "options": X264, "seconds": RNG_TIMES},
    "vfr.mkv": {"codec": "libx264", "options": X264, "seconds": RNG_TIMES},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": f"{X265}:open-gop=0"}},
    "hevc-open-gop.mkv": {"codec": "libx265", "options": {"x265-params": f"{X265}:open-gop=1"}},
    "hevc-vfr.mp4": {"codec": "libx265", "options": {"x265-params": X265}, "seconds": RNG_TIMES},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "12", "cpu-used": "8", "lag-in-frames": "16"}},
    "vp9-vfr.webm": {"codec": "libvpx-vp9", "options": {"g": "12", "cpu-used": "8"}, "seconds": RNG_TIMES},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "prores.mov": {"codec": "prores", "pixel_format": "yuv422p10le"},
    "raw.y4m": {"codec": "rawvideo", "container": "yuv4mpegpipe"},
    "rotated.mp4": {"codec": "libx264", "options": X264, "rotation_degrees": 90},
}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory):
    """Name -> (path, every frame by a full decode, as shown), made once when first asked for."""
    folder = tmp_path_factory.mktemp("zoo")
    made: dict[str, tuple[Path, list[np.ndarray]]] = {}

    def get(name: str) -> tuple[Path, list[np.ndarray]]:
        if name not in made:
            path = clips.write_video(folder / name, frames=FRAMES, **ZOO[name])
            made[name] = (path, full_decode(path))
        return made[name]

    return get


def full_decode(path: Path, *, size: tuple[int, int] | None = None) -> list[np.ndarray]:
    """Every frame in the order of the decoder's output, from the first packet to the last."""
    width, height = size or (None, None)
    with av.open(str(path)) as container:
        return [
            np.rot90(
                frame.to_ndarray(format="rgb24", width=width, height=height, interpolation=SCALER),
                k=frame.rotation // 90,
            )
            for frame in container.decode(video=0)
        ]


def native(path: Path | str, seconds: ArrayLike, **options: Any) -> Frames:
    """At the size that the file has."""
    return decode(str(path), seconds, sizes=[None] * len(seconds), **options)


def assert_frames_equal(frames: Frames, expected: list[np.ndarray]) -> None:
    """To the bit: both sides use the same decoder and the same scaler."""
    assert frames.requested.tolist() == list(range(len(expected)))
    for pixels, reference in zip(frames.pixels, expected, strict=True):
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, reference)


# --- exact ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ZOO)
def test_frames_are_those_of_a_full_decode_whatever_is_asked_in_whatever_order(zoo, name) -> None:
    path, reference = zoo(name)
    info, table = probe(str(path))
    assert len(reference) == info.frame_count == FRAMES
    rng = np.random.default_rng(len(name))
    drawn = [rng.permutation(FRAMES)[:count] for count in (5, 3)]
    for threads, wanted in enumerate([np.arange(FRAMES), *drawn, [FRAMES - 1], [0], [17, 17]], start=1):
        frames = native(path, table.seconds[wanted], info=info, packets=table, thread_count=1 + threads % 2)
        assert_frames_equal(frames, [reference[entry] for entry in wanted])
        np.testing.assert_array_equal(frames.seconds, table.seconds[wanted])


@pytest.mark.parametrize("name", ["h264.mp4", "vfr.mkv", "no-times.h264", "rotated.mp4"])
def test_the_numbers_written_into_the_frames_are_those_asked_for(zoo, name) -> None:
    path, _ = zoo(name)
    info, table = probe(str(path))
    wanted = [3, 40, 11, 25]
    frames = native(path, table.seconds[wanted])
    upright = [np.rot90(pixels, k=info.rotation_degrees // 90) for pixels in frames.pixels]
    assert [clips.read_number(pixels) for pixels in upright] == wanted


def test_a_rotated_clip_is_the_upright_one_turned_clockwise(zoo) -> None:
    upright, _ = zoo("h264.mp4")
    turned, _ = zoo("rotated.mp4")
    times = [0.0, 1.0]
    for size, turned_size in [(None, None), ((80, 48), (48, 80))]:
        expected = decode(str(upright), times, sizes=[size] * 2)
        got = decode(str(turned), times, sizes=[turned_size] * 2)
        assert_frames_equal(got, [np.rot90(pixels, k=-1) for pixels in expected.pixels])


def test_scaled_and_native_pictures_come_from_one_decoded_frame(zoo, fed) -> None:
    path, reference = zoo("h264.mp4")
    small = full_decode(path, size=(64, 38))
    frames = decode(str(path), [0.4, 0.4, 0.4], sizes=[(64, 38), None, (64, 38)])
    assert_frames_equal(frames, [small[10], reference[10], small[10]])
    assert fed.packets <= 12


def test_threads_change_nothing(zoo) -> None:
    for name in ("h264.mp4", "hevc.mp4", "vp9.webm"):
        path, reference = zoo(name)
        _, table = probe(str(path))
        for threads in (1, 2, 5):
            frames = native(path, table.seconds[[30, 5]], thread_count=threads)
            assert_frames_equal(frames, [reference[30], reference[5]])


def test_times_outside_or_between_give_the_nearest_frame_and_ties_the_earlier(zoo) -> None:
    path, _ = zoo("h264.mp4")
    times = [-3.0, 0.019, 0.02, 0.021, 99.0]
    frames = native(path, times)
    assert [clips.read_number(pixels) for pixels in frames.pixels] == [0, 0, 0, 1, FRAMES - 1]


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=12).map(sorted),
    st.lists(st.floats(-10, 60), min_size=1, max_size=5),
)
def test_nearest_is_what_brute_force_finds(frame_seconds, times) -> None:
    frames = np.array(frame_seconds, np.float64)
    found = nearest_frames(frames, np.array(times))
    assert found.tolist() == [int(np.argmin(np.abs(frames - time))) for time in times]


# --- no more than needed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wanted", "most"), [([0], 1), ([47], 12), ([13, 14], 5), ([0, 47], 13), (range(48), 48)])
def test_only_the_needed_part_of_the_needed_groups_is_decoded(zoo, fed, wanted, most) -> None:
    path, _ = zoo("h264.mp4")
    native(path, probe(str(path))[1].seconds[list(wanted)])
    assert fed.packets <= most


@pytest.mark.parametrize("name", ["h264.mp4", "open-gop.mp4", "hevc-open-gop.mkv", "vp9.webm", "no-times.avi"])
@settings(max_examples=30, deadline=None)
@given(wanted=st.sets(st.integers(0, FRAMES - 1), min_size=1), back=st.integers(0, 3))
def test_no_packet_is_planned_twice_and_every_wanted_frame_is(zoo, name, wanted, back) -> None:
    _, table = probe(str(zoo(name)[0]))
    ranges = decode_ranges(table, sorted(wanted), back=back)
    assert sorted(entry for one in ranges for entry in one.wanted) == sorted(wanted)
    assert all(earlier.stop + 1 < later.start for earlier, later in pairwise(ranges))
    for one in ranges:
        assert one.start == 0 or table.starts[one.start]
        assert all(one.start <= table.order[entry] <= one.stop for entry in one.wanted)


# --- pictures and animations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".jpg"])
def test_a_still_picture_answers_every_time(tmp_path, suffix) -> None:
    path = clips.write_image(tmp_path / f"i{suffix}", number=5)
    reference = np.asarray(Image.open(path).convert("RGB")).astype(int)
    frames = native(path, [0.0, 7.5])
    # Two JPEG decoders: other chroma upsampling at the sharp edges of the number.
    tolerance = 40 if suffix == ".jpg" else 0
    for pixels in frames.pixels:
        assert np.abs(pixels - reference).max() <= tolerance
        assert np.abs(pixels - reference).mean() <= tolerance / 20
        assert clips.read_number(pixels) == 5
    assert frames.seconds.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_photographs_are_turned_as_their_camera_was_held(tmp_path, suffix, orientation) -> None:
    path = clips.write_image(tmp_path / f"i{suffix}", number=5, exif_orientation=orientation)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path))).astype(int)
    info, _ = probe(str(path))
    assert (info.height, info.width) == upright.shape[:2]
    frames = native(path, [0.0])
    assert np.abs(frames.pixels[0] - upright).mean() <= (2 if suffix == ".jpg" else 0)


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_animation_frames_are_those_that_pillow_shows(tmp_path, suffix) -> None:
    path = clips.write_animation(tmp_path / f"a{suffix}", frames=6, durations_ms=[40, 200, 40, 80, 120, 40])
    expected = []
    with Image.open(path) as image:
        for index in range(6):
            image.seek(index)
            expected.append(np.asarray(image.convert("RGB")))
    times = [0.0, 0.04, 0.24, 0.28, 0.36, 0.48]
    order = [4, 0, 5, 2, 1, 3]
    frames = native(path, [times[n] for n in order])
    assert_frames_equal(frames, [expected[n] for n in order])
    assert [clips.read_number(pixels) for pixels in frames.pixels] == order


# --- damage -----------------------------------------------------------------------------------------------------------


def test_a_cut_off_file_gives_what_is_there_and_leaves_the_rest_out(tmp_path) -> None:
    whole = clips.write_video(
        tmp_path / "whole.mp4", frames=50, options={"bf": "2"}, container_options={"movflags": "faststart"}
    )
    cut = clips.cut_off(whole, 0.6, out=tmp_path / "cut.mp4")
    _, table = probe(str(whole))
    expected = full_decode(whole)
    frames = native(cut, table.seconds)
    assert 10 < len(frames.requested) < 45
    for request, pixels in zip(frames.requested, frames.pixels, strict=True):
        np.testing.assert_array_equal(pixels, expected[request])
    with pytest.raises(ClipError) as caught:
        native(cut, [1.9])
    assert caught.value.kind == "corrupt"


def test_a_cut_off_animation_gives_what_is_there(tmp_path) -> None:
    path = clips.cut_off(clips.write_animation(tmp_path / "a.webp", frames=8), 0.5)
    _, table = probe(str(path))
    frames = native(path, table.seconds)
    assert 0 < len(frames.pixels) < 8
    assert [clips.read_number(pixels) for pixels in frames.pixels] == frames.requested.tolist()


@pytest.mark.parametrize("name", ["h264.mp4", "hevc.mp4", "vp9.webm", "mpeg2.mpg"])
def test_bit_flips_leave_frames_out_and_the_rest_repeats_to_the_bit(zoo, tmp_path, name) -> None:
    path, reference = zoo(name)
    _, sound = probe(str(path))
    left_out = 0
    for seed in range(8):
        bad = clips.flip_bits(
            path, seed=seed, count=12, start_share=0.25, end_share=0.7, out=tmp_path / f"{seed}-{name}"
        )
        info, table = probe(str(bad))
        first, second = (native(bad, sound.seconds, info=info, packets=table) for _ in range(2))
        assert first.requested.tolist() == second.requested.tolist()
        for one, other in zip(first.pixels, second.pixels, strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(first.pixels[0], reference[0])  # stored before the first flip
        left_out += FRAMES - len(first.pixels)
    assert left_out > 0 or name == "vp9.webm"  # VP9 carries no check by which its decoder could tell


def test_every_frame_goes_back_to_the_decoder_at_once(tmp_path) -> None:
    """Frames left to the garbage collector cost memory, and what damaged HEVC leaves unwritten would vary with it."""
    path = clips.write_video(tmp_path / "turned.mp4", rotation_degrees=90)
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        held = av.VideoFrame(18, 18, "rgb24")
        decode(str(path), [0.0, 0.2, 0.4], sizes=[None, (48, 80), None])
        left = [kept.width for kept in gc.get_objects() if isinstance(kept, av.VideoFrame)]
    finally:
        gc.enable()
        gc.unfreeze()
    assert left == [held.width]


def test_damaged_files_give_the_same_with_several_threads(zoo, tmp_path) -> None:
    path, _ = zoo("h264.mp4")
    for seed in range(4):
        bad = clips.flip_bits(path, seed=seed, count=12, start_share=0.25, out=tmp_path / "bad.mp4")
        _, table = probe(str(bad))
        one, many = (native(bad, table.seconds, thread_count=threads) for threads in (1, 4))
        assert one.requested.tolist() == many.requested.tolist()
        assert all(np.array_equal(a, b) for a, b in zip(one.pixels, many.pixels, strict=True))


def test_a_file_whose_every_frame_is_destroyed_is_corrupt(tmp_path) -> None:
    path = clips.write_video(tmp_path / "zeros.mp4", frames=10, container_options={"movflags": "faststart"})
    data = path.read_bytes()
    media = data.index(b"mdat") + 4
    path.write_bytes(data[:media] + bytes(len(data) - media))
    with pytest.raises(ClipError, match="none of the 2 wanted frames") as caught:
        native(path, [0.0, 0.2])
    assert caught.value.kind == "corrupt"


def test_decoding_damaged_files_is_silent(zoo, tmp_path, capfd) -> None:
    bad = clips.flip_bits(zoo("h264.mp4")[0], seed=1, count=30, start_share=0.3, out=tmp_path / "bad.mp4")
    native(bad, [0.0, 1.0, 1.5])
    capture = capfd.readouterr()
    assert (capture.out, capture.err) == ("", "")


# --- the call ---------------------------------------------------------------------------------------------------------


def test_a_file_that_vanished_after_probing_is_not_found(tmp_path) -> None:
    path = clips.write_video(tmp_path / "gone.mp4", frames=5)
    info, table = probe(str(path))
    path.unlink()
    with pytest.raises(ClipError) as caught:
        native(path, [0.0], info=info, packets=table)
    assert caught.value.kind == "not_found"


def test_nothing_asked_nothing_given(zoo) -> None:
    frames = decode(str(zoo("h264.mp4")[0]), [], sizes=[])
    assert (frames.pixels, frames.requested.tolist()) == ((), [])


def test_wrong_calls_say_what_is_wrong(zoo) -> None:
    path = str(zoo("h264.mp4")[0])
    with pytest.raises(ValueError, match="2 times and 1 sizes"):
        decode(path, [0.0, 1.0], sizes=[None])
    with pytest.raises(ValueError, match="finite"):
        decode(path, [float("nan")], sizes=[None])
    with pytest.raises(ValueError, match="one of pyav, decord"):
        decode(path, [0.0], sizes=[None], backend="vlc")


# --- decord -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "vfr.mkv", "hevc.mp4", "vp9.webm", "rotated.mp4"])
def test_decord_gives_the_same_frames_but_for_chroma_upsampling(zoo, name) -> None:
    pytest.importorskip("decord")
    path, reference = zoo(name)
    _, table = probe(str(path))
    wanted = [30, 2, 45]
    frames = decode(str(path), table.seconds[wanted], sizes=[None, None, (80, 48)], backend="decord")
    assert frames.requested.tolist() == [0, 1, 2]
    for pixels, entry in zip(frames.pixels[:2], wanted, strict=False):
        difference = np.abs(pixels.astype(int) - reference[entry])
        # decord's own conversion takes the nearest chroma sample, ours interpolates: large only at sharp coloured edges
        assert difference.mean() < 4
    assert frames.pixels[2].shape == (48, 80, 3)
