"""Temporal samplers: times in, ascending int64 indices into those times out.

All samplers but `fps` share one rule. Give every frame a weight (how long it is shown), lay the weights end to end, cut
the line into `count` equal parts and take from each part the frame that lies under its middle (letters are frames)::

    uniform, 3 of 7   |aaaabbc|cccddee|eeffffg|   -> a d f    even in time, also where the frame rate varies
                          ^       ^       ^
    keyframe          |aabbccc|ccccccc|cddeefg|   -> b c e    change around c: it weighs more, so time runs slower there
                          ^       ^       ^
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]
TemporalName = Literal["uniform", "fps", "segment", "keyframe", "linspace"]

CHANGE_CAP = 4.0  # change counts up to this many times its mean, so that one cut cannot eat the budget


def uniform(frame_seconds: ArrayLike, *, count: int) -> Indices:
    """Frames shown at the middles of `count` equal parts of the time.

    Args:
        frame_seconds: float [N], ascending presentation times.
        count: frames to take, at least 1.

    Returns:
        int64 [count], ascending; distinct where N >= count, else every frame comes at least once.

    Raises:
        ValueError: for no frames, times that descend or are not finite, and count < 1.
    """
    return _spread(_shown(frame_seconds), (np.arange(_checked(count)) + 0.5) / count)


def segment(frame_seconds: ArrayLike, *, count: int, seed: int | None = None) -> Indices:
    """One frame from each of `count` equal parts of the time (TSN, arXiv 1608.00859).

    Args:
        frame_seconds: float [N], ascending presentation times.
        count: frames to take, at least 1.
        seed: draws the place in each part; None takes the middle, as `uniform` does.

    Returns:
        int64 [count], ascending; distinct where N >= count, else every frame comes at least once.

    Raises:
        ValueError: as `uniform`.
    """
    inside = 0.5 if seed is None else np.random.default_rng(seed).random(_checked(count))
    return _spread(_shown(frame_seconds), (np.arange(_checked(count)) + inside) / count)


def keyframe(frame_seconds: ArrayLike, *, count: int, change: ArrayLike) -> Indices:
    """Half of the frames even in time, half where the picture changes.

    A flat signal gives exactly `uniform`. A stretch with share s of the time gets about s * count / 2 frames or more,
    however little it changes.

    Args:
        frame_seconds: float [N], ascending presentation times.
        count: frames to take, at least 1.
        change: float [N] >= 0, how much each frame differs from the one before, in any unit.

    Returns:
        int64 [count], ascending; distinct where N >= count, else every frame comes at least once.

    Raises:
        ValueError: as `uniform`, and for a signal of another length, negative or not finite.
    """
    shown = _shown(frame_seconds)
    signal = np.asarray(change, dtype=np.float64)
    if signal.shape != shown.shape or not np.all(np.isfinite(signal)) or signal.min() < 0:
        raise ValueError(f"keyframe: change {signal.shape} must be {len(shown)} finite numbers >= 0, one per frame")
    if signal.max() > 0:
        # Smoothed over one part's length: a cut asks for frames around it, not for a burst of neighbours.
        signal = _smooth(signal / signal.max(), width=max(1, len(shown) // _checked(count)))
        mean = float(np.average(signal, weights=shown))
        if mean > 0:
            # Rounded, so that a flat signal is flat to the last bit and ties fall as in `uniform`.
            shown = shown * (1.0 + np.round(np.minimum(signal, CHANGE_CAP * mean) / mean, 9))
    return _spread(shown, (np.arange(_checked(count)) + 0.5) / count)


def fps(frame_seconds: ArrayLike, *, rate: float, limit: int) -> Indices:
    """First frame of each 1/rate seconds; `uniform` where those exceed `limit`.

    Args:
        frame_seconds: float [N], ascending presentation times.
        rate: frames per second, above 0; above the clip's own rate it takes every frame.
        limit: frames at most.

    Returns:
        int64 [n], 1 <= n <= limit, ascending; distinct where N >= limit.

    Raises:
        ValueError: as `uniform`, and for a rate not above 0.
    """
    seconds = _times(frame_seconds)
    if not (np.isfinite(rate) and rate > 0):
        raise ValueError(f"fps: rate is {rate} frames per second. Give a finite number above 0.")
    # The slack keeps 0.1 + 0.2 style rounding of a time stamp from moving a frame into the slot before its own.
    slots = np.floor((seconds - seconds[0]) * rate + 1e-6)
    first = np.unique(slots, return_index=True)[1].astype(np.int64)
    return first if len(first) <= _checked(limit) else uniform(seconds, count=limit)


def linspace(frame_seconds: ArrayLike, *, rate: float, limit: int, least: int = 4) -> Indices:
    """Frames evenly spaced by index, first to last, as by Qwen's video reader.

    Args:
        frame_seconds: float [N], ascending presentation times.
        rate: frames per second, above 0.
        limit: frames at most.
        least: frames at least, as far as there are so many.

    Returns:
        int64 [n], ascending and distinct; n is even where N >= 2.

    Raises:
        ValueError: as `fps`.
    """
    shown = _shown(frame_seconds)
    if not (np.isfinite(rate) and rate > 0):
        raise ValueError(f"linspace: rate is {rate} frames per second. Give a finite number above 0.")
    most = min(_checked(limit), len(shown))
    wanted = min(max(float(shown.sum()) * rate, least), most)
    count = max(int(wanted + 1e-6) // 2 * 2, min(2, len(shown)))
    return np.unique(np.linspace(0, len(shown) - 1, count).round().astype(np.int64))


def change_from_packets(sizes: ArrayLike, is_key: ArrayLike) -> Floats:
    """Change per frame, estimated from packet sizes.

    An encoder spends bytes on what moved or was new. Key frames cost more without meaning change, so they are scaled to
    the median of the others. Where every packet is a key frame (GIF, MJPEG, ProRes, raw, stills) a size shows how much
    detail there is, not what changed: the signal is flat.

    Args:
        sizes: int [N], in bytes.
        is_key: bool [N], whether decoding can start there.

    Returns:
        float64 [N] >= 0, in bytes of a predicted frame.

    Raises:
        ValueError: for vectors of different lengths.
    """
    size, key = np.asarray(sizes, dtype=np.float64), np.asarray(is_key, dtype=bool)
    if size.shape != key.shape or size.ndim != 1:
        raise ValueError(f"change_from_packets: sizes {size.shape}, is_key {key.shape} must be vectors of one length")
    if key.all():
        return np.ones(size.shape)
    usual = float(np.median(size[~key]))
    scale = usual / max(float(np.median(size[key])), 1.0) if key.any() else 1.0
    return np.where(key, size * scale, size)


def change_from_luma(luma: ArrayLike) -> Floats:
    """Mean absolute luma difference from the frame before; the first as the second.

    Args:
        luma: float [N, height, width]; small pictures are enough.

    Returns:
        float64 [N], in the unit of `luma`.

    Raises:
        ValueError: for no frames, or another number of dimensions.
    """
    pictures = np.asarray(luma, dtype=np.float64)
    if pictures.ndim != 3 or len(pictures) == 0:
        raise ValueError(f"change_from_luma: shape {pictures.shape} must be [frames >= 1, height, width]")
    change = np.zeros(len(pictures))
    if len(pictures) > 1:
        change[1:] = np.abs(np.diff(pictures, axis=0)).mean(axis=(1, 2))
        change[0] = change[1]
    return change


def _checked(count: int) -> int:
    if count < 1:
        raise ValueError(f"count is {count}, at least 1 frame is needed")
    return count


def _times(frame_seconds: ArrayLike) -> Floats:
    seconds = np.asarray(frame_seconds, dtype=np.float64)
    if seconds.ndim != 1 or len(seconds) == 0:
        raise ValueError(f"frame_seconds of shape {seconds.shape} must be a vector of at least one time")
    if not np.all(np.isfinite(seconds)) or np.any(np.diff(seconds) < 0):
        raise ValueError("frame_seconds must be finite and ascending. Sort by presentation time first.")
    return seconds


def _shown(frame_seconds: ArrayLike) -> Floats:
    """Seconds that each frame stays on the screen; the last one as long as is usual."""
    seconds = _times(frame_seconds)
    gaps = np.diff(seconds)
    shown = np.append(gaps, np.median(gaps) if len(gaps) else 1.0)
    return shown if shown.sum() > 0 else np.ones(len(seconds))


def _smooth(signal: Floats, *, width: int) -> Floats:
    """Moving mean over `width` frames, over fewer at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(signal)])
    start = np.clip(np.arange(len(signal)) - width // 2, 0, None)
    stop = np.clip(np.arange(len(signal)) - width // 2 + width, None, len(signal))
    means: Floats = (sums[stop] - sums[start]) / (stop - start)
    return means


def _spread(weights: Floats, positions: Floats) -> Indices:
    """Frames under `positions` (ascending, in [0, 1)) of weights laid end to end."""
    frames, count = len(weights), len(positions)
    order = np.arange(count)
    if frames < count:
        return (order * frames // count).astype(np.int64)
    edges = np.cumsum(weights)
    wanted = np.searchsorted(edges, positions * edges[-1], side="right")
    # Two positions can fall into one long frame. Pushing repeats up gives one distinct set, pushing them down
    # another; the floor of their mean is distinct too, and leans to neither side.
    wanted = np.clip(wanted - order, 0, frames - count)
    up, down = np.maximum.accumulate(wanted), np.minimum.accumulate(wanted[::-1])[::-1]
    return ((up + down) // 2 + order).astype(np.int64)
