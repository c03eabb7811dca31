"""Elements before the first cluster of Matroska and WebM: tracks, encryption."""

from collections.abc import Iterator
from typing import BinaryIO

CLUSTER = 0x1F43B675
_TRACK_ENTRY, _TRACK_NUMBER, _TRACK_TYPE = (0x18538067, 0x1654AE6B, 0xAE), 0xD7, 0x83  # in the segment's tracks
_ENCRYPTION = (0x6D80, 0x6240, 0x5035)  # of one of the encodings of a track's content
_VIDEO = 1
_MAX_HEAD_BYTES = 1 << 20


def track_numbers(file: BinaryIO) -> frozenset[int]:
    """Track numbers (RFC 9559, 5.1.4.1.1); none if not before the first cluster."""
    head = _head(file)
    return frozenset(int.from_bytes(body, "big") for body in _bodies(head, *_TRACK_ENTRY, _TRACK_NUMBER))


def encrypted_videos(file: BinaryIO) -> list[bool]:
    """Whether each video track, in order, is encrypted (RFC 9559, 5.1.4.1.31.10)."""
    tracks = _bodies(_head(file), *_TRACK_ENTRY)
    videos = [one for one in tracks if [int.from_bytes(kind, "big") for kind in _bodies(one, _TRACK_TYPE)] == [_VIDEO]]
    return [bool(_bodies(one, *_ENCRYPTION)) for one in videos]


def length(first: int) -> int:
    """Bytes of the variable-size integer that begins with this byte (RFC 8794, 4)."""
    return 9 - first.bit_length()


def vint_value(data: bytes) -> int:
    """Value of a variable-size integer (RFC 8794, 4)."""
    return int.from_bytes(data, "big") & ((1 << 7 * len(data)) - 1)


def _head(file: BinaryIO) -> bytes:
    """The first bytes of a file, whose position is kept."""
    position = file.tell()
    file.seek(0)
    head = file.read(_MAX_HEAD_BYTES)
    file.seek(position)
    return head


def _bodies(data: bytes, *path: int) -> list[bytes]:
    """Bodies of all elements at a path of ids, up to the first cluster."""
    found = [data]
    for wanted in path:
        found = [body for parent in found for kind, body in _elements(parent) if kind == wanted]
    return found


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Id and body of each element; one of unknown size goes on to the end."""
    at = 0
    while at < len(data):
        size_at = at + length(data[at])
        if size_at >= len(data) or (size_bytes := length(data[size_at])) > 8:
            return
        kind = int.from_bytes(data[at:size_at], "big")
        if kind == CLUSTER:
            return
        body = size_at + size_bytes
        is_unknown = (size := vint_value(data[size_at:body])) == (1 << 7 * size_bytes) - 1
        stop = len(data) if is_unknown else min(len(data), body + size)
        yield kind, data[body:stop]
        at = stop
