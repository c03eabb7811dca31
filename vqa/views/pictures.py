"""Pictures of decoded frames: tiles to a mosaic, native frames to crops.

Sizes are (width, height).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samplers import spatial as boxes_of
from samplers.spatial import SPATIAL, SpatialName
from vqa.types import CropBox, Frames, Pixels, Seconds

Size = tuple[int, int]

# Fills the gap at the end of a mosaic's last row: neither black (a fade) nor a frame again (a freeze).
GAP_GREY = 128
# Two small frames no pixel of which differs by more levels of luma show the same, coded twice perhaps.
REPEAT_LEVELS = 6


@dataclass(frozen=True, slots=True)
class Shot:
    """A decoded picture and its time."""

    second: float
    pixels: Pixels


def grid_of(count: int) -> tuple[int, int]:
    """(columns, rows) of a near-square mosaic: 16 -> 4x4, 6 -> 3x2."""
    columns = math.ceil(math.sqrt(count))
    return columns, -(-count // columns)


def tile_size(native: Size, *, grid: tuple[int, int], long_side: int) -> Size:
    """Largest tile of native aspect, at most native, for a mosaic of `long_side`."""
    (width, height), (columns, rows) = native, grid
    # In whole numbers: 1024 / (4 * 1920) * 1920 would miss 256 by rounding.
    if columns * width >= rows * height:
        wide = max(1, min(width, long_side // columns))
        return wide, max(1, min(round(height * wide / width), long_side // rows))
    high = max(1, min(height, long_side // rows))
    return max(1, min(round(width * high / height), long_side // columns)), high


def within_area(native: Size, area: int) -> Size:
    """The size reduced to at most `area` pixels, aspect kept."""
    scale = min(1.0, math.sqrt(area / (native[0] * native[1])))
    return max(1, math.floor(native[0] * scale)), max(1, math.floor(native[1] * scale))


def as_shown(frames: Frames, shown: Size, sizes: Sequence[Size | None]) -> Frames:
    """Native frames scaled to `shown`, as people saw them, and then to `sizes`.

    A size of None leaves the frame as it was shown.
    """
    pictures: list[Pixels] = []
    for pixels, size in zip(frames.pixels, sizes, strict=True):
        picture = Image.fromarray(pixels).resize(shown, Image.Resampling.BICUBIC)
        pictures.append(np.asarray(picture if size is None else picture.resize(size, Image.Resampling.BICUBIC)))
    return replace(frames, pixels=tuple(pictures))


def enlargement(stored: Size, shown: Size) -> float:
    """Times that each side is scaled by, by area."""
    return math.sqrt(shown[0] * shown[1] / (stored[0] * stored[1]))


def part(frames: Frames, start: int, stop: int) -> dict[int, Shot]:
    """Decoded shots of requests [start, stop), by place in that range."""
    found = zip(frames.requested.tolist(), frames.seconds.tolist(), frames.pixels, strict=True)
    return {k - start: Shot(second, pixels) for k, second, pixels in found if start <= k < stop}


def whole_pairs(shots: dict[int, Shot]) -> dict[int, Shot]:
    """Of pairs (0 and 1, 2 and 3, ...) those that lost neither; else one frame."""
    kept = {k: shot for k, shot in shots.items() if k ^ 1 in shots}
    return kept or dict(islice(shots.items(), 1))


def laid_out(
    tiles: dict[int, Shot], wanted: Seconds, *, grid: tuple[int, int] | None
) -> tuple[tuple[float, ...], tuple[Pixels, ...]]:
    """Seconds shown and the pictures: one mosaic, or without a grid the frames.

    A lost tile of the mosaic shows the nearest frame that was decoded, and its second is that frame's; lost separate
    frames are left out.
    """
    if grid is None:
        shots = list(tiles.values())
        return tuple(shot.second for shot in shots), tuple(shot.pixels for shot in shots)
    places = np.array(sorted(tiles))
    nearest = [int(places[np.argmin(np.abs(wanted[places] - second))]) for second in wanted]
    shots = [tiles[place] for place in nearest]
    height, width, _ = shots[0].pixels.shape
    mosaic = np.full((grid[1] * height, grid[0] * width, 3), GAP_GREY, dtype=np.uint8)
    for k, shot in enumerate(shots):
        row, column = divmod(k, grid[0])
        mosaic[row * height : (row + 1) * height, column * width : (column + 1) * width] = shot.pixels
    return tuple(shot.second for shot in shots), (mosaic,)


def repeats_of(frames: Sequence[Pixels]) -> int | None:
    """Count the frames that show the one before again.

    None where nothing ever moves, as of a single frame.
    """
    lumas = [_luma(frame).astype(np.int16) for frame in frames]
    same = [np.abs(here - before).max() <= REPEAT_LEVELS for before, here in pairwise(lumas)]
    return None if all(same) else sum(map(bool, same))


def cut_out(
    shots: Sequence[Shot], *, tiles: Sequence[Shot], spatial: SpatialName, side: int, seed: int
) -> tuple[tuple[Pixels, ...], tuple[CropBox, ...]]:
    """Local pictures and their boxes: a crop per shot, or its `fragments` as one."""
    pictures: list[Pixels] = []
    cut: list[CropBox] = []
    found: list[boxes_of.Boxes] = []  # of the shot at hand and those of the same frame behind it
    for j, shot in enumerate(shots):
        height, width, _ = shot.pixels.shape
        if spatial == "fragments":
            places = boxes_of.fragments(width, height, seed=seed)  # one seed: aligned through the clip, as in FAST-VQA
        elif spatial == "salient":
            if not found:  # one map for all crops of a frame: a still has no other
                same = sum(other.second == shot.second for other in shots[j:])
                # Keeping off boxes of other frames shows more of the scene than the same busy corner three times.
                taken = np.array([[box.x, box.y, box.width, box.height] for box in cut], dtype=np.int64)
                luma, motion = _luma(shot.pixels), _motion(tiles, shot.second)
                best = boxes_of.salient(luma, motion=motion, box_width=side, box_height=side, count=same, avoid=taken)
                found = list(best[::-1, None])
            places = found.pop()
        else:
            places = SPATIAL[spatial](width, height, box_width=side, box_height=side, count=len(shots))[j : j + 1]
        boxes = [CropBox(second=shot.second, x=x, y=y, width=w, height=h) for x, y, w, h in places.tolist()]
        if boxes[0] in cut:
            continue  # a small still: the same pixels again would only cost tokens
        cut += boxes
        patches = [shot.pixels[b.y : b.y + b.height, b.x : b.x + b.width] for b in boxes]
        cells = math.isqrt(len(patches))
        rows = [np.concatenate(patches[r * cells : (r + 1) * cells], axis=1) for r in range(cells)]
        pictures.append(np.concatenate(rows, axis=0))  # a copy, so that the big frame can go
    return tuple(pictures), tuple(cut)


def _luma(pixels: Pixels) -> NDArray[np.uint16]:
    """Luma 0-255 [height, width] by (2 R + 5 G + B) / 8, near BT.601 and faster."""
    red, green, blue = (pixels[..., channel].astype(np.uint16) for channel in range(3))
    return np.asarray((red * 2 + green * 5 + blue) // 8, dtype=np.uint16)


def _motion(tiles: Sequence[Shot], second: float) -> NDArray[np.int32] | None:
    """Motion at `second`, [tile height, tile width]; None without tiles to compare.

    The lesser of the differences to the keyframe before and to the one after: an object between three places lights
    up only where it is now, not where it was or will be (double differencing).
    """
    at = next((k for k, tile in enumerate(tiles) if tile.second == second), None)
    if at is None:
        return None
    here = _luma(tiles[at].pixels).astype(np.int32)
    around = [k for k in (at - 1, at + 1) if 0 <= k < len(tiles)]
    differences = [np.abs(_luma(tiles[k].pixels).astype(np.int32) - here) for k in around]
    return np.minimum.reduce(differences) if differences else None
