"""HEVC keyframes that were coded with other parameter sets than the decoder has.

Recordings joined by copying keep the sets of the first in the header, and FFmpeg decodes the others with them to
rubbish without an error. Slice data end where their picture ends (ITU-T H.265, 7.3.8.1), which wrong sets cannot meet:
the decoder stops before the end of the data, so that other last bytes change nothing, or reads on past it, so that
bytes behind it change the picture, or it meets an error that it only tells when asked to.
"""

import av
import numpy as np

from vqa.media.bitstream.bits import EndOfBitsError, nal_units
from vqa.media.bitstream.hevc import HevcStream
from vqa.media.containers.ffmpeg import open_container, packets_of, video_stream
from vqa.media.storage.open import open_source

_TAIL_BYTES, _MIN_BYTES = 64, 512  # in less, a flat picture can come out the same by chance
_MASKS = (0xFF, 0x5A)  # of the last bytes; the second makes sure
_BEHIND = bytes(1 + (73 * n + 41) % 251 for n in range(4096))  # without a 0, which would make start codes


class JointFinder:
    """Tells keyframes that belong to the decoder's parameter sets from those that do not."""

    def __init__(self, uri: str, extradata: bytes) -> None:
        self._uri = uri
        self._length_bytes = HevcStream(extradata).length_bytes
        self._decoder = av.VideoCodecContext.create("hevc", "r")
        self._decoder.extradata = extradata
        self._decoder.thread_count = 1
        self._decoder.options = {"err_detect": "explode"}
        self._is_usable: bool | None = None

    def is_described(self, packet: "av.Packet[av.VideoStream]") -> bool:
        """Whether the packet brings sets that the decoder here would not get, so that nothing is to be found."""
        if packet.has_sidedata("new_extradata"):  # the next sample entry of an mp4
            return True
        try:
            units = [] if packet.is_keyframe else nal_units(bytes(packet), self._length_bytes)
            return any(unit[0] >> 1 in (32, 33, 34) for unit in units)
        except EndOfBitsError:
            return False

    def is_foreign(self, packet: bytes, frame: av.VideoFrame) -> bool:
        """Whether the keyframe in `packet`, decoded to `frame`, was coded with other sets.

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
        try:
            units = list(nal_units(packet, self._length_bytes))
        except EndOfBitsError:
            return False
        slices = [n for n, unit in enumerate(units) if unit[0] >> 1 < 32 and not unit[0] & 1 and not unit[1] >> 3]
        last = units[slices[-1]].rstrip(b"\0") if slices else b""
        while last.endswith(b"\0\0\3"):  # cabac_zero_words (7.3.2.9)
            last = last[:-3].rstrip(b"\0")
        if not last:
            return False

        def decoded(unit: bytes) -> bytes | None:
            changed = [*units[: slices[-1]], unit, *units[slices[-1] + 1 :]]
            size = self._length_bytes
            return self._decode(b"".join((len(u).to_bytes(size, "big") if size else b"\0\0\1") + u for u in changed))

        # Where a decoder gives up, it shows what was in its buffer before: two need not show the same.
        if (longer := decoded(last + _BEHIND)) != shown:
            return longer is None or longer != self._decode(packet)
        if len(last) < _MIN_BYTES:
            return False
        head, tail = last[:-_TAIL_BYTES], last[-_TAIL_BYTES:]
        return all(decoded(head + bytes(byte ^ mask or 1 for byte in tail)) == shown for mask in _MASKS)

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
