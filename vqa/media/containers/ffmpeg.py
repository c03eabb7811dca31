"""Demuxing by FFmpeg: container, stream to score, packets, errors of opening."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import av

from vqa.errors import ClipError
from vqa.media.containers.matroska import encrypted_videos, mirrored_videos
from vqa.media.containers.mp4 import is_index_cut_off, is_track_mirrored, sample_entries
from vqa.types import Crop

_READ_BYTES = 1 << 18
_ROTATION = re.compile(r"rotation of (-?[\d.]+) degrees")
_CROPPING = re.compile(r"Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)")
_TILE = 1 << 19  # AV_DISPOSITION_DEPENDENT: of a HEIF picture that is stored in tiles
_TS_PACKET, _TS_LOOKED_AT = 188, 1 << 20  # bytes
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
    """Whether the file begins as one of the formats; keeps the position."""
    position = file.tell()
    file.seek(0)
    head = file.read(32)
    file.seek(position)
    return any(head[offset:].startswith(magic) for offset, magic in formats)


def video_stream(uri: str, file: BinaryIO, container: av.container.InputContainer) -> av.VideoStream:
    """Video stream to score: the default, else with most pixels, then most frames.

    Cover art is none. An AVIF sequence holds its first picture as a still too, of one frame.

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

    if any(stream.disposition & _TILE for stream in usable) and _begins_as(file, (4, b"ftyp")):
        message = f"{uri}: a picture stored in tiles whose layout cannot be read. Convert it to JPEG or PNG first."
        raise ClipError("unsupported", message)

    def rank(stream: av.VideoStream) -> tuple[bool, int, int]:
        is_default = bool(stream.disposition & av.stream.Disposition.default)
        return is_default, stream.codec_context.width * stream.codec_context.height, stream.frames

    return max(usable, key=rank)


def check_encryption(uri: str, file: BinaryIO, container: av.container.InputContainer, stream: av.VideoStream) -> None:
    """Raise ClipError "unsupported" for an encrypted stream, as its container says.

    Packagers often leave slice headers clear, so that decoders paint rubbish without an error.
    """
    name = container.format.name
    is_encrypted = False
    if name.startswith("matroska"):
        is_encrypted = any(encrypted_videos(file)[(place := _video_number(container, stream)) : place + 1])
    elif name.startswith("mov"):
        is_encrypted = any(entry.is_encrypted for entry in sample_entries(file, stream.id))
    elif name == "mpegts":
        is_encrypted = _is_scrambled(file, stream.id)
    if is_encrypted:
        message = f"{uri}: its video is encrypted. Give a file without copy protection, or decrypt it first."
        raise ClipError("unsupported", message)


def _is_scrambled(file: BinaryIO, pid: int) -> bool:
    """Whether most packets of a TS PID are scrambled (ISO/IEC 13818-1, 2.4.3.3)."""
    position = file.tell()
    file.seek(0)
    data = file.read(_TS_LOOKED_AT)
    file.seek(position)
    size = _TS_PACKET + 4 if data[4:5] == b"G" and data[:1] != b"G" else _TS_PACKET  # M2TS: a time before each
    heads = [data[at : at + 4] for at in range(size - _TS_PACKET, len(data) - 3, size)]
    controls = [head[3] >> 6 for head in heads if head[:1] == b"G" and int.from_bytes(head[1:3], "big") & 0x1FFF == pid]
    return 2 * sum(control > 1 for control in controls) > len(controls)


def display_turn(file: BinaryIO, container: av.container.InputContainer, stream: av.VideoStream) -> tuple[int, bool]:
    """Clockwise turn for display in degrees, and whether to flip upside down before.

    By the container's display matrix. FFmpeg's text gives its rotation alone, and only decoded frames carry it in full:
    not those of all decoders, and PyAV dies of PNG's with a colour profile when their side data are read.
    """
    found = _ROTATION.search(_description(container, stream))
    if not found:
        return 0, False
    is_mirrored = False
    if container.format.name.startswith("mov"):
        is_mirrored = is_track_mirrored(file, stream.id)
    elif container.format.name.startswith("matroska"):
        is_mirrored = any(mirrored_videos(file)[(place := _video_number(container, stream)) : place + 1])
    return round(-float(found[1]) / 90) % 4 * 90, is_mirrored  # FFmpeg counts counterclockwise


def _video_number(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    """Place of a stream among the video tracks, which attached pictures follow."""
    return [one.index for one in container.streams if one.type == "video"].index(stream.index)


def crop_of(container: av.container.InputContainer, stream: av.VideoStream) -> Crop | None:
    """Crop by Matroska's PixelCrop or mp4's `clap`, which libavcodec does not apply."""
    found = _CROPPING.search(_description(container, stream))
    crop = Crop(*map(int, found.groups())) if found else None
    return crop if crop and any(crop) else None


def check_colours(uri: str, container: av.container.InputContainer, stream: av.VideoStream) -> None:
    """Refuse Dolby Vision without a base layer (profile 5): ClipError "unsupported"."""
    if _DOLBY_ALONE.search(_description(container, stream)):
        raise ClipError(
            "unsupported",
            f"{uri}: Dolby Vision without a base layer (profile 5), whose colours need Dolby's own decoder. Convert it "
            "to HDR10 or SDR first.",
        )


def _description(container: av.container.InputContainer, stream: av.VideoStream) -> str:
    """FFmpeg's text on a stream, the only place where PyAV exposes its side data."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        lines: str = container.dumps_format()  # type: ignore[attr-defined]  # missing in PyAV's stubs
    finally:
        av.logging.set_level(level)
    return lines.partition(f"  Stream #0:{stream.index}")[2].partition("  Stream #")[0]


def packets_of(container: av.container.InputContainer, stream: av.VideoStream) -> "Iterator[av.Packet[av.VideoStream]]":
    """Packets of a stream that carry bytes, in file order, as far as it can be read."""
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
