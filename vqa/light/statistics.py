"""Plain statistics of pictures: where detail ends, contrasts, tones, changes.

They say what pooled features of an encoder do not: how natural a frame's local contrasts are (BRISQUE: Mittal, Moorthy,
Bovik 2012, sections III-A and III-B), and what haze and water take away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.special import gamma

from vqa.types import Pixels

Vector = NDArray[np.float32]

BANDS = 16  # of spatial frequency, from 0.02 to 0.5 cycles a pixel, the first from 0.005
WHOLE_BANDS = 24  # of a whole frame, from 0.01 to 0.5
CONTRASTS = 2 + 4 * 4 + 6
SIZES = {
    "statistics": BANDS + BANDS + 7 + 10,  # spectra, gradients, tones
    "colours": 18,
    "spectra": 2 * WHOLE_BANDS,
    "contrasts": 2 * CONTRASTS,
    "motion": 6 + BANDS,
}

CROP_RINGS = (0.005, *np.geomspace(0.02, 0.5, BANDS).tolist())  # edges, in cycles a pixel
LUMA_RINGS, CHROMA_RINGS = (
    tuple(np.geomspace(0.01, 0.5, bands + 1).tolist()) for bands in (WHOLE_BANDS, WHOLE_BANDS // 2)
)


def _unit(picture: Pixels) -> Vector:
    """RGB in [0, 1]."""
    found = picture.astype(np.float32)
    found /= np.float32(255)
    return found


def _luma(colours: Vector) -> Vector:
    return np.asarray(colours @ np.array([0.299, 0.587, 0.114], dtype=np.float32))


def _opponents(picture: Pixels) -> tuple[Vector, Vector, Vector, Vector]:
    """RGB in [0, 1], luma, blue - luma, red - luma."""
    colours = _unit(picture)
    luma = _luma(colours)
    return colours, luma, colours[..., 2] - luma, colours[..., 0] - luma


def _planes(frame: Pixels) -> tuple[Vector, Vector, Vector]:
    """Luma; blue - luma and red - luma of every other pixel of every other row."""
    parts = []
    for top in range(0, len(frame), _STRIP):
        colours = _unit(frame[top : top + _STRIP])
        luma = _luma(colours)
        few, light = colours[::2, ::2], luma[::2, ::2]
        parts.append((luma, few[..., 2] - light, few[..., 0] - light))
    luma, blue, red = (np.concatenate(part) for part in zip(*parts, strict=True))
    return luma, blue, red


@dataclass(frozen=True, slots=True)
class _Rings:
    """Frequencies of `rfft2` by ring, where rows k and -k are folded into one."""

    window: Vector
    order: NDArray[np.int64]  # places of the inner frequencies, ring by ring
    starts: NDArray[np.int64]  # in `order`, of the rings that hold any
    filled: NDArray[np.bool_]  # which rings those are
    counts: NDArray[np.int64]  # of each ring, 1 at least


@cache
def _rings(height: int, width: int, edges: tuple[float, ...]) -> _Rings:
    window = np.hanning(height)[:, None] * np.hanning(width)[None]
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    ring = np.digitize(radius, edges)  # 0 and len(edges): outside
    counts = np.bincount(ring.ravel(), minlength=len(edges))[1 : len(edges)]
    folded = ring[: height // 2 + 1].ravel()
    order = np.argsort(folded, kind="stable")
    starts = np.searchsorted(folded[order], np.arange(1, len(edges) + 1))
    order, starts, filled = order[starts[0] : starts[-1]], starts[:-1] - starts[0], counts > 0
    return _Rings(window.astype(np.float32), order, starts[filled], filled, np.maximum(counts, 1))


def _spectrum(plane: Vector, edges: tuple[float, ...], least: float) -> NDArray[np.float64]:
    """Log of power and `least` per ring [len(edges) - 1]: where detail ends."""
    rings = _rings(*plane.shape, edges)
    found = torch.fft.rfft2(torch.from_numpy((plane - plane.mean()) * rings.window)).numpy()  # half of scipy's time
    power = found.real**2 + found.imag**2
    middle = len(power) // 2
    power[1 : len(power) - middle] += power[:middle:-1]
    sums = np.zeros(len(edges) - 1)
    sums[rings.filled] = np.add.reduceat(power[: middle + 1].ravel()[rings.order], rings.starts)
    return np.asarray(np.log(sums / rings.counts / plane.size + least))


def _quantiles(values: Vector, shares: Sequence[float]) -> NDArray[np.float64]:
    """As `numpy.quantile`, in an eighth of its time.

    numpy sorts faster than it selects.
    """
    ordered = np.sort(values, axis=None)
    places = np.multiply(shares, len(ordered) - 1)
    before = places.astype(int)
    low, high = (ordered[np.minimum(one, len(ordered) - 1)].astype(np.float64) for one in (before, before + 1))
    return np.asarray(low + (places - before) * (high - low))


def crop_statistics(crop: Pixels) -> NDArray[np.float64]:
    """Spectra (chroma: every other band), gradients and tones of a crop."""
    short = [max(0, 16 - side) for side in crop.shape[:2]]
    _, luma, blue, red = _opponents(np.pad(crop, ((0, short[0]), (0, short[1]), (0, 0)), mode="edge"))
    across, down = np.abs(np.diff(luma, axis=1)), np.abs(np.diff(luma, axis=0))
    flat = [(one < 1 / 512).mean() + 0.01 for one in (across, down)]
    quantiles = [*_quantiles(across, (0.5, 0.99)), across.max()]
    gradients = np.log(np.array([across.mean(), down.mean(), *quantiles, *flat]) + 1e-4)
    spread = luma.std()
    tones = [luma.mean(), spread, np.log(spread + 0.01), blue.mean(), red.mean(), np.abs(blue).mean(), blue.std()]
    ends = [red.std(), (luma > 0.98).mean(), (luma < 0.02).mean()]
    spectra = [_spectrum(plane, CROP_RINGS, 1e-7) for plane in (luma, blue, red)]
    return np.concatenate([spectra[0], spectra[1][::2], spectra[2][::2], gradients, tones, ends])


def change(crop: Pixels, later: Pixels) -> NDArray[np.float64]:
    """How much of a crop's luma changes to the next frame, and the change's spectrum."""
    short = [max(0, 16 - side) for side in crop.shape[:2]]
    margins = ((0, short[0]), (0, short[1]))
    change = np.pad(_luma(_unit(later)) - _luma(_unit(crop)), margins, mode="edge")
    sizes = np.abs(change)
    found = np.array([sizes.mean(), change.std(), abs(change.mean()), *_quantiles(sizes, (0.5, 0.99))])
    return np.array([*np.log(found + 1e-4), (sizes < 1 / 512).mean(), *_spectrum(change, CROP_RINGS, 1e-7)])


def full_size(frame: Pixels) -> NDArray[np.float64]:
    """Spectra of luma and chroma (half the pixels and bands), contrasts at two sizes."""
    short = [max(0, 32 - side) for side in frame.shape[:2]]
    frame = np.pad(frame, ((0, short[0]), (0, short[1]), (0, 0)), mode="edge")
    luma, blue, red = _planes(frame)
    spectra = [_spectrum(plane, CHROMA_RINGS, 1e-8) for plane in (blue, red)]
    half = blurred(luma, 0.8, step=2)
    return np.concatenate([_spectrum(luma, LUMA_RINGS, 1e-8), *spectra, _contrasts(luma), _contrasts(half)])


_STRIP = 32  # rows at once: they stay in the cache
_MOST_STRIPS = 20  # whose contrasts are told; of a taller frame every second strip, or fewer
_TILE = 8  # rows or columns that a blur makes by one product: larger ones are mostly zeros, and make BLAS start threads
_SHAPES = np.arange(0.2, 10, 0.001)  # of generalised Gaussians, and the ratio of moments that each has
_RATIOS = gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))


def _contrasts(luma: Vector) -> NDArray[np.float64]:
    """BRISQUE's fits to contrasts and products of neighbours; deviation quantiles.

    What is kept of a frame of more than _MOST_STRIPS strips is those told of, one below the other; the first row of
    each is then nobody's neighbour below.
    """
    height, width = luma.shape
    blur, step = _Blur(luma, 7 / 6), -(-height // (_STRIP * _MOST_STRIPS))
    tops = range(0, height, _STRIP * step)
    kept = sum(min(_STRIP, height - top) for top in tops)
    deviation, around = np.empty((kept, width), np.float32), np.empty((kept + 2, width + 2), np.float32)
    normal = around[1:-1, 1:-1]
    for k, top in enumerate(tops):
        strip, place = luma[top : top + _STRIP], slice(k * _STRIP, (k + 1) * _STRIP)
        rows, spread = blur.rows(top), deviation[place]
        mean, square = (blur(one)[: len(strip), :width].astype(np.float32) for one in (rows, rows * rows))
        square -= mean * mean
        np.sqrt(np.maximum(square, np.zeros_like(square), out=square), out=spread)
        np.divide(np.subtract(strip, mean, out=mean), spread + np.float32(1 / 255), out=normal[place])
    around[[0, -1]] = around[[-2, 1]]
    around[:, [0, -1]] = around[:, [-2, 1]]
    power, products = 0.0, np.zeros((4, 5))
    for top in range(0, kept, _STRIP):
        strip = normal[top : top + _STRIP]
        power += _dot(strip, strip) / normal.size
        first = top + (step > 1)
        strip = normal[first : top + _STRIP]
        for k, (down, across) in enumerate(((0, 1), (1, 0), (1, 1), (1, -1))):
            products[k] += _products(strip, around[1 + first - down :, 1 - across :][: len(strip), :width])
    shape = np.interp(np.abs(normal).mean() ** 2 / (power + 1e-12), _RATIOS, _SHAPES)
    found = [np.log(shape), np.log(power + 1e-4)]
    for sums in products.tolist():
        found += _asymmetric(*sums)
    return np.array([*found, *np.log(_quantiles(deviation[::4, ::4], (0.05, 0.25, 0.5, 0.75, 0.95, 0.995)) + 1e-4)])


def _dot(one: Vector, other: Vector) -> float:
    """Sum of products, row by row: of longer ones BLAS would make threads."""
    return float(np.vecdot(one, other).sum(dtype=np.float64))


def _products(one: Vector, other: Vector) -> tuple[float, float, float, float, float]:
    """Sums of the products' sizes, squares, squares below 0; counts, all and below 0."""
    every, zeros, ones = one * other, np.zeros(one.shape[1], np.float32), np.ones(one.shape[1], np.float32)
    negative = np.minimum(every, zeros)  # a scalar would take three times as long
    sizes = _dot(np.abs(every), ones)
    return sizes, _dot(every, every), _dot(negative, negative), every.size, int(np.count_nonzero(every < 0))


def _asymmetric(sizes: float, squares: float, left: float, count: float, below: float) -> list[float]:
    """Log shape, mean and log variances of an asymmetric Gaussian of any shape.

    Fitted to the sums that `_products` gives, of all strips.
    """
    left, right = left / max(below, 1), (squares - left) / max(count - below, 1)
    sides = (max(left, 1e-12) / max(right, 1e-12)) ** 0.5
    ratio = (sizes / count) ** 2 / (squares / count + 1e-12)
    shape = float(np.interp(ratio * (sides**3 + 1) * (sides + 1) / (sides**2 + 1) ** 2, _RATIOS, _SHAPES))
    mean = (right**0.5 - left**0.5) * gamma(2 / shape) / (gamma(1 / shape) * gamma(3 / shape)) ** 0.5
    return [float(np.log(shape)), float(mean), float(np.log(left + 1e-4)), float(np.log(right + 1e-4))]


class _Blur:
    """A Gaussian blur of strips of rows, as products with one banded matrix."""

    def __init__(self, plane: Vector, sigma: float, step: int = 1) -> None:
        """Pad the plane, mirrored at its edges, up to whole strips and tiles."""
        self._step, radius = step, int(3 * sigma + 0.5)
        weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
        weights /= weights.sum()
        band = np.zeros((_TILE, (_TILE - 1) * step + len(weights)))
        for k, row in enumerate(band):
            row[k * step : k * step + len(weights)] = weights
        whole = [-(-side // (size * step)) * size for side, size in zip(plane.shape, (_STRIP, _TILE), strict=True)]
        margins = [(radius, size * step - side + radius) for size, side in zip(whole, plane.shape, strict=True)]
        self._padded = np.pad(plane, margins, mode="symmetric")
        # The same memory for every strip: rows of float64, filtered down, filtered across, each seen as its tiles.
        self._rows = np.empty(((_STRIP - 1) * step + len(weights), self._padded.shape[1]))
        self._filtered = np.empty((_STRIP, self._padded.shape[1]))
        self._found = np.empty((_STRIP, whole[1]))
        stride = _TILE * step
        rows = sliding_window_view(self._rows, band.shape[1], axis=0)[::stride].transpose(0, 2, 1)
        columns = sliding_window_view(self._filtered, band.shape[1], axis=1)[:, ::stride].transpose(1, 0, 2)
        self._products = (
            (band, rows, self._filtered.reshape(-1, _TILE, self._filtered.shape[1])),
            (columns, np.ascontiguousarray(band.T), self._found.reshape(_STRIP, -1, _TILE).transpose(1, 0, 2)),
        )

    def rows(self, top: int) -> Vector:
        """What the strip from row `top` of the result on is made from."""
        return self._padded[top * self._step :][: len(self._rows)]

    def __call__(self, rows: Vector) -> NDArray[np.float64]:
        """[_STRIP, whole tiles], until the next call."""
        self._rows[:] = rows
        for one, other, product in self._products:
            np.matmul(one, other, out=product)
        return self._found


def blurred(plane: Vector, sigma: float, *, step: int = 1) -> Vector:
    """Every `step`-th pixel of a Gaussian blur.

    As `scipy.ndimage.gaussian_filter(plane, sigma, truncate=3)`, by strips of rows that stay in the cache: at 720p in
    three fifths of its time. In float64, as there: what is flat stays flat to the bit, and is told by that.
    """
    blur = _Blur(plane, sigma, step)
    found: Vector = np.empty(tuple(-(-side // step) for side in plane.shape), dtype=np.float32)
    for top in range(0, len(found), _STRIP):
        strip = found[top : top + _STRIP]
        strip[:] = blur(blur.rows(top))[: len(strip), : strip.shape[1]]
    return found


def colours_of(whole: Pixels) -> NDArray[np.float64]:
    """Brightness, contrast, saturation and cast of a frame, lost to haze and water."""
    colours, luma, blue, red = _opponents(whole)
    red_, green, blue_ = np.ascontiguousarray(np.moveaxis(colours, 2, 0))
    most, least = (pick(pick(red_, green), blue_) for pick in (np.maximum, np.minimum))
    saturation = (most - least) / (most + np.float32(0.05))
    low, high = _quantiles(luma, (0.01, 0.99))
    colourfulness = np.hypot(blue.std(), red.std()) + 0.3 * np.hypot(blue.mean(), red.mean())  # Hasler, Suesstrunk 2003
    light = [luma.mean(), luma.std(), np.log(luma.std() + 0.01), low, high, high - low, least.mean(), most.mean()]
    colour = [saturation.mean(), saturation.std(), blue.mean(), red.mean(), blue.std(), red.std(), colourfulness]
    return np.array([*light, *colour, *(plane.std() for plane in (red_, green, blue_))])
