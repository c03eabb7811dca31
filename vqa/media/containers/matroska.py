"""Matroska and WebM tracks: number, encryption, mirroring."""

from collections.abc import Iterator
from typing import BinaryIO

CLUSTER = 0x1F43B675
_SEGMENT, _TRACKS, _TRACK_ENTRY, _TRACK_NUMBER, _TRACK_TYPE = 0x18538067, 0x1654AE6B, 0xAE, 0xD7, 0x83
_ENCRYPTION = (0x6D80, 0x6240, 0x5035)  # of one of the encodings of a track's content
_YAW = (0xE0, 0x7670, 0x7673)  # of the projection of a track's pictures
_VIDEO = 1
_MAX_TRACKS_BYTES = 1 << 24
_MAX_HEADER_BYTES = 12


def track_numbers(file: BinaryIO) -> frozenset[int]:
    """Track numbers (RFC 9559, 5.1.4.1.1); none if not before the first cluster."""
    return frozenset(int.from_bytes(body, "big") for body in _bodies(_tracks(file), _TRACK_ENTRY, _TRACK_NUMBER))


def encrypted_videos(file: BinaryIO) -> list[bool]:
    """Whether each video track, in order, is encrypted (RFC 9559, 5.1.4.1.31.10)."""
    return [bool(_bodies(one, *_ENCRYPTION)) for one in _videos(file)]


def mirrored_videos(file: BinaryIO) -> list[bool]:
    """Whether each video track, in order, is mirrored.

    RFC 9559, 5.1.4.1.28.45: half a turn to the other side of a flat picture, if FFmpeg makes a display matrix of it.
    """
    return [any(body.strip(b"\0\x80") for body in _bodies(one, *_YAW)) for one in _videos(file)]


def _videos(file: BinaryIO) -> list[bytes]:
    tracks = _bodies(_tracks(file), _TRACK_ENTRY)
    return [one for one in tracks if [int.from_bytes(kind, "big") for kind in _bodies(one, _TRACK_TYPE)] == [_VIDEO]]


def length(first: int) -> int:
    """Bytes of the variable-size integer that begins with this byte (RFC 8794, 4)."""
    return 9 - first.bit_length()


def vint_value(data: bytes) -> int:
    """Value of a variable-size integer (RFC 8794, 4)."""
    return int.from_bytes(data, "big") & ((1 << 7 * len(data)) - 1)


def _tracks(file: BinaryIO) -> bytes:
    """Body of the segment's tracks; an index or attachments before it may be large."""
    position, found, at = file.tell(), b"", 0
    while True:
        file.seek(at)
        element = _header(file.read(_MAX_HEADER_BYTES), 0)
        if element is None or element[0] == CLUSTER:
            break
        kind, body, size = element
        if kind == _TRACKS:
            file.seek(at + body)
            found = file.read(_MAX_TRACKS_BYTES if size is None else min(_MAX_TRACKS_BYTES, size))
            break
        if kind != _SEGMENT and size is None:
            break
        at += body if kind == _SEGMENT else body + (size or 0)
    file.seek(position)
    return found


def _bodies(data: bytes, *path: int) -> list[bytes]:
    """Bodies of all elements at a path of ids, up to the first cluster."""
    found = [data]
    for wanted in path:
        found = [body for parent in found for kind, body in _elements(parent) if kind == wanted]
    return found


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Id and body of each element; one of unknown size goes on to the end."""
    at = 0
    while (element := _header(data, at)) and element[0] != CLUSTER:
        kind, body, size = element
        at = len(data) if size is None else min(len(data), body + size)
        yield kind, data[body:at]


def _header(data: bytes, at: int) -> tuple[int, int, int | None] | None:
    """Id, place of the body and its size, None if unknown, of the element at a place."""
    size_at = at + length(data[at]) if at < len(data) else len(data)
    if size_at >= len(data) or (size_bytes := length(data[size_at])) > 8:
        return None
    body = size_at + size_bytes
    size = vint_value(data[size_at:body])
    return int.from_bytes(data[at:size_at], "big"), body, None if size == (1 << 7 * size_bytes) - 1 else size
