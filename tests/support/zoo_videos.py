"""Wrong videos: what was done to which good file, and the outcome that it must get."""

import struct

from tests.support.structure import find, packets, pieces
from tests.support.zoo_edits import (
    Edit,
    cut,
    exchanged,
    field,
    flips,
    noise,
    noise_in,
    nulls,
    put,
    removed,
    renamed,
    replaced,
    share,
    size,
    then,
)
from tests.support.zoo_good import Wrong, good


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


def _nested(data: bytes) -> bytes:
    body = b""
    for _ in range(2000):
        body = _box(b"moov", body)
    return data[:32] + body


def _packets_backwards(data: bytes) -> bytes:
    """The first 16 bytes of each packet, in the order of the last to the first."""
    found = packets(data)
    starts = [data[p.start : p.start + 16] for p in found]
    for piece, start in zip(found, reversed(starts), strict=True):
        data = put(data, piece.start, start)
    return data


def _other_prores_size(data: bytes) -> bytes:
    for piece in packets(data):
        data = put(data, piece.start + 16, struct.pack(">HH", 8192, 8192))  # RDD 36, 5.1: horizontal and vertical size
    return data


def _huge_matroska(data: bytes) -> bytes:
    """PixelWidth and PixelHeight, widened to two bytes each."""
    for kind in ("b0", "ba"):
        piece = find(data, kind)
        data = exchanged(data, pieces(data), piece.start, piece.stop, bytes.fromhex(kind + "82ffff"))
    return data


def _bare_without(unit_type: int) -> Edit:
    """An H.264 byte stream without the units of a type (5: key frames, 7: SPS, 8: PPS)."""
    kinds = [f"{importance << 5 | unit_type:02x}" for importance in range(4)]
    return removed(*kinds)


def _cut_in_frame(data: bytes) -> bytes:
    return data[: find(data, "FRAME", nth=4).body + 99]


def _halves_of(data: bytes) -> bytes:
    """NULs in the second half of each packet."""
    for piece in packets(data):
        middle = (piece.start + piece.stop) // 2
        data = put(data, middle, bytes(piece.stop - middle))
    return data


_HUGE, _FAST = b"\xff" * 4, "index in front.mp4"
_SAMPLE_TABLES = ("stsz", "stco", "stsc", "stts", "ctts", "stss")

_MP4 = [
    Wrong("cut in the first box.mp4", "corrupt", _FAST, lambda data: data[:12]),
    Wrong("cut before the index.mp4", "corrupt", _FAST, cut("moov")),
    Wrong("cut in the index.mp4", "corrupt", _FAST, cut("moov", inside=True)),
    Wrong("cut in the sample sizes.mp4", "corrupt", _FAST, cut("stsz", inside=True)),
    Wrong("cut before the media.mp4", "no_frames", _FAST, cut("mdat")),
    Wrong("cut behind the media's head.mp4", "no_frames", _FAST, lambda data: data[: find(data, "mdat").body]),
    Wrong("download of a quarter.mp4", "corrupt", _FAST, share(0.25)),
    Wrong("download of three quarters.mp4", "partial", _FAST, share(0.75)),
    Wrong("download without its index.mp4", "corrupt", "h264.mp4", share(0.5)),
    Wrong("second half.mp4", "not_video", _FAST, lambda data: data[len(data) // 2 :]),
    Wrong("index of NULs.mp4", "corrupt", _FAST, nulls("moov")),
    Wrong("index taken out.mp4", "corrupt", "h264.mp4", removed("moov")),
    Wrong("index of size 0.mp4", "corrupt", "h264.mp4", size("mvhd", 0)),
    Wrong("index too long.mp4", "ok", _FAST, size("moov", 2**32 - 1)),
    Wrong("track of size 1.mp4", "corrupt", _FAST, size("trak", 1)),
    Wrong("boxes in boxes in boxes.mp4", "corrupt", "h264.mp4", _nested),
    Wrong("media moved.mp4", "corrupt", _FAST, replaced(b"mdat", bytes(500) + b"mdat")),
    Wrong("media of NULs.mp4", "corrupt", _FAST, nulls("mdat")),
    Wrong("media of another file.mp4", "partial", _FAST, lambda data: field("mdat", 0, good("still.jpg") * 4)(data)),
    Wrong("four thousand million samples.mp4", "corrupt", _FAST, field("stsz", 8, _HUGE)),
    Wrong("no samples.mp4", "no_frames", _FAST, field("stsz", 8, bytes(4))),
    Wrong("samples of 4 GB.mp4", "no_frames", _FAST, field("stsz", 12, _HUGE * 20)),
    Wrong("samples all of 1 byte.mp4", "corrupt", _FAST, field("stsz", 4, b"\0\0\0\1")),
    Wrong("samples at 0.mp4", "corrupt", _FAST, field("stco", 8, bytes(4))),
    Wrong("samples beyond the end.mp4", "no_frames", _FAST, field("stco", 8, b"\x7f\xff\xff\xff")),
    Wrong("chunks without samples.mp4", "ok", _FAST, field("stsc", 8, bytes(8))),
    Wrong("times with no unit.mp4", "ok", _FAST, field("mdhd", 12, bytes(4))),
    Wrong("no film time unit.mp4", "ok", _FAST, field("mvhd", 12, bytes(4))),
    Wrong("frames that last for ever.mp4", "ok", _FAST, field("stts", 12, b"\x7f\xff\xff\xff")),
    Wrong("frames of no time.mp4", "ok", _FAST, field("stts", 12, bytes(4))),
    Wrong("duration of 4 thousand million.mp4", "ok", _FAST, field("mdhd", 16, _HUGE)),
    Wrong("edit list of rubbish.mp4", "no_frames", _FAST, field("elst", 8, b"\x7f\xff\xff\xff" * 2 + b"\x80\0\0\0")),
    Wrong("pictures of 65535x65535 in the header.mp4", "ok", _FAST, field("avc1", 24, _HUGE)),  # the stream knows
    Wrong("pictures of 0x0 in the header.mp4", "ok", _FAST, field("tkhd", 76, bytes(8))),
    Wrong("unknown codec.mp4", "unsupported", _FAST, renamed(b"avc1", b"zzz9")),
    Wrong("encrypted.mp4", "unsupported", _FAST, renamed(b"avc1", b"encv")),
    Wrong("h264 called hevc.mp4", "corrupt", _FAST, renamed(b"avc1", b"hvc1")),
    Wrong("no decoder settings.mp4", "corrupt", _FAST, removed("avcC")),
    Wrong("decoder settings of NULs.mp4", "corrupt", _FAST, nulls("avcC")),
    Wrong("second frame damaged.mp4", "partial", _FAST, noise(1, 2)),
    Wrong("most frames damaged.mp4", "corrupt", _FAST, noise(1)),
    Wrong("bits flipped.mp4", "corrupt", _FAST, flips(seed=1, count=2000, start=0.2)),
    Wrong("frames in the wrong order.mp4", "corrupt", _FAST, _packets_backwards),
    Wrong("hevc with damaged frames.mp4", "corrupt", "hevc.mp4", noise()),
    Wrong("sound and an empty video.mp4", "no_frames", "sound too.mp4", nulls(*_SAMPLE_TABLES)),
    Wrong("sound.mp4", "not_video", "sound.m4a", lambda data: data),
    Wrong("fragments cut in the first.mp4", "no_frames", "fragments.mp4", cut("moof", inside=True)),
    Wrong("fragments cut in the third.mp4", "ok", "fragments.mp4", cut("moof", nth=2, inside=True)),
    Wrong("last fragment lies of its samples.mp4", "corrupt", "fragments.mp4", field("trun", 7, b"\x28", nth=5)),
    Wrong("fragments lie of samples.mp4", "too_large", "fragments.mp4", field("trun", 4, b"\x0f\xff\xff\xff")),
    Wrong("prores of noise.mov", "corrupt", "prores.mov", noise(skip=0)),
    Wrong("prores of another size.mov", "corrupt", "prores.mov", _other_prores_size),
]

_MATROSKA = [
    Wrong("words behind the first bytes.mkv", "corrupt", "h264.mkv", lambda data: data[:4] + b"Nothing here. " * 99),
    Wrong("header only.webm", "no_frames", "vp9.webm", cut("1f43b675")),
    Wrong("cut in the track.webm", "corrupt", "vp9.webm", cut("1654ae6b", inside=True)),
    Wrong("half.mkv", "partial", "h264.mkv", share(0.6)),
    Wrong("segment of 2^56 bytes.mkv", "ok", "h264.mkv", size("18538067", 2**56 - 1)),
    Wrong("cluster too long.mkv", "ok", "h264.mkv", size("1f43b675", 2**40)),
    Wrong("cluster too short.mkv", "ok", "h264.mkv", size("1f43b675", 900)),
    Wrong("no tracks.mkv", "corrupt", "h264.mkv", removed("1654ae6b")),
    Wrong("pictures of 65535x65535 in the header.webm", "ok", "vp9.webm", _huge_matroska),
    Wrong("unknown codec.mkv", "unsupported", "h264.mkv", renamed(b"V_MPEG4/ISO/AVC", b"V_NOBODYKNOWSIT")),
    Wrong("one frame damaged.webm", "partial", "vp9.webm", noise(18, 19)),
    Wrong("frames damaged.webm", "corrupt", "vp9.webm", noise()),
    Wrong("frames damaged.mkv", "corrupt", "av1.mkv", noise(skip=4)),
]

_OTHERS = [
    Wrong("no index.avi", "ok", "mpeg4.avi", removed("idx1")),
    Wrong("rate of 1 over 0.avi", "ok", "mpeg4.avi", field("strh", 20, bytes(4))),
    Wrong("million frames declared.avi", "ok", "mpeg4.avi", field("avih", 16, b"\0\0\x10\0")),
    Wrong("pictures of 0x0.avi", "ok", "mpeg4.avi", field("strf", 4, bytes(8))),
    Wrong("cut in the header.avi", "corrupt", "mpeg4.avi", cut("strf")),
    Wrong("list of 4 GB.avi", "ok", "mpeg4.avi", size("LIST", 2**32 - 1, nth=1)),
    Wrong("half a jpeg each.avi", "corrupt", "mjpeg.avi", _halves_of),
    Wrong("tags of 16 MB.flv", "corrupt", "flv1.flv", size("tag9", 2**24 - 1)),
    Wrong("header only.flv", "corrupt", "flv1.flv", lambda data: data[:13]),
    Wrong("half.flv", "partial", "flv1.flv", share(0.6)),
    Wrong("frames damaged.flv", "corrupt", "flv1.flv", noise()),
    Wrong("no tables.ts", "ok", "h264.ts", removed("0", "4096")),
    Wrong("every third packet lost.ts", "corrupt", "h264.ts", removed("256", nth=lambda n: n % 3 == 2)),
    Wrong("starts within a packet.ts", "ok", "h264.ts", lambda data: data[100:]),
    Wrong("half.mpg", "corrupt", "mpeg2.mpg", share(0.5)),
    Wrong("no sequence header.mpg", "corrupt", "mpeg2.mpg", replaced(b"\0\0\1\xb3", b"\0\0\1\xb2")),
    Wrong("only its first pages.ogv", "no_frames", "vp8.ogv", cut("page", nth=2)),
    Wrong("pages damaged.ogv", "no_frames", "vp8.ogv", then(*(noise_in("page", nth=n, skip=0) for n in range(2, 8)))),
    Wrong("pictures of 65535x65535.y4m", "too_large", "raw.y4m", replaced(b"W96 H64", b"W65535 H65535")),
    Wrong("pictures of 0x0.y4m", "corrupt", "raw.y4m", replaced(b"W96 H64", b"W0 H0")),
    Wrong("header without a size.y4m", "corrupt", "raw.y4m", replaced(b"W96 H64 ", b"")),
    Wrong("cut in a frame.y4m", "ok", "raw.y4m", _cut_in_frame),
    Wrong("no SPS.h264", "not_video", "bare.h264", _bare_without(7)),
    Wrong("no PPS.h264", "not_video", "bare.h264", _bare_without(8)),
    Wrong("no key frame.h264", "corrupt", "bare.h264", _bare_without(5)),
]


VIDEOS = [*_MP4, *_MATROSKA, *_OTHERS]
