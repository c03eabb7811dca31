"""The packets of an mp4 or mov from its index alone (ISO/IEC 14496-12, 8.6): no byte of the pictures is read.

Offsets, sizes, decoding times and key flags come from FFmpeg's own index, after its edit lists; the one thing that it
keeps to itself, presentation minus decoding time, is read from the `ctts` box. The first packet proves the two to agree
on the origin of time, and `decode` checks each packet that it feeds; where anything differs, the file is demuxed.
"""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import av
import numpy as np

_MAX_INDEX_BYTES = 1 << 27
_MAX_OFFSET = 1 << 28  # FFmpeg ignores a table that holds larger ones


class IndexedPacket(NamedTuple):
    """What `av.Packet` says of a packet."""

    size: int
    dts: int
    pts: int
    duration: int
    is_keyframe: bool
    is_discard: bool
    is_corrupt: bool = False


def indexed_packets(
    file: BinaryIO,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    first: "av.Packet[av.VideoStream]",
) -> list[IndexedPacket] | None:
    """All packets in file order, `first` being the first; None where the index is not proof enough (fragments, a
    cut-off file, edits that drop samples)."""
    if not container.format.name.startswith("mov"):
        return None
    entries = [(e.pos, e.size, e.timestamp, e.is_keyframe, e.is_discard) for e in stream.index_entries]
    position = file.tell()  # the container reads through the same file
    try:
        boxes = _sample_boxes(file, track=stream.id)
    finally:
        file.seek(position)
    offsets = _composition_offsets(boxes, len(entries)) if boxes else None
    if not boxes or offsets is None or any(size <= 0 or place + size > container.size for place, size, *_ in entries):
        return None
    place, size, start, *_ = entries[0]
    if (first.pos, first.size, first.dts) != (place, size, start) or first.pts is None:
        return None
    shift = first.pts - start - offsets[0]
    starts = [entry[2] for entry in entries]
    ends = [
        *starts[1:],
        starts[-1] + int.from_bytes(boxes.get(b"stts", b"")[-4:], "big"),
    ]  # the last duration (8.6.1.2)
    return [
        IndexedPacket(size, start, start + offset + shift, max(0, end - start), is_key, is_discarded)
        for (_, size, start, is_key, is_discarded), offset, end in zip(entries, offsets, ends, strict=True)
    ]


def _composition_offsets(boxes: dict[bytes, bytes], count: int) -> list[int] | None:
    """Presentation minus decoding time of each sample (8.6.1.3), but for a constant."""
    if not count or int.from_bytes(boxes.get(b"stsz", bytes(12))[8:12], "big") != count:
        return None
    table = boxes.get(b"ctts")
    if table is None:
        return [0] * count
    end = 8 + 8 * int.from_bytes(table[4:8], "big")
    if end > len(table):
        return None
    pairs = np.frombuffer(table[8:end], ">i4").astype(np.int64).reshape(-1, 2)
    if (pairs[:, 0] < 0).any() or pairs[:, 0].sum() != count or (np.abs(pairs[:, 1]) >= _MAX_OFFSET).any():
        return None
    return [int(offset) for offset in np.repeat(pairs[:, 1], pairs[:, 0])]


def _sample_boxes(file: BinaryIO, *, track: int) -> dict[bytes, bytes] | None:
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
