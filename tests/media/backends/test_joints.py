"""Recordings joined by copying, whose header describes the first only; sound files must lose nothing to that."""

from pathlib import Path

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


def test_b_frames_in_the_later_part_of_an_avi_are_put_in_order(tmp_path: Path) -> None:
    count = 80  # FFmpeg looks that far for B-frames only in shorter files
    one = clips.write_video(tmp_path / "1.mp4", frames=count, options={"profile": "baseline", "g": "15"})
    other = clips.write_video(tmp_path / "2.mp4", frames=FRAMES, options={"bf": "3", "g": "15"})
    path = joined(tmp_path, one, other, suffix=".avi")
    assert numbers(path) == [*range(count), *range(FRAMES)]
    assert numbers(path, [count + 7, count + 8, count + 9]) == [7, 8, 9]
