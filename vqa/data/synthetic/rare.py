"""Damage that is seldom met: of tape, film, sensors, screens, old transforms.

Lessons of it make a scorer depend less on the few kinds that most clips have. Pure functions as in `distortions`:
frames uint8 [T, H, W, 3], severity in [0, 1]; kinds, ranges and code are vqa's own.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageFilter
from scipy import fft, ndimage

from vqa.data.synthetic.distortions import Distortion, clip, each, mix
from vqa.types import Pixels

Plane: TypeAlias = NDArray[np.floating[Any]]


def _steps(low: float, high: float, severity: float) -> float:
    """As `mix`, each step of severity the same factor."""
    return float(low * (high / low) ** severity)


def _by_frame(frames: Pixels, change: Callable[[Plane, int], Plane]) -> Pixels:
    """Each frame changed as float32 [H, W, 3], given its number."""
    return np.stack([clip(change(frame.astype(np.float32), k)) for k, frame in enumerate(frames)])


def blocks_of(frame: Plane, side: int) -> Plane:
    """[rows, columns, 3, side, side] of a frame, its ends repeated."""
    height, width, _ = frame.shape
    padded = np.pad(frame, ((0, -height % side), (0, -width % side), (0, 0)), mode="edge")
    return padded.reshape(padded.shape[0] // side, side, -1, side, 3).transpose(0, 2, 4, 1, 3)


def from_blocks(blocks: Plane, height: int, width: int) -> Plane:
    """The frame [H, W, 3] of the blocks of `blocks_of`."""
    rows, columns, _, side, _ = blocks.shape
    return blocks.transpose(0, 3, 1, 4, 2).reshape(rows * side, columns * side, 3)[:height, :width]


def shifted(frame: Plane, down: ArrayLike, across: ArrayLike) -> Plane:
    """Each pixel from so many rows and columns further, which broadcast to [H, W]."""
    height, width, _ = frame.shape
    y = np.clip(np.arange(height)[:, None] + np.rint(down), 0, height - 1).astype(int)
    x = np.clip(np.arange(width) + np.rint(across), 0, width - 1).astype(int)
    return np.asarray(frame[y, x])


def smooth(shape: tuple[int, int], sigma: float, generator: np.random.Generator) -> Plane:
    """A Gaussian field of deviation 1, correlated over sigma pixels."""
    field = ndimage.gaussian_filter(generator.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
    return np.asarray(field / max(float(field.std()), 1e-6))


def lost_blocks(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Lose 0.3 to 25 % of the blocks of 16 pixels: another place's, or grey."""
    share, out = _steps(0.003, 0.25, severity), frames.copy()
    _, height, width, _ = frames.shape
    for k in range(1, len(frames)):
        for y, x in np.argwhere(generator.random((height // 16, width // 16)) < share).tolist():
            place = slice(16 * y, 16 * y + 16), slice(16 * x, 16 * x + 16)
            top, left = (int(generator.integers(size - 15)) for size in (height, width))
            is_grey = generator.random() < 0.3
            out[k][place] = 128 if is_grey else frames[k - 1, top : top + 16, left : left + 16]
    return out


def moved_blocks(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Displace blocks of 8 pixels by 0.4 to 3: wrong motion vectors."""
    deviation, (height, width) = _steps(0.4, 3, severity), frames.shape[1:3]
    size = (2, -(-height // 8), -(-width // 8))

    def change(frame: Plane, _: int) -> Plane:
        by = deviation * generator.standard_normal(size)
        down, across = by.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
        return shifted(frame, down, across)

    return _by_frame(frames, change)


def frosted(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Take each pixel from up to 0.7 to 4 pixels away: frosted glass."""
    reach = _steps(0.7, 4, severity)
    down, across = generator.uniform(-reach, reach, (2, *frames.shape[1:3]))
    return _by_frame(frames, lambda frame, _: shifted(frame, down, across))


def wobble(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Bend along running waves, by 0.6 to 4 pixels: hot air, a rolling shutter."""
    reach, period = _steps(0.6, 4, severity), generator.uniform(20, 120)
    y, x = (np.arange(size) * (2 * np.pi / period) for size in frames.shape[1:3])
    return _by_frame(
        frames,
        lambda frame, k: shifted(frame, reach * np.sin(x + 0.7 * k), reach * np.sin(y + 0.9 * k)[:, None]),
    )


def torn(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Push one to six bands of each frame aside by 2 to 40 pixels."""
    count, reach, height = round(mix(1, 6, severity)), _steps(2, 40, severity), frames.shape[1]

    def change(frame: Plane, _: int) -> Plane:
        by = np.zeros((height, 1))
        for top in generator.integers(height, size=count).tolist():
            by[top : top + int(generator.integers(4, max(5, height // 5)))] = generator.uniform(-reach, reach)
        return shifted(frame, 0, by)

    return _by_frame(frames, change)


def repeated_rows(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Repeat each second to sixth row alone: one field of interlaced video."""
    step = round(mix(2, 6, severity))
    rows = np.arange(frames.shape[1]) // step * step
    return np.ascontiguousarray(frames[:, rows])


def hum(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Add bars of 3 to 55 grey levels that run up the picture: mains hum."""
    strength, bars, speed = _steps(3, 55, severity), generator.uniform(1, 5), generator.uniform(0.1, 0.6)
    y = np.linspace(0, 2 * np.pi * bars, frames.shape[1])[:, None, None]
    return _by_frame(frames, lambda frame, k: frame + strength * np.sin(y + speed * k))


def mesh(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Darken each third to sixth row, column or both by 4 to 80 %: a screen's mesh."""
    lost, period = _steps(0.04, 0.8, severity), int(generator.integers(3, 7))
    lines = [(np.arange(size) % period == 0).astype(np.float32) for size in frames.shape[1:3]]
    which = int(generator.integers(3))
    is_dark = np.maximum(lines[0][:, None] * (which != 1), lines[1] * (which != 0))
    return _by_frame(frames, lambda frame, _: frame * (1 - lost * is_dark[..., None]))


def fixed_pattern(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Add 1 to 30 grey levels to each column, row or both, in all frames alike."""
    strength, which = _steps(1, 30, severity), int(generator.integers(3))
    rows, columns = (generator.standard_normal((size,)) for size in frames.shape[1:3])
    pattern = rows[:, None] * (which != 1) + columns * (which != 0)
    return _by_frame(frames, lambda frame, _: frame + strength * pattern[..., None])


def scratches(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Scratch it upright, with dust in each frame anew: worn film."""
    height, width = frames.shape[1:3]
    lines = generator.uniform(0, width, round(_steps(1, 30, severity)))
    specks, tones = round(_steps(2, 120, severity)), generator.choice((30, 235), size=len(lines))

    def change(frame: Plane, _: int) -> Plane:
        nonlocal lines
        lines = lines + generator.normal(0, 1, len(lines))
        for x, tone in zip((lines % width).astype(int).tolist(), tones.tolist(), strict=True):
            frame[:, x : x + int(generator.integers(1, 3))] = tone
        for _speck in range(specks):
            y, x = int(generator.integers(height)), int(generator.integers(width))
            high, wide = generator.integers(1, 6, 2).tolist()
            frame[y : y + high, x : x + wide] = 20 if generator.random() < 0.7 else 240
        return frame

    return _by_frame(frames, change)


def grain(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Grain of 0.7 to 2 pixels, deviation 2 to 40, strongest in middle tones: film."""
    strength, size = _steps(2, 40, severity), generator.uniform(0.7, 2)

    def change(frame: Plane, _: int) -> Plane:
        luma = frame.mean(2, keepdims=True) / 255
        grains = smooth(frame.shape[:2], size, generator)[..., None]
        return np.asarray(frame + strength * 2 * np.sqrt(luma * (1 - luma)) * grains)

    return _by_frame(frames, change)


def speckle(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Multiplied by noise around 1, deviation 0.03 to 0.6."""
    strength, shape = _steps(0.03, 0.6, severity), (*frames.shape[1:3], 1)
    return _by_frame(frames, lambda frame, _: frame * (1 + strength * generator.standard_normal(shape)))


def ghosts(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Add one to three echoes aside, 3 to 40 % in all: an aerial's reflections."""
    count, share = int(generator.integers(1, 4)), _steps(0.03, 0.4, severity)
    places = generator.integers(3, 41, count).tolist()

    def change(frame: Plane, _: int) -> Plane:
        echoes = np.add.reduce([shifted(frame, 0, -x) for x in places])
        return np.asarray((1 - share) * frame + share / count * echoes)

    return _by_frame(frames, change)


def along_rows(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Blurred along rows alone, sigma 0.5 to 6 pixels: the bandwidth of tape."""
    sigma = _steps(0.5, 6, severity)
    return _by_frame(frames, lambda frame, _: ndimage.gaussian_filter1d(frame, sigma, axis=1, mode="nearest"))


def peaking(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Overdraw edges across rows, 1 to 15 times: a television's sharpness."""
    gain, sigma = _steps(1, 15, severity), generator.uniform(0.8, 2.5)

    def change(frame: Plane, _: int) -> Plane:
        return np.asarray(frame + gain * (frame - ndimage.gaussian_filter1d(frame, sigma, axis=1, mode="nearest")))

    return _by_frame(frames, change)


def zoom_blur(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Mean of eight pictures zoomed in by up to 0.3 to 5 %."""
    most, (height, width) = _steps(0.003, 0.05, severity), frames.shape[1:3]
    zooms = [1 + most * k / 7 for k in range(8)]

    def change(image: Image.Image) -> Image.Image:
        total = np.zeros((height, width, 3), np.float32)
        for zoom in zooms:
            x, y = width * (1 - 1 / zoom) / 2, height * (1 - 1 / zoom) / 2
            box = (x, y, width - x, height - y)
            total += np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=box))
        return Image.fromarray(clip(total / len(zooms)))

    return each(frames, change)


def median(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Median of 3 by 3 pixels, one to five times over: a denoiser that paints."""
    for _ in range(round(mix(1, 5, severity))):
        frames = each(frames, lambda image: image.filter(ImageFilter.MedianFilter(3)))
    return frames


def misregistered(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Red, green and blue 1 to 5 pixels apart."""
    by = np.rint(_steps(1, 5, severity) * generator.permutation([-1, 0, 1])).astype(int).tolist()

    def change(frame: Plane, _: int) -> Plane:
        return np.stack([shifted(frame, 0, x)[..., k] for k, x in enumerate(by)], axis=2)

    return _by_frame(frames, change)


def blended(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Mean of 2 to 9 frames: a converter of frame rates."""
    count = round(mix(2, 9, severity))
    sums = np.cumsum(frames, axis=0, dtype=np.float32)
    places = np.arange(len(frames))
    first = np.maximum(places - count, -1)
    before = np.where((first >= 0)[:, None, None, None], sums[first], 0)
    return clip((sums - before) / (places - first)[:, None, None, None])


def mist(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Clouds of grey, 15 to 85 % where they are thickest."""
    most, field = _steps(0.15, 0.85, severity), smooth(frames.shape[1:3], min(frames.shape[1:3]) / 6, generator)
    share = most * np.clip(0.5 + field / 3, 0, 1)[..., None]
    return _by_frame(frames, lambda frame, _: frame * (1 - share) + 200 * share)


def two_tones(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Code blocks of 4 pixels as flat, or two tones if they deviate by 2 to 60."""
    least = _steps(2, 60, severity)

    def change(frame: Plane, _: int) -> Plane:
        blocks = blocks_of(frame, 4)
        mean = blocks.mean((3, 4), keepdims=True)
        above = blocks >= mean
        share = above.mean((3, 4), keepdims=True)
        deviation = blocks.std((3, 4), keepdims=True)
        high = mean + deviation * np.sqrt((1 - share) / np.maximum(share, 1 / 16))
        low = mean - deviation * np.sqrt(share / np.maximum(1 - share, 1 / 16))
        return from_blocks(np.where(deviation < least, mean, np.where(above, high, low)), *frame.shape[:2])

    return _by_frame(frames, change)


def coarse_cosines(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Round all cosines of blocks of 4 to 64 pixels alike, to 12 to 300."""
    side, step = int(2 ** generator.integers(2, 7)), _steps(12, 300, severity)

    def change(frame: Plane, _: int) -> Plane:
        found = fft.dctn(blocks_of(frame, side) - 128, axes=(3, 4), norm="ortho")
        rounded = np.rint(found / step) * step
        return from_blocks(fft.idctn(rounded, axes=(3, 4), norm="ortho") + 128, *frame.shape[:2])

    return _by_frame(frames, change)


def few_wavelets(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Haar wavelets of four scales, those below 5 to 150 set to 0."""
    least = np.float32(_steps(5, 150, severity))

    def without(found: Plane, scales: int) -> Plane:
        if not scales:
            return found
        rows = [found[:, ::2] + found[:, 1::2], found[:, ::2] - found[:, 1::2]]  # twice as large as orthonormal ones
        quads = [
            half
            for one in rows
            for half in ((one[:, :, ::2] + one[:, :, 1::2]) / 2, (one[:, :, ::2] - one[:, :, 1::2]) / 2)
        ]
        low, *details = without(quads[0], scales - 1), *(np.where(np.abs(one) < least, 0, one) for one in quads[1:])
        out = np.empty_like(found)
        for k, (down, across) in enumerate(((1, 1), (1, -1), (-1, 1), (-1, -1))):
            out[:, k // 2 :: 2, k % 2 :: 2] = (
                low + across * details[0] + down * details[1] + down * across * details[2]
            ) / 2
        return out

    def change(frame: Plane, _: int) -> Plane:
        height, width, _colours = frame.shape
        padded = np.pad(frame, ((0, -height % 16), (0, -width % 16), (0, 0)), mode="edge")
        return without(padded.transpose(2, 0, 1), 4).transpose(1, 2, 0)[:height, :width]

    return _by_frame(frames, change)


def low_rank(frames: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Tiles of 16 pixels as the sum of 8 to 1 products of a row and a column."""
    rank = round(_steps(8, 1, severity))

    def change(frame: Plane, _: int) -> Plane:
        left, values, right = np.linalg.svd(blocks_of(frame, 16), full_matrices=False)
        kept = (left[..., :rank] * values[..., None, :rank]) @ right[..., :rank, :]
        return from_blocks(kept, *frame.shape[:2])

    return _by_frame(frames, change)


_PLACES = (lost_blocks, moved_blocks, frosted, wobble, torn, repeated_rows)
_OVERLAYS = (hum, mesh, fixed_pattern, scratches, grain, speckle, ghosts)
_FILTERS = (along_rows, peaking, zoom_blur, median, misregistered, blended, mist)
_TRANSFORMS = (two_tones, coarse_cosines, few_wavelets, low_rank)
RARE: dict[str, Distortion] = {one.__name__: one for one in (*_PLACES, *_OVERLAYS, *_FILTERS, *_TRANSFORMS)}
