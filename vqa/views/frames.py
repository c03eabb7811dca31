"""Frames of the views: global ones by a temporal sampler, local ones among those."""

import hashlib
import json
import math

import numpy as np
from numpy.typing import NDArray

from samplers import temporal as frames_of
from samplers.temporal import TemporalName
from vqa.errors import ClipError
from vqa.media.backends.base import BackendName
from vqa.media.decode import decode
from vqa.media.packets import PacketTable
from vqa.types import Clip, MediaInfo, Packets, Seconds

Indices = NDArray[np.int64]

LUMA_FRAMES, LUMA_SIDE = 256, 64  # what luma differences are taken of: frames at most, pixels of the long side
_PAUSE = 1.5  # median distances of frames
_LUMA = (0.2126, 0.7152, 0.0722)  # BT.709


def view_seed(content: str, clip: Clip) -> int:
    """Seed of samplers that draw, from the file's fingerprint and the clip's span.

    The same content gives the same views under any path.

    Args:
        content: What `vqa.media.fingerprint` gives of the file.
        clip: Its span in seconds counts, its path does not.

    Returns:
        A whole number below 2**60.
    """
    text = json.dumps([content, clip.start_seconds, clip.end_seconds], separators=(",", ":"))
    return int(hashlib.blake2b(text.encode(), digest_size=16).hexdigest()[:15], 16)


def span(clip: Clip, packets: Packets, *, duration_seconds: float) -> tuple[int, int]:
    """Half-open range of the frames on screen in the clip's half-open seconds.

    They are those that start in it, and the one on screen at its start where that stays for longer than usual: a pause
    of a screen recording, or a time-lapse.
    """
    start = clip.start_seconds or 0.0
    end = math.inf if clip.end_seconds is None else clip.end_seconds
    first, stop = (int(i) for i in np.searchsorted(packets.seconds, [start, end], side="left"))
    if first and start < max(duration_seconds, packets.seconds[-1]):
        usual = float(np.median(np.diff(packets.seconds)))
        first -= bool(first == stop or packets.seconds[first] - start > _PAUSE * usual)
    if first == stop:
        raise ClipError(
            "no_frames",
            f"{clip.uri}: no frame in [{start:g}, {end:g}) s; its {len(packets.seconds)} frames start between 0 and "
            f"{packets.seconds[-1]:.3f} s",
        )
    return first, stop


def change_by_luma(
    seconds: Seconds, info: MediaInfo, packets: PacketTable, *, backend: BackendName, prune: bool
) -> Seconds:
    """Change [N] of each of the frames at `seconds` [N] from the one before, by luma.

    Decodes small pictures of at most LUMA_FRAMES of them, evenly chosen, and interpolates between these. Raises
    ClipError as `decode`.
    """
    sampled = np.unique(np.linspace(0, len(seconds) - 1, LUMA_FRAMES).round().astype(np.int64))
    reduced = min(1.0, LUMA_SIDE / max(info.width, info.height))
    size = max(1, round(info.width * reduced)), max(1, round(info.height * reduced))
    sizes = [size] * len(sampled)
    frames = decode(info.uri, seconds[sampled], sizes=sizes, backend=backend, prune=prune, info=info, packets=packets)
    change = frames_of.change_from_luma(np.stack(frames.pixels) @ np.array(_LUMA))
    return np.interp(np.arange(len(seconds)), sampled[frames.requested], change)


def global_frames(
    sampler: TemporalName, seconds: Seconds, *, count: int, rate: float, change: NDArray[np.float64], seed: int
) -> Indices:
    """Distinct frames for the global pictures: a repeat would show the same tile."""
    if sampler == "keyframe":
        # Where each packet is a key frame (GIF, MJPEG, raw) change by packets is flat and this is `uniform`.
        return np.unique(frames_of.keyframe(seconds, count=count, change=change))
    if sampler == "segment":
        return np.unique(frames_of.segment(seconds, count=count, seed=seed))
    if sampler == "fps":
        return np.unique(frames_of.fps(seconds, rate=rate, limit=count))
    if sampler == "linspace":
        return frames_of.linspace(seconds, rate=rate, limit=count)
    return np.unique(frames_of.uniform(seconds, count=count))


def with_next(chosen: Indices, count: int) -> Indices:
    """Pairs of a frame and the one after it; a single frame has none.

    The last of `count` frames is shown with the one before it.
    """
    if count < 2:
        return chosen
    first = np.unique(np.minimum(chosen, count - 2))
    return np.stack([first, first + 1], axis=1).ravel()


def local_frames(seconds: Seconds, chosen: Indices, *, count: int, repeat: bool) -> Indices:
    """Keyframes nearest the middles of `count` equal parts of the span, in order.

    Taken among the keyframes, not at the exact middles: no further group of pictures has to be decoded, the whole
    frame of each crop also stands in the mosaic (the model can put detail and context together), and being off the
    middle by half a keyframe gap costs nothing. With fewer keyframes than local pictures all frames are candidates;
    with fewer frames than that a frame comes again for another crop, unless whole frames are wanted (`repeat` false).
    """
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    middles = frames_of.uniform(seconds, count=count)
    if len(chosen) < count:
        return middles if repeat else np.unique(middles)
    picked: list[int] = []
    low = 0
    for j, middle in enumerate(seconds[middles]):
        free = chosen[low : len(chosen) - (count - 1 - j)]  # leaves one keyframe for each picture still to come
        nearest = int(np.argmin(np.abs(seconds[free] - middle)))
        picked.append(int(free[nearest]))
        low += nearest + 1
    return np.array(picked, dtype=np.int64)
