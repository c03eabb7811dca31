"""From a decoded frame to the picture that is shown: RGB of 8 bits, full range, square pixels, the right way up.

swscale converts and scales in one step (bicubic, bit-exact code paths: pixels do not depend on the processor). The
matrix is the frame's own (BT.601, BT.709, BT.2020, ...); where the stream names none, BT.2020 for HDR, BT.709 for
frames wider than 1024 or higher than 576 pixels, else BT.601, as players do. The range (limited or full) is the
frame's own, limited where unnamed. HDR and BT.2020 colours: tone.py.
"""

import struct
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from vqa.errors import ClipError
from vqa.media.color.tonemap import BT2020, HLG, PQ, to_sdr
from vqa.types import MediaInfo, Pixels

Size = tuple[int, int] | None

_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
_UNNAMED = (0, 2, 3)  # AVCOL_SPC: RGB stored as such; unspecified; reserved
_UNKNOWN = {8: "YCgCo", 11: "Y'D'zD'x", 14: "ICtCp", 15: "IPT-C2", 16: "YCgCo-Re", 17: "YCgCo-Ro"}  # to swscale


@dataclass(kw_only=True)
class Painter:
    """Turns decoded frames into RGB pictures as shown; keeps one scaler for each size."""

    info: MediaInfo
    _scalers: dict[tuple[int, int], VideoReformatter] = field(default_factory=dict)
    _is_flipped: bool | None = None  # by the stream's display matrix; None: no frame seen yet

    def paint(self, frame: av.VideoFrame, size: Size) -> Pixels:
        """The frame as uint8 [height, width, 3] at `size` (width, height) as shown, None for the native size.

        A frame stored in another size than the others (the size changed in mid-stream) is scaled to that of the first.
        Raises ClipError unsupported for a colour matrix that swscale has not.
        """
        width, height = size or (self.info.width, self.info.height)
        if self.info.rotation_degrees in (90, 270):
            width, height = height, width
        scaler = self._scalers.setdefault((width, height), VideoReformatter())
        is_toned = frame.color_trc in (PQ, HLG) or frame.color_primaries == BT2020
        colours = None
        if frame.colorspace in _UNNAMED and not frame.format.is_rgb:
            is_large = frame.width > 1024 or frame.height > 576
            colours = Colorspace.BT2020 if is_toned else Colorspace.ITU709 if is_large else Colorspace.ITU601
        elif frame.colorspace in _UNKNOWN:
            raise ClipError(
                "unsupported",
                f"{self.info.uri}: its colours are coded as {_UNKNOWN[frame.colorspace]}, which cannot be shown; "
                "convert it to BT.709 first",
            )
        picture = scaler.reformat(
            frame,
            width=width,
            height=height,
            format="rgb48le" if is_toned else "rgb24",
            src_colorspace=colours,
            dst_color_range=ColorRange.JPEG,
            interpolation=_SCALING,
            threads=1,
        )
        coded: Any = picture.to_ndarray()  # uint16 or uint8
        pixels: Pixels = to_sdr(coded, transfer=int(frame.color_trc)) if is_toned else coded
        if self._is_flipped is None:
            self._is_flipped = _is_flipped(frame)
        if self.info.is_mirrored or self._is_flipped:
            pixels = pixels[::-1]
        return np.ascontiguousarray(np.rot90(pixels, k=-self.info.rotation_degrees // 90))


def _is_flipped(frame: av.VideoFrame) -> bool:
    """Whether the display matrix of a video flips its pictures: only frames carry the matrix in full.

    Asked of a thumbnail: a frame whose side data were looked at is part of a cycle (PyAV), and one that the garbage
    collector returns to the decoder late makes what damaged HEVC leaves unwritten differ from one decoding to the next.
    """
    scaler = VideoReformatter()
    thumbnail = scaler.reformat(frame, width=16, height=16, format="gray", interpolation=Interpolation.POINT)
    try:
        matrix = thumbnail.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]  # PyAV's stubs name str
    except ValueError:  # a kind of side data newer than PyAV's list, such as EXIF
        return False
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20]) if matrix else (1, 0, 0, 0, 1)
    return bool(a * d < b * c)
