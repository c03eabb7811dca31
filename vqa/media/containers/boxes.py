"""The boxes of an mp4 or mov (ISO/IEC 14496-12, 4.2), as far as we read them ourselves."""

import os
from collections.abc import Iterator
from typing import BinaryIO

_MAX_INDEX_BYTES = 1 << 27


def is_index_cut_off(file: BinaryIO) -> bool:
    """Whether the file ends inside its movie box (`moov`); leaves it where it is."""
    position = file.tell()
    size = file.seek(0, os.SEEK_END)
    is_cut_off = any(kind == b"moov" and end > size for kind, _, end in _top_boxes(file))
    file.seek(position)
    return is_cut_off


def sample_boxes(file: BinaryIO, *, track: int) -> dict[bytes, bytes] | None:
    """The boxes of a track's sample table; None with fragments, or without a movie box of a sane size."""
    movie = None
    for kind, start, end in _top_boxes(file):
        if kind == b"moof":
            return None
        if kind == b"moov" and end - start <= _MAX_INDEX_BYTES:
            file.seek(start)
            movie = file.read(end - start)
            break
    if movie is None:
        return None
    for kind, body in _boxes(movie):
        if kind == b"mvex":
            return None
        if kind != b"trak":
            continue
        inside = dict(_boxes(body))
        header = inside.get(b"tkhd", b"")
        at = 20 if header[:1] == b"\1" else 12
        if int.from_bytes(header[at : at + 4], "big") == track:
            media = dict(_boxes(dict(_boxes(inside.get(b"mdia", b""))).get(b"minf", b"")))
            return dict(_boxes(media.get(b"stbl", b"")))
    return None


def _top_boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """(kind, first byte of the body, end) of each box of the file, as far as they can be followed."""
    at = 0
    while True:
        file.seek(at)
        head = file.read(16)
        size, kind, start = int.from_bytes(head[:4], "big"), head[4:8], at + 8
        if size == 1:
            size, start = int.from_bytes(head[8:16], "big"), at + 16
        if len(head) < 8 or at + size < start:
            return
        yield kind, start, at + size
        at += size


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size < 8:
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + size]
        at += size
