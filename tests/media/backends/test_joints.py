"""Recordings joined by copying, whose header describes the first only; sound files must lose nothing to that."""

from pathlib import Path

import av
import numpy as np
import pytest

from tests.support import clips
from tests.support.structure import find
from vqa.errors import ClipError
from vqa.media import decode, probe

FRAMES = 30
SIZES = {1: (160, 96), 2: (256, 160), 3: (160, 96)}
X265 = {1: "keyint=15", 2: "keyint=15", 3: "keyint=15:no-wpp=1:no-sao=1:qpmin=20"}


def part(folder: Path, number: int) -> Path:
    """A recording of its own size and settings; the pictures of the second and third are numbered as the first's."""
    width, height = SIZES[number]
    options = {"x265-params": f"log-level=none:pools=none:info=0:{X265[number]}"}
    path = folder / f"{number}.mp4"
    return clips.write_video(path, codec="libx265", width=width, height=height, frames=FRAMES, options=options)


def joined(folder: Path, *parts: Path, suffix: str) -> Path:
    """The parts as FFmpeg joins them: packets are copied, parameter sets are the first part's."""
    names = folder / "list.txt"
    names.write_text("".join(f"file '{path}'\n" for path in parts))
    out = folder / f"joined{suffix}"
    clips.ffmpeg("-f", "concat", "-safe", "0", "-i", names, "-c", "copy", out)
    return out


def numbers(path: Path, entries: list[int] | None = None) -> list[int]:
    _, table = probe(str(path))
    seconds = table.seconds if entries is None else table.seconds[entries]
    return [clips.read_number(p) for p in decode(str(path), seconds, sizes=[None] * len(seconds)).pixels]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("parts", [(1, 2), (2, 1), (1, 3)])
def test_hevc_of_other_parameter_sets_is_lost(tmp_path: Path, parts: tuple[int, int], suffix: str) -> None:
    path = joined(tmp_path, *(part(tmp_path, number) for number in parts), suffix=suffix)
    assert len(probe(str(path))[1].seconds) == 2 * FRAMES
    assert numbers(path) == list(range(FRAMES))
    assert numbers(path, [5, FRAMES + 20]) == [5]
    with pytest.raises(ClipError, match="none of the 1 wanted"):
        decode(str(path), [probe(str(path))[1].seconds[-3]], sizes=[None])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_hevc_of_the_same_parameter_sets_is_whole(tmp_path: Path, suffix: str) -> None:
    path = joined(tmp_path, part(tmp_path, 1), part(tmp_path, 1), suffix=suffix)
    assert numbers(path) == 2 * list(range(FRAMES))


def with_two_entries(path: Path, other: Path, out: Path) -> Path:
    """A joined mp4 whose second half has a sample entry of its own (ISO/IEC 14496-12, 8.5.2, 8.7.4)."""
    data, more = path.read_bytes(), other.read_bytes()
    sizes, offsets = find(data, "stsz"), find(data, "stco")
    lengths = np.frombuffer(data[sizes.body + 12 : sizes.stop], ">u4")
    first = int.from_bytes(data[offsets.body + 8 : offsets.body + 12], "big")
    words = {
        "stco": (0, 2, first, first + int(lengths[:FRAMES].sum())),
        "stsc": (0, 2, 1, FRAMES, 1, 2, FRAMES, 2),
    }
    bodies = {kind: b"".join(word.to_bytes(4, "big") for word in body) for kind, body in words.items()}
    entries = [file[(box := find(file, "stsd")).body + 8 : box.stop] for file in (data, more)]
    bodies["stsd"] = bytes(4) + (2).to_bytes(4, "big") + b"".join(entries)
    assert find(data, "moov").stop == len(data)  # at the end, so that no packet moves
    for kind, body in bodies.items():
        box = find(data, kind)
        parents = [find(data, name).start for name in ("moov", "trak", "mdia", "minf", "stbl", kind)]
        changed = bytearray(data[: box.body] + body + data[box.stop :])
        for at in parents:
            size = int.from_bytes(data[at : at + 4], "big") + len(body) - (box.stop - box.body)
            changed[at : at + 4] = size.to_bytes(4, "big")
        data = bytes(changed)
    out.write_bytes(data)
    return out


@pytest.mark.parametrize("parts", [(1, 2), (2, 1), (1, 3)])
def test_a_sample_entry_counts_also_where_its_first_packet_is_skipped(tmp_path: Path, parts: tuple[int, int]) -> None:
    one, other = (part(tmp_path, number) for number in parts)
    path = with_two_entries(joined(tmp_path, one, other, suffix=".mp4"), other, tmp_path / "two.mp4")
    assert numbers(path) == 2 * list(range(FRAMES))
    assert numbers(path, [5, FRAMES + 20]) == [5, 20]
    assert numbers(path, [2 * FRAMES - 1]) == [FRAMES - 1]


@pytest.mark.parametrize(
    ("params", "pixel_format", "noise"),
    [
        ("keyint=1", "yuv420p", 8.0),
        ("slices=3", "yuv420p", 8.0),
        ("no-wpp=1:open-gop=0", "yuv422p10le", 8.0),
        ("lossless=1", "yuv444p", 0.0),
        ("crf=35", "yuv420p12le", 0.0),
        ("hrd=1:aud=1:repeat-headers=1:bitrate=300:vbv-maxrate=300:vbv-bufsize=300", "yuv420p", 8.0),
        ("bitrate=2000:vbv-maxrate=2000:vbv-bufsize=2000:strict-cbr=1:filler=1", "yuv420p", 0.0),
    ],
)
def test_sound_hevc_of_any_kind_loses_nothing(tmp_path: Path, params: str, pixel_format: str, noise: float) -> None:
    options = {"x265-params": f"log-level=none:pools=none:keyint=10:{params}"}
    path = clips.write_video(
        tmp_path / "a.mp4",
        codec="libx265",
        frames=FRAMES,
        options=options,
        pixel_format=pixel_format,
        noise=noise,
        width=320,
        height=192,
    )
    assert numbers(path) == list(range(FRAMES))


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".mp4"), ("mpeg4", ".avi")])
def test_b_frames_in_the_later_part_of_an_avi_are_put_in_order(tmp_path: Path, codec: str, suffix: str) -> None:
    count = 80  # FFmpeg looks that far for B-frames only in shorter files
    no_b = {"profile": "baseline"} if codec == "libx264" else {}
    one = clips.write_video(tmp_path / f"1{suffix}", codec=codec, frames=count, options={**no_b, "g": "15"})
    other = clips.write_video(tmp_path / f"2{suffix}", codec=codec, frames=FRAMES, options={"bf": "3", "g": "15"})
    path = joined(tmp_path, one, other, suffix=".avi")
    again = [count - 1] if codec == "mpeg4" else []  # its decoder fills in where frames begin to be held back
    assert numbers(path) == [*range(count), *again, *range(FRAMES - len(again))]
    first = 7 - len(again)
    assert numbers(path, [count + 7, count + 8, count + 9]) == [first, first + 1, first + 2]


@pytest.mark.parametrize("sizes", [((176, 144), (352, 288)), ((352, 288), (176, 144)), ((176, 144), (176, 144))])
@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("mpeg4", ".mp4"), ("msmpeg4v2", ".avi"), ("msmpeg4", ".avi"), ("wmv1", ".wmv"), ("wmv2", ".wmv")],
)
def test_a_size_that_the_header_does_not_have_is_lost(tmp_path: Path, codec: str, suffix: str, sizes: tuple) -> None:
    """Their frames do not say their size: in a larger one's place, the decoder would show its beginning."""
    parts = [
        clips.write_video(
            tmp_path / f"{number}{suffix}", codec=codec, width=width, height=height, frames=12, options={"g": "6"}
        )
        for number, (width, height) in enumerate(sizes)
    ]
    path = joined(tmp_path, *parts, suffix=suffix)
    is_same = sizes[0] == sizes[1]
    assert numbers(path) == [*range(12), *(range(12) if is_same else ())]
    assert numbers(path, [5, 20]) == ([5, 8] if is_same else [5])


@pytest.mark.parametrize("sizes", [((176, 144), (352, 288)), ((352, 288), (176, 144))])
@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        ("flv", ".flv"),
        ("h263p", ".avi"),
        ("mpeg4", ".avi"),
        ("mpeg2video", ".ts"),
        ("mjpeg", ".avi"),
        ("libvpx", ".webm"),
    ],
)
def test_sizes_told_by_the_frames_are_right(tmp_path: Path, codec: str, suffix: str, sizes: tuple) -> None:
    options = {"libvpx": {"deadline": "realtime", "cpu-used": "8", "g": "6"}, "mjpeg": {}}.get(codec, {"g": "6"})
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    parts = [
        clips.write_video(
            tmp_path / f"{number}{suffix}",
            codec=codec,
            width=width,
            height=height,
            frames=12,
            options=options,
            pixel_format=pixel_format,
        )
        for number, (width, height) in enumerate(sizes)
    ]
    # MPEG-2's decoder drops the frame that it holds back where the size changes.
    held_back = [11] if codec == "mpeg2video" else []
    assert numbers(joined(tmp_path, *parts, suffix=suffix)) == [
        *(number for number in range(12) if number not in held_back),
        *range(12),
    ]


@pytest.mark.parametrize("ground", ["letterbox", "flat", "noise"])
@pytest.mark.parametrize(
    ("codec", "suffix", "options"),
    [
        ("mpeg4", ".mp4", {"g": "4", "bf": "2"}),
        ("mpeg4", ".mkv", {"g": "4", "data_partitioning": "1", "ps": "500"}),
        ("mpeg4", ".mp4", {"g": "4", "b": "3M", "minrate": "3M", "maxrate": "3M", "bufsize": "400k"}),  # stuffing
        ("msmpeg4", ".avi", {"g": "1"}),
        ("wmv2", ".wmv", {"g": "4", "qmin": "20"}),
    ],
)
def test_sound_files_of_old_codecs_lose_nothing(
    tmp_path: Path, codec: str, suffix: str, options: dict[str, str], ground: str
) -> None:
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 352, 288, "yuv420p"
        for number in range(8):
            pixels = clips.picture(number, width=352, height=288, noise=20.0 if ground == "noise" else 3.0)
            pixels[200 if ground == "letterbox" else 288 :] = 0
            pixels[60 if ground == "flat" else 288 :] = 90
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode())
    assert numbers(path) == list(range(8))
