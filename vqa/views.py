"""What the model looks at: one clip in, global pictures (time) and local pictures (native pixels) out.

    probe --> packet table --> temporal sampler --> one decode call --> tiles  --> mosaic          (global)
              (no decoding)    (which frames)                           native --> boxes --> crops  (local)

The data flow is PreResQ-R1's (arXiv 2511.05393): a 4x4 mosaic of 16 keyframes and three pictures at native resolution.
Runs in the guarded child: decoders can hang and crash. Nothing is ever enlarged: a tiny picture stays tiny, and padding
it is the model's part.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from samplers import spatial as boxes_of
from samplers import temporal as frames_of
from samplers.spatial import SPATIAL, SpatialName
from samplers.temporal import TemporalName
from vqa.errors import ClipError
from vqa.media.backends import BackendName
from vqa.media.decode import decode
from vqa.media.plan import nearest
from vqa.media.probe import PacketTable, probe
from vqa.types import Clip, CropBox, Frames, MediaInfo, Packets, Pixels, Seconds, Views

Indices = NDArray[np.int64]
Size = tuple[int, int]
LocalName = SpatialName | Literal["frames"]
SnapName = Literal["none", "keyframes"]

# spatial="frames": a frame above this area is reduced to it, 1280 tokens in Qwen2.5-VL (4K would be 10,000).
LOCAL_FRAME_PIXELS = 1280 * 28 * 28
# Fills the gap at the end of a mosaic's last row: neither black (a fade) nor a frame again (a freeze).
GAP_GREY = 128


class ViewsConfig(BaseModel):
    """Settings of `look`; the keys are its keyword arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temporal: TemporalName = Field("keyframe", description="which frames make the global pictures")
    keyframes: int = Field(16, ge=1, le=256, description="frames at most; a shorter clip shows each of its frames once")
    keyframe_rate: float = Field(1.0, gt=0, description="frames per second, for temporal=fps only")
    global_kind: Literal["mosaic", "frames"] = Field("mosaic", description="one picture of tiles, or separate ones")
    global_pixels: int = Field(1024, ge=64, description="long side of the mosaic, or of each frame, at most")
    spatial: LocalName = Field("salient", description="how crops are placed; frames: whole frames instead")
    local_pictures: int = Field(3, ge=0, le=64, description="how many local pictures; 0 for none")
    crop_pixels: int = Field(448, ge=1, description="side of a crop, at most")
    snap: SnapName = Field(
        "none", description="keyframes: the nearest intra frames instead of the frames picked; far cheaper to decode"
    )
    backend: BackendName = Field("pyav", description="decoder")
    min_decoded_share: float = Field(
        0.5, gt=0, le=1, description="with less of the frames asked for, a clip is corrupt"
    )
    on_damage: Literal["fail", "partial"] = Field("partial", description="a clip that lost some frames fails, or not")
    max_pixels: int = Field(2**26, ge=1, description="largest frame accepted, width times height")


def look(
    clip: Clip,
    *,
    temporal: TemporalName = "keyframe",
    keyframes: int = 16,
    keyframe_rate: float = 1.0,
    global_kind: Literal["mosaic", "frames"] = "mosaic",
    global_pixels: int = 1024,
    spatial: LocalName = "salient",
    local_pictures: int = 3,
    crop_pixels: int = 448,
    snap: SnapName = "none",
    backend: BackendName = "pyav",
    min_decoded_share: float = 0.5,
    on_damage: Literal["fail", "partial"] = "partial",
    max_pixels: int = 2**26,
    seed: int = 0,
    probed: tuple[MediaInfo, PacketTable] | None = None,
) -> Views:
    """Probe, plan on the packet table, decode once, cut.

    Args:
        clip: the file, or the half-open span of it.
        temporal: this and the others as in `ViewsConfig`.
        seed: for the samplers that draw (segment, fragments); derive it from the clip, so that a rerun sees the same.
        probed: what `probe` said of the file, where it is known (the windows of a long video share one demuxing).

    Returns:
        Views: pictures uint8 [height, width, 3] in time order, the seconds and boxes they show, frames planned and
        decoded. A clip with fewer frames than asked for shows each once, so a still is one global picture.

    Raises:
        ClipError: what probe and decode raise; `no_frames` for a span without frames; `too_large` above `max_pixels`;
            `corrupt` where too few frames could be decoded, or any was lost and `on_damage` is "fail".
    """
    started = time.perf_counter()
    info, packets = probed or probe(clip.uri)
    native = (info.width, info.height)
    if info.width * info.height > max_pixels:
        raise ClipError(
            "too_large",
            f"{clip.uri}: {info.width}x{info.height} is above max_pixels={max_pixels}; scale it down or raise it",
        )
    first, stop = _span(clip, packets)
    seconds = packets.seconds[first:stop]
    change = frames_of.change_from_packets(packets.sizes, packets.is_key)[first:stop]
    chosen = _keyframes(temporal, seconds, count=keyframes, rate=keyframe_rate, change=change, seed=seed)
    intra = np.flatnonzero(packets.is_key[first:stop])
    if snap == "keyframes" and len(intra):
        chosen = np.unique(intra[nearest(seconds[intra], seconds[chosen])])
    local = _local_frames(seconds, chosen, count=local_pictures, repeat=spatial != "frames")
    if snap == "keyframes" and len(intra):
        local = intra[nearest(seconds[intra], seconds[local])]  # with few intra frames: several crops of one
        local = np.unique(local) if spatial == "frames" else local

    grid = _grid(len(chosen)) if global_kind == "mosaic" else (1, 1)
    tile = _tile_size(native, grid=grid, long_side=global_pixels)
    whole = _within_area(native, LOCAL_FRAME_PIXELS) if spatial == "frames" else None
    # One call: a local frame that is a keyframe too is decoded once and converted twice.
    distinct, place = np.unique(local, return_inverse=True)
    asked = np.concatenate([chosen, distinct])
    sizes = [tile] * len(chosen) + [whole] * len(distinct)
    frames = decode(clip.uri, seconds[asked], sizes=sizes, backend=backend, info=info, packets=packets)
    tiles, natives = _part(frames, 0, len(chosen)), _part(frames, len(chosen), len(asked))

    planned, decoded = len(np.unique(asked)), len(np.unique(asked[frames.requested]))
    needed = planned if on_damage == "fail" else max(1, math.ceil(min_decoded_share * planned))
    if decoded < needed or not tiles or (len(local) and not natives):
        raise ClipError(
            "corrupt",
            f"{clip.uri}: {decoded} of {planned} frames could be decoded ({len(tiles)} for global, {len(natives)} for "
            f"local pictures), {needed} are needed; encode it again, or "
            + ("score it in part (on_damage=partial)" if on_damage == "fail" else "lower min_decoded_share"),
            (decoded, planned),
        )
    shown, global_pictures = _global_pictures(tiles, seconds[chosen], grid=grid if global_kind == "mosaic" else None)
    local_shots = [natives[k] for k in place.tolist() if k in natives]
    if spatial == "frames":
        crops = tuple(shot.pixels for shot in local_shots)
        boxes = tuple(CropBox(second=s.second, x=0, y=0, width=native[0], height=native[1]) for s in local_shots)
    else:
        crops, boxes = _crops(local_shots, tiles=list(tiles.values()), spatial=spatial, side=crop_pixels, seed=seed)
    return Views(
        clip=clip,
        info=info,
        global_pictures=global_pictures,
        local_pictures=crops,
        keyframe_seconds=shown,
        crop_boxes=boxes,
        frames_planned=planned,
        frames_decoded=decoded,
        decode_backend=backend,
        decode_seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True, slots=True)
class _Shot:
    """A decoded picture and its time."""

    second: float
    pixels: Pixels


def _span(clip: Clip, packets: Packets) -> tuple[int, int]:
    """Half-open range of frames inside the clip's half-open seconds."""
    start = clip.start_seconds or 0.0
    end = math.inf if clip.end_seconds is None else clip.end_seconds
    first, stop = (int(i) for i in np.searchsorted(packets.seconds, [start, end], side="left"))
    if first == stop:
        raise ClipError(
            "no_frames",
            f"{clip.uri}: no frame in [{start:g}, {end:g}) s; its {len(packets.seconds)} frames start between 0 and "
            f"{packets.seconds[-1]:.3f} s",
        )
    return first, stop


def _keyframes(
    name: TemporalName, seconds: Seconds, *, count: int, rate: float, change: NDArray[np.float64], seed: int
) -> Indices:
    """Distinct frames for the global pictures: repeats would only show the same tile again."""
    if name == "keyframe":
        # Where each packet is a key frame (GIF, MJPEG, raw) `change` is flat and this is `uniform`: luma differences
        # would tell more, but at the price of decoding everything, which is what the packet table is there to avoid.
        return np.unique(frames_of.keyframe(seconds, count=count, change=change))
    if name == "segment":
        return np.unique(frames_of.segment(seconds, count=count, seed=seed))
    if name == "fps":
        return np.unique(frames_of.fps(seconds, rate=rate, limit=count))
    return np.unique(frames_of.uniform(seconds, count=count))


def _local_frames(seconds: Seconds, chosen: Indices, *, count: int, repeat: bool) -> Indices:
    """The keyframes nearest the middles of `count` equal parts of the span, in time order.

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


def _grid(count: int) -> tuple[int, int]:
    """(columns, rows) of a near-square mosaic: 16 -> 4x4, 6 -> 3x2."""
    columns = math.ceil(math.sqrt(count))
    return columns, -(-count // columns)


def _tile_size(native: Size, *, grid: tuple[int, int], long_side: int) -> Size:
    """Largest tile of the frame's aspect, not above native, that keeps the mosaic's long side to `long_side`."""
    (width, height), (columns, rows) = native, grid
    # In whole numbers: 1024 / (4 * 1920) * 1920 would miss 256 by rounding.
    if columns * width >= rows * height:
        wide = max(1, min(width, long_side // columns))
        return wide, max(1, min(round(height * wide / width), long_side // rows))
    high = max(1, min(height, long_side // rows))
    return max(1, min(round(width * high / height), long_side // columns)), high


def _within_area(native: Size, area: int) -> Size:
    """The size reduced to at most `area` pixels, aspect kept."""
    scale = min(1.0, math.sqrt(area / (native[0] * native[1])))
    return max(1, math.floor(native[0] * scale)), max(1, math.floor(native[1] * scale))


def _part(frames: Frames, start: int, stop: int) -> dict[int, _Shot]:
    """What was decoded of requests [start, stop), by place in that range."""
    found = zip(frames.requested.tolist(), frames.seconds.tolist(), frames.pixels, strict=True)
    return {k - start: _Shot(second, pixels) for k, second, pixels in found if start <= k < stop}


def _global_pictures(
    tiles: dict[int, _Shot], wanted: Seconds, *, grid: tuple[int, int] | None
) -> tuple[tuple[float, ...], tuple[Pixels, ...]]:
    """Seconds shown and the pictures: one mosaic, or without a grid the frames themselves.

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


def _crops(
    shots: Sequence[_Shot], *, tiles: Sequence[_Shot], spatial: SpatialName, side: int, seed: int
) -> tuple[tuple[Pixels, ...], tuple[CropBox, ...]]:
    """Local pictures and where they were cut: a crop from each shot, or with `fragments` its patches as one."""
    pictures: list[Pixels] = []
    cut: list[CropBox] = []
    for j, shot in enumerate(shots):
        height, width, _ = shot.pixels.shape
        if spatial == "fragments":
            places = boxes_of.fragments(width, height, seed=seed)  # one seed: aligned through the clip, as in FAST-VQA
        elif spatial == "salient":
            # Keeping off the boxes of the other frames shows more of the scene than the same busy corner three times.
            taken = np.array([[box.x, box.y, box.width, box.height] for box in cut], dtype=np.int64)
            luma, motion = _luma(shot.pixels), _motion(tiles, shot.second)
            places = boxes_of.salient(luma, motion=motion, box_width=side, box_height=side, count=1, avoid=taken)
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
    """Luma 0-255 [height, width] by (2 R + 5 G + B) / 8, near enough to BT.601 and faster than its floats."""
    red, green, blue = (pixels[..., channel].astype(np.uint16) for channel in range(3))
    return np.asarray((red * 2 + green * 5 + blue) // 8, dtype=np.uint16)


def _motion(tiles: Sequence[_Shot], second: float) -> NDArray[np.int32] | None:
    """Where something moves in the frame at `second`, [tile height, tile width]; None without tiles to compare.

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
