"""Where the pieces of a media file lie: boxes, elements, chunks, packets. For makers of wrong files and the fuzzer.

A reader of its own, a few lines a format, that takes good files only (ours, from real encoders): what it says of a
damaged one is not defined.
"""

import io
import re
from collections.abc import Iterator
from typing import NamedTuple

import av


class Piece(NamedTuple):
    """Bytes [start, stop) of a file; the body, behind a head that says kind and size, begins at `body`."""

    kind: str
    start: int
    body: int
    stop: int
    size_at: int = 0  # place of the size field
    size_bytes: int = 0  # its length; 0 where there is none


_LONGEST_HEAD = 64  # of a container, before a packet
_BOXES_OF_BOXES = {"moov", "trak", "mdia", "minf", "stbl", "edts", "dinf", "udta", "moof", "traf", "mvex"}
_SAMPLE_ENTRIES = {"avc1": 78, "hvc1": 78, "hev1": 78, "av01": 78, "mp4v": 78, "vp09": 78, "apch": 78, "apcn": 78}
# Segment, Cluster, Tracks, TrackEntry, Video, Cues, CuePoint, CueTrackPositions, BlockGroup, SeekHead, Info
_MASTERS = {"18538067", "1f43b675", "1654ae6b", "ae", "e0", "1c53bb6b", "bb", "b7", "a0", "114d9b74", "1549a966"}


def pieces(data: bytes) -> list[Piece]:
    """All pieces, from the outside in; empty for a format that is not known here."""
    return list(_reader(data)(data))


def packets(data: bytes) -> list[Piece]:
    """The packets of every stream, where FFmpeg's demuxer says that they lie: their bytes, without the container's own
    head where they stand in one piece."""
    found: list[Piece] = []
    with av.open(io.BytesIO(data)) as container:
        for packet in container.demux():
            if packet.size and packet.pos is not None and 0 <= packet.pos < len(data):
                body = bytes(packet)
                at = max(packet.pos, data.find(body, packet.pos, packet.pos + len(body) + _LONGEST_HEAD))
                found.append(Piece("packet", at, at, min(at + len(body), len(data))))
    return found


def find(data: bytes, kind: str, *, nth: int = 0) -> Piece:
    """The nth piece of a kind; IndexError where there are fewer."""
    return [piece for piece in pieces(data) if piece.kind == kind][nth]


def _reader(data: bytes):  # type: ignore[no-untyped-def]
    if data[4:8] in (b"ftyp", b"moov", b"wide", b"mdat"):
        return _boxes
    if data[:4] == bytes.fromhex("1a45dfa3"):
        return _elements
    heads = {b"RIFF": _chunks, b"FLV\1": _tags, b"OggS": _pages, b"\x89PNG": _png, b"\xff\xd8": _jpeg, b"GIF8": _gif}
    for head, reader in heads.items():
        if data.startswith(head):
            return reader
    if data.startswith(b"YUV4"):
        return _y4m
    if data[:1] == b"G" and data[188:189] == b"G":
        return _transport
    return _start_codes


def _boxes(data: bytes, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
    """mp4, mov (ISO/IEC 14496-12)."""
    at, stop = start, len(data) if stop is None else stop
    while at + 8 <= stop:
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8].decode("latin-1")
        body = at + 8
        if size == 1:
            size, body = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        if size < 8:
            return
        yield Piece(kind, at, body, at + size, at, 4)
        if kind in _BOXES_OF_BOXES:
            yield from _boxes(data, body, at + size)
        elif kind == "stsd":
            yield from _boxes(data, body + 8, at + size)
        elif kind in _SAMPLE_ENTRIES:
            yield from _boxes(data, body + _SAMPLE_ENTRIES[kind], at + size)
        at += size


def _elements(data: bytes, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
    """Matroska, WebM (RFC 8794): the kind is the id in hex."""
    at, stop = start, len(data) if stop is None else stop
    while at + 2 <= stop and data[at]:
        id_bytes = 9 - data[at].bit_length()
        size_at = at + id_bytes
        if size_at >= stop or not data[size_at]:
            return
        size_bytes = 9 - data[size_at].bit_length()
        body = size_at + size_bytes
        size = int.from_bytes(data[size_at:body], "big") & ((1 << 7 * size_bytes) - 1)
        is_open = size == (1 << 7 * size_bytes) - 1  # written by a muxer that could not go back
        end = stop if is_open else min(body + size, stop)
        kind = data[at:size_at].hex()
        yield Piece(kind, at, body, end, size_at, size_bytes)
        if kind in _MASTERS:
            yield from _elements(data, body, end)
        at = end


def _chunks(data: bytes, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
    """AVI, WebP."""
    at, stop = start, len(data) if stop is None else stop
    while at + 8 <= stop:
        kind, size = data[at : at + 4].decode("latin-1"), int.from_bytes(data[at + 4 : at + 8], "little")
        end = min(at + 8 + size, stop)
        yield Piece(kind, at, at + 8, end, at + 4, 4)
        if kind in ("RIFF", "LIST"):
            yield from _chunks(data, at + 12, end)
        at = end + size % 2


def _tags(data: bytes) -> Iterator[Piece]:
    """FLV."""
    at = int.from_bytes(data[5:9], "big") + 4
    while at + 11 <= len(data):
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        yield Piece(f"tag{data[at]}", at, at + 11, min(at + 11 + size, len(data)), at + 1, 3)
        at += 11 + size + 4


def _pages(data: bytes) -> Iterator[Piece]:
    """Ogg."""
    at = 0
    while data[at : at + 4] == b"OggS":
        body = at + 27 + data[at + 26]
        end = body + sum(data[at + 27 : body])
        yield Piece("page", at, body, end)
        at = end


def _png(data: bytes) -> Iterator[Piece]:
    at = 8
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield Piece(data[at + 4 : at + 8].decode("latin-1"), at, at + 8, at + 12 + size, at, 4)
        at += 12 + size


def _jpeg(data: bytes) -> Iterator[Piece]:
    """Markers up to the scan; the scan is one piece."""
    at = 2
    while data[at] == 0xFF and data[at + 1] != 0xDA:
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        yield Piece(f"{data[at + 1]:02x}", at, at + 4, at + 2 + size, at + 2, 2)
        at += 2 + size
    yield Piece("da", at, at + 4, len(data), at + 2, 2)


def _gif(data: bytes) -> Iterator[Piece]:
    """Extensions and pictures, found by their first bytes."""
    colours = 3 << ((data[10] & 7) + 1) if data[10] & 0x80 else 0
    yield Piece("screen", 6, 6, 13)
    marks = [m.start() for m in re.finditer(rb"\x21\xf9\x04|\x2c\0\0\0\0", data) if m.start() >= 13 + colours]
    for start, end in zip(marks, [*marks[1:], len(data)], strict=True):
        yield Piece("control" if data[start] == 0x21 else "picture", start, start + 3, end)


def _y4m(data: bytes) -> Iterator[Piece]:
    at = data.index(b"\n") + 1
    yield Piece("header", 0, 10, at)
    for found in re.split(rb"(?=FRAME\n)", data[at:]):
        if found:
            yield Piece("FRAME", at, at + 6, at + len(found))
        at += len(found)


def _transport(data: bytes) -> Iterator[Piece]:
    """MPEG-TS: packets of 188 bytes; the kind is the packet id."""
    for at in range(0, len(data), 188):
        yield Piece(str(int.from_bytes(data[at + 1 : at + 3], "big") & 0x1FFF), at, at + 4, min(at + 188, len(data)))


def _start_codes(data: bytes) -> Iterator[Piece]:
    """MPEG programme and elementary streams, H.264 and HEVC byte streams: the kind is the byte behind 00 00 01."""
    marks = [m.start() for m in re.finditer(rb"\x00\x00\x01", data)]
    for start, end in zip(marks, [*marks[1:], len(data)], strict=True):
        yield Piece(data[start + 3 : start + 4].hex(), start, min(start + 4, end), end)
