"""Distortions of clips: pure functions of frames, severity and random generator.

Frames are uint8 [T, H, W, 3], the severity lies in [0, 1]. A codec at one rate is none of these: the
last step of a clip, which `ladder` stores with it.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageFilter

from vqa.data.synthetic.encoding import CODECS, encode_video
from vqa.data.synthetic.sources import read_video
from vqa.types import Pixels

SWITCHED = ("x264", "x265")  # the worst rates of VP9 and AV1 still look good
Distortion = Callable[[Pixels, float, np.random.Generator], Pixels]


def mix(low: float, high: float, severity: float) -> float:
    """From low at severity 0 to high at 1."""
    return low + (high - low) * severity


def clip(frames: ArrayLike) -> Pixels:
    """Rounded to grey levels."""
    return np.asarray(np.clip(np.rint(frames), 0, 255), dtype=np.uint8)


def each(frames: Pixels, change: Callable[[Image.Image], Image.Image]) -> Pixels:
    """Each frame changed as an image."""
    return np.stack([np.asarray(change(Image.fromarray(frame))) for frame in frames])


def scaling(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Scale down by 1.3 to 6 and up by a random filter: less detail, jagged edges."""
    height, width = frames.shape[1:3]
    factor = mix(1.3, 6.0, severity**1.5)
    small = (max(8, round(width / factor)), max(8, round(height / factor)))
    up = [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.NEAREST][generator.integers(3)]
    return each(frames, lambda image: image.resize(small, Image.Resampling.BICUBIC).resize((width, height), up))


def defocus(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Blur with a Gaussian of sigma 0.5 to 5 pixels."""
    return each(frames, lambda image: image.filter(ImageFilter.GaussianBlur(mix(0.5, 5.0, severity**1.5))))


def motion_blur(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Blur along a random direction by 2 to 14 pixels."""
    length = round(mix(2, 14, severity))
    angle = generator.uniform(0, np.pi)
    total = np.zeros(frames.shape, dtype=np.float32)
    for step in np.linspace(-length / 2, length / 2, length):
        shift = (round(step * np.sin(angle)), round(step * np.cos(angle)))
        total += _shifted(frames, *shift)
    return clip(total / length)


def _shifted(frames: Pixels, rows: int, columns: int) -> Pixels:
    height, width = frames.shape[1:3]
    y = np.clip(np.arange(height) + rows, 0, height - 1)
    x = np.clip(np.arange(width) + columns, 0, width - 1)
    return frames[:, y][:, :, x]


def noise(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Add noise (grey or colour, sigma 3-70), or salt and pepper on 8 % at most."""
    if generator.random() < 0.2:
        share = mix(0.001, 0.08, severity)
        draw = generator.random(frames.shape[:3], dtype=np.float32)[..., None]
        return np.where(draw < share / 2, 0, np.where(draw > 1 - share / 2, 255, frames)).astype(np.uint8)
    channels = 1 if generator.random() < 0.5 else 3
    sigma, shape = mix(3, 70, severity), (*frames.shape[1:3], channels)
    noisy = np.empty_like(frames)
    for frame, out in zip(frames, noisy, strict=True):  # one at a time: all of them in float32 are a gigabyte
        out[:] = clip(frame + generator.standard_normal(shape, dtype=np.float32) * sigma)
    return noisy


def exposure(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Change the exposure by 0.15 to 1.5 stops, up or down."""
    stops = mix(0.15, 1.5, severity) * (1 if generator.random() < 0.5 else -1)
    linear = (frames / np.float32(255.0)) ** 2.2 * np.float32(2.0**stops)
    return clip(255.0 * np.minimum(linear, 1.0) ** (1 / 2.2))


def contrast(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Reduce the contrast to 0.95 to 0.5 of the original."""
    mean = frames.mean(dtype=np.float64)
    return clip((frames - np.float32(mean)) * np.float32(mix(0.95, 0.5, severity)) + np.float32(mean))


def colour_cast(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Change the gains of the channels by up to 5 to 40 %."""
    pull = mix(0.05, 0.4, severity)
    gains = 1.0 + pull * generator.permutation(np.array([-1.0, 0.0, 1.0]))
    return clip(frames * gains.astype(np.float32))


def banding(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Quantise each channel to 24 to 2 levels."""
    levels = round(mix(24, 2, severity**0.5))
    step = np.float32(255.0 / (levels - 1))
    return clip(np.rint(frames / step) * step)


def dropped_frames(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Replace 5 to 50 % of the frames by the one before."""
    drop = generator.random(len(frames)) < mix(0.05, 0.5, severity)
    drop[0] = False
    shown: NDArray[np.int64] = np.maximum.accumulate(np.where(drop, 0, np.arange(len(frames))))
    return frames[shown]


def frozen(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Freeze the picture for 10 to 60 % of the clip."""
    length = max(2, round(len(frames) * mix(0.1, 0.6, severity)))
    start = int(generator.integers(0, len(frames) - length + 1))
    index = np.arange(len(frames))
    index[start : start + length] = start
    return frames[index]


def judder(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Displace frames in time by up to 1 to 4 places."""
    reach = round(mix(1, 4, severity))
    index = np.arange(len(frames)) + generator.integers(-reach, reach + 1, len(frames))
    shown: NDArray[np.int64] = np.clip(index, 0, len(frames) - 1)
    return frames[shown]


def flicker(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Vary the brightness from frame to frame by up to 5 to 45 %."""
    gains = 1.0 + mix(0.05, 0.45, severity) * generator.uniform(-1, 1, len(frames)).astype(np.float32)
    return clip(frames * gains[:, None, None, None])


def transmission_loss(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Lose slices: rows of blocks show an older picture, shifted, for 2 to 11 frames."""
    count, height, _, _ = frames.shape
    out = frames.copy()
    for _ in range(round(mix(2, 14, severity))):
        start = int(generator.integers(1, count))
        length = int(generator.integers(2, 12))
        top = int(generator.integers(0, max(1, height - 16)) // 16 * 16)
        rows = slice(top, min(height, top + 16 * int(generator.integers(1, 4))))
        slide = int(generator.integers(-24, 25))
        out[start : start + length, rows] = np.roll(out[start - 1, rows], slide, axis=1)
    return out


def rate_switches(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Encode segments in turn at a good and a bad rate, as adaptive streaming does.

    One to three times from the one rate to the other and back; segments are coded each by itself and decoded.

    Args:
        frames: T at least 6, H and W even.
        severity: CRF of the bad rate, a third to all of the way from the codec's best to its worst, and share of frames
            that have it, 25 to 75 %.
        generator: Draws codec, number of switches and which rate comes first.
    """
    codec = CODECS[SWITCHED[generator.integers(len(SWITCHED))]]
    rates = codec.best, codec.at(mix(1 / 3, 1, severity))
    turns, bad_first = int(generator.integers(1, 4)), generator.random() < 0.5
    ends = np.linspace(0, len(frames), turns + 1).round().astype(int)
    out = np.empty_like(frames)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "segment.mp4"
        for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            bad = round((end - start) * mix(0.25, 0.75, severity))
            middle = start + (bad if bad_first else end - start - bad)
            order = reversed(rates) if bad_first else rates
            for segment, crf in zip((slice(start, middle), slice(middle, end)), order, strict=True):
                encode_video(frames[segment], path, codec=codec, quality=crf)
                count = len(frames[segment])
                out[segment] = np.stack([np.asarray(one) for one in read_video(path, count=count)])
    return out


DISTORTIONS: dict[str, Distortion] = {
    "scaling": scaling,
    "defocus": defocus,
    "motion_blur": motion_blur,
    "noise": noise,
    "exposure": exposure,
    "contrast": contrast,
    "colour_cast": colour_cast,
    "banding": banding,
    "transmission_loss": transmission_loss,
    "dropped_frames": dropped_frames,
    "frozen": frozen,
    "judder": judder,
    "flicker": flicker,
    "rate_switches": rate_switches,
}
