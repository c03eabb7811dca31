"""Lost frames: mp4 samples beyond the file's end, blocks a Matroska reader skips.

A demuxer that meets a damaged Matroska element resumes at the next place that looks sound and reports nothing, so that
the clip only seems shorter. Wherever frames are further apart than usual, or end before the duration of the header, the
chain of elements there is followed. Where it is whole, the times are meant (variable frame rate, longer sound); where
it is broken, or a block names a track that the file does not have, the frames that are missing at the usual distance
are lost.
"""

import os
import re
from typing import BinaryIO, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from vqa.media.containers.matroska import CLUSTER, length, track_numbers, vint_value
from vqa.media.containers.mp4 import NO_TIME, Container, PacketColumns, Ticks

_SUSPICIOUS = 1.5  # times the median distance of frames
_MAX_PLACES = 64  # how many of the widest gaps are checked
_REORDER = 32  # packets: a lost one lies at most this far from its neighbours in time

_CLOCK = re.compile(r"(\d+):(\d+):([\d.]+)")

_GROUP, _BLOCK, _SIMPLE_BLOCK = 0xA0, 0xA1, 0xA3
_INSIDE = {  # what may follow a block (RFC 9559, 5.1): in its group, its cluster, its segment
    *(CLUSTER, _GROUP, _BLOCK, _SIMPLE_BLOCK, 0x9B, 0xFA, 0xFB, 0xA4, 0x75A1, 0x75A2, 0xE7, 0xA7, 0xAB, 0xEC, 0xBF),
    *(0x1C53BB6B, 0x1254C367, 0x1941A469, 0x1043A770, 0x114D9B74, 0x1549A966, 0x1654AE6B),
}
_NUMBERS = {0x9B, 0xFA, 0xFB, 0x75A2, 0xE7, 0xA7, 0xAB}  # of them, those that hold one number


class Lost(NamedTuple):
    """Lost packets, each field [L]."""

    sizes: NDArray[np.int64]
    is_key: NDArray[np.bool_]
    ticks: Ticks


def lost_packets(
    file: BinaryIO, container: Container, stream: av.VideoStream, ticks: Ticks, columns: PacketColumns, *, limit: int
) -> Lost:
    """Packets of a stream that the file declares and does not hold.

    Args:
        file: The open file.
        container: The container over it.
        stream: The stream.
        ticks: Presentation times of the packets that the file holds, int64 [M] in file order.
        columns: The other facts of these packets.
        limit: How many lost packets to return at most.
    """
    if container.format.name.startswith("mov"):
        return _samples(container, stream, ticks, columns)
    if container.format.name.startswith("matroska") and len(np.unique(ticks)) > 2:
        position = file.tell()  # the container reads through the same file
        try:
            return _blocks(file, container, stream, ticks, columns, limit=limit)
        finally:
            file.seek(position)
    return _none()


def _none() -> Lost:
    return Lost(np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0, np.int64))


def _samples(container: Container, stream: av.VideoStream, ticks: Ticks, columns: PacketColumns) -> Lost:
    """Samples that an mp4's index declares beyond the end of the file.

    Their presentation times are not in the index; decoding times, moved by the reordering delay, replace them.
    """
    if len(stream.index_entries) <= len(ticks):
        return _none()
    lost = [entry for entry in stream.index_entries if entry.pos + entry.size > container.size]
    lost = lost[len(ticks) - len(stream.index_entries) :]
    known = columns.dts[columns.dts != NO_TIME]
    delay = int(ticks.min()) - int(known.min()) if len(known) else 0
    return Lost(
        np.array([max(0, entry.size) for entry in lost], np.int64),
        np.array([entry.is_keyframe for entry in lost], bool),
        np.array([entry.timestamp + delay for entry in lost], np.int64),
    )


def _blocks(
    file: BinaryIO, container: Container, stream: av.VideoStream, ticks: Ticks, columns: PacketColumns, *, limit: int
) -> Lost:
    """Blocks missing in gaps of a Matroska file, by its median frame distance."""
    by_time = np.argsort(ticks, kind="stable")
    shown = ticks[by_time]
    gaps = np.diff(shown)
    step = float(np.median(gaps[gaps > 0]))
    size, last = file.seek(0, os.SEEK_END), len(ticks) - 1
    declared = _declared_seconds(container, stream) / float(stream.time_base or 1) - (int(shown[-1]) + step)
    found: list[tuple[int, float]] = []
    tracks = track_numbers(file)
    if declared > _SUSPICIOUS * step and not _is_chained(
        file, int(columns.positions[max(0, last - _REORDER)]), size, tracks
    ):
        found.append((int(shown[-1]), declared + step))
    wide = np.flatnonzero(gaps > _SUSPICIOUS * step)
    for gap in wide[np.argsort(-gaps[wide], kind="stable")[:_MAX_PLACES]]:
        places = sorted(by_time[gap : gap + 2].tolist())
        start, stop = max(0, places[0] - _REORDER), min(last, places[1] + _REORDER)
        if not _is_chained(file, int(columns.positions[start]), int(columns.positions[stop]), tracks):
            found.append((int(shown[gap]), float(gaps[gap])))
    times = [at + step * n for at, length in found for n in range(1, min(round(length / step), limit + 1))][:limit]
    return Lost(
        np.full(len(times), np.median(columns.sizes), np.int64), np.zeros(len(times), bool), np.array(times, np.int64)
    )


def _declared_seconds(container: Container, stream: av.VideoStream) -> float:
    """Declared end in seconds: the stream's tag, else the header, which counts sound."""
    tag = _CLOCK.match(stream.metadata.get("DURATION", ""))
    if tag:
        return sum(float(n) * unit for n, unit in zip(tag.groups(), (3600, 60, 1), strict=True))
    return (container.duration or 0) / 1e6


def _is_chained(file: BinaryIO, start: int, stop: int, tracks: frozenset[int]) -> bool:
    """Whether elements lie unbroken between two places, in blocks of known tracks.

    From the block with its body at `start` to the one with its body at `stop`, or to the end of the file; True as well
    where `start` is no block that can be read here.
    """
    file.seek(max(0, start - 9))
    before = file.read(min(start, 9))
    heads = [n for n in range(1, len(before)) if before[-n - 1] in (_BLOCK, _SIMPLE_BLOCK) and length(before[-n]) == n]
    if start == stop or not heads:
        return True
    at = start + (int.from_bytes(before[-heads[0] :], "big") & ((1 << 7 * heads[0]) - 1))
    last = 0
    while at < stop:
        file.seek(at)
        head = file.read(12)
        id_bytes = length(head[0]) if head else 9
        kind = int.from_bytes(head[:id_bytes], "big")
        size_bytes = length(head[id_bytes]) if len(head) > id_bytes else 9
        if kind not in _INSIDE or size_bytes > 8 or len(head) < id_bytes + size_bytes:
            return False
        body = at + id_bytes + size_bytes
        if body == stop:
            return True
        if kind in (_BLOCK, _SIMPLE_BLOCK) and tracks:
            file.seek(body)
            begin = file.read(8)
            if not begin or vint_value(begin[: length(begin[0])]) not in tracks:
                return False
        size = vint_value(head[id_bytes : id_bytes + size_bytes])
        # A damaged id can be that of another element: a number that is too long, a block outside of a group.
        if (kind in _NUMBERS and size > 8) or (kind == _BLOCK and last == _SIMPLE_BLOCK):
            return False
        last = kind
        at = body if kind in (CLUSTER, _GROUP) else body + size
    return at == stop
