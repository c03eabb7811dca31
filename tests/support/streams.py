"""Streams of real encoders for the tests of pruning, and checks against the frames of a full decode."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np

from tests.support import clips
from vqa.media import probe
from vqa.media.backends import pyav
from vqa.media.bitstream.prune import pruner

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
H264 = {
    "pyramid.mp4": ({"codec": "libx264", "options": X264}, True),
    "pyramid.ts": ({"codec": "libx264", "options": X264}, True),  # start codes instead of lengths
    "flat-b.mkv": ({"codec": "libx264", "options": {"g": "24", "bf": "3", "x264-params": "b-pyramid=none"}}, True),
    "open-gop.mp4": ({"codec": "libx264", "options": {"g": "12", "bf": "3", "x264-params": "open_gop=1"}}, True),
    "field-coded.mp4": ({"codec": "libx264", "options": {**X264, "x264-params": "interlaced=1:b-adapt=0"}}, True),
    "high10.mp4": ({"codec": "libx264", "options": X264, "pixel_format": "yuv420p10le"}, True),
    "no-b.mp4": ({"codec": "libx264", "options": {"g": "24", "bf": "0"}}, False),
}
HEVC = {
    "hevc.mp4": ({"codec": "libx265", "options": {"x265-params": f"{X265}:open-gop=0"}}, True),
    "hevc-open-gop.mkv": ({"codec": "libx265", "options": {"x265-params": f"{X265}:open-gop=1"}}, True),
    "hevc.ts": ({"codec": "libx265", "options": {"x265-params": X265}}, True),
    "hevc-layers.mp4": ({"codec": "libx265", "options": {"x265-params": f"{X265}:temporal-layers=3"}}, True),
}
VP9 = {
    "vp9-layers.webm": ({"codec": "libvpx-vp9", "options": LAYERS}, True),
    "vp9.webm": ({"codec": "libvpx-vp9", "options": {"g": "24", "cpu-used": "8", "lag-in-frames": "16"}}, False),
}
AV1 = {
    "av1.mp4": ({"codec": "libsvtav1", "options": SVT}, True),
    "av1-grain.mkv": ({"codec": "libsvtav1", "options": {**SVT, "svtav1-params": "lp=1:film-grain=8"}}, True),
    "av1-libaom.mp4": ({}, True),
}
NO_RULE = {"mpeg2.mpg": ({"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}}, False)}
STREAMS = {**H264, **HEVC, **VP9, **AV1, **NO_RULE}


@dataclass
class Stream:
    """A file, each frame of its full decode by its time in ticks, and whether packets of it can be left out."""

    path: Path
    reference: dict[int, np.ndarray]
    is_pruned: bool


def write(name: str, folder: Path) -> Stream:
    """One of STREAMS, FRAMES frames long."""
    path, (how, is_pruned) = folder / name, STREAMS[name]
    if name == "av1-libaom.mp4":
        source = clips.write_video(folder / "source.mp4", frames=FRAMES)
        libaom = ["-c:v", "libaom-av1", "-cpu-used", "8", "-g", "24", "-lag-in-frames", "19", "-crf", "40"]
        clips.ffmpeg("-i", source, *libaom, path)
    else:
        clips.write_video(path, frames=FRAMES, **how)
    with av.open(str(path)) as container:
        return Stream(path, {frame.pts: frame.to_ndarray() for frame in container.decode(video=0)}, is_pruned)


def assert_frames_exact(stream: Stream, wanted: np.ndarray, *, threads: int = 1, prune: bool = True) -> int:
    """Decode the wanted frames and compare; returns how many packets a decoder would see without leaving any out."""
    info, table = probe(str(stream.path))
    got = dict(pyav.read_pyav(info, table, wanted, thread_count=threads, prune=prune))
    assert sorted(got) == wanted.tolist()
    for entry, frame in got.items():
        np.testing.assert_array_equal(frame.to_ndarray(), stream.reference[int(table.ticks[table.order[entry]])])
    return sum(one.stop - one.start + 1 for one in pyav.decode_ranges(table, wanted))


def assert_exact_though_pruned(stream: Stream, fed: SimpleNamespace, *, seed: int) -> None:
    """Single frames, several and all: those of a full decode, from fewer packets where the stream allows it."""
    assert len(stream.reference) == FRAMES
    rng = np.random.default_rng(seed)
    planned = 0
    for count in (1, 1, 1, 2, 3, 5, FRAMES):
        wanted = np.sort(rng.permutation(FRAMES)[:count])
        planned += assert_frames_exact(stream, wanted, threads=1 + count % 2)
    assert (fed.packets < planned) == stream.is_pruned
    assert fed.packets <= planned


def assert_flipped_headers_parse(stream: Stream) -> None:
    """Bit flips in packet headers and extradata never make the pruner fail or lengthen a packet."""
    with av.open(str(stream.path)) as container:
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
        kept = pruner(codec, bytes(head))(bad, [n % 5 == 0 for n in range(len(bad))], True)
        assert len(kept) == len(bad)
        assert all(payload is None or len(payload) <= len(packet) for payload, packet in zip(kept, bad, strict=True))
