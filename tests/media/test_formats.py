"""Every codec, container and oddity of time in the table of docs/concepts/files.md, as real encoders write them.

Frames are told by the number in their pixels. What stands elsewhere: variable frame rate, open GOP, intra refresh
(test_decode.py); one frame, cover art, sound only (test_probe.py); colours, shapes and sizes (color/test_convert.py).
"""

import re
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from tests.support import clips
from vqa.media import decode, probe

FRAMES = 24
X265 = "log-level=none:pools=none:keyint=8:bframes=3"
H264 = ["-c:v", "libx264", "-bf", "3", "-g", "8", "-x264-params", "open-gop=1"]
COPY = ["-c", "copy"]

# codec -> how FFmpeg encodes it, and the containers: encoded into the first, copied into the others
CODECS = {
    "h264": (H264, ["mp4", "mkv", "mov", "avi", "ts", "flv"]),
    "hevc": (["-c:v", "libx265", "-x265-params", X265], ["mp4", "mkv", "mov", "ts", "flv"]),
    "hevc10": (["-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", X265], ["mp4", "mkv", "ts"]),
    "vp9": (["-c:v", "libvpx-vp9", "-g", "8", "-cpu-used", "8"], ["webm", "mkv", "mp4"]),
    "av1": (["-c:v", "libsvtav1", "-g", "8", "-preset", "12"], ["webm", "mkv", "mp4"]),
    "mpeg2": (["-c:v", "mpeg2video", "-g", "8", "-bf", "2", "-q:v", "3"], ["ts", "mpg", "mkv", "avi"]),
    "mpeg4": (["-c:v", "mpeg4", "-g", "8", "-bf", "2", "-q:v", "3"], ["mp4", "mkv", "mov", "avi"]),
    "mjpeg": (["-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-q:v", "3"], ["avi", "mov", "mkv"]),
    "prores": (["-c:v", "prores_ks", "-profile:v", "2", "-pix_fmt", "yuv422p10le"], ["mov", "mkv"]),
    "rawvideo": (["-c:v", "rawvideo"], ["avi"]),
    "y4m": (["-f", "yuv4mpegpipe"], ["y4m"]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds source.mkv: FRAMES frames without loss."""
    made = tmp_path_factory.mktemp("formats")
    clips.write_video(made / "source.mkv", codec="ffv1", frames=FRAMES, noise=0.0)
    return made


@pytest.fixture(scope="module")
def h264(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty frames at 25 a second, numbers 0 to 49, B-frames, a keyframe every 12."""
    path = tmp_path_factory.mktemp("h264") / "h264.mp4"
    return clips.write_video(path, frames=50, options={"g": "12", "bf": "3"}, noise=0.0)


def shown_by_ffmpeg(path: Path) -> list[int]:
    """The numbers of all frames in the order of a full decode by FFmpeg through PyAV."""
    with av.open(str(path)) as container:
        return [clips.read_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def numbers(path: Path, seconds: list[float] | np.ndarray) -> list[int]:
    """The numbers of the frames that `decode` gives for these times."""
    return [clips.read_number(pixels) for pixels in decode(str(path), seconds, sizes=[None] * len(seconds)).pixels]


@pytest.mark.parametrize(
    ("codec", "container"), [(codec, suffix) for codec, (_, containers) in CODECS.items() for suffix in containers]
)
def test_every_codec_in_every_container_gives_the_frames_asked_for_in_their_colours(folder, codec, container) -> None:
    arguments, containers = CODECS[codec]
    first = folder / f"{codec}.{containers[0]}"
    if not first.exists():
        clips.ffmpeg("-i", folder / "source.mkv", *arguments, first)
    path = folder / f"{codec}.{container}"
    if path != first:
        clips.ffmpeg("-i", first, *COPY, path)
    info, table = probe(str(path))
    assert info.frame_count == FRAMES
    assert info.fps == pytest.approx(25)
    assert info.duration_seconds == pytest.approx(FRAMES / 25)
    assert table.seconds == pytest.approx(np.arange(FRAMES) / 25)
    wanted = [5, 0, 17, 23, 9]
    frames = decode(str(path), table.seconds[wanted], sizes=[None] * 5, info=info, packets=table)
    for pixels, number in zip(frames.pixels, wanted, strict=True):
        assert clips.read_number(pixels) == number
        # 1.9 without loss, for the chroma planes of half the size; a wrong matrix or range gives 6 and more
        assert np.abs(pixels.astype(int) - clips.picture(number, noise=0.0)).mean() < 4.5


# --- times ------------------------------------------------------------------------------------------------------------


def test_an_edit_list_that_begins_between_keyframes_hides_the_frames_before_it(h264, tmp_path) -> None:
    path = tmp_path / "edit.mp4"
    clips.ffmpeg("-ss", "0.6", "-i", h264, *COPY, path)
    with av.open(str(path)) as container:
        assert sum(bool(packet.size) for packet in container.demux(video=0)) > 35
    info, table = probe(str(path))
    assert (info.frame_count, info.duration_seconds) == (35, pytest.approx(1.4))
    assert numbers(path, table.seconds) == shown_by_ffmpeg(path) == list(range(15, 50))


@pytest.mark.parametrize(
    ("name", "offset", "first"),
    [
        ("early.ts", -2.4, 0),
        ("wrap.ts", 2**33 / 90000 - 2.4, 0),  # the clock of a transport stream runs over in mid-clip
        ("early.mkv", -1.0, 0),  # Matroska cannot hold times below 0: its frames are counted
        ("early.mp4", -1.0, 25),  # an edit list says that it starts after a second
        ("late.mp4", 3600.0, 0),
    ],
)
def test_the_first_frame_shown_is_at_zero_wherever_the_clock_of_the_file_starts(
    h264, tmp_path, name, offset, first
) -> None:
    path = tmp_path / name
    clips.ffmpeg("-i", h264, *COPY, "-output_ts_offset", offset, "-avoid_negative_ts", "disabled", path)
    info, table = probe(str(path))
    assert table.seconds == pytest.approx(np.arange(50 - first) / 25)
    assert info.duration_seconds == pytest.approx((50 - first) / 25)
    assert numbers(path, table.seconds) == shown_by_ffmpeg(path) == list(range(first, 50))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("live.mkv", ["-live", "1"]),
        ("live.flv", ["-flvflags", "no_duration_filesize+no_metadata"]),
        ("fragments.mp4", ["-movflags", "empty_moov+frag_keyframe"]),
        ("bare.h264", []),
        ("stream.ts", []),
    ],
)
def test_a_header_without_duration_and_frame_count_is_not_needed(h264, tmp_path, name, options) -> None:
    path = tmp_path / name
    clips.ffmpeg("-i", h264, *COPY, *options, path)
    info, table = probe(str(path))
    assert (info.frame_count, info.duration_seconds) == (50, pytest.approx(2.0))
    assert numbers(path, table.seconds[[41, 3, 30]]) == [41, 3, 30]


@pytest.mark.parametrize("count", [0, 7, 9999])
def test_a_wrong_frame_count_in_the_header_is_not_believed(tmp_path, count) -> None:
    path = clips.write_video(tmp_path / "count.avi", codec="mjpeg", pixel_format="yuvj420p", frames=20, noise=0.0)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"avih") + 8 + 16, count)  # dwTotalFrames
    struct.pack_into("<I", data, data.index(b"strh") + 8 + 32, count)  # dwLength
    path.write_bytes(data)
    info, table = probe(str(path))
    assert (info.frame_count, info.duration_seconds) == (20, pytest.approx(0.8))
    assert numbers(path, table.seconds[[0, 19, 8]]) == [0, 19, 8]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_three_hours_are_exact_to_the_end(tmp_path, suffix) -> None:
    period = clips.write_video(
        tmp_path / "period.mp4", width=80, height=48, fps=5, frames=50, noise=0.0, options={"crf": "35", "bf": "2"}
    )
    path = tmp_path / f"long.{suffix}"
    clips.ffmpeg("-stream_loop", 3 * 360 - 1, "-i", period, *COPY, path)
    info, table = probe(str(path))
    assert info.duration_seconds == pytest.approx(3 * 3600, abs=0.5)
    wanted = [1, 27_003, 53_996, 53_999]
    assert table.seconds[wanted] == pytest.approx(np.array(wanted) / 5, abs=0.01)
    assert numbers(path, table.seconds[wanted]) == [entry % 50 for entry in wanted]


# --- streams ----------------------------------------------------------------------------------------------------------


def test_of_several_streams_the_default_one_is_shown_else_the_largest(h264, tmp_path) -> None:
    path = tmp_path / "two.mkv"
    two = ["-i", h264, "-map", "0:v", "-map", "0:v", "-c:v", "libx264", "-filter:v:0", "scale=80:48"]
    for dispositions, width in [(("0", "0"), 160), (("default", "0"), 80), (("0", "default"), 160)]:
        marks = ["-disposition:v:0", dispositions[0], "-disposition:v:1", dispositions[1]]
        clips.ffmpeg(*two, *marks, "-default_mode", "passthrough", "-frames:v", "5", path)
        info, _ = probe(str(path))
        assert (info.width, info.frame_count) == (width, 5)
        assert numbers(path, [0.12]) == [3]


def test_cover_art_beside_a_video_is_not_the_video(h264, tmp_path) -> None:
    cover = clips.write_image(tmp_path / "cover.png", width=640, height=640, number=999)
    path = tmp_path / "cover.mp4"
    both = ["-i", cover, "-i", h264, "-map", "0", "-map", "1", "-c", "copy"]
    clips.ffmpeg(*both, "-disposition:v:0", "attached_pic", path)
    info, _ = probe(str(path))
    assert (info.codec, info.width, info.frame_count) == ("h264", 160, 50)
    assert numbers(path, [0.4]) == [10]


def test_8k_is_decoded_at_the_size_asked_for(tmp_path) -> None:
    path = tmp_path / "8k.mp4"
    still = ["-f", "lavfi", "-i", "color=c=0xC81E28:s=7680x4320:r=25", "-frames:v", "2"]
    clips.ffmpeg(*still, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", path)
    info, _ = probe(str(path))
    assert (info.width, info.height) == (7680, 4320)
    frames = decode(str(path), [0.0, 0.04], sizes=[(256, 144), None])
    assert [pixels.shape for pixels in frames.pixels] == [(144, 256, 3), (4320, 7680, 3)]
    assert np.ptp(frames.pixels[1][::50, ::50].reshape(-1, 3), axis=0).max() <= 1


def test_every_test_that_the_table_of_formats_names_exists() -> None:
    table = (Path(__file__).resolve().parents[2] / "docs/concepts/files.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", table))
    files = [*Path(__file__).parent.rglob("test_*.py"), Path(__file__).parents[1] / "jobs" / "test_faults.py"]
    written = "".join(path.read_text(encoding="utf-8") for path in files)
    assert len(named) > 25
    assert not {name for name in named if f"def {name}(" not in written}
