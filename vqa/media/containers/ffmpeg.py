"""Demuxing by FFmpeg: the container, the video stream to score, its packets, and what errors of opening mean."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import av

from vqa.errors import ClipError
from vqa.media.containers.mp4 import is_index_cut_off

_READ_BYTES = 1 << 18
_ROTATION = re.compile(r"rotation of (-?[\d.]+) degrees")
_DOLBY_ALONE = re.compile(r"DOVI configuration record: .*compatibility id: 0\b")

# First bytes (offset, bytes) of formats whose broken header means a broken video rather than some other file.
_CONTAINERS = (  # these can also hold sound alone
    *((4, box) for box in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp", b"moof")),  # mp4, mov
    (0, bytes.fromhex("1a45dfa3")),  # Matroska, WebM
    (0, bytes.fromhex("3026b2758e66cf11")),  # ASF, WMV
    (8, b"AVI "),
    (0, b"FLV"),
    (0, b"OggS"),
)
_VIDEOS = (
    (0, bytes.fromhex("000001ba")),  # MPEG programme stream
    (0, bytes.fromhex("000001b3")),  # MPEG video
    (8, b"WEBP"),
    (0, b"GIF8"),
    (0, b"YUV4MPEG2"),
    (0, b"DKIF"),
    (0, b"\x89PNG"),
    (0, b"\xff\xd8\xff"),  # JPEG
)


@contextmanager
def open_container(uri: str, file: BinaryIO) -> Iterator[av.container.InputContainer]:
    """Open a container over an open file.

    Raises:
        ClipError: `not_video` for unknown first bytes; for known ones `no_frames` (a header alone) or `corrupt`;
            `too_large` where memory runs out.
    """
    try:
        # No protocol is allowed: a file that refers to others (playlists, external tracks) opens none of them.
        container = av.open(
            file,
            "r",
            options={"protocol_whitelist": "none"},
            metadata_errors="replace",
            buffer_size=getattr(file, "buffer_bytes", _READ_BYTES),
        )
    except MemoryError as error:
        message = f"{uri}: out of memory while reading the header. Raise the memory limit."
        raise ClipError("too_large", message) from error
    except av.error.FFmpegError as error:
        if not _begins_as(file, *_CONTAINERS, *_VIDEOS):
            message = f"{uri}: not a video or image that FFmpeg knows. Check that the file is what its name says."
            raise ClipError("not_video", message) from error
        if isinstance(error, av.error.EOFError) and not is_index_cut_off(file):
            message = f"{uri}: a header without packets. Copy or encode the file again."
            raise ClipError("no_frames", message) from error
        message = f"{uri}: the container's header is cut off or broken ({error.strerror}). Copy or encode it again."
        raise ClipError("corrupt", message) from error
    with container:
        yield container


def _begins_as(file: BinaryIO, *formats: tuple[int, bytes]) -> bool:
    """Whether the file's first bytes are those of one of the formats; leaves it where it is."""
    position = file.tell()
    file.seek(0)
    head = file.read(32)
    file.seek(position)
    return any(head[offset:].startswith(magic) for offset, magic in formats)


def video_stream(uri: str, file: BinaryIO, container: av.container.InputContainer) -> av.VideoStream:
    """The video stream to score: the default one, else the one with most pixels; cover art is none.

    Raises:
        ClipError: `corrupt`, `not_video` or `unsupported` where there is no such stream.
    """
    streams = [s for s in container.streams if s.type == "video"]
    shown = [s for s in streams if not s.disposition & av.stream.Disposition.attached_pic]
    if not shown:
        kinds = {s.type for s in container.streams}
        if _begins_as(file, *_VIDEOS) or (_begins_as(file, *_CONTAINERS) and not kinds - {"data"}):
            message = f"{uri}: begins as a video, but no track can be found in it. Copy or encode the file again."
            raise ClipError("corrupt", message)
        found = ", ".join(sorted(kinds)) or "no stream at all"
        found += " (the picture is cover art)" if streams else ""
        raise ClipError("not_video", f"{uri}: holds {found}, no video. Take it off the list.")
    usable = [s for s in shown if isinstance(s, av.VideoStream) and s.codec_context is not None]
    if not usable:
        message = f"{uri}: no decoder for its codec. Convert the file first, for example to H.264."
        raise ClipError("unsupported", message)

    def rank(stream: av.VideoStream) -> tuple[bool, int]:
        is_default = bool(stream.disposition & av.stream.Disposition.default)
        return is_default, stream.codec_context.width * stream.codec_context.height

    return max(usable, key=rank)


def rotation_degrees(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    """Clockwise rotation for display in degrees: 0, 90, 180 or 270."""
    found = _ROTATION.search(_description(container, stream))
    return round(-float(found[1]) / 90) % 4 * 90 if found else 0  # FFmpeg counts counterclockwise


def check_colours(uri: str, container: av.container.InputContainer, stream: av.VideoStream) -> None:
    """Raise ClipError "unsupported" for Dolby Vision without a base layer for other screens (profile 5)."""
    if _DOLBY_ALONE.search(_description(container, stream)):
        raise ClipError(
            "unsupported",
            f"{uri}: Dolby Vision without a base layer (profile 5), whose colours need Dolby's own decoder. Convert it "
            "to HDR10 or SDR first.",
        )


def _description(container: av.container.InputContainer, stream: av.VideoStream) -> str:
    """FFmpeg's description of a stream: the only place where PyAV exposes its side data."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        lines: str = container.dumps_format()  # type: ignore[attr-defined]  # missing in PyAV's stubs
    finally:
        av.logging.set_level(level)
    return lines.partition(f"  Stream #0:{stream.index}")[2].partition("  Stream #")[0]


def packets_of(container: av.container.InputContainer, stream: av.VideoStream) -> "Iterator[av.Packet[av.VideoStream]]":
    """Packets of the stream that carry bytes, in file order; ends where the file ends or can be read no further."""
    for other in container.streams:
        if other.index != stream.index:
            other.discard = av.stream.Discard.all
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except av.error.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        # A damaged tail: what came before it can still be scored.
    except IndexError:
        pass  # raised by PyAV after the last packet of files in which streams turned up late (transport streams)
