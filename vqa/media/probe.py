"""Facts and packet table of a file, from its headers, index and packets, without decoding a picture.

How a file that cannot be scored is classified (`ClipError.kind`):

| the file | kind |
| --- | --- |
| no such name, or a folder on the way is missing | `not_found` |
| folder, pipe, socket, device; permission denied; disk or network error | `not_readable` |
| text, random bytes, a playlist, any format without its known first bytes | `not_video` |
| sound only; the only picture is cover art | `not_video` |
| 0 bytes; a full header without packets | `no_frames` |
| a known container whose header is cut off or broken (an mp4 without its index); no size | `corrupt` |
| a codec that this FFmpeg has no decoder for; colours that cannot be shown; an unknown URI scheme | `unsupported` |
| more than `max_pixels` in a frame, more than `max_frames` packets; memory ran out | `too_large` |

Times are presentation times in seconds, and the first frame shown is at 0.0. Sizes are as shown, with square pixels and
after the rotation of the display matrix or the EXIF orientation. A still picture is a clip of one frame.
"""

import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from vqa.errors import ClipError
from vqa.media.bitstream.h263 import is_intra
from vqa.media.bitstream.h264 import FieldPairs, H264Stream
from vqa.media.color.convert import has_alpha
from vqa.media.containers.ffmpeg import (
    check_colours,
    check_encryption,
    crop_of,
    open_container,
    packets_of,
    rotation_degrees,
    video_stream,
)
from vqa.media.containers.heif import HeifImage, primary_image
from vqa.media.containers.images import FrameList, declared_size, exif_turn, is_webp, plain_gif_table, webp_table
from vqa.media.containers.missing import lost_packets
from vqa.media.containers.mp4 import NO_TIME, Columns, Container, Ticks, indexed_packets, sample_entries
from vqa.media.storage.open import media_errors, open_source
from vqa.types import Crop, MediaInfo, Packets

MAX_PIXELS = 8192 * 8192  # 8K film and 64-megapixel photographs pass
MAX_FRAMES = 4_000_000  # 18 hours at 60 frames per second

_STILL_CODECS = {"png", "mjpeg", "gif", "webp", "bmp", "tiff", "jpegxl", "jpeg2000"}
_STILL_BRANDS = {"avif", "heic", "heix", "mif1"}
# Their decoders paint on grey, without an error, what comes before the first keyframe.
_PAINT_ON_GREY = {
    *("mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2", "wmv3", "vc1", "h263", "h263p", "h263i", "flv1"),
    *("rv10", "rv20", "rv30", "rv40", "vp6", "vp6f"),
}
_B_VOP = re.compile(rb"\x00\x00\x01\xb6[\x80-\xbf]")  # of MPEG-4 Part 2 (ISO/IEC 14496-2, 6.2.5)
_LONGEST_GAP_SECONDS = 10.0
_NONE: NDArray[np.int64] = np.zeros(0, np.int64)
# `MediaInfo.container` of files that FFmpeg does not give as they are
BY_PILLOW = ("webp", "plain gif")  # the latter without control blocks
COMPOSITE = "heif"  # of a picture of several coded items (containers/heif.py)


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


def probe(
    uri: str, *, max_pixels: int = MAX_PIXELS, max_frames: int = MAX_FRAMES, by_index: bool = True
) -> tuple[MediaInfo, PacketTable]:
    """Read the facts and the packet table of a video or image, without decoding.

    Of an mp4 or mov with a complete index only the index is read; all others are demuxed from end to end. Frames that a
    file declares but does not hold (containers/missing.py) are in the table, marked as damaged: decoding then reports
    them as lost, where the clip would only seem shorter.

    Args:
        uri: Path or URL.
        max_pixels: Largest frame accepted, width times height as shown.
        max_frames: Most packets accepted.
        by_index: False to demux in any case.

    Raises:
        ClipError: The kinds in the table above; for URLs also `timeout`.
    """
    with open_source(uri) as file:
        if file.seek(0, os.SEEK_END) == 0:
            raise ClipError("no_frames", f"{uri}: the file is empty (0 bytes). Copy or encode it again.")
        file.seek(0)
        if is_webp(file):
            return _probe_frames(uri, file, webp_table(uri, file), "webp", "webp", max_pixels=max_pixels)
        if size := declared_size(file):  # before FFmpeg makes room for the picture, or reports it as broken
            _check_size(uri, *size, max_pixels)
            if frames := plain_gif_table(file):
                return _probe_frames(uri, file, frames, "gif", "plain gif", max_pixels=max_pixels)
        with open_container(uri, file) as container:
            if heif := _composite(uri, file, container):
                return _probe_heif(uri, heif, container, max_pixels=max_pixels)
            stream = video_stream(uri, file, container)
            check_encryption(uri, file, container, stream)
            check_colours(uri, container, stream)
            is_picture = container.format.name.endswith("_pipe") or container.format.name == "image2"
            crop = crop_of(container, stream)
            width, height = _square(file, container, stream, crop, is_picture=is_picture)
            _check_size(uri, width, height, max_pixels)
            # What follows a photograph in its file is a thumbnail or a gain map.
            limit = 1 if is_picture else max_frames
            with media_errors(uri, doing="reading packets"):
                table, last_duration = _packet_table(
                    uri, file, container, stream, limit=limit, must_end=not is_picture, by_index=by_index
                )
            rotation, is_mirrored = exif_turn(file) if is_picture else (rotation_degrees(container, stream), False)
            if rotation in (90, 270):
                width, height = height, width
            frame_count = len(table.seconds)
            is_image = frame_count == 1 and (
                is_picture
                or stream.codec_context.name in _STILL_CODECS
                or container.metadata.get("major_brand") in _STILL_BRANDS
            )
            rate = float(stream.average_rate or 0)
            info = MediaInfo(
                uri=uri,
                codec=stream.codec_context.codec.canonical_name,
                container=container.format.name,
                width=width,
                height=height,
                rotation_degrees=rotation,
                is_mirrored=is_mirrored,
                crop=crop,
                has_alpha=_has_alpha(stream),
                fps=0.0 if is_image else _mean_rate(table.seconds) or rate,
                duration_seconds=0.0 if is_image else float(table.seconds[-1]) + last_duration,
                frame_count=frame_count,
                is_image=is_image,
            )
    return info, table


def nearest(frame_seconds: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.int64]:
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


def _has_alpha(stream: av.VideoStream) -> bool:
    """Whether frames can be transparent; VP8 and VP9 hold alpha beside their packets."""
    pixel_format = stream.codec_context.format
    return (pixel_format is not None and has_alpha(pixel_format)) or stream.metadata.get("alpha_mode") == "1"


def _square(
    file: BinaryIO, container: Container, stream: av.VideoStream, crop: Crop | None, *, is_picture: bool
) -> tuple[int, int]:
    """Width and height with square pixels, by stretching the axis on which pixels are too short, so that none is lost.

    Still pictures are shown as stored, as in browsers (their ratio is one of inches, often wrong); so are videos with a
    ratio within 1 % of square (rounding in some encoders) or beyond 4 (a broken header).
    """
    coded_width, coded_height = stream.codec_context.width, stream.codec_context.height
    left, right, top, bottom = crop or (0, 0, 0, 0)
    width, height = coded_width - left - right, coded_height - top - bottom
    ratio = 1.0 if is_picture or stream.codec_context.name == "gif" else float(stream.sample_aspect_ratio or 1)
    if crop and container.format.name.startswith("mov"):
        entries = sample_entries(file, stream.id)
        if entries and b"pasp" not in entries[0].boxes:
            # FFmpeg compares the track's size, which is that after the crop, with the coded size.
            ratio *= (coded_width / coded_height) / (width / height)
    if 1.01 < ratio <= 4:
        return round(width * ratio), height
    if 1.01 < 1 / max(ratio, 1e-9) <= 4:
        return width, round(height / ratio)
    return width, height


def _check_size(uri: str, width: int, height: int, max_pixels: int) -> None:
    if width <= 0 or height <= 0:
        raise ClipError("corrupt", f"{uri}: no picture size could be found in it. Copy or encode the file again.")
    if width * height > max_pixels:
        message = f"{uri}: {width}x{height} is more than {max_pixels} pixels. Scale it down or raise views.max_pixels."
        raise ClipError("too_large", message)


def _mean_rate(seconds: NDArray[np.float64]) -> float:
    return (len(seconds) - 1) / float(seconds[-1]) if len(seconds) > 1 and seconds[-1] > 0 else 0.0


def _packet_table(
    uri: str,
    file: BinaryIO,
    container: Container,
    stream: av.VideoStream,
    *,
    limit: int,
    must_end: bool,
    by_index: bool,
) -> tuple[PacketTable, float]:
    """Read the index, or demux to the end or to `limit` packets; returns the table and the last frame's duration."""
    unit = float(stream.time_base or 1)
    source = packets_of(container, stream)
    first = next(source, None)
    packets: Iterable[av.Packet[av.VideoStream]] = chain([first] if first else [], source)
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
    """Which frames may refer to a packet that lies before them and is gone, without their decoder noticing.

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
    """What to add to each packet's time so that it goes on where the clock of a transport stream jumps, and where.

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
) -> Columns:
    """Facts of each packet, of at most one more than `limit`; with `pairs`, whether it is a second field too."""
    pts, dts, durations, sizes, positions, is_key, is_corrupt, is_discarded = (array("q") for _ in Columns._fields)
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
    return Columns(
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
    """Times of the container's index: decoding times in mp4 and mov, presentation times in Matroska, else none."""
    if container.startswith("matroska") and not is_counted:
        return ticks
    if container.startswith("mov") and not is_counted and (decoding != NO_TIME).all():
        return ticks if np.array_equal(ticks, decoding) else decoding  # one array where nothing is reordered
    return np.zeros(0, np.int64)


def _composite(uri: str, file: BinaryIO, container: Container) -> HeifImage | None:
    """Layout of a still of several coded items; None for a sequence, and for pictures that FFmpeg gives as they are.

    Raises ClipError "unsupported" for a picture that is derived from others in another way than by a grid.
    """
    if not container.format.name.startswith("mov") or any(stream.frames > 1 for stream in container.streams.video):
        return None
    found = primary_image(file)
    if found is None:
        return None
    if not {stream.id for stream in container.streams.video}.issuperset(found.colours.items):
        message = f"{uri}: a picture that is put together from others. Convert it to JPEG or PNG first."
        raise ClipError("unsupported", message)
    return found if found.is_composite else None


def _probe_heif(uri: str, heif: HeifImage, container: Container, *, max_pixels: int) -> tuple[MediaInfo, PacketTable]:
    """Facts and table of a picture of several coded items, as one frame."""
    streams = {stream.id: stream for stream in container.streams.video}
    for item in heif.colours.items:
        check_colours(uri, container, streams[item])
    left, right, top, bottom = heif.crop or (0, 0, 0, 0)
    width, height = heif.colours.width - left - right, heif.colours.height - top - bottom
    _check_size(uri, heif.colours.width, heif.colours.height, max_pixels)
    is_turned = heif.rotation_degrees in (90, 270)
    info = MediaInfo(
        uri=uri,
        codec=streams[heif.colours.items[0]].codec_context.codec.canonical_name,
        container=COMPOSITE,
        width=height if is_turned else width,
        height=width if is_turned else height,
        rotation_degrees=heif.rotation_degrees,
        is_mirrored=heif.is_mirrored,
        crop=heif.crop,
        has_alpha=heif.alpha is not None,
        fps=0.0,
        duration_seconds=0.0,
        frame_count=1,
        is_image=True,
    )
    one = np.ones(1, bool)
    table = PacketTable(
        seconds=np.zeros(1),
        sizes=np.array([container.size], np.int64),
        is_key=one,
        order=np.zeros(1, np.int64),
        is_damaged=~one,
        ticks=np.zeros(1, np.int64),
        starts=one,
        is_counted=True,
    )
    return info, table


def _probe_frames(
    uri: str, file: BinaryIO, frames: FrameList, codec: str, container: str, *, max_pixels: int
) -> tuple[MediaInfo, PacketTable]:
    """Facts and table of a file whose frames Pillow reads."""
    _check_size(uri, frames.width, frames.height, max_pixels)
    count = len(frames.sizes)
    is_key = np.zeros(count, bool)
    is_key[0] = True  # each frame paints over the one before
    ends = np.cumsum(frames.duration_seconds)
    rotation, is_mirrored = exif_turn(file) if count == 1 else (0, False)
    is_turned = rotation in (90, 270)
    table = PacketTable(
        seconds=ends - frames.duration_seconds,
        sizes=frames.sizes,
        is_key=is_key,
        order=np.arange(count),
        is_damaged=frames.is_cut_off,
        ticks=np.arange(count),
        starts=is_key,
        is_counted=True,
    )
    info = MediaInfo(
        uri=uri,
        codec=codec,
        container=container,
        width=frames.height if is_turned else frames.width,
        height=frames.width if is_turned else frames.height,
        rotation_degrees=rotation,
        is_mirrored=is_mirrored,
        fps=_mean_rate(table.seconds),
        duration_seconds=0.0 if count == 1 else float(ends[-1]),
        frame_count=count,
        is_image=count == 1,
    )
    return info, table
