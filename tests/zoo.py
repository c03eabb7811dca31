"""Everything that goes wrong: files by maker (what was done to which good file), each with the outcome it must get.

`WRONG` holds damaged media, one maker a file; `make_zoo` a folder of them and of what file systems add (links, pipes,
folders, names), for whole runs.
"""

import gzip
import os
import struct
import zlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import clips
import numpy as np
from structure import Piece, find, packets, pieces

SIZE = {"width": 96, "height": 64}
_INTRA = {"options": {"g": "5", "bf": "0"}}
GOOD: dict[str, tuple[str, Callable[..., Any], dict[str, Any]]] = {
    "h264.mp4": ("mp4", clips.write_video, {**SIZE, "frames": 20, "options": {"g": "8"}}),
    "index in front.mp4": (
        "mp4",
        clips.write_video,
        {**SIZE, "frames": 20, "options": {"g": "8"}, "container_options": {"movflags": "faststart"}},
    ),
    "fragments.mp4": (
        "mp4",
        clips.write_video,
        {**SIZE, "frames": 20, **_INTRA, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    ),
    "sound too.mp4": ("mp4", clips.write_video, {**SIZE, "frames": 20, "audio": True}),
    "hevc.mp4": (
        "mp4",
        clips.write_video,
        {**SIZE, "frames": 20, "codec": "libx265", "options": {"x265-params": "keyint=8:pools=1:log-level=0"}},
    ),
    "prores.mov": (
        "mov",
        clips.write_video,
        {**SIZE, "frames": 6, "codec": "prores_ks", "pixel_format": "yuv422p10le"},
    ),
    "h264.mkv": ("mkv", clips.write_video, {**SIZE, "frames": 20, "options": {"g": "8"}}),
    "vp9.webm": ("webm", clips.write_video, {**SIZE, "frames": 20, "codec": "libvpx-vp9", "options": {"g": "8"}}),
    "av1.mkv": (
        "mkv",
        clips.write_video,
        {**SIZE, "frames": 10, "codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "lp=1"}},
    ),
    "mpeg4.avi": ("avi", clips.write_video, {**SIZE, "frames": 20, "codec": "mpeg4", "options": {"g": "8"}}),
    "h264.ts": ("ts", clips.write_video, {**SIZE, "frames": 20, "options": {"g": "8"}}),
    "flv1.flv": ("flv", clips.write_video, {**SIZE, "frames": 20, "codec": "flv", "options": {"g": "8"}}),
    "mpeg2.mpg": (
        "mpg",
        clips.write_video,
        {**SIZE, "frames": 20, "codec": "mpeg2video", "options": {"g": "8"}, "container": "mpeg"},
    ),
    "vp8.ogv": (
        "ogv",
        clips.write_video,
        {**SIZE, "frames": 20, "codec": "libvpx", "options": {"g": "8"}, "container": "ogg"},
    ),
    "raw.y4m": ("y4m", clips.write_video, {**SIZE, "frames": 6, "codec": "rawvideo", "container": "yuv4mpegpipe"}),
    "bare.h264": ("h264", clips.write_video, {**SIZE, "frames": 20, "options": {"g": "8"}}),
    "moving.gif": ("gif", clips.write_animation, {**SIZE, "frames": 6}),
    "moving.webp": ("webp", clips.write_animation, {**SIZE, "frames": 6}),
    "still.png": ("png", clips.write_image, SIZE),
    "still.jpg": ("jpg", clips.write_image, SIZE),
    "still.webp": ("webp", clips.write_image, SIZE),
    "sound.m4a": ("m4a", clips.write_audio, {}),
}


@cache
def good(name: str) -> bytes:
    """A good file of `GOOD`, small, made once a process by real encoders."""
    suffix, make, options = GOOD[name]
    with TemporaryDirectory() as folder:
        return Path(make(Path(folder) / f"good.{suffix}", **options)).read_bytes()


# --- what can be done to bytes --------------------------------------------------------------------------------------


def put(data: bytes, at: int, new: bytes) -> bytes:
    """Other bytes at a place; the length stays."""
    return data[:at] + new + data[at + len(new) :]


def sized(data: bytes, piece: Piece, size: int) -> bytes:
    """Another number in a piece's size field."""
    order = "little" if data.startswith(b"RIFF") else "big"
    mark = 0x80 << 7 * (piece.size_bytes - 1) if data.startswith(b"\x1a\x45") else 0  # Matroska marks the length
    return put(data, piece.size_at, (mark | size).to_bytes(piece.size_bytes, order))  # type: ignore[arg-type]


def zeroed(data: bytes, piece: Piece) -> bytes:
    """A piece with a body of NULs."""
    return put(data, piece.body, bytes(piece.stop - piece.body))


def without(data: bytes, piece: Piece) -> bytes:
    """A piece taken out."""
    return data[: piece.start] + data[piece.stop :]


def noisy(data: bytes, places: list[Piece], *, seed: int = 0, skip: int = 8) -> bytes:
    """Random bytes in pieces, but for the first `skip` of each body."""
    rng = np.random.default_rng(seed)
    for piece in places:
        start = piece.body + skip
        data = put(data, start, rng.bytes(max(0, piece.stop - start)))
    return data


def in_box(name: str, kind: str, offset: int, new: bytes) -> bytes:
    """Other bytes inside the first piece of a kind of a good file, at an offset into its body."""
    data = good(name)
    return put(data, find(data, kind).body + offset, new)


def cut(name: str, kind: str, *, nth: int = 0, inside: bool = False) -> bytes:
    """A good file up to a piece, or to the middle of it."""
    data = good(name)
    piece = find(data, kind, nth=nth)
    return data[: (piece.body + piece.stop) // 2 if inside else piece.start]


def renamed(name: str, old: bytes, new: bytes) -> bytes:
    """Each occurrence of a tag replaced, but for the brands in the first 64 bytes."""
    data = good(name)
    return data[:64] + data[64:].replace(old, new)


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


def _nested(depth: int) -> bytes:
    body = b""
    for _ in range(depth):
        body = _box(b"moov", body)
    return good("h264.mp4")[:32] + body


def _png(width: int, height: int, *, rows: int) -> bytes:
    """A picture that claims any size and carries a few rows of zeros, packed well."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    lines = zlib.compress(bytes((width * 3 + 1) * rows), 9)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def _audio_with_empty_video() -> bytes:
    """The video track's sample tables say 0 samples; the sound is whole."""
    data = good("sound too.mp4")
    for kind in ("stsz", "stco", "stsc", "stts", "ctts", "stss"):
        box = find(data, kind)
        data = put(data, box.body, bytes(box.stop - box.body))
    return data


def _frames_of(name: str) -> list[Piece]:
    return packets(good(name))


def _only_first(name: str, count: int) -> bytes:
    data = good(name)
    return data[: _frames_of(name)[count].start]


def _packets_backwards(name: str) -> bytes:
    """The bytes of equal length at the start of each packet, in the order of the last to the first."""
    data, found = good(name), _frames_of(name)
    starts = [data[p.start : p.start + 16] for p in found]
    for piece, start in zip(found, reversed(starts), strict=True):
        data = put(data, piece.start, start)
    return data


def _every(name: str, kind: str, keep: Callable[[int], bool]) -> bytes:
    """Only those pieces of a kind whose number passes."""
    data, count = good(name), 0
    gone: list[Piece] = []
    for piece in pieces(data):
        if piece.kind == kind:
            if not keep(count):
                gone.append(piece)
            count += 1
    for piece in reversed(gone):
        data = without(data, piece)
    return data


def _bare_without(kinds: set[str]) -> bytes:
    """The H.264 byte stream without units of some types (7: SPS, 8: PPS)."""
    data = good("bare.h264")
    for piece in reversed(pieces(data)):
        if str(int(piece.kind, 16) & 31) in kinds:
            data = without(data, piece)
    return data


def _webp_canvas(width: int, height: int) -> bytes:
    data = good("moving.webp")
    return put(
        data,
        find(data, "VP8X").body + 4,
        (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"),
    )


def _spread(name: str, *, seed: int, count: int, start: float) -> bytes:
    data = bytearray(good(name))
    rng = np.random.default_rng(seed)
    for at in rng.integers(int(len(data) * start), len(data), count):
        data[int(at)] ^= 1 << int(rng.integers(8))
    return bytes(data)


_M3U8 = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n%s\n#EXT-X-ENDLIST\n"
_DASH = b"""<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>
<Representation id="0" mimeType="video/mp4"><BaseURL>%s</BaseURL></Representation></AdaptationSet></Period></MPD>"""
_HTML = b"<!DOCTYPE html><html><head><title>403 Forbidden</title></head><body>You are not welcome</body></html>\n"


class Wrong(NamedTuple):
    """One wrong file: its name says what was done; `outcome` is a status (ok, partial) or an error kind."""

    name: str
    outcome: str
    make: Callable[[], bytes]


def _all() -> list[Wrong]:
    found: list[Wrong] = []

    def add(name: str, outcome: str, make: Callable[..., bytes], *args: Any, **options: Any) -> None:
        found.append(Wrong(name, outcome, partial(make, *args, **options)))

    huge, fast = b"\xff" * 4, "index in front.mp4"
    # Not media at all
    add("empty.mkv", "no_frames", bytes)
    add("one byte.mp4", "not_video", bytes, [0])
    add("a million NULs.mp4", "not_video", bytes, 1_000_000)
    add("random.webm", "not_video", lambda: np.random.default_rng(0).bytes(50_000))
    add("error page.mp4", "not_video", lambda: _HTML * 20)
    add("packed.mp4", "not_video", lambda: gzip.compress(good("h264.mp4"), mtime=0))
    add("pointer to a large file.mp4", "not_video", lambda: b"version https://git-lfs.github.com/spec/v1\nsize 9\n")
    add("subtitles.srt.mp4", "not_video", lambda: b"1\n00:00:00,000 --> 00:00:02,000\nHello\n\n" * 9)
    # Texts that name other files: none of them may be opened
    add("playlist.m3u8", "not_video", lambda: _M3U8 % b"/etc/passwd")
    add("playlist by url.mp4", "not_video", lambda: _M3U8 % b"file:///etc/passwd")
    add("playlist of a good file.m3u8", "not_video", lambda: _M3U8 % b"h264.mp4")
    add("list.ffconcat", "not_video", lambda: b"ffconcat version 1.0\nfile /etc/passwd\n")
    add("manifest.mpd", "not_video", lambda: _DASH % b"file:///etc/passwd")
    add(
        "session.sdp",
        "not_video",
        lambda: b"v=0\nm=video 5004 RTP/AVP 96\nc=IN IP4 127.0.0.1\na=rtpmap:96 H264/90000\n",
    )
    # Streams that are none to judge
    add("sound.mp4", "not_video", lambda: good("sound.m4a"))
    add("sound and an empty video.mp4", "no_frames", _audio_with_empty_video)
    # mp4: cut
    add("cut in the first box.mp4", "corrupt", lambda: good(fast)[:12])
    add("cut before the index.mp4", "corrupt", cut, fast, "moov")
    add("cut in the index.mp4", "no_frames", cut, fast, "moov", inside=True)
    add("cut in the sample sizes.mp4", "corrupt", cut, fast, "stsz", inside=True)
    add("cut before the media.mp4", "no_frames", cut, fast, "mdat")
    add("cut behind the media's head.mp4", "no_frames", lambda: good(fast)[: find(good(fast), "mdat").body])
    add("download of a quarter.mp4", "corrupt", lambda: good(fast)[: len(good(fast)) // 4])
    add("download of three quarters.mp4", "partial", lambda: good(fast)[: len(good(fast)) * 3 // 4])
    add("download without its index.mp4", "corrupt", lambda: good("h264.mp4")[: len(good("h264.mp4")) // 2])
    add("second half.mp4", "not_video", lambda: good(fast)[len(good(fast)) // 2 :])
    # mp4: boxes that lie
    add("index of NULs.mp4", "not_video", lambda: zeroed(good(fast), find(good(fast), "moov")))
    add("index taken out.mp4", "corrupt", lambda: without(good("h264.mp4"), find(good("h264.mp4"), "moov")))
    add("index of size 0.mp4", "not_video", lambda: sized(good("h264.mp4"), find(good("h264.mp4"), "mvhd"), 0))
    add("index too long.mp4", "ok", lambda: sized(good(fast), find(good(fast), "moov"), 2**32 - 1))
    add("track of size 1.mp4", "not_video", lambda: sized(good(fast), find(good(fast), "trak"), 1))
    add("boxes in boxes in boxes.mp4", "corrupt", _nested, 2000)
    add("media moved.mp4", "corrupt", lambda: good(fast).replace(b"mdat", bytes(500) + b"mdat"))
    add("media of NULs.mp4", "corrupt", lambda: zeroed(good(fast), find(good(fast), "mdat")))
    add("media of another file.mp4", "partial",
        lambda: put(good(fast), find(good(fast), "mdat").body, good("still.jpg") * 4)[: len(good(fast))])  # fmt: skip
    add("four thousand million samples.mp4", "corrupt", in_box, fast, "stsz", 8, huge)
    add("no samples.mp4", "no_frames", in_box, fast, "stsz", 8, bytes(4))
    add("samples of 4 GB.mp4", "no_frames", in_box, fast, "stsz", 12, huge * 20)
    add("samples all of 1 byte.mp4", "corrupt", in_box, fast, "stsz", 4, b"\0\0\0\1")
    add("samples at 0.mp4", "corrupt", in_box, fast, "stco", 8, bytes(4))
    add("samples beyond the end.mp4", "no_frames", in_box, fast, "stco", 8, b"\x7f\xff\xff\xff")
    add("chunks without samples.mp4", "ok", in_box, fast, "stsc", 8, bytes(8))
    add("times with no unit.mp4", "ok", in_box, fast, "mdhd", 12, bytes(4))
    add("no film time unit.mp4", "ok", in_box, fast, "mvhd", 12, bytes(4))
    add("frames that last for ever.mp4", "ok", in_box, fast, "stts", 12, b"\x7f\xff\xff\xff")
    add("frames of no time.mp4", "ok", in_box, fast, "stts", 12, bytes(4))
    add("duration of 4 thousand million.mp4", "ok", in_box, fast, "mdhd", 16, huge)
    add("edit list of rubbish.mp4", "no_frames", in_box, fast, "elst", 8, b"\x7f\xff\xff\xff\x7f\xff\xff\xff\x80\0\0\0")
    add("pictures of 65535x65535.mp4", "ok", in_box, fast, "avc1", 0, b"")
    add("pictures of 0x0 in the header.mp4", "ok", in_box, fast, "tkhd", 76, bytes(8))
    add("unknown codec.mp4", "unsupported", renamed, fast, b"avc1", b"zzz9")
    add("encrypted.mp4", "unsupported", renamed, fast, b"avc1", b"encv")
    add("h264 called hevc.mp4", "corrupt", renamed, fast, b"avc1", b"hvc1")
    add("no decoder settings.mp4", "corrupt", lambda: without(good(fast), find(good(fast), "avcC")))
    add("decoder settings of NULs.mp4", "corrupt", lambda: zeroed(good(fast), find(good(fast), "avcC")))
    add("second frame damaged.mp4", "partial", lambda: noisy(good(fast), _frames_of(fast)[1:2]))
    add("most frames damaged.mp4", "corrupt", lambda: noisy(good(fast), _frames_of(fast)[1:]))
    add("bits flipped.mp4", "corrupt", _spread, fast, seed=1, count=2000, start=0.2)
    add("frames in the wrong order.mp4", "corrupt", _packets_backwards, fast)
    add("hevc with damaged frames.mp4", "corrupt", lambda: noisy(good("hevc.mp4"), _frames_of("hevc.mp4")))
    add("fragments cut in the first.mp4", "no_frames", cut, "fragments.mp4", "moof", inside=True)
    add("fragments cut in the third.mp4", "ok", cut, "fragments.mp4", "moof", nth=2, inside=True)
    add("fragments that lie of their samples.mp4", "too_large", in_box, "fragments.mp4", "trun", 4, b"\x0f\xff\xff\xff")
    add("prores of noise.mov", "corrupt", lambda: noisy(good("prores.mov"), _frames_of("prores.mov"), skip=0))
    add("prores of another size.mov", "too_large",
        lambda: noisy(good("prores.mov"), [p._replace(body=p.start + 16, stop=p.start + 20) for p in _frames_of("prores.mov")], skip=0))  # fmt: skip  # noqa: E501
    # Matroska, WebM
    add("header only.webm", "no_frames", cut, "vp9.webm", "1f43b675")
    add("cut in the track.webm", "corrupt", cut, "vp9.webm", "1654ae6b", inside=True)
    add("half.mkv", "ok", lambda: good("h264.mkv")[: len(good("h264.mkv")) * 6 // 10])
    add(
        "element of 2^56 bytes.mkv",
        "ok",
        lambda: sized(good("h264.mkv"), find(good("h264.mkv"), "18538067"), 2**56 - 1),
    )
    add("no tracks.mkv", "not_video", lambda: without(good("h264.mkv"), find(good("h264.mkv"), "1654ae6b")))
    add("pictures of 65535x65535.webm", "ok", lambda: _matroska_size("vp9.webm", 65535))
    add("unknown codec.mkv", "unsupported", renamed, "h264.mkv", b"V_MPEG4/ISO/AVC", b"V_NOBODYKNOWSIT")
    add("frames damaged.webm", "no_frames", lambda: noisy(good("vp9.webm"), _frames_of("vp9.webm"), skip=0))
    add("frames damaged.mkv", "corrupt", lambda: noisy(good("av1.mkv"), _frames_of("av1.mkv"), skip=4))
    # AVI, FLV, transport and programme streams, Ogg, Y4M, bare H.264
    add("no index.avi", "ok", lambda: without(good("mpeg4.avi"), find(good("mpeg4.avi"), "idx1")))
    add("rate of 1 over 0.avi", "ok", in_box, "mpeg4.avi", "strh", 20, bytes(4))
    add("million frames declared.avi", "ok", in_box, "mpeg4.avi", "avih", 16, b"\0\0\x10\0")
    add("pictures of 0x0.avi", "ok", in_box, "mpeg4.avi", "strf", 4, bytes(8))
    add("cut in the header.avi", "corrupt", cut, "mpeg4.avi", "strf")
    add("list of 4 GB.avi", "ok", lambda: sized(good("mpeg4.avi"), find(good("mpeg4.avi"), "LIST", nth=1), 2**32 - 1))
    add("tags of 16 MB.flv", "corrupt", lambda: sized(good("flv1.flv"), find(good("flv1.flv"), "tag9"), 2**24 - 1))
    add("header only.flv", "corrupt", lambda: good("flv1.flv")[:13])
    add("half.flv", "partial", lambda: good("flv1.flv")[: len(good("flv1.flv")) * 6 // 10])
    add("frames damaged.flv", "corrupt", lambda: noisy(good("flv1.flv"), _frames_of("flv1.flv"), skip=14))
    add("no tables.ts", "ok", lambda: _without_packets("h264.ts", {"0", "4096"}))
    add("every third packet lost.ts", "corrupt", _every, "h264.ts", "256", lambda n: n % 3 != 2)
    add("starts within a packet.ts", "ok", lambda: good("h264.ts")[100:])
    add("half.mpg", "corrupt", lambda: good("mpeg2.mpg")[: len(good("mpeg2.mpg")) // 2])
    add("no sequence header.mpg", "not_video", lambda: good("mpeg2.mpg").replace(b"\0\0\1\xb3", b"\0\0\1\xb2"))
    add("only its first pages.ogv", "no_frames", cut, "vp8.ogv", "page", nth=2)
    add("pages damaged.ogv", "no_frames", lambda: noisy(good("vp8.ogv"), pieces(good("vp8.ogv"))[2:], skip=0))
    add("pictures of 65535x65535.y4m", "corrupt", lambda: good("raw.y4m").replace(b"W96 H64", b"W65535 H65535"))
    add("pictures of 0x0.y4m", "corrupt", lambda: good("raw.y4m").replace(b"W96 H64", b"W0 H0"))
    add("header without a size.y4m", "corrupt", lambda: good("raw.y4m").replace(b"W96 H64 ", b""))
    add("cut in a frame.y4m", "ok", lambda: good("raw.y4m")[: find(good("raw.y4m"), "FRAME", nth=4).body + 99])
    add("no SPS.h264", "not_video", _bare_without, {"7"})
    add("no PPS.h264", "not_video", _bare_without, {"8"})
    add("no key frame.h264", "corrupt", _bare_without, {"5"})
    # Pictures
    add("cut in the header.gif", "corrupt", lambda: good("moving.gif")[:9])
    add("half.gif", "partial", lambda: good("moving.gif")[: len(good("moving.gif")) // 2])
    add("pictures of 65535x65535.gif", "corrupt", lambda: put(good("moving.gif"), 6, huge))
    add("no delay.gif", "ok", _gif_delay, 0)
    add("bomb.png", "corrupt", _png, 60_000, 60_000, rows=9)
    add("mostly missing.png", "corrupt", _png, 4000, 4000, rows=9)
    add("picture of 0x0.png", "corrupt", _png, 0, 0, rows=1)
    add("half.png", "corrupt", lambda: good("still.png")[: len(good("still.png")) // 2])
    add("noise.png", "corrupt", lambda: noisy(good("still.png"), [find(good("still.png"), "IDAT")], skip=0))
    add("header only.jpg", "corrupt", lambda: good("still.jpg")[:20])
    add("no scan.jpg", "corrupt", cut, "still.jpg", "da")
    add("picture of 65535x65535.jpg", "corrupt", in_box, "still.jpg", "c0", 1, huge)
    add("no frames.webp", "no_frames", lambda: good("moving.webp")[: find(good("moving.webp"), "ANMF").start])
    add("half.webp", "partial", lambda: good("moving.webp")[: len(good("moving.webp")) * 6 // 10])
    add("chunk of 4 GB.webp", "corrupt",
        lambda: sized(good("moving.webp"), find(good("moving.webp"), "ANMF"), 2**32 - 2))  # fmt: skip
    add("canvas of 16777216x16777216.webp", "too_large", _webp_canvas, 1 << 24, 1 << 24)
    add("canvas smaller than its frames.webp", "corrupt", _webp_canvas, 8, 8)
    add("noise.webp", "corrupt", lambda: noisy(good("still.webp"), [pieces(good("still.webp"))[-1]]))
    return found


def _matroska_size(name: str, side: int) -> bytes:
    """PixelWidth and PixelHeight (b0, ba), two bytes each once the muxer's one-byte values are widened over Void."""
    data = good(name)
    for kind in ("b0", "ba"):
        piece = find(data, kind)
        size = piece.stop - piece.body
        data = put(data, piece.body, min(side, 256**size - 1).to_bytes(size, "big"))
    return data


def _without_packets(name: str, kinds: set[str]) -> bytes:
    data = good(name)
    for piece in reversed(pieces(data)):
        if piece.kind in kinds:
            data = without(data, piece)
    return data


def _gif_delay(hundredths: int) -> bytes:
    data = good("moving.gif")
    for piece in pieces(data):
        if piece.kind == "control":
            data = put(data, piece.start + 4, struct.pack("<H", hundredths))
    return data


WRONG = _all()


# --- a folder for whole runs ----------------------------------------------------------------------------------------


def make_zoo(folder: Path) -> dict[str, str | None]:
    files = folder / "files"
    files.mkdir(parents=True)
    good = clips.write_video(files / "good.mp4", frames=20, container_options={"movflags": "faststart"})
    names = ["with space.mp4", "quo\"te's.mp4", "new\nline.mp4", "🎬 emoji.mp4", "[red]markup[-red].mp4", "-rf.mp4"]
    for name in names:
        (files / name).write_bytes(good.read_bytes())
    Path(os.fsdecode(os.fsencode(files) + b"/caf\xe9.mp4")).write_bytes(good.read_bytes())
    clips.write_image(files / "picture.png")
    (files / "empty.mp4").write_bytes(b"")
    clips.write_text(files / "text.mp4")
    clips.write_header_only(files / "header.mp4")
    clips.write_audio(files / "sound.m4a")
    (files / "sound.m4a").rename(files / "sound.mp4")
    clips.write_video(files / "no index.mp4", frames=20)
    clips.cut_off(files / "no index.mp4", 0.5)
    clips.cut_off(good, 0.25, out=files / "cut early.mp4")
    clips.flip_bits(good, seed=1, count=2000, start_share=0.2, out=files / "flipped.mp4")
    (files / "dangling.mp4").symlink_to("nowhere.mp4")
    os.mkfifo(files / "pipe.mp4")
    (files / "folder.mp4").mkdir()
    (files / "folder.mp4" / "inside.mp4").write_bytes(good.read_bytes())
    wanted: dict[str, str | None] = dict.fromkeys(["good.mp4", *names, "picture.png", "folder.mp4/inside.mp4"])
    wanted[f"file://{files}/caf%E9.mp4"] = None
    wanted |= {
        "empty.mp4": "no_frames",
        "text.mp4": "not_video",
        "header.mp4": "no_frames",
        "sound.mp4": "not_video",
        "no index.mp4": "corrupt",
        "cut early.mp4": "corrupt",
        "flipped.mp4": "corrupt",
        "dangling.mp4": "not_found",
        "pipe.mp4": "not_readable",
    }
    if os.geteuid():  # permissions do not stop root
        (files / "locked.mp4").write_bytes(good.read_bytes())
        (files / "locked.mp4").chmod(0)
        wanted["locked.mp4"] = "not_readable"
    (folder / "list.txt").write_text("missing.mp4\nfiles\nfar/missing too.mp4\ns3://bucket/a.mp4\n", encoding="utf-8")
    return wanted | {
        "missing.mp4": "not_found",
        "files": "not_readable",
        "far/missing too.mp4": "not_found",
        "s3://bucket/a.mp4": "unsupported",
    }
