"""Conversion of frames to pictures: 8-bit full-range RGB, square pixels, upright.

swscale converts and scales in one step (bicubic, bit-exact code paths: pixels do not depend on the processor). The
matrix is the frame's own (BT.601, BT.709, BT.2020, ...); where the stream names none, BT.2020 for HDR, BT.709 for
frames wider than 1024 or higher than 576 pixels, else BT.601, as players do. The range (limited or full) is the
frame's own, limited where unnamed. HDR and BT.2020 colours: tonemap.py. Transparent pixels are shown on white, the
ground that FFmpeg gives GIFs: what is hidden under alpha 0 has no influence on the picture, whatever the format.
"""

from dataclasses import dataclass, field
from typing import TypeVar, cast

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from vqa.errors import ClipError
from vqa.media.color.tonemap import BT2020, HLG, PQ, to_sdr
from vqa.types import MediaInfo, Pixels

TargetSize = tuple[int, int] | None
Depth = TypeVar("Depth", np.uint8, np.uint16)

_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
_UNNAMED = (0, 2, 3)  # AVCOL_SPC: RGB stored as such; unspecified; reserved
_UNKNOWN = {8: "YCgCo", 11: "Y'D'zD'x", 14: "ICtCp", 15: "IPT-C2", 16: "YCgCo-Re", 17: "YCgCo-Ro"}  # to swscale


@dataclass(kw_only=True)
class FrameConverter:
    """Converter of the frames of one file; keeps one scaler for each size."""

    info: MediaInfo
    _scalers: dict[tuple[int, int, str, str], VideoReformatter] = field(default_factory=dict)

    def convert(self, frame: av.VideoFrame, size: TargetSize) -> Pixels:
        """Convert a frame to a picture as shown.

        A frame stored in another size than the others (the size changed in mid-stream) is scaled to that of the first.

        Args:
            frame: As decoded.
            size: (width, height) as shown, None for the native size.

        Returns:
            uint8 [height, width, 3], R'G'B' of BT.709, full range.

        Raises:
            ClipError: `unsupported` for a colour matrix that swscale does not have.
        """
        width, height = size or (self.info.width, self.info.height)
        if self.info.rotation_degrees in (90, 270):
            width, height = height, width
        is_toned = frame.color_trc in (PQ, HLG) or frame.color_primaries == BT2020
        colours = None
        if frame.colorspace in _UNNAMED and not frame.format.is_rgb:
            is_large = frame.width > 1024 or frame.height > 576
            colours = Colorspace.BT2020 if is_toned else Colorspace.ITU709 if is_large else Colorspace.ITU601
        elif frame.colorspace in _UNKNOWN:
            raise ClipError(
                "unsupported",
                f"{self.info.uri}: its colours are coded as {_UNKNOWN[frame.colorspace]}, which cannot be shown. "
                "Convert it to BT.709 first.",
            )
        stored, pixel_format = frame, "rgb48le" if is_toned else "rgb24"
        if self.info.crop or has_alpha(frame.format):  # before scaling, which would mix in what is not to be seen
            stored = self._visible(frame, pixel_format, colours)
            colours = None
        coded = self._scaled(stored, (width, height), pixel_format, colours).to_ndarray()  # uint16 or uint8
        wide = cast("NDArray[np.uint16]", coded)
        pixels = to_sdr(wide, transfer=int(frame.color_trc)) if is_toned else cast(Pixels, coded)
        if self.info.is_mirrored:
            pixels = pixels[::-1]
        return np.ascontiguousarray(np.rot90(pixels, k=-self.info.rotation_degrees // 90))

    def _visible(self, frame: av.VideoFrame, pixel_format: str, colours: Colorspace | None) -> av.VideoFrame:
        """The frame in R'G'B' at stored size, cropped, transparent pixels on white."""
        size, is_layered = (frame.width, frame.height), has_alpha(frame.format)
        layers = {"rgb24": "rgba", "rgb48le": "rgba64le"}
        scaled = self._scaled(frame, size, layers[pixel_format] if is_layered else pixel_format, colours)
        pixels = cast(Pixels, scaled.to_ndarray())  # uint16 where HDR
        if is_layered:
            pixels = on_white(pixels)
        if crop := self.info.crop:
            pixels = pixels[crop.top : frame.height - crop.bottom, crop.left : frame.width - crop.right]
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=pixel_format)

    def _scaled(
        self, frame: av.VideoFrame, size: tuple[int, int], pixel_format: str, colours: Colorspace | None
    ) -> av.VideoFrame:
        scaler = self._scalers.setdefault((*size, pixel_format, frame.format.name), VideoReformatter())
        return scaler.reformat(
            frame,
            width=size[0],
            height=size[1],
            format=pixel_format,
            src_colorspace=colours,
            dst_color_range=ColorRange.JPEG,
            interpolation=_SCALING,
            threads=1,
        )


def has_alpha(pixel_format: av.VideoFormat) -> bool:
    """Whether pixels of a format can be transparent, by an alpha plane or a palette."""
    return bool(pixel_format.has_palette) or any(component.is_alpha for component in pixel_format.components)


def on_white(layered: NDArray[Depth]) -> NDArray[Depth]:
    """R'G'B' of straight R'G'B'A integers [height, width, 4] on white, rounded."""
    most = np.iinfo(layered.dtype).max
    colour, alpha = layered[..., :3].astype(np.uint64), layered[..., 3:].astype(np.uint64)
    shown: NDArray[Depth] = ((colour * alpha + (most - alpha) * most + most // 2) // most).astype(layered.dtype)
    return shown
