"""Images: WebP and plain GIF by Pillow, EXIF turn, declared sizes, cut-off JPEGs.

FFmpeg reads no animated WebP (chunks: RFC 9649), takes a GIF whose frames have no control blocks for one frame, ignores
EXIF, and makes room for a picture before its size can be checked. Chunks and headers are parsed here since Pillow
decodes frames to learn their times, does not open a WebP that is cut off, and checks a PNG's checksum before it gives
the size.
"""

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vqa.errors import ClipError
from vqa.media.color.convert import on_white
from vqa.types import Pixels, Seconds

_SHORTEST_SECONDS = 0.010  # browsers show frames of at most this time for a tenth of a second
_DEFAULT_SECONDS = 0.100
_EXIF_ORIENTATION = 0x0112
# Orientation -> (clockwise turn in degrees, whether flipped upside down before it)
_TURNS: dict[object, tuple[int, bool]] = {
    **{1: (0, False), 3: (180, False), 6: (90, False), 8: (270, False)},
    **{4: (0, True), 2: (180, True), 5: (90, True), 7: (270, True)},
}
_MAX_HEADER_BYTES = 1 << 18
_Y4M_SIZE = re.compile(rb"YUV4MPEG2 (?=[^\n]*?\bW(\d{1,9})\b)(?=[^\n]*?\bH(\d{1,9})\b)")
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")  # all that have a body, and the end
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_JPEG_END = 0xD9
# What Pillow raises for damaged files.
_DAMAGED = (UnidentifiedImageError, EOFError, OSError, ValueError, SyntaxError, Image.DecompressionBombError)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameList:
    """Canvas of an animation, and size, duration and completeness of each frame."""

    width: int
    height: int
    sizes: NDArray[np.int64]  # [N] bytes
    duration_seconds: Seconds  # [N]; 0.0 for a still picture
    is_cut_off: NDArray[np.bool_]  # [N]


def is_webp(file: BinaryIO) -> bool:
    """Whether an open file begins as a WebP file does; rewinds it."""
    head = file.read(12)
    file.seek(0)
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def webp_table(uri: str, file: BinaryIO) -> FrameList:
    """Read the frames of a WebP from its chunk headers.

    Raises:
        ClipError: `corrupt` without a usable header, `no_frames` for an empty animation.
    """
    width = height = 0
    is_animated = False
    sizes: list[int] = []
    durations: list[float] = []
    cut_off: list[bool] = []
    end = file.seek(0, 2)
    position = 12
    while position + 8 <= end:
        file.seek(position)
        head = file.read(24)
        name, size = head[:4], struct.unpack("<I", head[4:8])[0]
        body = head[8:]
        if name == b"VP8X" and len(body) >= 10:
            is_animated = bool(body[0] & 0x02)
            width, height = _uint24(body, 4) + 1, _uint24(body, 7) + 1
        elif name == b"ANMF" and len(body) >= 16:
            seconds = _uint24(body, 12) / 1000
            sizes.append(size)
            durations.append(seconds if seconds > _SHORTEST_SECONDS else _DEFAULT_SECONDS)
            cut_off.append(position + 8 + size > end)
        elif name in (b"VP8 ", b"VP8L") and not is_animated and not sizes:  # of several, the first
            sizes.append(size)
            durations.append(0.0)
            cut_off.append(position + 8 + size > end)
            width, height = (width, height) if width else _still_size(name, body)
        position += 8 + size + size % 2
    file.seek(0)
    if not sizes and is_animated:
        raise ClipError("no_frames", f"{uri}: an animated WebP without any frame. Save it again.")
    if not sizes or width == 0 or height == 0:
        raise ClipError("corrupt", f"{uri}: the WebP header is cut off or broken. Save the file again.")
    return FrameList(
        width=width,
        height=height,
        sizes=np.array(sizes, np.int64),
        duration_seconds=np.array(durations, np.float64),
        is_cut_off=np.array(cut_off, bool),
    )


def _uint24(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 3], "little")


def _still_size(name: bytes, body: bytes) -> tuple[int, int]:
    if name == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if name == b"VP8 " and len(body) >= 10:
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return 0, 0


def plain_gif_table(file: BinaryIO) -> FrameList | None:
    """Frames of a GIF where some lack control blocks, else None; rewinds the file.

    Such frames are shown for as long as those whose delay is 0, as in browsers.
    """
    is_gif = file.read(4) == b"GIF8"
    file.seek(0)
    data = file.read() if is_gif else b""
    file.seek(0)
    sizes: list[int] = []
    delays: list[float] = []
    delay: float | None = None
    is_plain = is_cut_off = False
    at = 13 + _colour_table_bytes(data[10]) if len(data) > 13 else len(data)
    while at < len(data) and data[at] != 0x3B:  # trailer
        start = at
        if data[at : at + 2] == b"\x21\xf9":
            delay = int.from_bytes(data[at + 4 : at + 6], "little") / 100
        if data[at] == 0x2C and at + 10 < len(data):
            at += 11 + _colour_table_bytes(data[at + 9])  # and the code size
        elif data[at] == 0x21:
            at += 2
        else:
            break
        while at < len(data) and data[at]:  # sub-blocks
            at += 1 + data[at]
        is_cut_off, at = at >= len(data), at + 1
        if data[start] == 0x2C:
            sizes.append(at - start)
            is_plain = is_plain or delay is None
            delays.append(delay if delay and delay > _SHORTEST_SECONDS else _DEFAULT_SECONDS)
            delay = None
    if len(sizes) < 2 or not is_plain:
        return None
    return FrameList(
        width=int.from_bytes(data[6:8], "little"),
        height=int.from_bytes(data[8:10], "little"),
        sizes=np.array(sizes, np.int64),
        duration_seconds=np.array(delays),
        is_cut_off=np.arange(len(sizes)) >= len(sizes) - is_cut_off,
    )


def _colour_table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def declared_size(file: BinaryIO) -> tuple[int, int] | None:
    """(width, height) in a PNG, GIF, JPEG, BMP or Y4M header, or None; rewinds."""
    head = file.read(_MAX_HEADER_BYTES)
    file.seek(0)
    if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) >= 24:
        width, height = struct.unpack(">II", head[16:24])
    elif head[:4] == b"GIF8" and len(head) >= 10:
        width, height = struct.unpack("<HH", head[6:10])
    elif head[:2] == b"BM" and len(head) >= 26 and head[14] >= 40:
        width, height = struct.unpack("<ii", head[18:26])
    elif head[:2] == b"\xff\xd8":
        frame = next((body for kind, body in _jpeg_segments(head) if kind in _JPEG_FRAMES and len(body) >= 5), None)
        height, width = struct.unpack(">HH", frame[1:5]) if frame else (0, 0)
    elif found := _Y4M_SIZE.match(head):
        width, height = int(found[1]), int(found[2])
    else:
        return None
    return (abs(width), abs(height)) if width and height else None


def is_jpeg_cut_off(data: bytes) -> bool:
    """Whether the end marker is missing (ITU-T T.81, B.2.1): the rest is shown grey."""
    return all(kind != _JPEG_END for kind, _ in _jpeg_segments(data))


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, body) of each segment of the first picture; of scans the header."""
    found = _JPEG_MARKER.search(data, 2)
    while found:
        kind, at = found[1][0], found.end()
        body = data[at + 2 : at + int.from_bytes(data[at : at + 2], "big")]
        yield kind, body
        if kind == _JPEG_END:
            return
        found = _JPEG_MARKER.search(data, at + 2 + len(body))


@contextmanager
def _any_size() -> Iterator[None]:
    """Lift Pillow's own limit: the size has been compared with `views.max_pixels`."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def exif_turn(file: BinaryIO) -> tuple[int, bool] | None:
    """Clockwise turn for display in degrees, and whether to flip upside down before.

    By the EXIF orientation of an open picture; None where none can be read.
    """
    file.seek(0)
    try:
        with _any_size(), Image.open(file) as image:
            return _TURNS.get(image.getexif().get(_EXIF_ORIENTATION))
    except _DAMAGED:
        return None


def pillow_pictures(file: BinaryIO, wanted: list[int]) -> Iterator[tuple[int, Pixels]]:
    """(index, RGB as shown, on white) of the wanted frames of a WebP or GIF.

    `wanted`: ascending indices. Ends early where the file cannot be read any further.
    """
    data = file.read()
    try:
        with (
            _any_size(),
            Image.open(
                io.BytesIO(_whole_chunks(data) if data[:4] == b"RIFF" else data), formats=["WEBP", "GIF"]
            ) as image,
        ):
            for index in wanted:
                image.seek(index)
                yield index, on_white(np.asarray(image.convert("RGBA")))
    except _DAMAGED:
        return  # the caller counts the frames that it does not get as lost


def _whole_chunks(data: bytes) -> bytes:
    """File up to its last whole chunk, size field fitted, so that Pillow reads it."""
    end = 12
    while end + 8 <= len(data):
        size = struct.unpack("<I", data[end + 4 : end + 8])[0]
        if end + 8 + size > len(data):
            break
        end += 8 + size + size % 2
    end = min(end, len(data))
    return data[:4] + struct.pack("<I", end - 8) + data[8:end]
