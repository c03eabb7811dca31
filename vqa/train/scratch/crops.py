"""Native crops of a ladder's clips on disk, for the warm-up of a vision tower."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqa.files import replacing
from vqa.train.clips.dataset import ListedClip
from vqa.train.clips.ladder import CLASSES, NAMES
from vqa.types import Clip, Pixels
from vqa.views import ViewsConfig, look

CROP = 112  # pixels; one attention window of Qwen2.5-VL's tower
TEMPORAL = {"dropped_frames", "frozen", "judder"}  # no single frame shows them


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crops:
    """Native crops of N clips, and the labels of each clip."""

    pixels: Pixels  # uint8 [N, crops, 112, 112, 3], on disk
    opinions: NDArray[np.float32]  # [N] 1-5
    shown: NDArray[np.float32]  # [N, 18] 1 where the clip has that distortion of NAMES
    is_still: NDArray[np.bool_]  # [N] without distortions that only show over time


def by_class(shown: NDArray[np.float32]) -> NDArray[np.float32]:
    """Labels [N, 11] by class of CLASSES, 0 or 1, from `Crops.shown` [N, 18]."""
    members = [[place for place, words in enumerate(NAMES.values()) if words == one] for one in CLASSES]
    return np.stack([shown[:, places].max(axis=1) for places in members], axis=1)


def cut_crops(
    clips: Sequence[ListedClip], *, path: Path, frames: int, crops_per_frame: int, seed: int, threads: int
) -> Crops:
    """Random crops of every clip, cut once and kept in a file.

    Args:
        clips: N clips of ladders.
        path: of the file (.npy) with the pixels; where it exists, it is read.
        frames: of each clip, drawn by segments.
        crops_per_frame: from anywhere in the frame.
        seed: of the draws, together with the clip's own.
        threads: that decode.

    Raises:
        ClipError: for a clip that cannot be decoded.
    """

    shown = ViewsConfig(temporal="segment", keyframes=frames, global_pixels=64, spatial="frames", local_pictures=frames)

    def one(clip: ListedClip) -> Pixels:
        generator = np.random.default_rng((seed, clip.seed))
        seen = Clip(clip_id=clip.clip_id, uri=clip.uri)
        pictures = look(seen, shown, seed=int(generator.integers(2**31))).local_pictures
        return np.stack([cut(pictures[i % len(pictures)], generator) for i in range(frames * crops_per_frame)])

    if not path.exists():
        shape = (len(clips), frames * crops_per_frame, CROP, CROP, 3)
        with replacing(path) as draft:
            store = np.lib.format.open_memmap(draft, mode="w+", dtype=np.uint8, shape=shape)
            with ThreadPoolExecutor(threads) as pool:
                for index, crops in enumerate(pool.map(one, clips)):
                    store[index] = crops
            store.flush()
    return Crops(
        pixels=np.load(path, mmap_mode="r"),
        opinions=np.array([clip.opinion for clip in clips], dtype=np.float32),
        shown=np.array([[name in (clip.distortions or ()) for name in NAMES] for clip in clips], dtype=np.float32),
        is_still=np.array([TEMPORAL.isdisjoint(clip.distortions or ()) for clip in clips]),
    )


def cut(picture: Pixels, generator: np.random.Generator) -> Pixels:
    """Random crop uint8 [112, 112, 3] of a picture [H, W, 3], mirrored where short."""
    height, width, _ = picture.shape
    picture = np.pad(picture, ((0, max(0, CROP - height)), (0, max(0, CROP - width)), (0, 0)), mode="symmetric")
    y = int(generator.integers(0, max(0, height - CROP) + 1))
    x = int(generator.integers(0, max(0, width - CROP) + 1))
    return picture[y : y + CROP, x : x + CROP]
