"""Packets of an mp4 or mov from its index alone (ISO/IEC 14496-12, 8.6).

Offsets, sizes, decoding times and key flags come from FFmpeg's own index, after its edit lists; what it does not
expose, presentation minus decoding time, is read from the `ctts` box. The first packet shows that both have the same
origin of time, and `decode` checks each packet that it feeds; where anything differs, the file is demuxed.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

_MAX_INDEX_BYTES = 1 << 27
_HEADER_BYTES = 128  # of a movie or a track, at least what comes before the end of its matrix
_MAX_OFFSET = 1 << 28  # FFmpeg ignores a table that holds larger ones
_KEY, _DISCARD = 1, 2  # AVINDEX_KEYFRAME, AVINDEX_DISCARD_FRAME
_ENTRY = np.dtype([("places", np.int64), ("sizes", np.int64), ("dts", np.int64), ("flags", np.int64)])
NO_TIME = -(1 << 63)  # AV_NOPTS_VALUE

Container = av.container.InputContainer
Ticks = NDArray[np.int64]  # times in the stream's unit


class PacketColumns(NamedTuple):
    """Fields of N `av.Packet`s in file order; times in the stream's unit, or NO_TIME."""

    pts: Ticks
    dts: Ticks
    durations: Ticks
    sizes: NDArray[np.int64]
    is_key: NDArray[np.bool_]
    is_corrupt: NDArray[np.bool_]
    is_discarded: NDArray[np.bool_]
    positions: NDArray[np.int64]  # bytes from the start of the file


def indexed_packets(
    file: BinaryIO, container: Container, stream: av.VideoStream, first: "av.Packet[av.VideoStream]"
) -> PacketColumns | None:
    """All packets by the index; None where it cannot be relied on.

    Fragments, a cut-off file and edits that drop samples rule it out. `first`: the first packet, demuxed.
    """
    if not container.format.name.startswith("mov"):
        return None
    position = file.tell()  # the container reads through the same file
    try:
        boxes = _sample_boxes(file, track=stream.id, fragmented=False)
    finally:
        file.seek(position)
    # Into an array at once: as Python numbers, the entries of an hour would take more memory than its frames.
    entries = np.fromiter(((e.pos, e.size, e.timestamp, e.flags) for e in stream.index_entries), _ENTRY)
    offsets = _composition_offsets(boxes, len(entries)) if boxes else None
    if not boxes or offsets is None:
        return None
    places, sizes, dts, flags = (entries[name] for name in _ENTRY.names or ())
    if (sizes <= 0).any() or (places + sizes).max() > container.size:
        return None
    if (first.pos, first.size, first.dts) != (places[0], sizes[0], dts[0]) or first.pts is None:
        return None
    last_duration = int.from_bytes(boxes.get(b"stts", b"")[-4:], "big")  # 8.6.1.2
    return PacketColumns(
        pts=dts + offsets + (first.pts - dts[0] - offsets[0]),
        dts=dts,
        durations=np.diff(dts, append=dts[-1] + last_duration).clip(0),
        sizes=sizes,
        is_key=flags & _KEY != 0,
        is_corrupt=np.zeros(len(entries), bool),
        is_discarded=flags & _DISCARD != 0,
        positions=places,
    )


def _composition_offsets(boxes: dict[bytes, bytes], count: int) -> Ticks | None:
    """Presentation minus decoding time per sample, but for a constant (8.6.1.3)."""
    if not count or int.from_bytes(boxes.get(b"stsz", bytes(12))[8:12], "big") != count:
        return None
    table = boxes.get(b"ctts")
    if table is None:
        return np.zeros(count, np.int64)
    end = 8 + 8 * int.from_bytes(table[4:8], "big")
    if end > len(table):
        return None
    pairs = np.frombuffer(table[8:end], ">i4").astype(np.int64).reshape(-1, 2)
    if (pairs[:, 0] < 0).any() or pairs[:, 0].sum() != count or (np.abs(pairs[:, 1]) >= _MAX_OFFSET).any():
        return None
    return np.repeat(pairs[:, 1], pairs[:, 0])


# --- boxes (ISO/IEC 14496-12, 4.2) ------------------------------------------------------------------------------------


def is_index_cut_off(file: BinaryIO) -> bool:
    """Whether the file ends inside its movie box (`moov`); keeps the file's position."""
    position = file.tell()
    size = file.seek(0, os.SEEK_END)
    is_cut_off = any(kind == b"moov" and end > size for kind, _, end in top_boxes(file))
    file.seek(position)
    return is_cut_off


class SampleEntry(NamedTuple):
    """A description of a track's samples (8.5.2, 12.1.3)."""

    kind: bytes
    boxes: dict[bytes, bytes]

    @property
    def is_encrypted(self) -> bool:
        """Whether a protection scheme holds (8.12)."""
        return self.kind == b"encv" or b"sinf" in self.boxes


def sample_entries(file: BinaryIO, track: int) -> list[SampleEntry]:
    """Sample entries of a track, also with fragments, if any; keeps the position."""
    position = file.tell()
    try:
        boxes = _sample_boxes(file, track=track, fragmented=True) or {}
    finally:
        file.seek(position)
    # Full box header and count, then entries, of which a visual one has 78 bytes before its boxes.
    return [SampleEntry(kind, dict(inner_boxes(body[78:]))) for kind, body in inner_boxes(boxes.get(b"stsd", b"")[8:])]


def _sample_boxes(file: BinaryIO, *, track: int, fragmented: bool) -> dict[bytes, bytes] | None:
    """Boxes of a track's sample table; None without a movie box of usable size.

    `fragmented`: False to return None with fragments too, since the table does not hold their samples.
    """
    movie = None
    for kind, start, end in top_boxes(file):
        if kind == b"moof" and not fragmented:
            return None
        if kind == b"moov" and end - start <= _MAX_INDEX_BYTES:
            file.seek(start)
            movie = file.read(end - start)
            break
    if movie is None:
        return None
    for kind, body in inner_boxes(movie):
        if kind == b"mvex" and not fragmented:
            return None
        if kind != b"trak":
            continue
        inside = dict(inner_boxes(body))
        header = inside.get(b"tkhd", b"")
        at = 20 if header[:1] == b"\1" else 12
        if int.from_bytes(header[at : at + 4], "big") == track:
            media = dict(inner_boxes(dict(inner_boxes(inside.get(b"mdia", b""))).get(b"minf", b"")))
            return dict(inner_boxes(media.get(b"stbl", b"")))
    return None


def is_track_mirrored(file: BinaryIO, track: int) -> bool:
    """Whether matrices of movie and track (8.2.2, 8.3.2) mirror; keeps the position."""
    position, is_mirrored = file.tell(), False
    for box, start, end in top_boxes(file):
        for kind, *span in top_boxes(file, start, end) if box == b"moov" else ():
            if kind == b"mvhd":
                is_mirrored ^= _is_mirroring(_body(file, span), at=(36, 48))
            header = next((inner for name, *inner in top_boxes(file, *span) if name == b"tkhd"), None)
            if kind == b"trak" and header:
                body = _body(file, header)
                at = 20 if body[:1] == b"\1" else 12
                is_mirrored ^= int.from_bytes(body[at : at + 4], "big") == track and _is_mirroring(body, at=(40, 52))
    file.seek(position)
    return is_mirrored


def _body(file: BinaryIO, span: Sequence[int]) -> bytes:
    file.seek(span[0])
    return file.read(min(span[1] - span[0], _HEADER_BYTES))


def _is_mirroring(header: bytes, *, at: tuple[int, int]) -> bool:
    """Whether the matrix in a header, at a place by the header's version, mirrors."""
    start = at[header[:1] == b"\1"]
    if len(header) < start + 20:
        return False
    a, b, _, c, d = struct.unpack_from(">5i", header, start)
    return bool(a * d < b * c)


def top_boxes(file: BinaryIO, at: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """(kind, body's start, end) of each box of the file or a span, as far as sound."""
    length = file.seek(0, os.SEEK_END)
    length = length if end is None else min(length, end)
    while at < length:  # a damaged size of 64 bits can lie beyond what can be sought
        file.seek(at)
        head = file.read(16)
        size, kind, start = int.from_bytes(head[:4], "big"), head[4:8], at + 8
        if size == 1:
            size, start = int.from_bytes(head[8:16], "big"), at + 16
        if len(head) < 8 or at + size < start:
            return
        yield kind, start, at + size
        at += size


def inner_boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, body) of each box inside a box."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size < 8:
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + size]
        at += size
