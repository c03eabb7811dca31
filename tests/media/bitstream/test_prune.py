"""Leaving packets out changes no pixel: real streams of real encoders, compared with a full decode."""

import subprocess
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import clips
from vqa.media import decode, probe
from vqa.media.backends import pyav
from vqa.media.backends.pyav import decode_ranges
from vqa.media.bitstream.bits import Bits, EndOfBitsError
from vqa.media.bitstream.prune import nal_units, sieve

FRAMES = 48
X264 = {"g": "24", "bf": "4", "x264-params": "b-pyramid=normal:b-adapt=0"}
X265 = "log-level=none:pools=none:keyint=24:min-keyint=24:bframes=4"
LAYERS = {  # three temporal layers, as a video conference sends them
    "g": "24",
    "deadline": "realtime",
    "cpu-used": "8",
    "lag-in-frames": "0",
    "error-resilient": "default",
    "b": "160k",
    "ts-parameters": "ts_number_layers=3:ts_target_bitrate=40,80,160:ts_rate_decimator=4,2,1:ts_periodicity=4:"
    "ts_layer_id=0,2,1,2:ts_layering_mode=3",
}
SVT = {"preset": "10", "g": "48", "svtav1-params": "lp=1"}

# name -> (how it is made, are packets left out)
STREAMS = {
    "pyramid.mp4": ({"codec": "libx264", "options": X264}, True),
    "pyramid.ts": ({"codec": "libx264", "options": X264}, True),  # start codes instead of lengths
    "flat-b.mkv": ({"codec": "libx264", "options": {"g": "24", "bf": "3", "x264-params": "b-pyramid=none"}}, True),
    "open-gop.mp4": ({"codec": "libx264", "options": {"g": "12", "bf": "3", "x264-params": "open_gop=1"}}, True),
    "field-coded.mp4": ({"codec": "libx264", "options": {**X264, "x264-params": "interlaced=1:b-adapt=0"}}, True),
    "high10.mp4": ({"codec": "libx264", "options": X264, "pixel_format": "yuv420p10le"}, True),
    "no-b.mp4": ({"codec": "libx264", "options": {"g": "24", "bf": "0"}}, False),
    "hevc.mp4": ({"codec": "libx265", "options": {"x265-params": f"{X265}:open-gop=0"}}, True),
    "hevc-open-gop.mkv": ({"codec": "libx265", "options": {"x265-params": f"{X265}:open-gop=1"}}, True),
    "hevc.ts": ({"codec": "libx265", "options": {"x265-params": X265}}, True),
    "hevc-layers.mp4": ({"codec": "libx265", "options": {"x265-params": f"{X265}:temporal-layers=3"}}, True),
    "vp9-layers.webm": ({"codec": "libvpx-vp9", "options": LAYERS}, True),
    "vp9.webm": ({"codec": "libvpx-vp9", "options": {"g": "24", "cpu-used": "8", "lag-in-frames": "16"}}, False),
    "av1.mp4": ({"codec": "libsvtav1", "options": SVT}, True),
    "av1-grain.mkv": ({"codec": "libsvtav1", "options": {**SVT, "svtav1-params": "lp=1:film-grain=8"}}, True),
    "av1-libaom.mp4": ({}, True),
    "mpeg2.mpg": ({"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}}, False),  # no rule: all are decoded
}


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory):
    """Name -> (path, each frame of a full decode by its time), made once when first asked for."""
    folder = tmp_path_factory.mktemp("streams")
    made: dict[str, tuple[Path, dict[int, np.ndarray]]] = {}

    def get(name: str) -> tuple[Path, dict[int, np.ndarray]]:
        if name not in made:
            path = folder / name
            if name == "av1-libaom.mp4":
                encode_by_libaom(clips.write_video(folder / "source.mp4", frames=FRAMES), path)
            else:
                clips.write_video(path, frames=FRAMES, **STREAMS[name][0])
            with av.open(str(path)) as container:
                made[name] = (path, {frame.pts: frame.to_ndarray() for frame in container.decode(video=0)})
        return made[name]

    return get


def encode_by_libaom(source: Path, path: Path) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", source, "-c:v", "libaom-av1", "-cpu-used", "8"]
    subprocess.run([*command, "-g", "24", "-lag-in-frames", "19", "-crf", "40", path], check=True)


def assert_equal_to_full_decode(path: Path, reference: dict[int, np.ndarray], wanted: np.ndarray, threads: int) -> int:
    """Returns how many packets a decoder would see without leaving any out."""
    info, table = probe(str(path))
    got = dict(pyav.read_pyav(info, table, wanted, thread_count=threads))
    assert sorted(got) == wanted.tolist()
    for entry, frame in got.items():
        np.testing.assert_array_equal(frame.to_ndarray(), reference[int(table.ticks[table.order[entry]])])
    return sum(one.stop - one.start + 1 for one in decode_ranges(table, wanted))


@pytest.mark.parametrize("name", STREAMS)
def test_wanted_frames_are_those_of_a_full_decode_though_packets_are_left_out(streams, fed, name) -> None:
    path, reference = streams(name)
    assert len(reference) == FRAMES
    rng = np.random.default_rng(len(name))
    planned = 0
    for count in (1, 1, 1, 2, 3, 5, FRAMES):
        wanted = np.sort(rng.permutation(FRAMES)[:count])
        planned += assert_equal_to_full_decode(path, reference, wanted, 1 + count % 2)
    assert (fed.packets < planned) == STREAMS[name][1]
    assert fed.packets <= planned


@pytest.mark.parametrize("name", ["pyramid.mp4", "hevc-layers.mp4", "vp9-layers.webm", "av1.mp4", "av1-libaom.mp4"])
def test_looking_ahead_in_short_stretches_changes_no_pixel(streams, fed, monkeypatch, name) -> None:
    monkeypatch.setattr(pyav, "_CHUNK_BYTES", 3000)
    path, reference = streams(name)
    planned = assert_equal_to_full_decode(path, reference, np.array([7, 22, 45]), 1)
    assert fed.packets <= planned


@pytest.mark.parametrize("name", ["pyramid.mp4", "hevc.mp4", "av1.mp4"])
def test_less_than_the_planned_packets_are_decoded_by_a_third(streams, fed, name) -> None:
    path, reference = streams(name)
    planned = assert_equal_to_full_decode(path, reference, np.array([20, 46]), 1)
    assert fed.packets < 0.67 * planned


def test_damage_in_packets_left_out_costs_nothing(streams, tmp_path) -> None:
    path, _ = streams("pyramid.mp4")
    _, table = probe(str(path))
    with av.open(str(path)) as container:
        left_out = sieve("h264", container.streams.video[0].codec_context.extradata)
        spare = [p for p in container.demux(video=0) if p.size and left_out([bytes(p)], [False], True) == [None]]
    data = bytearray(path.read_bytes())
    for packet in spare:
        data[packet.pos + 8 : packet.pos + packet.size] = bytes(packet.size - 8)  # behind length and slice header
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(data)
    lost = {packet.pts for packet in spare}
    entries = [e for e in range(FRAMES) if int(table.ticks[table.order[e]]) not in lost]
    whole, damaged = (decode(str(p), table.seconds[entries], sizes=[None] * len(entries)) for p in (path, bad))
    assert 10 < len(entries) < FRAMES - 10
    assert all(np.array_equal(a, b) for a, b in zip(whole.pixels, damaged.pixels, strict=True))


# --- parsing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "av1"])
@settings(max_examples=60, deadline=None)
@given(extradata=st.binary(max_size=40), packets=st.lists(st.binary(max_size=60), min_size=1, max_size=4))
def test_bytes_that_make_no_sense_are_all_fed(codec, extradata, packets) -> None:
    kept = sieve(codec, extradata)(packets, [True] * len(packets), True)
    assert kept == packets


@pytest.mark.parametrize("name", ["pyramid.mp4", "hevc.mp4", "av1.mp4", "vp9-layers.webm"])
def test_bit_flips_in_headers_never_make_parsing_fail(streams, name) -> None:
    path, _ = streams(name)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        codec, extradata = context.codec.canonical_name, context.extradata
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    rng = np.random.default_rng(7)
    for _ in range(40):
        bad = []
        for packet in packets:
            data = bytearray(packet)
            data[int(rng.integers(min(12, len(data))))] ^= 1 << int(rng.integers(8))
            bad.append(bytes(data))
        head = bytearray(extradata or b"")
        if head:
            head[int(rng.integers(len(head)))] ^= 1 << int(rng.integers(8))
        kept = sieve(codec, bytes(head))(bad, [n % 5 == 0 for n in range(len(bad))], True)
        assert len(kept) == len(bad)
        assert all(payload is None or len(payload) <= len(packet) for payload, packet in zip(kept, bad, strict=True))


def test_units_behind_lengths_and_behind_start_codes_are_the_same() -> None:
    units = [b"\x67abc", b"\x68d", b"\x65" + bytes(range(1, 40))]
    behind_lengths = b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)
    behind_codes = b"".join(b"\0\0\0\1" + unit for unit in units)
    assert list(nal_units(behind_lengths, 4)) == units
    assert [unit.rstrip(b"\0") for unit in nal_units(behind_codes, 0)] == units
    for bad in (behind_lengths[:-1], b"\0\0\0\0", b"\0\0"):
        with pytest.raises(EndOfBitsError):
            list(nal_units(bad, 4))


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=20))
def test_exp_golomb_numbers_are_read_back(numbers) -> None:
    text = "".join(f"{'0' * (len(f'{n + 1:b}') - 1)}{n + 1:b}" for n in numbers)
    text += "1" * (-len(text) % 8)
    bits = Bits(int(text, 2).to_bytes(len(text) // 8, "big"))
    assert [bits.exp_golomb() for _ in numbers] == numbers
