"""A clip as one vector: encoder features and plain statistics of its frames.

Of each clip: a few whole frames at a small size, and a few crops at the size that viewers see. Features are the mean
and deviation of every stage of the encoder, which RALI (arXiv 2510.11369) takes of the last layer alone: damage shows
in the first stages, content in the last. Plain statistics say what pooled features do not: where detail ends, and how
natural a frame's local contrasts are (BRISQUE: Mittal, Moorthy, Bovik 2012, sections III-A and III-B).
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import rfft2
from scipy.special import gamma

from vqa.light.card import EmbeddingConfig
from vqa.light.encoder import CHANNELS, EfficientNetLite0
from vqa.types import Pixels

Vector = NDArray[np.float32]

BANDS = 16  # of spatial frequency, from 0.02 to 0.5 cycles a pixel, the first from 0.005
_SPECTRUM, _GRADIENTS, _TONES, _COLOURS = BANDS + BANDS, 7, 10, 18
WHOLE_BANDS = 24  # of a whole frame, from 0.01 to 0.5
_CONTRASTS = 2 + 4 * 4 + 6
ENCODED = 2 * sum(CHANNELS)
STATISTICS = _SPECTRUM + _GRADIENTS + _TONES  # of a crop
SIZES = {
    "whole": ENCODED,
    "crops": ENCODED,
    "statistics": STATISTICS,
    "colours": _COLOURS,
    "spectra": 2 * WHOLE_BANDS,
    "contrasts": 2 * _CONTRASTS,
}
SIZE = sum(SIZES.values())

_CORNERS = ((0.25, 0.25), (0.75, 0.75), (0.75, 0.25), (0.25, 0.75))  # centres of the crops, in frame sizes


def embed(network: EfficientNetLite0, frames: Sequence[Pixels], config: EmbeddingConfig) -> Vector:
    """Embed a clip.

    Args:
        network: The encoder, in evaluation mode.
        frames: At least one, uint8 [H, W, 3] RGB, in time order, of one size.
        config: How many are seen whole and how many crops are cut.

    Returns:
        float32 [SIZE], the groups of SIZES one after another: encoder on whole frames, encoder on crops, statistics of
        the crops, colours of the whole frames, each the mean over the pictures; spectra and local contrasts of the
        middle frame at its full size.
    """
    chosen = np.unique(np.linspace(0, len(frames) - 1, config.wholes).round().astype(int)).tolist()
    wholes = [_reduced(frames[k], config.whole_pixels**2) for k in chosen]
    crops = [_crop(frames[k * len(frames) // config.crops], k, config.crop_pixels) for k in range(config.crops)]
    return np.concatenate(
        [
            _encode(network, wholes).mean(0),
            _encode(network, crops).mean(0),
            np.mean([_statistics(crop) for crop in crops], axis=0),
            np.mean([_colours(whole) for whole in wholes], axis=0),
            _full_size(frames[len(frames) // 2]),
        ]
    ).astype(np.float32)


def _reduced(frame: Pixels, area: int) -> Pixels:
    height, width, _ = frame.shape
    scale = (area / (width * height)) ** 0.5
    if scale >= 1:
        return frame
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))


def _crop(frame: Pixels, k: int, side: int) -> Pixels:
    height, width, _ = frame.shape
    high, wide = min(side, height), min(side, width)
    x, y = _CORNERS[k % len(_CORNERS)]
    left = round(min(max(0, x * width - wide / 2), width - wide))
    top = round(min(max(0, y * height - high / 2), height - high))
    return frame[top : top + high, left : left + wide]


def _encode(network: EfficientNetLite0, pictures: Sequence[Pixels]) -> Vector:
    """Channel means and deviations by stage [N, ENCODED] of pictures of one size."""
    with torch.inference_mode():
        maps = network(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
        return np.asarray(torch.cat([part for one in maps for part in _moments(one)], 1).numpy())


def _moments(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation per channel [N, C]; torch's `std` takes ten times as long."""
    mean = maps.mean((2, 3), keepdim=True)
    return mean[..., 0, 0], (maps - mean).square_().mean((2, 3)).sqrt_()


def _opponents(picture: Pixels) -> tuple[Vector, Vector, Vector, Vector]:
    """RGB in [0, 1], luma, blue - luma, red - luma."""
    colours = picture.astype(np.float32) / np.float32(255)
    luma = colours @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return colours, luma, colours[..., 2] - luma, colours[..., 0] - luma


@cache
def _bands(height: int, width: int) -> tuple[Vector, NDArray[np.int64], NDArray[np.int64]]:
    """A window, the band of each `rfft2` frequency (-1, BANDS: outside), and counts."""
    window = np.hanning(height)[:, None] * np.hanning(width)[None]
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    edges = np.concatenate([[0.005], np.geomspace(0.02, 0.5, BANDS)])
    band = np.digitize(radius, edges) - 1
    counts = np.bincount(band[(band >= 0) & (band < BANDS)], minlength=BANDS)
    return window.astype(np.float32), band, np.maximum(counts, 1)


def _spectrum(plane: Vector) -> NDArray[np.float64]:
    """Log power per band [BANDS]: where detail ends (blur, enlargement, compression)."""
    window, band, counts = _bands(*plane.shape)
    power = np.abs(np.fft.rfft2((plane - plane.mean()) * window)) ** 2
    inside = (band >= 0) & (band < BANDS)
    sums = np.bincount(band[inside], weights=power[inside], minlength=BANDS)
    return np.asarray(np.log(sums / counts / plane.size + 1e-7))


def _statistics(crop: Pixels) -> NDArray[np.float64]:
    """Spectra (chroma: every other band), gradients and tones of a crop."""
    short = [max(0, 16 - side) for side in crop.shape[:2]]
    _, luma, blue, red = _opponents(np.pad(crop, ((0, short[0]), (0, short[1]), (0, 0)), mode="edge"))
    across, down = np.abs(np.diff(luma, axis=1)), np.abs(np.diff(luma, axis=0))
    flat = [(one < 1 / 512).mean() + 0.01 for one in (across, down)]
    quantiles = [*np.quantile(across, (0.5, 0.99)), across.max()]
    gradients = np.log(np.array([across.mean(), down.mean(), *quantiles, *flat]) + 1e-4)
    spread = luma.std()
    tones = [luma.mean(), spread, np.log(spread + 0.01), blue.mean(), red.mean(), np.abs(blue).mean(), blue.std()]
    ends = [red.std(), (luma > 0.98).mean(), (luma < 0.02).mean()]
    return np.concatenate([_spectrum(luma), _spectrum(blue)[::2], _spectrum(red)[::2], gradients, tones, ends])


def _full_size(frame: Pixels) -> NDArray[np.float64]:
    """Spectra of luma and chroma (half the pixels and bands), contrasts at two sizes."""
    short = [max(0, 32 - side) for side in frame.shape[:2]]
    _, luma, blue, red = _opponents(np.pad(frame, ((0, short[0]), (0, short[1]), (0, 0)), mode="edge"))
    colours = [_rings(np.ascontiguousarray(plane[::2, ::2]), WHOLE_BANDS // 2) for plane in (blue, red)]
    half = blurred(luma, 0.8, step=2)
    return np.concatenate([_rings(luma, WHOLE_BANDS), *colours, _contrasts(luma), _contrasts(half)])


@cache
def _ring_of(height: int, width: int, bands: int) -> tuple[Vector, NDArray[np.int64], NDArray[np.int64]]:
    """A window, the ring of each `rfft2` frequency (`bands`: outside), and counts."""
    window = np.hanning(height)[:, None] * np.hanning(width)[None]
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    ring = np.digitize(radius, np.geomspace(0.01, 0.5, bands + 1)) - 1
    ring[ring < 0] = bands
    return window.astype(np.float32), ring.ravel(), np.maximum(np.bincount(ring.ravel(), minlength=bands)[:bands], 1)


def _rings(plane: Vector, bands: int) -> NDArray[np.float64]:
    """Log power of a whole frame in rings of spatial frequency, [bands]."""
    window, ring, counts = _ring_of(*plane.shape, bands)
    found = rfft2((plane - plane.mean()) * window)
    power = (found.real**2 + found.imag**2).ravel()
    sums = np.bincount(ring, weights=power, minlength=bands)[:bands]
    return np.asarray(np.log(sums / counts / plane.size + 1e-8))


_STRIP = 16  # rows at once
_SHAPES = np.arange(0.2, 10, 0.001)  # of generalised Gaussians, and the ratio of moments that each has
_RATIOS = gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))


def _contrasts(luma: Vector) -> NDArray[np.float64]:
    """BRISQUE's fits to contrasts and products of neighbours; deviation quantiles."""
    mean = blurred(luma, 7 / 6)
    deviation = np.sqrt(np.maximum(blurred(luma * luma, 7 / 6) - mean * mean, 0))
    normal: Vector = np.asarray((luma - mean) / (deviation + np.float32(1 / 255)), dtype=np.float32)
    power = float((normal * normal).mean())
    shape = np.interp(np.abs(normal).mean() ** 2 / (power + 1e-12), _RATIOS, _SHAPES)
    found = [np.log(shape), np.log(power + 1e-4)]
    around = np.pad(normal, 1, mode="wrap")
    for down, across in ((0, 1), (1, 0), (1, 1), (1, -1)):
        found += _asymmetric(normal, around[1 - down :, 1 - across :])
    return np.array([*found, *np.log(np.quantile(deviation[::4, ::4], (0.05, 0.25, 0.5, 0.75, 0.95, 0.995)) + 1e-4)])


def _asymmetric(one: Vector, other: Vector) -> list[float]:
    """Log shape, mean and log variances of an asymmetric Gaussian of any shape.

    Fitted to the products of `one` and `other`, which may be larger.
    """
    sums = np.zeros(5)
    for top in range(0, len(one), _STRIP):
        strip = one[top : top + _STRIP]
        every = (strip * other[top : top + len(strip), : strip.shape[1]]).ravel()
        negative = np.minimum(every, 0)
        sums += every.sum(), negative.sum(), every @ every, negative @ negative, np.count_nonzero(negative)
    total, low, squares, left, below = sums.tolist()
    left, right = left / max(below, 1), (squares - left) / max(one.size - below, 1)
    sides = (max(left, 1e-12) / max(right, 1e-12)) ** 0.5
    ratio = ((total - 2 * low) / one.size) ** 2 / (squares / one.size + 1e-12)
    shape = float(np.interp(ratio * (sides**3 + 1) * (sides + 1) / (sides**2 + 1) ** 2, _RATIOS, _SHAPES))
    mean = (right**0.5 - left**0.5) * gamma(2 / shape) / (gamma(1 / shape) * gamma(3 / shape)) ** 0.5
    return [float(np.log(shape)), float(mean), float(np.log(left + 1e-4)), float(np.log(right + 1e-4))]


def blurred(plane: Vector, sigma: float, *, step: int = 1) -> Vector:
    """Every `step`-th pixel of a Gaussian blur.

    As `scipy.ndimage.gaussian_filter(plane, sigma, truncate=3)`, by strips of rows that stay in the cache: at 1080p in
    three quarters of its time. In float64, as there: what is flat stays flat to the bit, and is told by that.
    """
    radius = int(3 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights = (weights / weights.sum())[radius:]
    padded = np.pad(plane, radius, mode="symmetric")
    found: Vector = np.empty(tuple(-(-side // step) for side in plane.shape), dtype=np.float32)
    width = (found.shape[1] - 1) * step + 1
    for top in range(0, len(found), _STRIP):
        strip = found[top : top + _STRIP]
        height = (len(strip) - 1) * step + 1
        rows = padded[top * step :][: height + 2 * radius].astype(np.float64)
        down = rows[radius : radius + height : step] * weights[0]
        for k in range(1, radius + 1):
            low, high = radius - k, radius + k
            down += (rows[low : low + height : step] + rows[high : high + height : step]) * weights[k]
        across = down[:, radius : radius + width : step] * weights[0]
        for k in range(1, radius + 1):
            low, high = radius - k, radius + k
            across += (down[:, low : low + width : step] + down[:, high : high + width : step]) * weights[k]
        strip[:] = across
    return found


def _colours(whole: Pixels) -> NDArray[np.float64]:
    """Brightness, contrast, saturation and cast of a frame, lost to haze and water."""
    colours, luma, blue, red = _opponents(whole)
    red_, green, blue_ = np.moveaxis(colours, 2, 0)
    most, least = (pick(pick(red_, green), blue_) for pick in (np.maximum, np.minimum))
    saturation = (most - least) / (most + np.float32(0.05))
    low, high = np.quantile(luma, (0.01, 0.99))
    colourfulness = np.hypot(blue.std(), red.std()) + 0.3 * np.hypot(blue.mean(), red.mean())  # Hasler, Suesstrunk 2003
    light = [luma.mean(), luma.std(), np.log(luma.std() + 0.01), low, high, high - low, least.mean(), most.mean()]
    colour = [saturation.mean(), saturation.std(), blue.mean(), red.mean(), blue.std(), red.std(), colourfulness]
    return np.array([*light, *colour, *colours.std((0, 1))])
