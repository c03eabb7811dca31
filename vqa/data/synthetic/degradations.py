"""Picture degradations in 5 levels: ARNIQA's 24 (7 groups), 8 that viewers meet.

The kinds are those of KADIS-700k and ARNIQA (arXiv 2310.14918); levels and code are vqa's own. Level 1 is just visible,
level 5 ruins the picture, and each level is worse than the one before: a ladder's order, which needs no opinion and no
metric. Pictures are float32 [H, W, 3] in [0, 1].
"""

import io
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from vqa.types import Pixels

Picture: TypeAlias = NDArray[np.float32]
Change: TypeAlias = Callable[[Picture, float, np.random.Generator], Picture]

LEVELS = 5
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Degradation:
    """One kind: its group, values of the levels, the change and what level 5 costs."""

    group: str
    values: tuple[float, float, float, float, float]
    change: Change
    harm: float = 1.0  # of level 5, as a share of the scale; our estimate, by eye


def degrade(picture: Pixels, kind: str, level: int, generator: np.random.Generator) -> Pixels:
    """Degrade a picture.

    Args:
        picture: uint8 [H, W, 3] RGB.
        kind: A key of DEGRADATIONS.
        level: 1-5.
        generator: Draws noise, places and directions; the same state for all levels of a ladder draws them alike.

    Returns:
        uint8 [H, W, 3].
    """
    one = DEGRADATIONS[kind]
    changed = one.change(picture.astype(np.float32) / np.float32(255), one.values[level - 1], generator)
    return np.asarray(np.rint(np.clip(changed, 0, 1) * 255), dtype=np.uint8)


def _image(picture: Picture) -> Image.Image:
    return Image.fromarray(np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8))


def _array(image: Image.Image) -> Picture:
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def _luma(picture: Picture) -> Picture:
    return np.asarray((picture @ _LUMA)[..., None], dtype=np.float32)


def _gaussian(picture: Picture, sigma: float) -> Picture:
    return np.asarray(ndimage.gaussian_filter(picture, (sigma, sigma, 0), mode="nearest"), dtype=np.float32)


def _filtered(picture: Picture, kernel: NDArray[np.float64]) -> Picture:
    """Correlate each channel with a small kernel, normalised to sum 1."""
    weights = (kernel / kernel.sum()).astype(np.float32)
    rows, columns = np.nonzero(weights)
    middle = np.array(kernel.shape) // 2
    height, width, _ = picture.shape
    padded = np.pad(picture, ((middle[0],) * 2, (middle[1],) * 2, (0, 0)), mode="edge")
    total = np.zeros_like(picture)
    for y, x in zip(rows.tolist(), columns.tolist(), strict=True):
        total += weights[y, x] * padded[y : y + height, x : x + width]
    return total


# --- blur -----------------------------------------------------------------------------------------------------------


def gaussian_blur(picture: Picture, sigma: float, generator: np.random.Generator) -> Picture:
    """Blur with a Gaussian of `sigma` pixels."""
    return _gaussian(picture, sigma)


def lens_blur(picture: Picture, radius: float, generator: np.random.Generator) -> Picture:
    """Blur with a disc of `radius` pixels."""
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return _filtered(picture, np.clip(radius + 0.5 - np.hypot(y, x), 0, 1))


def motion_blur(picture: Picture, length: float, generator: np.random.Generator) -> Picture:
    """Blur along a line of `length` pixels, its direction drawn."""
    angle = generator.uniform(0, np.pi)
    reach = int(np.ceil(length / 2)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    for step in np.linspace(-length / 2, length / 2, 4 * reach + 1):
        kernel[reach + round(step * np.sin(angle)), reach + round(step * np.cos(angle))] += 1
    return _filtered(picture, kernel)


# --- colour ---------------------------------------------------------------------------------------------------------


def _with_chroma(picture: Picture, change: Callable[[Picture], Picture]) -> Picture:
    luma = _luma(picture)
    return luma + change(picture - luma)


def colour_diffusion(picture: Picture, sigma: float, generator: np.random.Generator) -> Picture:
    """Blur the colour alone with a Gaussian of `sigma` pixels."""
    return _with_chroma(picture, lambda chroma: _gaussian(chroma, sigma))


def colour_shift(picture: Picture, pixels: float, generator: np.random.Generator) -> Picture:
    """Displace one channel by `pixels`, its direction drawn."""
    angle, channel = generator.uniform(0, 2 * np.pi), int(generator.integers(3))
    shifted = picture.copy()
    by = (round(pixels * np.sin(angle)), round(pixels * np.cos(angle)))
    shifted[..., channel] = ndimage.shift(picture[..., channel], by, order=0, mode="nearest")
    return shifted


def desaturate(picture: Picture, kept: float, generator: np.random.Generator) -> Picture:
    """Keep this share of the colour."""
    return _with_chroma(picture, lambda chroma: chroma * np.float32(kept))


def oversaturate(picture: Picture, factor: float, generator: np.random.Generator) -> Picture:
    """Multiply the colour by `factor`."""
    return _with_chroma(picture, lambda chroma: chroma * np.float32(factor))


# --- compression ----------------------------------------------------------------------------------------------------


def _encoded(picture: Picture, **options: object) -> Picture:
    buffer = io.BytesIO()
    _image(picture).save(buffer, **options)  # type: ignore[arg-type]  # Pillow types its options as Any by keyword
    with Image.open(buffer) as image:
        return _array(image.convert("RGB"))


def jpeg(picture: Picture, quality: float, generator: np.random.Generator) -> Picture:
    """JPEG at `quality`."""
    return _encoded(picture, format="JPEG", quality=int(quality))


def jpeg2000(picture: Picture, rate: float, generator: np.random.Generator) -> Picture:
    """JPEG 2000, `rate` times smaller than the pixels."""
    return _encoded(picture, format="JPEG2000", quality_mode="rates", quality_layers=[rate], irreversible=True)


def webp(picture: Picture, quality: float, generator: np.random.Generator) -> Picture:
    """WebP (a key frame of VP8) at `quality`."""
    return _encoded(picture, format="WEBP", quality=int(quality), method=2)


# --- noise ----------------------------------------------------------------------------------------------------------


def white_noise(picture: Picture, sigma: float, generator: np.random.Generator) -> Picture:
    """Add Gaussian noise of `sigma` to each channel."""
    return picture + np.float32(sigma) * generator.standard_normal(picture.shape, dtype=np.float32)


def colour_noise(picture: Picture, sigma: float, generator: np.random.Generator) -> Picture:
    """Add Gaussian noise of `sigma` to the colour alone."""
    grain = generator.standard_normal(picture.shape, dtype=np.float32)
    return picture + np.float32(sigma) * (grain - _luma(grain))


def impulse_noise(picture: Picture, share: float, generator: np.random.Generator) -> Picture:
    """Set this share of the samples to black or white."""
    draw = generator.random(picture.shape, dtype=np.float32)
    return np.where(draw < share / 2, 0, np.where(draw > 1 - share / 2, 1, picture)).astype(np.float32)


def multiplicative_noise(picture: Picture, sigma: float, generator: np.random.Generator) -> Picture:
    """Multiply each sample by Gaussian noise around 1 (speckle)."""
    return picture * (1 + np.float32(sigma) * generator.standard_normal(picture.shape, dtype=np.float32))


# --- brightness -----------------------------------------------------------------------------------------------------


def brighten(picture: Picture, gamma: float, generator: np.random.Generator) -> Picture:
    """Raise the tones by the power 1 / `gamma`."""
    return np.asarray(np.clip(picture, 0, 1) ** np.float32(1 / gamma), dtype=np.float32)


def darken(picture: Picture, gamma: float, generator: np.random.Generator) -> Picture:
    """Lower the tones by the power `gamma`."""
    return np.asarray(np.clip(picture, 0, 1) ** np.float32(gamma), dtype=np.float32)


def mean_shift(picture: Picture, shift: float, generator: np.random.Generator) -> Picture:
    """Add a constant, up or down as drawn, and clip."""
    return picture + np.float32(shift if generator.random() < 0.5 else -shift)


# --- space ----------------------------------------------------------------------------------------------------------


def jitter(picture: Picture, reach: float, generator: np.random.Generator) -> Picture:
    """Displace each pixel by up to `reach` pixels at random."""
    height, width, _ = picture.shape
    offset = generator.uniform(-1, 1, (2, height, width)) * reach
    y, x = np.mgrid[:height, :width] + np.rint(offset).astype(np.int64)
    return np.asarray(picture[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)])


def misplaced_patches(picture: Picture, count: float, generator: np.random.Generator) -> Picture:
    """Copy `count` patches to a place nearby (lost and concealed blocks)."""
    height, width, _ = picture.shape
    side, out = max(8, min(height, width) // 24), picture.copy()
    for _ in range(int(count)):
        y, x = int(generator.integers(0, height - side)), int(generator.integers(0, width - side))
        dy, dx = (int(one) for one in generator.integers(-side, side + 1, 2))
        fy, fx = min(max(0, y + dy), height - side), min(max(0, x + dx), width - side)
        out[y : y + side, x : x + side] = picture[fy : fy + side, fx : fx + side]
    return out


def pixelate(picture: Picture, side: float, generator: np.random.Generator) -> Picture:
    """Blocks of `side` pixels, each of one colour."""
    height, width, _ = picture.shape
    small = (max(1, round(width / side)), max(1, round(height / side)))
    image = _image(picture).resize(small, Image.Resampling.BOX)
    return _array(image.resize((width, height), Image.Resampling.NEAREST))


def quantise(picture: Picture, levels: float, generator: np.random.Generator) -> Picture:
    """Keep `levels` values of each channel (banding)."""
    steps = np.float32(levels - 1)
    return np.asarray(np.rint(np.clip(picture, 0, 1) * steps) / steps, dtype=np.float32)


def colour_blocks(picture: Picture, count: float, generator: np.random.Generator) -> Picture:
    """Cover `count` places with squares of one colour."""
    height, width, _ = picture.shape
    side, out = max(8, min(height, width) // 14), picture.copy()
    for _ in range(int(count)):
        y, x = int(generator.integers(0, height - side)), int(generator.integers(0, width - side))
        out[y : y + side, x : x + side] = generator.random(3, dtype=np.float32)
    return out


# --- sharpness and contrast -----------------------------------------------------------------------------------------


def oversharpen(picture: Picture, amount: float, generator: np.random.Generator) -> Picture:
    """Unsharp mask of sigma 1.5 pixels, `amount` times."""
    return picture + np.float32(amount) * (picture - _gaussian(picture, 1.5))


def less_contrast(picture: Picture, kept: float, generator: np.random.Generator) -> Picture:
    """Keep this share of the contrast around the mean."""
    mean = picture.mean(dtype=np.float64)
    return np.asarray((picture - mean) * kept + mean, dtype=np.float32)


def steeper_tones(picture: Picture, gain: float, generator: np.random.Generator) -> Picture:
    """A sigmoid of the tones with this gain: shadows and lights are lost."""
    half = 1 / (1 + np.exp(gain / 2))
    return np.asarray((1 / (1 + np.exp(-gain * (picture - 0.5))) - half) / (1 - 2 * half), dtype=np.float32)


# --- what viewers meet besides --------------------------------------------------------------------------------------


def upscaled(picture: Picture, factor: float, generator: np.random.Generator) -> Picture:
    """Stored `factor` times smaller and enlarged to be seen, by a filter as drawn."""
    filters = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS)
    up = filters[int(generator.integers(3))]
    height, width, _ = picture.shape
    small = (max(8, round(width / factor)), max(8, round(height / factor)))
    return _array(_image(picture).resize(small, Image.Resampling.BICUBIC).resize((width, height), up))


def upscaled_jpeg(picture: Picture, factor: float, generator: np.random.Generator) -> Picture:
    """As `upscaled`, by a bicubic filter, of a picture compressed at the small size."""
    height, width, _ = picture.shape
    small = (max(8, round(width / factor)), max(8, round(height / factor)))
    stored = _array(_image(picture).resize(small, Image.Resampling.BICUBIC))
    return _array(_image(jpeg(stored, 90 - 10 * factor, generator)).resize((width, height), Image.Resampling.BICUBIC))


def denoised(picture: Picture, threshold: float, generator: np.random.Generator) -> Picture:
    """Smooth away detail below `threshold`, scale by scale (Haar): strong denoising."""
    height, width, _ = picture.shape
    whole = np.pad(picture, ((0, -height % 16), (0, -width % 16), (0, 0)), mode="edge")
    return _shrunk(whole, threshold, depth=4)[:height, :width]


def _shrunk(picture: Picture, threshold: float, *, depth: int) -> Picture:
    parts = picture[::2, ::2], picture[::2, 1::2], picture[1::2, ::2], picture[1::2, 1::2]
    mean = np.asarray(sum(parts) / 4, dtype=np.float32)
    across, down, cross = (
        np.sign(one) * np.maximum(np.abs(one) - np.float32(threshold), 0)
        for one in (
            (parts[0] - parts[1] + parts[2] - parts[3]) / 4,
            (parts[0] + parts[1] - parts[2] - parts[3]) / 4,
            (parts[0] - parts[1] - parts[2] + parts[3]) / 4,
        )
    )
    mean = _shrunk(mean, threshold, depth=depth - 1) if depth > 1 else mean
    out = np.empty_like(picture)
    out[::2, ::2], out[::2, 1::2] = mean + across + down + cross, mean - across + down - cross
    out[1::2, ::2], out[1::2, 1::2] = mean + across - down - cross, mean - across - down + cross
    return out


def haze(picture: Picture, thickness: float, generator: np.random.Generator) -> Picture:
    """A veil of light that thickens towards a side, as drawn: fog, smoke, dust."""
    height, width, _ = picture.shape
    y, x = np.mgrid[:height, :width].astype(np.float32) / np.float32(max(height, width))
    angle = generator.uniform(0, 2 * np.pi)
    depth = 0.7 + 0.6 * (y * np.sin(angle) + x * np.cos(angle))
    kept = np.exp(-thickness * np.clip(depth, 0.2, None)).astype(np.float32)[..., None]
    veil = generator.uniform(0.6, 0.9) + generator.uniform(-0.05, 0.05, 3).astype(np.float32)
    return np.asarray(picture * kept + veil * (1 - kept), dtype=np.float32)


def underwater(picture: Picture, metres: float, generator: np.random.Generator) -> Picture:
    """A view through `metres` of water: red lost first, a green or blue veil, blur."""
    lost = np.array([0.45, 0.10, 0.07]) * generator.uniform(0.8, 1.2, 3)
    if generator.random() < 0.5:
        lost = lost[[0, 2, 1]]
    kept = np.exp(-lost * metres).astype(np.float32)
    veil = np.array([0.05, 0.40, 0.45]) if lost[1] > lost[2] else np.array([0.08, 0.45, 0.35])
    scattered = np.float32(1 - np.exp(-0.08 * metres))
    seen = picture * kept * (1 - scattered) + veil.astype(np.float32) * scattered
    return _gaussian(np.asarray(seen, dtype=np.float32), 0.12 * metres)


def _video_intra(codec: str) -> Change:
    def change(picture: Picture, crf: float, generator: np.random.Generator) -> Picture:
        """One intra frame of a video encoder at this constant quality."""
        import imageio_ffmpeg

        height, width, _ = picture.shape
        image = _image(picture)
        even = image.crop((0, 0, width // 2 * 2, height // 2 * 2))
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{even.width}x{even.height}"]
        program = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-nostdin", "-threads", "1"]
        options = ["-x265-params", "log-level=error:pools=1:frame-threads=1"] if codec == "libx265" else []
        encode = [*program, *raw, "-i", "-", "-c:v", codec, "-preset", "ultrafast", "-crf", str(int(crf)), *options]
        encode += ["-pix_fmt", "yuv420p", "-f", "matroska", "-"]
        decode = [*program, "-i", "-", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        data = even.tobytes()
        for command in (encode, decode):
            data = subprocess.run(command, input=data, capture_output=True, check=True).stdout
        image.paste(Image.frombytes("RGB", even.size, data))
        return _array(image)

    return change


DEGRADATIONS: dict[str, Degradation] = {
    "gaussian_blur": Degradation("blur", (0.7, 1.1, 1.8, 3.0, 5.0), gaussian_blur),
    "lens_blur": Degradation("blur", (1.0, 1.8, 3.0, 5.0, 8.0), lens_blur),
    "motion_blur": Degradation("blur", (2, 4, 7, 12, 20), motion_blur),
    "colour_diffusion": Degradation("colour", (2, 4, 8, 14, 24), colour_diffusion, 0.45),
    "colour_shift": Degradation("colour", (1, 2, 4, 7, 12), colour_shift, 0.7),
    "desaturate": Degradation("colour", (0.75, 0.55, 0.35, 0.15, 0.0), desaturate, 0.4),
    "oversaturate": Degradation("colour", (1.4, 1.8, 2.4, 3.5, 5.0), oversaturate, 0.6),
    "jpeg2000": Degradation("compression", (24, 45, 80, 130, 220), jpeg2000),
    "jpeg": Degradation("compression", (45, 30, 18, 10, 5), jpeg),
    "white_noise": Degradation("noise", (0.02, 0.04, 0.07, 0.12, 0.2), white_noise),
    "colour_noise": Degradation("noise", (0.04, 0.07, 0.12, 0.2, 0.35), colour_noise),
    "impulse_noise": Degradation("noise", (0.001, 0.004, 0.012, 0.03, 0.08), impulse_noise, 0.9),
    "multiplicative_noise": Degradation("noise", (0.05, 0.1, 0.17, 0.28, 0.45), multiplicative_noise),
    "brighten": Degradation("brightness", (1.2, 1.45, 1.8, 2.5, 3.6), brighten, 0.6),
    "darken": Degradation("brightness", (1.25, 1.6, 2.1, 3.0, 4.5), darken, 0.7),
    "mean_shift": Degradation("brightness", (0.07, 0.13, 0.2, 0.3, 0.42), mean_shift, 0.6),
    "jitter": Degradation("space", (0.7, 1.2, 2.0, 3.2, 5.0), jitter),
    "misplaced_patches": Degradation("space", (10, 25, 50, 90, 150), misplaced_patches, 0.55),
    "pixelate": Degradation("space", (2, 3, 5, 8, 13), pixelate),
    "quantise": Degradation("space", (20, 13, 9, 6, 4), quantise, 0.8),
    "colour_blocks": Degradation("space", (2, 4, 7, 12, 20), colour_blocks, 0.7),
    "oversharpen": Degradation("contrast", (1, 2, 3.5, 6, 10), oversharpen),
    "less_contrast": Degradation("contrast", (0.8, 0.62, 0.45, 0.3, 0.18), less_contrast, 0.7),
    "steeper_tones": Degradation("contrast", (5, 7, 10, 15, 25), steeper_tones, 0.7),
    "upscaled": Degradation("viewing", (1.6, 2.4, 4, 7, 12), upscaled),
    "upscaled_jpeg": Degradation("viewing", (1.5, 2.2, 3.3, 5, 7.5), upscaled_jpeg),
    "denoised": Degradation("viewing", (0.015, 0.03, 0.06, 0.1, 0.17), denoised),
    "haze": Degradation("viewing", (0.3, 0.6, 1.0, 1.6, 2.4), haze, 0.8),
    "underwater": Degradation("viewing", (0.6, 1.3, 2.4, 4, 7), underwater),
    "webp": Degradation("compression", (40, 25, 12, 5, 0), webp),
    "x264": Degradation("compression", (29, 34, 39, 44, 51), _video_intra("libx264")),
    "x265": Degradation("compression", (29, 34, 39, 44, 51), _video_intra("libx265")),
}
