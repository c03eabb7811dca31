"""Keyframes coded with parameters that the decoder lacks: HEVC, MPEG-4, WMV.

Recordings joined by copying keep the parameters of the first in the header (MS-MPEG4 and WMV: its picture size), and
FFmpeg decodes the others with them to rubbish without an error. Slice data end where their picture ends (ITU-T H.265,
7.3.8.1), which wrong parameters cannot meet: the decoder stops before the end of the data, so that other last bytes
change nothing, or reads on past it, so that bytes behind it change the picture, or it meets an error that it only tells
when asked to. Not found: what intra frames do not show, such as quarter-pel motion of MPEG-4 Part 2.
"""

from collections.abc import Callable
from typing import cast

import av
import numpy as np

from vqa.media.bitstream.bits import EndOfBitsError, nal_units
from vqa.media.bitstream.hevc import HevcStream
from vqa.media.containers.ffmpeg import open_container, packets_of, video_stream
from vqa.media.storage.open import open_source

_TAIL_BYTES, _MIN_BYTES = 64, 512  # in less, a flat picture can come out the same by chance
_MASKS = (0xFF, 0x5A)  # of the last bytes; the second makes sure
_VOLS = tuple(bytes([0, 0, 1, code]) for code in range(0x20, 0x30))  # of MPEG-4 Part 2 (ISO/IEC 14496-2, 6.2.3)
CODECS = {"hevc", "mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2"}  # the others say all in their frames
_BEHIND = bytes(1 + (73 * n + 41) % 251 for n in range(4096))  # without a 0, which would make start codes


class JointFinder:
    """Detector of keyframes that do not belong to the decoder's parameters."""

    def __init__(self, uri: str, context: av.VideoCodecContext) -> None:
        self._uri, self._codec = uri, context.codec.canonical_name
        self._length_bytes = HevcStream(context.extradata or b"").length_bytes if self._codec == "hevc" else 0
        self._decoder = cast("av.VideoCodecContext", av.VideoCodecContext.create(context.codec.name, "r"))
        self._decoder.extradata = context.extradata
        self._decoder.width, self._decoder.height = context.width, context.height
        if context.codec_tag != "\0\0\0\0":
            self._decoder.codec_tag = context.codec_tag
        self._decoder.thread_count = 1
        self._decoder.options = {"err_detect": "explode"}
        self._is_usable: bool | None = None

    def is_described(self, packet: "av.Packet[av.VideoStream]") -> bool:
        """Whether a packet brings parameters of its own, so that nothing is to be found."""
        if packet.has_sidedata("new_extradata"):  # the next sample entry of an mp4
            return True
        if packet.is_keyframe or self._codec not in ("hevc", "mpeg4"):
            return False
        if self._codec == "mpeg4":
            return any(code in bytes(packet) for code in _VOLS)
        try:
            units = nal_units(bytes(packet), self._length_bytes)
            return any(unit[0] >> 1 in (32, 33, 34) for unit in units)
        except EndOfBitsError:
            return False

    def is_foreign(self, packet: bytes, frame: av.VideoFrame) -> bool:
        """Whether the keyframe decoded to `frame` was coded with other parameters.

        False as well where the file's first keyframe, to which the header belongs, would be foreign too.
        """
        if not self._misses_the_end(packet, _samples(frame)):
            return False
        if self._is_usable is None:
            first = self._first_keyframe()
            shown = self._decode(first)
            self._is_usable = shown is not None and not self._misses_the_end(first, shown)
        return self._is_usable

    def _misses_the_end(self, packet: bytes, shown: bytes) -> bool:
        last, with_last = self._last_slice(packet)
        if not last:
            return False
        # Where a decoder gives up, it shows what was in its buffer before: two need not show the same.
        if (longer := self._decode(with_last(last + _BEHIND))) != shown:
            return longer is None or longer != self._decode(packet)
        if len(last) < _MIN_BYTES:
            return False
        stop = len(last.rstrip(b"\0"))  # zeros may be padding
        head, tail, rest = last[: stop - _TAIL_BYTES], last[stop - _TAIL_BYTES : stop], last[stop:]
        changed = (head + bytes(byte ^ mask or 1 for byte in tail) + rest for mask in _MASKS)
        return all(self._decode(with_last(other)) == shown for other in changed)

    def _last_slice(self, packet: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
        """Data of a keyframe's last slice, and the packet as a function of such data."""
        if self._codec == "mpeg4":  # behind the VOP there may be stuffing, or a packed B-VOP
            stop = packet.find(b"\0\0\1", packet.find(b"\0\0\1\xb6") + 3)
            last = packet[: stop if stop > 0 else len(packet)].rstrip(b"\0")
            return last, lambda data: data + packet[len(last) :]
        if self._codec != "hevc":
            return packet, bytes
        try:
            units = list(nal_units(packet, self._length_bytes))
        except EndOfBitsError:
            return b"", bytes
        slices = [n for n, unit in enumerate(units) if unit[0] >> 1 < 32 and not unit[0] & 1 and not unit[1] >> 3]
        last = units[slices[-1]].rstrip(b"\0") if slices else b""
        while last.endswith(b"\0\0\3"):  # cabac_zero_words (7.3.2.9)
            last = last[:-3].rstrip(b"\0")

        def with_last(data: bytes) -> bytes:
            size = self._length_bytes
            others = [*units[: slices[-1]], data, *units[slices[-1] + 1 :]]
            return b"".join((len(unit).to_bytes(size, "big") if size else b"\0\0\1") + unit for unit in others)

        return last, with_last

    def _decode(self, packet: bytes) -> bytes | None:
        """Samples of the only picture in a packet; None where there is none."""
        self._decoder.flush_buffers()
        try:
            frames = [*self._decoder.decode(av.Packet(packet)), *self._decoder.decode(None)]
        except av.error.InvalidDataError:
            return None
        return _samples(frames[0]) if len(frames) == 1 else None

    def _first_keyframe(self) -> bytes:
        with open_source(self._uri) as file, open_container(self._uri, file) as container:
            packets = packets_of(container, video_stream(self._uri, file, container))
            return next((bytes(packet) for packet in packets if packet.is_keyframe), b"")


def _samples(frame: av.VideoFrame) -> bytes:
    """All samples without the padding of the rows."""
    sample_bytes = 2 if frame.format.components[0].bits > 8 else 1
    planes = ((np.frombuffer(memoryview(plane), np.uint8), plane) for plane in frame.planes)
    rows = (data.reshape(-1, plane.line_size)[:, : plane.width * sample_bytes] for data, plane in planes)
    return b"".join(row.tobytes() for row in rows)
