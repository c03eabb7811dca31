"""Packet table of a stream: a time for each frame, by index or by demuxing."""

import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from vqa.errors import ClipError
from vqa.media.bitstream.h263 import is_intra
from vqa.media.bitstream.h264 import FieldPairs, H264Stream
from vqa.media.containers.missing import lost_packets
from vqa.media.containers.mp4 import NO_TIME, Container, PacketColumns, Ticks, indexed_packets
from vqa.types import Packets

# Their decoders paint on grey, without an error, what comes before the first keyframe.
_PAINT_ON_GREY = {
    *("mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2", "wmv3", "vc1", "h263", "h263p", "h263i", "flv1"),
    *("rv10", "rv20", "rv30", "rv40", "vp6", "vp6f"),
}
_B_VOP = re.compile(rb"\x00\x00\x01\xb6[\x80-\xbf]")  # of MPEG-4 Part 2 (ISO/IEC 14496-2, 6.2.5)
_LONGEST_GAP_SECONDS = 10.0
_NONE: NDArray[np.int64] = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class PacketTable(Packets):
    """`Packets`, and what `decode` needs to find each frame without demuxing again.

    N: frames shown, in order of time. M: packets that the file holds, in file order.
    """

    order: NDArray[np.int64]  # [N] each frame's packet; >= M: declared, but not in the file
    is_damaged: NDArray[np.bool_]  # [N] the packet is cut off, marked corrupt by the demuxer, or missing
    ticks: NDArray[np.int64]  # [M] presentation time in the stream's own unit
    starts: NDArray[np.bool_]  # [M] whether decoding can start here
    is_counted: bool  # without usable times, frames are counted from the first one on
    is_indexed: bool = False  # read from the container's index, without demuxing
    jump_ticks: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    # [M] the time by which the container's index finds the packet; empty where there is no such index
    ends: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    # [N] each frame's last packet, where fields have packets of their own; empty: `order`


def packet_table(
    uri: str,
    file: BinaryIO,
    container: Container,
    stream: av.VideoStream,
    packets: "Iterable[av.Packet[av.VideoStream]]",
    *,
    first: "av.Packet[av.VideoStream] | None",
    limit: int,
    must_end: bool,
    by_index: bool,
) -> tuple[PacketTable, float]:
    """Read the index of a stream, or demux to the end or to `limit` packets.

    Args:
        uri: Path or URL, for messages.
        file: The file that `container` reads.
        container: Open, and read up to that packet.
        stream: The video stream of it.
        packets: All of it, from `packets_of`.
        first: The first of them, None if there is none.
        limit: Most packets accepted.
        must_end: Whether more packets than `limit` are an error; else the rest is not read.
        by_index: False to demux in any case.

    Returns:
        The table, and the last frame's duration in seconds.

    Raises:
        ClipError: "too_large" for more packets than `limit`, "no_frames" where none is to be shown.
    """
    unit = float(stream.time_base or 1)
    is_reordered = container.format.name == "avi" and bool(stream.codec_context.has_b_frames)
    if container.format.name == "avi" and stream.codec_context.name in ("h264", "mpeg4"):
        is_h264 = stream.codec_context.name == "h264"
        has_b: Callable[[bytes], object] = (
            H264Stream(stream.codec_context.extradata or b"").has_b_slice if is_h264 else _B_VOP.search
        )

        def watched(source: "Iterable[av.Packet[av.VideoStream]]") -> "Iterator[av.Packet[av.VideoStream]]":
            nonlocal is_reordered  # what FFmpeg says holds for the first part of a recording joined by copying
            for packet in source:
                is_reordered = is_reordered or bool(has_b(bytes(packet)))
                yield packet

        packets = watched(packets)
    declared = max(len(stream.index_entries), stream.frames) if container.format.name.startswith("mov") else 0
    if must_end and declared > limit:  # before a table of them is made
        message = f"{uri}: its index declares {declared} frames, above {limit}. Cut it up or raise limits.max_frames."
        raise ClipError("too_large", message)
    pairs = FieldPairs(stream.codec_context.extradata or b"") if stream.codec_context.name == "h264" else None
    pairs = pairs if pairs and first and pairs.may_occur(bytes(first)) else None
    indexed = indexed_packets(file, container, stream, first) if by_index and first and not pairs else None
    is_second = array("q")
    columns = indexed or _demuxed(
        packets if must_end else islice(packets, limit),
        limit=limit,
        pairs=pairs,
        is_second=is_second,
        is_key_of=is_intra if stream.codec_context.name == "h263" else None,
    )
    presentation, decoding, durations = columns.pts, columns.dts, columns.durations
    second = np.array(is_second, bool) if pairs else np.zeros(len(presentation), bool)
    if len(presentation) > limit:
        raise ClipError("too_large", f"{uri}: more than {limit} frames. Cut it into parts or raise limits.max_frames.")
    if columns.is_discarded.all():
        message = f"{uri}: its {stream.codec_context.name} track has no frame. Encode the file again."
        raise ClipError("no_frames", message)

    is_first = ~second
    ticks = presentation.copy()
    ticks[is_first], is_counted = _ticks(presentation[is_first], decoding[is_first], is_made_up=is_reordered)
    order = np.flatnonzero(~columns.is_discarded & is_first)
    ends = order + np.append(second, False)[order + 1]
    shifts = np.zeros(len(ticks), np.int64)
    is_corrupt = columns.is_corrupt.copy()
    if container.format.name == "mpegts" and not is_counted:
        shifts[is_first], joints = _clock_shifts(decoding[is_first], unit)
        # A jump of the continuity counter makes FFmpeg mark the packets before it, which are whole.
        for joint in np.flatnonzero(is_first)[joints]:
            is_corrupt[max(0, joint - 2) : joint] = False
    gone = lost_packets(file, container, stream, ticks, columns, limit=limit - len(ticks))
    all_ticks = np.concatenate([ticks[order] + shifts[order], gone.ticks])
    by_time = np.argsort(all_ticks, kind="stable")
    seconds = (all_ticks[by_time] - all_ticks[by_time[0]]) * unit
    is_numbered = is_counted and ticks[order[-1]] == len(order) - 1  # the ticks are mere numbers
    if is_numbered and float(stream.average_rate or 0) > 0:
        seconds = np.arange(len(seconds)) / float(stream.average_rate or 1)
    lost = np.ones(len(gone.ticks), bool)
    is_damaged = is_corrupt[order] | is_corrupt[ends]
    if stream.codec_context.codec.canonical_name in _PAINT_ON_GREY and columns.is_key.any():
        is_damaged |= order < np.argmax(columns.is_key)
    if container.format.name.startswith("matroska") and len(gone.ticks):
        is_damaged |= _behind_lost(ticks[order], columns.is_key[order], gone.ticks)
    table = PacketTable(
        seconds=seconds,
        sizes=np.concatenate([columns.sizes[order] + np.where(ends > order, columns.sizes[ends], 0), gone.sizes])[
            by_time
        ],
        is_key=np.concatenate([columns.is_key[order], gone.is_key])[by_time],
        order=np.concatenate([order, len(ticks) + np.arange(len(lost))])[by_time],
        is_damaged=np.concatenate([is_damaged, lost])[by_time],
        ticks=ticks,
        starts=columns.is_key & is_first,
        is_counted=is_counted,
        is_indexed=indexed is not None,
        jump_ticks=_jump_ticks(container.format.name, ticks, decoding, is_counted=is_counted),
        ends=np.concatenate([ends, len(ticks) + np.arange(len(lost))])[by_time] if second.any() else _NONE,
    )
    last, last_end = table.order[-1], (table.ends if second.any() else table.order)[-1]
    # An AVI's clock can run faster than its frames come, and gives each the duration of one tick.
    is_stated = last < len(durations) and is_counted == is_numbered
    last_duration = float(durations[last : last_end + 1].sum()) * unit if is_stated else 0.0
    gaps = np.diff(seconds)
    return table, last_duration or (float(np.median(gaps)) if len(gaps) else 0.0)


def _behind_lost(ticks: Ticks, is_key: NDArray[np.bool_], lost: Ticks) -> NDArray[np.bool_]:
    """Which frames may refer to a packet lost before them, unnoticed by the decoder.

    All that are shown from a lost one on to the next keyframe, and as many before it as frames are reordered by.

    Args:
        ticks: Times of the frames in file order, int64 [F].
        is_key: Whether decoding can start there, bool [F].
        lost: Times of lost frames, int64 [L]; the end of a file that is cut off is in nobody's way.
    """
    by_time = np.argsort(ticks, kind="stable")
    shown, keys = ticks[by_time], np.sort(ticks[is_key])
    rank = np.empty(len(ticks), np.int64)
    rank[by_time] = np.arange(len(ticks))
    reorder = max(0, int((rank - np.arange(len(ticks))).max()))
    found = np.zeros(len(ticks), bool)
    for tick in lost[lost < shown[-1]]:
        start = int(np.searchsorted(shown, tick))
        after = keys[np.searchsorted(keys, tick) :]
        stop = int(np.searchsorted(shown, after[0])) if len(after) else len(shown)
        found[by_time[max(0, start - reorder) : stop]] = True
    return found & ~is_key


def _clock_shifts(decoding: Ticks, unit: float) -> tuple[Ticks, NDArray[np.int64]]:
    """Shifts that make a transport stream's clock go on where it jumps, and where.

    Recordings joined by copying keep their own clocks. A jump: backwards, or forwards by more than FFmpeg's own limit
    (`dts_delta_threshold`); a shorter gap is a loss, whose time has passed.
    """
    steps = np.diff(decoding)
    is_jump = (steps < 0) | (steps * unit > _LONGEST_GAP_SECONDS)
    usual = int(np.median(steps[~is_jump])) if (~is_jump).any() else 0
    return np.append(0, np.cumsum(np.where(is_jump, usual - steps, 0))), np.flatnonzero(is_jump) + 1


def _demuxed(
    packets: "Iterable[av.Packet[av.VideoStream]]",
    *,
    limit: int,
    pairs: FieldPairs | None,
    is_second: "array[int]",
    is_key_of: Callable[[bytes], bool] | None,
) -> PacketColumns:
    """Facts of at most `limit` + 1 packets; with `pairs`, which are second fields."""
    pts, dts, durations, sizes, positions, is_key, is_corrupt, is_discarded = (
        array("q") for _ in PacketColumns._fields
    )
    for packet in islice(packets, limit + 1):  # 8 bytes per number, 40 in a list
        pts.append(NO_TIME if packet.pts is None else packet.pts)
        dts.append(NO_TIME if packet.dts is None else packet.dts)
        durations.append(packet.duration or 0)
        sizes.append(packet.size)
        is_key.append(packet.is_keyframe and (is_key_of is None or is_key_of(bytes(packet))))
        is_corrupt.append(packet.is_corrupt)
        is_discarded.append(packet.is_discard)
        positions.append(packet.pos or 0)
        if pairs:
            is_second.append(pairs.is_second(bytes(packet)))
    return PacketColumns(
        pts=np.array(pts, np.int64),
        dts=np.array(dts, np.int64),
        durations=np.array(durations, np.int64),
        sizes=np.array(sizes, np.int64),
        is_key=np.array(is_key, bool),
        is_corrupt=np.array(is_corrupt, bool),
        is_discarded=np.array(is_discarded, bool),
        positions=np.array(positions, np.int64),
    )


def _ticks(presentation: Ticks, decoding: Ticks, *, is_made_up: bool) -> tuple[Ticks, bool]:
    """Presentation times in file order, and whether frames have to be counted.

    `is_made_up`: AVI stores no times and FFmpeg makes them up in file order, which is wrong where frames are reordered.
    """
    if _differ(presentation) and not is_made_up:
        return presentation, False
    if _differ(decoding):
        return decoding, True  # the n-th frame shown gets the n-th decoding time
    return np.arange(len(presentation), dtype=np.int64), True


def _differ(ticks: Ticks) -> bool:
    """Whether each packet has a time of its own."""
    return bool((ticks != NO_TIME).all()) and len(np.unique(ticks)) == len(ticks)


def _jump_ticks(container: str, ticks: Ticks, decoding: Ticks, *, is_counted: bool) -> Ticks:
    """Index times: decoding in mp4 and mov, presentation in Matroska, else none."""
    if container.startswith("matroska") and not is_counted:
        return ticks
    if container.startswith("mov") and not is_counted and (decoding != NO_TIME).all():
        return ticks if np.array_equal(ticks, decoding) else decoding  # one array where nothing is reordered
    return np.zeros(0, np.int64)


def nearest_frames(frame_seconds: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the frame nearest to each time; ties go to the earlier frame.

    Args:
        frame_seconds: Times of frames, float [F], ascending, F > 0.
        seconds: Requested times, float [N].

    Returns:
        Indices of frames, int64 [N]; of several frames with the same time, the first.
    """
    right = np.searchsorted(frame_seconds, seconds).clip(1, max(1, len(frame_seconds) - 1))
    left = right - 1
    right = np.minimum(right, len(frame_seconds) - 1)
    is_right = frame_seconds[right] - seconds < seconds - frame_seconds[left]
    found = np.where(is_right, right, left)
    return np.searchsorted(frame_seconds, frame_seconds[found]).astype(np.int64)
