"""A clip as one vector: encoder features and plain statistics of its frames.

Of each clip: a few whole frames at a small size, and a few crops at the size that viewers see. Features are the mean
and deviation of every stage of the encoder, which RALI (arXiv 2510.11369) takes of the last layer alone: damage shows
in the first stages, content in the last. For plain statistics see vqa/light/statistics.py.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from vqa.light import statistics
from vqa.light.card import EmbeddingConfig
from vqa.light.encoder import CHANNELS, EfficientNetLite0
from vqa.light.statistics import Vector
from vqa.types import Pixels

if TYPE_CHECKING:
    from vqa.light.tower import TowerEncoder

Row = TypeVar("Row", NDArray[np.float32], NDArray[np.float64])

ENCODED = 2 * sum(CHANNELS)
SIZES = {
    "whole": ENCODED,
    "crops": ENCODED,
    **{name: size for name, size in statistics.SIZES.items() if name != "motion"},
    "large": ENCODED,
    "motion": statistics.SIZES["motion"],
}
SIZE, _MOTION = sum(SIZES.values()), SIZES["motion"]
PLAIN = SIZE - 3 * ENCODED  # what no encoder makes
MOTION = slice(-_MOTION, None)
MOST = 2.0  # of a change of motion: e squared times as much or as little

_CORNERS = ((0.25, 0.25), (0.75, 0.75), (0.75, 0.25), (0.25, 0.75))  # centres of a clip's crops, in frame sizes


def group_sizes(size: int) -> dict[str, int]:
    """Sizes of the groups of an embedding [size], whatever its encoder gives."""
    return SIZES | dict.fromkeys(("whole", "crops", "large"), (size - PLAIN) // 3)


def large(size: int) -> slice:
    """Where an embedding [size] has the still at its larger size."""
    return slice(-_MOTION - (size - PLAIN) // 3, -_MOTION)


def embed(network: "EfficientNetLite0 | TowerEncoder", frames: Sequence[Pixels], config: EmbeddingConfig) -> Vector:
    """Embed a clip.

    Args:
        network: The encoder, in evaluation mode.
        frames: At least one, uint8 [H, W, 3] RGB, in time order, of one size; with `config.motion` more than one are
            pairs, each of a frame and the next one of the clip.
        config: How many are seen whole and how many crops are cut; of a single frame more, as they cost no more looks.

    Returns:
        float32 [SIZE], of a tower [PLAIN + 3 * its size], the groups of SIZES one after another: encoder on whole
        frames, encoder on crops, statistics of the crops, colours of the whole frames, each the mean over the pictures;
        spectra and local contrasts of the middle frame at its full size; encoder on a still at a larger size, 0 where
        there are more frames; what changes in the crops to the next frame, 0 where there is none.
    """
    is_paired = config.motion and len(frames) > 1
    following, frames = (frames[1::2], frames[::2]) if is_paired else ((), frames)
    chosen = np.unique(np.linspace(0, len(frames) - 1, config.wholes).round().astype(int)).tolist()
    wholes = [_reduced(frames[k], config.whole_pixels**2) for k in chosen]
    centres = _CORNERS if len(frames) > 1 else _grid(config.still_grid)
    count = config.crops if len(frames) > 1 else len(centres)
    places = [(k * len(frames) // count, centres[k % len(centres)]) for k in range(count)]
    crops = [_crop(frames[k], centre, config.crop_pixels) for k, centre in places]
    later = [_crop(following[k], centre, config.crop_pixels) for k, centre in places if is_paired]

    larger = [_reduced(one, config.large_pixels**2) for one in frames if len(frames) == 1]

    def encoded() -> list[Vector]:
        seen = [_encode(network, some).mean(0) for some in (wholes, crops, larger) if some]
        return seen if larger else [*seen, np.zeros_like(seen[0])]

    def plain() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        pairs = zip(crops, later, strict=True) if later else ()
        changes = [statistics.change(*pair) for pair in pairs] or [np.zeros(_MOTION)]
        means = [np.mean([statistics.crop_statistics(crop) for crop in crops], axis=0)]
        means.append(np.mean([statistics.colours_of(whole) for whole in wholes], axis=0))
        return np.concatenate([*means, statistics.full_size(frames[len(frames) // 2])]), np.mean(changes, axis=0)

    threads = torch.get_num_threads()
    if threads == 1:
        return _in_order(encoded(), *plain())
    with ThreadPoolExecutor(1) as aside:  # which has one of the cores, and the encoder the others
        rest = aside.submit(plain)
        torch.set_num_threads(threads - 1)
        try:
            seen = encoded()
        finally:
            torch.set_num_threads(threads)
        return _in_order(seen, *rest.result())


def _in_order(seen: Sequence[Vector], plain: NDArray[np.float64], changes: NDArray[np.float64]) -> Vector:
    """The groups one after another, as SIZES has them."""
    wholes, crops, larger = seen
    return np.concatenate([wholes, crops, plain, larger, changes]).astype(np.float32)


def from_usual(embedding: Row, usual: Vector) -> Row:
    """An embedding with what it has not, its motion told from the usual one.

    A clip is not seen larger and gets the usual still's. A still has no motion, and none is told of it. What is further
    away than MOST counts as MOST: clips to learn from move, and a scene that stands still is not damaged.

    Args:
        embedding: As of `embed`; changed in place.
        usual: The mean still at its larger size, then the motion of the mean clip: as the end of an embedding.
    """
    larger = large(len(embedding))
    if not embedding[larger].any():
        embedding[larger] = usual[:-_MOTION]
    if embedding[MOTION].any():
        embedding[MOTION] = np.clip(embedding[MOTION] - usual[MOTION], -MOST, MOST)
    return embedding


def _reduced(frame: Pixels, area: int) -> Pixels:
    height, width, _ = frame.shape
    scale = (area / (width * height)) ** 0.5
    if scale >= 1:
        return frame
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    rows = torch.from_numpy(np.require(frame, requirements="W")).permute(2, 0, 1)[None]
    # Pillow's own way, to a grey level or two, in a seventh of its time
    found = functional.interpolate(rows, size=size, mode="bicubic", antialias=True)
    return found[0].permute(1, 2, 0).contiguous().numpy()


def _grid(side: int) -> Sequence[tuple[float, float]]:
    """Centres, in frame sizes, of the fields of a grid."""
    return [((column + 0.5) / side, (row + 0.5) / side) for row in range(side) for column in range(side)]


def _crop(frame: Pixels, centre: tuple[float, float], side: int) -> Pixels:
    height, width, _ = frame.shape
    high, wide = min(side, height), min(side, width)
    x, y = centre
    left = round(min(max(0, x * width - wide / 2), width - wide))
    top = round(min(max(0, y * height - high / 2), height - high))
    return frame[top : top + high, left : left + wide]


def _encode(network: "EfficientNetLite0 | TowerEncoder", pictures: Sequence[Pixels]) -> Vector:
    """Channel means and deviations by stage [N, ENCODED] of pictures of one size."""
    if not isinstance(network, EfficientNetLite0):
        return network.encode(pictures)
    with torch.inference_mode():
        maps = network(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
        return np.asarray(torch.cat([part for one in maps for part in _moments(one)], 1).numpy())


def _moments(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation per channel [N, C]; torch's `std` takes ten times as long."""
    mean = maps.mean((2, 3), keepdim=True)
    return mean[..., 0, 0], (maps - mean).square_().mean((2, 3)).sqrt_()
