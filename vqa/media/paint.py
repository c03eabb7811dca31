"""From a decoded frame to the picture that is shown: RGB of 8 bits, full range, the right way up.

swscale converts and scales in one step (bicubic, bit-exact code paths: pixels do not depend on the processor). The
matrix is the frame's own (BT.601, BT.709, BT.2020, ...); where the stream names none, BT.709 for frames wider than 1024
or higher than 576 pixels, else BT.601, as players do. The range (limited or full) is the frame's own, limited where
unnamed. Transfer functions are not touched: HDR stays PQ or HLG coded.
"""

from dataclasses import dataclass, field

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from vqa.types import Pixels

Size = tuple[int, int] | None

_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
_UNNAMED = (0, 2, 3)  # AVCOL_SPC: RGB stored as such; unspecified; reserved


@dataclass(kw_only=True)
class Painter:
    """Turns decoded frames into RGB pictures as shown; keeps one scaler for each size."""

    width: int
    height: int
    rotation_degrees: int
    _scalers: dict[tuple[int, int], VideoReformatter] = field(default_factory=dict)

    def paint(self, frame: av.VideoFrame, size: Size) -> Pixels:
        """The frame as uint8 [height, width, 3] at `size` (width, height) as shown, None for the native size."""
        width, height = size or (self.width, self.height)
        if self.rotation_degrees in (90, 270):
            width, height = height, width
        scaler = self._scalers.setdefault((width, height), VideoReformatter())
        colours = None
        if frame.colorspace in _UNNAMED and not frame.format.is_rgb:
            colours = Colorspace.ITU709 if frame.width > 1024 or frame.height > 576 else Colorspace.ITU601
        picture = scaler.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=colours,
            dst_color_range=ColorRange.JPEG,
            interpolation=_SCALING,
            threads=1,
        )
        pixels = picture.to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, k=-self.rotation_degrees // 90))
