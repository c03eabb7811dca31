"""Wrong pictures, and files that are no media at all: what was done to which good file, and the outcome it must get."""

import gzip
import struct
import zlib

import numpy as np

from tests.support.structure import find, pieces
from tests.support.zoo_edits import Edit, cut, field, noise_in, put, share, size, sized
from tests.support.zoo_good import Wrong

_M3U8 = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n%s\n#EXT-X-ENDLIST\n"
_DASH = b"""<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>
<Representation id="0" mimeType="video/mp4"><BaseURL>%s</BaseURL></Representation></AdaptationSet></Period></MPD>"""
_HTML = b"<!DOCTYPE html><html><head><title>403 Forbidden</title></head><body>You are not welcome</body></html>\n"
_POINTER = b"version https://git-lfs.github.com/spec/v1\nsize 9\n"
_SDP = b"v=0\nm=video 5004 RTP/AVP 96\nc=IN IP4 127.0.0.1\na=rtpmap:96 H264/90000\n"


def _just(data: bytes) -> Edit:
    return lambda _: data


def _png(width: int, height: int, *, rows: int) -> Edit:
    """A picture that claims any size and carries a few rows of zeros, packed well."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    lines = zlib.compress(bytes((width * 3 + 1) * rows), 9)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return _just(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", lines) + chunk(b"IEND", b""))


def _canvas(side: int) -> Edit:
    return field("VP8X", 4, (side - 1).to_bytes(3, "little") * 2)


def _no_delay(data: bytes) -> bytes:
    for piece in pieces(data):
        if piece.kind == "control":
            data = put(data, piece.start + 4, bytes(2))
    return data


def _two_pictures(data: bytes) -> bytes:
    piece = find(data, "VP8 ")
    data += data[piece.start : piece.stop]
    return sized(data, pieces(data)[0], len(data) - 8)


PICTURES = [
    Wrong("cut in the header.gif", "corrupt", "moving.gif", lambda data: data[:9]),
    Wrong("half.gif", "partial", "moving.gif", share(0.5)),
    Wrong("pictures of 65535x65535.gif", "too_large", "moving.gif", lambda data: put(data, 6, b"\xff" * 4)),
    Wrong("no delay.gif", "ok", "moving.gif", _no_delay),
    Wrong("bomb.png", "too_large", "", _png(60_000, 60_000, rows=9)),
    Wrong("mostly missing.png", "corrupt", "", _png(1000, 1000, rows=9)),
    Wrong("picture of 0x0.png", "corrupt", "", _png(0, 0, rows=1)),
    Wrong("half.png", "corrupt", "still.png", share(0.5)),
    Wrong("noise.png", "corrupt", "still.png", noise_in("IDAT", skip=0)),
    Wrong("header only.jpg", "corrupt", "still.jpg", lambda data: data[:20]),
    Wrong("no scan.jpg", "corrupt", "still.jpg", cut("da")),
    Wrong("half.jpg", "corrupt", "still.jpg", share(0.5)),
    Wrong("picture of 65535x65535.jpg", "too_large", "still.jpg", field("c0", 1, b"\xff" * 4)),
    Wrong("no frames.webp", "no_frames", "moving.webp", cut("ANMF")),
    Wrong("half.webp", "partial", "moving.webp", share(0.6)),
    Wrong("chunk of 4 GB.webp", "corrupt", "moving.webp", size("ANMF", 2**32 - 2)),
    Wrong("canvas of 16777216x16777216.webp", "too_large", "moving.webp", _canvas(1 << 24)),
    Wrong("canvas smaller than its frames.webp", "corrupt", "moving.webp", _canvas(8)),
    Wrong("noise.webp", "corrupt", "still.webp", noise_in("VP8 ")),
    Wrong("two pictures.webp", "ok", "still.webp", _two_pictures),  # the fuzzer's: was a video of no length
]

NOT_MEDIA = [
    Wrong("empty.mkv", "no_frames", "", _just(b"")),
    Wrong("one byte.mp4", "not_video", "", _just(b"\0")),
    Wrong("a million NULs.mp4", "not_video", "", _just(bytes(1_000_000))),
    Wrong("random.webm", "not_video", "", lambda _: np.random.default_rng(0).bytes(50_000)),
    Wrong("error page.mp4", "not_video", "", _just(_HTML * 20)),
    Wrong("packed.mp4", "not_video", "h264.mp4", lambda data: gzip.compress(data, mtime=0)),
    Wrong("pointer to a large file.mp4", "not_video", "", _just(_POINTER)),
    Wrong("subtitles.srt.mp4", "not_video", "", _just(b"1\n00:00:00,000 --> 00:00:02,000\nHello\n\n" * 9)),
    # Texts that name other files: none of them may be opened
    Wrong("playlist.m3u8", "not_video", "", _just(_M3U8 % b"/etc/passwd")),
    Wrong("playlist by url.mp4", "not_video", "", _just(_M3U8 % b"file:///etc/passwd")),
    Wrong("playlist of a good file.m3u8", "not_video", "", _just(_M3U8 % b"h264.mp4")),
    Wrong("list.ffconcat", "not_video", "", _just(b"ffconcat version 1.0\nfile /etc/passwd\n")),
    Wrong("manifest.mpd", "not_video", "", _just(_DASH % b"file:///etc/passwd")),
    Wrong("session.sdp", "not_video", "", _just(_SDP)),
]
