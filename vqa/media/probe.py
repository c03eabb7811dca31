"""Facts and packet table of a file, without decoding a picture.

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

import io
import os
from itertools import chain
from typing import BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from vqa.errors import ClipError
from vqa.media.bitstream.orientation import display_orientation
from vqa.media.color.convert import has_alpha
from vqa.media.containers.ffmpeg import (
    check_colours,
    check_encryption,
    crop_of,
    display_turn,
    open_container,
    packets_of,
    video_stream,
)
from vqa.media.containers.heif import HeifImage, primary_image
from vqa.media.containers.images import FrameList, declared_size, exif_turn, is_webp, plain_gif_table, webp_table
from vqa.media.containers.mp4 import Container, sample_entries
from vqa.media.packets import PacketTable, packet_table
from vqa.media.storage.open import media_errors, open_source
from vqa.types import Crop, MediaInfo

MAX_PIXELS = 8192 * 8192  # 8K film and 64-megapixel photographs pass
MAX_FRAMES = 4_000_000  # 18 hours at 60 frames per second

_STILL_CODECS = {"png", "mjpeg", "gif", "webp", "bmp", "tiff", "jpegxl", "jpeg2000"}
_STILL_BRANDS = {"avif", "heic", "heix", "mif1"}
# `MediaInfo.container` of files that FFmpeg does not give as they are
BY_PILLOW = ("webp", "plain gif")  # the latter without control blocks
COMPOSITE = "heif"  # of a picture of several coded items (containers/heif.py)


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

    Returns:
        Facts of the file, sizes in pixels as shown and times in seconds; and its frames in the order of their times.

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
            still = _heif_still(uri, file, container)
            if still and still.is_composite:
                return _probe_heif(uri, still, container, max_pixels=max_pixels)
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
                source = packets_of(container, stream)
                first = next(source, None)
                table, last_duration = packet_table(
                    uri,
                    file,
                    container,
                    stream,
                    chain([first] if first else [], source),
                    first=first,
                    limit=limit,
                    must_end=not is_picture,
                    by_index=by_index,
                )
            own_turn = exif_turn(file) if is_picture else stream_turn(stream, bytes(first)) if first else None
            container_turn = (still.rotation_degrees, still.is_mirrored) if still else None
            rotation, is_mirrored = own_turn or container_turn or display_turn(file, container, stream)
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
                is_turned_by_stream=own_turn is not None,
                crop=crop,
                has_alpha=_has_alpha(stream),
                fps=0.0 if is_image else _mean_rate(table.seconds) or rate,
                duration_seconds=0.0 if is_image else float(table.seconds[-1]) + last_duration,
                frame_count=frame_count,
                is_image=is_image,
            )
    return info, table


def stream_turn(stream: av.VideoStream, packet: bytes) -> tuple[int, bool] | None:
    """Turn and flip that a packet tells of itself, which go before its container's.

    EXIF of a packet that is a picture file, or the SEI of H.264 and HEVC, as FFmpeg's decoders take them.
    """
    codec = stream.codec_context.codec.canonical_name
    if codec in _STILL_CODECS:
        return exif_turn(io.BytesIO(packet))
    return display_orientation(codec, stream.codec_context.extradata or b"", packet)


def _has_alpha(stream: av.VideoStream) -> bool:
    """Whether frames can be transparent; VP8 and VP9 hold alpha beside their packets."""
    pixel_format = stream.codec_context.format
    return (pixel_format is not None and has_alpha(pixel_format)) or stream.metadata.get("alpha_mode") == "1"


def _square(
    file: BinaryIO, container: Container, stream: av.VideoStream, crop: Crop | None, *, is_picture: bool
) -> tuple[int, int]:
    """Size with square pixels: the axis of short pixels is stretched, none is lost.

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


def _heif_still(uri: str, file: BinaryIO, container: Container) -> HeifImage | None:
    """Layout of a HEIF still; None for sequences and all other files.

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
    return found


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
    rotation, is_mirrored = (exif_turn(file) if count == 1 else None) or (0, False)
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
