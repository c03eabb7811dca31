"""Spatial samplers: the frame's size (or luma) in, boxes out.

Boxes are int64 [n, 4] of x, y, width, height, in pixels of the frame as given and half-open. A box larger than the
frame is clipped to it; all boxes of a call have one size.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Boxes = NDArray[np.int64]
Map = NDArray[np.float64]
SpatialName = Literal["centre", "grid", "fragments", "salient"]

MAP_SIDE_PIXELS = 480  # points of the lattice of `salient` along the long side, about, whatever the size
FREE_OVERLAP = 0.2  # share of their area that two boxes of `salient` may have in common; more only without a choice


def centre(width: int, height: int, *, box_width: int, box_height: int, count: int) -> Boxes:
    """The box in the middle, `count` times: the same place in each of several frames.

    Args:
        width: of the frame, in pixels.
        height: of the frame, in pixels.
        box_width: in pixels.
        box_height: in pixels.
        count: boxes.

    Returns:
        int64 [count, 4].

    Raises:
        ValueError: for a size or count below 1.
    """
    wide, high = _clipped(width, height, box_width, box_height, count)
    return np.tile(np.array([[(width - wide) // 2, (height - high) // 2, wide, high]], dtype=np.int64), (count, 1))


def grid(width: int, height: int, *, box_width: int, box_height: int, count: int) -> Boxes:
    """Boxes centred in the cells of a near-square lattice, row by row.

    A row with fewer boxes than the others spreads them over the whole width.

    Args:
        width: of the frame, in pixels.
        height: of the frame, in pixels.
        box_width: in pixels.
        box_height: in pixels.
        count: boxes.

    Returns:
        int64 [count, 4].

    Raises:
        ValueError: for a size or count below 1.
    """
    wide, high = _clipped(width, height, box_width, box_height, count)
    # As many columns to a row as the frame's aspect asks for, then no more rows than needed.
    columns = min(count, max(1, round(math.sqrt(count * width / height))))
    rows = -(-count // columns)
    per_row = [len(part) for part in np.array_split(np.arange(count), rows)]
    boxes = [
        (_middle(width, wide, column, in_row), _middle(height, high, row, rows), wide, high)
        for row, in_row in enumerate(per_row)
        for column in range(in_row)
    ]
    return np.array(boxes, dtype=np.int64)


def fragments(width: int, height: int, *, cells: int = 7, patch: int = 32, seed: int) -> Boxes:
    """Grid mini-patch sampling (FAST-VQA, arXiv 2207.02595): a patch per cell.

    The same seed and size give the same boxes, so that the patches of several frames line up. FAST-VQA enlarges a frame
    with less than cells * patch pixels along a side; here the patches get smaller instead, down to the cell, so nothing
    is ever enlarged.

    Args:
        width: of the frame, in pixels.
        height: of the frame, in pixels.
        cells: along each side.
        patch: side of a patch, in pixels.
        seed: draws the place in each cell.

    Returns:
        int64 [cells * cells, 4], row by row; stitched in that order they make one picture, 224 x 224 by default.

    Raises:
        ValueError: for a size, cells or patch below 1.
    """
    wide, high = _clipped(width, height, patch, patch, cells)
    wide, high = min(wide, max(1, width // cells)), min(high, max(1, height // cells))
    rng = np.random.default_rng(seed)

    def starts(length: int, side: int) -> Boxes:
        edges = np.arange(cells + 1) * length // cells
        room = np.maximum(np.diff(edges) - side, 0)
        places: Boxes = edges[:-1] + rng.integers(0, room + 1, size=(cells, cells))
        return np.minimum(places, length - side)

    x = starts(width, wide)
    y = starts(height, high).T
    boxes: Boxes = np.stack([x, y, np.full_like(x, wide), np.full_like(x, high)], axis=-1).reshape(-1, 4)
    return boxes


def salient(
    luma: ArrayLike,
    *,
    motion: ArrayLike | None = None,
    box_width: int,
    box_height: int,
    count: int,
    avoid: ArrayLike | None = None,
) -> Boxes:
    """Boxes with the most detail and motion, best first, with little overlap.

    Greedy on sums over an integral image. Detail is the gradient magnitude (the root of the gradient energy: the energy
    itself would follow the one hard edge of a caption or letterbox); detail and motion are each divided by their mean,
    so that both count. Ties go to the box nearest the middle.

    Args:
        luma: [height, width] of the frame, any real dtype; the boxes are in its pixels.
        motion: [h, w] >= 0, how much each place changes, on a map of any size that covers the frame.
        box_width: in pixels.
        box_height: in pixels.
        count: boxes.
        avoid: [m, 4], earlier boxes (in another frame of the clip) to keep off as well.

    Returns:
        int64 [count, 4]; where the frame is too small for `count` boxes apart, those with the least overlap.

    Raises:
        ValueError: for a size or count below 1, and arrays that are not two-dimensional.
    """
    picture = np.asarray(luma)
    if picture.ndim != 2:
        raise ValueError(f"salient: luma of shape {picture.shape} must be [height, width]")
    height, width = picture.shape
    wide, high = _clipped(width, height, box_width, box_height, count)
    step = max(1, max(width, height) // MAP_SIDE_PIXELS)
    interest = _relative(_detail(picture, step=step))
    if motion is not None:
        interest = interest + _relative(_resampled(motion, shape=interest.shape))

    x, y = _corners(width, wide, step), _corners(height, high, step)
    sums = _box_sums(interest, x=x, y=y, wide=wide, high=high, step=step)
    sums = sums / max(float(sums.max()), 1e-12) + 1e-6 * _closeness(width, height, wide, high, step)

    taken = np.asarray(avoid if avoid is not None else np.zeros((0, 4)), dtype=np.int64).reshape(-1, 4)
    overlap = np.zeros(sums.shape)
    for box in taken:
        _raise_overlap(overlap, box, x=x, y=y, wide=wide, high=high)
    boxes: list[tuple[int, int, int, int]] = []
    for _ in range(count):
        allowed = overlap <= max(FREE_OVERLAP, float(overlap.min()))
        row, column = np.unravel_index(int(np.argmax(np.where(allowed, sums, -1.0))), sums.shape)
        boxes.append((int(x[column]), int(y[row]), wide, high))
        _raise_overlap(overlap, np.array(boxes[-1]), x=x, y=y, wide=wide, high=high)
    return np.array(boxes, dtype=np.int64)


SPATIAL: dict[SpatialName, Callable[..., Boxes]] = {
    "centre": centre,
    "grid": grid,
    "fragments": fragments,
    "salient": salient,
}


def _clipped(width: int, height: int, box_width: int, box_height: int, count: int) -> tuple[int, int]:
    if min(width, height, box_width, box_height, count) < 1:
        raise ValueError(f"frame {width}x{height}, box {box_width}x{box_height}, count {count}: all must be 1 or more")
    return min(box_width, width), min(box_height, height)


def _middle(length: int, side: int, index: int, parts: int) -> int:
    """Start of a stretch of `side` centred in part `index`, moved inside [0, length)."""
    return min(max(round((index + 0.5) * length / parts - side / 2), 0), length - side)


def _detail(picture: NDArray[np.generic], *, step: int) -> Map:
    """Gradient magnitude [h, w] at every step-th pixel, from native neighbours.

    Reducing the picture first would blur it away.
    """
    here = picture[::step, ::step].astype(np.float64)
    right, below = np.zeros_like(here), np.zeros_like(here)
    beside, under = picture[::step, 1::step], picture[1::step, ::step]
    np.subtract(beside, here[:, : beside.shape[1]], out=right[:, : beside.shape[1]])
    np.subtract(under, here[: under.shape[0]], out=below[: under.shape[0]])
    right *= right
    below *= below
    right += below
    return np.sqrt(right, out=right)


def _resampled(values: ArrayLike, *, shape: tuple[int, ...]) -> Map:
    """The map at another size by nearest neighbour."""
    coarse = np.asarray(values, dtype=np.float64)
    if coarse.ndim != 2 or coarse.size == 0:
        raise ValueError(f"salient: motion of shape {coarse.shape} must be [height, width]")
    rows = np.arange(shape[0]) * coarse.shape[0] // shape[0]
    columns = np.arange(shape[1]) * coarse.shape[1] // shape[1]
    return np.asarray(coarse[rows[:, None], columns[None, :]], dtype=np.float64)


def _relative(values: Map) -> Map:
    mean = float(values.mean())
    return values / mean if mean > 0 else values


def _box_sums(interest: Map, *, x: Boxes, y: Boxes, wide: int, high: int, step: int) -> Map:
    """Box sums [len(y), len(x)] by an integral image (Viola and Jones 2001)."""
    integral = np.zeros((interest.shape[0] + 1, interest.shape[1] + 1))
    np.cumsum(np.cumsum(interest, axis=0), axis=1, out=integral[1:, 1:])
    left, right = -(-x // step), -(-(x + wide) // step)  # lattice points p with x <= p * step < x + wide
    top, bottom = -(-y // step), -(-(y + high) // step)
    below, above = integral[bottom], integral[top]
    found = below.take(right, axis=1)
    found -= below.take(left, axis=1)
    found -= above.take(right, axis=1)
    found += above.take(left, axis=1)
    return found


def _corners(length: int, side: int, step: int) -> Boxes:
    """Candidate starts: every step-th pixel, and the last place where the box fits."""
    return np.unique(np.append(np.arange(0, length - side + 1, step), length - side))


@lru_cache(maxsize=4)  # frames of a clip have one size
def _closeness(width: int, height: int, wide: int, high: int, step: int) -> Map:
    """Closeness of corners to the centred box's: 1 there, down to 0; read only."""
    across, down = (_corners(*one, step) - (one[0] - one[1]) / 2 for one in ((width, wide), (height, high)))
    away: Map = np.hypot(across[None, :], down[:, None])
    return 1.0 - away / max(float(away.max()), 1.0)


def _raise_overlap(overlap: Map, box: Boxes, *, x: Boxes, y: Boxes, wide: int, high: int) -> None:
    """Raise each candidate box's overlap to the part of its area that `box` covers."""
    columns, across = _covered(x, wide, int(box[0]), int(box[2]))
    rows, down = _covered(y, high, int(box[1]), int(box[3]))
    here = overlap[rows, columns]
    np.maximum(here, np.outer(down, across) / (wide * high), out=here)


def _covered(starts: Boxes, side: int, start: int, length: int) -> tuple[slice, Boxes]:
    """Sorted starts of stretches that meet a stretch, and by how many pixels."""
    some = slice(*np.searchsorted(starts, (start - side + 1, start + length)).tolist())
    return some, np.minimum(starts[some] + side, start + length) - np.maximum(starts[some], start)
