"""Views of a clip: global pictures over time, local pictures in native pixels.

    probe --> packet table --> temporal sampler --> one decode call --> tiles  --> mosaic          (global)
              (no decoding)    (which frames)                           native --> boxes --> crops  (local)

The data flow is PreResQ-R1's (arXiv 2511.05393): a 4x4 mosaic of 16 keyframes and three pictures at native resolution.
Runs in the guarded child: decoders can hang and crash. Nothing is ever enlarged: a tiny picture stays tiny, and padding
it is the model's part. Only `shown_size` enlarges, where people saw the pictures of a test so.
"""

import math
import time
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from samplers import temporal as frames_of
from samplers.spatial import SpatialName
from samplers.temporal import TemporalName
from vqa.config import Strict, Values
from vqa.errors import ClipError
from vqa.media.backends.base import BackendName
from vqa.media.decode import decode
from vqa.media.packets import PacketTable, nearest_frames
from vqa.media.probe import probe
from vqa.types import Clip, CropBox, MediaInfo, Views
from vqa.views.frames import change_by_luma, global_frames, local_frames, span, with_next
from vqa.views.pictures import (
    as_shown,
    cut_out,
    enlargement,
    grid_of,
    laid_out,
    part,
    repeats_of,
    tile_size,
    whole_pairs,
    within_area,
)

LocalName = SpatialName | Literal["frames"]
SnapName = Literal["none", "keyframes"]
ChangeName = Literal["packets", "luma"]

ShownSide = Annotated[int, Field(ge=1, le=8192)]

# spatial="frames": a frame above this area is reduced to it, 1280 tokens in Qwen2.5-VL (4K would be 10,000).
LOCAL_FRAME_PIXELS = 1280 * 28 * 28


class ViewsConfig(Strict):
    """Settings of `look`: which frames and crops the model is shown."""

    temporal: TemporalName = Field("keyframe", description="which frames make the global pictures")
    keyframes: int = Field(16, ge=1, le=256, description="frames at most; a shorter clip shows each of its frames once")
    change: ChangeName = Field(
        "packets", description="temporal=keyframe: seen by packet sizes, or by luma of frames decoded for it (dearer)"
    )
    keyframe_rate: float = Field(1.0, gt=0, description="frames per second, for temporal=fps and linspace")
    global_kind: Literal["mosaic", "frames"] = Field("mosaic", description="one picture of tiles, or separate ones")
    near_frames: bool = Field(False, description="after each of these frames the next one of the clip, for motion")
    count_repeats: bool = Field(False, description="tell the model how many of the global frames repeat the one before")
    global_pixels: int = Field(1024, ge=64, description="long side of the mosaic, or of each frame, at most")
    spatial: LocalName = Field("salient", description="how crops are placed; frames: whole frames instead")
    local_pictures: int = Field(3, ge=0, le=64, description="how many local pictures; 0 for none")
    crop_pixels: int = Field(448, ge=1, description="side of a crop, at most")
    snap: SnapName = Field("none", description="keyframes: the nearest intra frames; far cheaper to decode")
    backend: BackendName = Field("pyav", description="decoder")
    min_decoded_share: float = Field(0.5, gt=0, le=1, description="with less of the frames asked for: corrupt")
    on_damage: Literal["fail", "partial"] = Field("partial", description="a clip that lost some frames fails, or not")
    max_pixels: int = Field(2**26, ge=1, description="largest frame accepted, width times height")
    shown_size: tuple[ShownSide, ShownSide] | None = Field(
        None, description="width and height to which each frame is scaled (bicubic) first, as people saw it in a test"
    )
    prune: bool = Field(
        True, description="skip packets that no wanted frame needs (backend=pyav); same frames, off is slower"
    )

    def identity(self) -> Values:
        """The settings that change which pictures a clip gives, for digests."""
        # keys of before these settings stay as they were
        later = {"shown_size": None, "count_repeats": False, "near_frames": False}
        unused = {name for name, value in later.items() if getattr(self, name) == value}
        return self.model_dump(mode="json", exclude={"max_pixels", "prune"} | unused)


def look(
    clip: Clip, config: ViewsConfig, *, seed: int = 0, probed: tuple[MediaInfo, PacketTable] | None = None
) -> Views:
    """Probe, plan on the packet table, decode once, cut the pictures.

    Args:
        clip: A file, or the span of one.
        config: What to show of it. A clip with fewer frames than asked for shows each once, so a still is one global
            picture.
        seed: For the samplers that draw (segment, fragments); derive it from the clip with `view_seed`, so that a
            rerun sees the same.
        probed: What `probe` returned for the file with `config.max_pixels`, where it is known (the windows of a video
            share one demuxing).

    Returns:
        Global and local pictures, uint8 [height, width, 3] RGB, with their times and boxes.

    Raises:
        ClipError: What probe and decode raise; `no_frames` for a span without frames; `too_large` above
            `config.max_pixels`; `corrupt` where too few frames could be decoded, or any was lost and
            `config.on_damage` is "fail".
    """
    started = time.perf_counter()
    info, packets = probed or probe(clip.uri, max_pixels=config.max_pixels)
    native = config.shown_size or (info.width, info.height)
    first, stop = span(clip, packets, duration_seconds=info.duration_seconds)
    seconds = packets.seconds[first:stop]
    if config.change == "luma" and config.temporal == "keyframe":
        signal = change_by_luma(seconds, info, packets, backend=config.backend, prune=config.prune)
    else:
        signal = frames_of.change_from_packets(packets.sizes, packets.is_key)[first:stop]
    chosen = global_frames(
        config.temporal, seconds, count=config.keyframes, rate=config.keyframe_rate, change=signal, seed=seed
    )
    intra = np.flatnonzero(packets.is_key[first:stop])
    if config.snap == "keyframes" and len(intra):
        chosen = np.unique(intra[nearest_frames(seconds[intra], seconds[chosen])])
    if config.near_frames:
        chosen = with_next(chosen, len(seconds))
    local = local_frames(seconds, chosen, count=config.local_pictures, repeat=config.spatial != "frames")
    if config.snap == "keyframes" and len(intra):
        local = intra[nearest_frames(seconds[intra], seconds[local])]  # with few intra frames: several crops of one
        local = np.unique(local) if config.spatial == "frames" else local

    grid = grid_of(len(chosen)) if config.global_kind == "mosaic" else (1, 1)
    tile = tile_size(native, grid=grid, long_side=config.global_pixels)
    whole = within_area(native, LOCAL_FRAME_PIXELS) if config.spatial == "frames" else None
    # One call: a local frame that is a keyframe too is decoded once and converted twice.
    distinct, place = np.unique(local, return_inverse=True)
    asked = np.concatenate([chosen, distinct])
    sizes = [tile] * len(chosen) + [whole] * len(distinct)
    frames = decode(
        clip.uri,
        seconds[asked],
        sizes=sizes if config.shown_size is None else [None] * len(asked),
        backend=config.backend,
        prune=config.prune,
        info=info,
        packets=packets,
    )
    if config.shown_size is not None:
        frames = as_shown(frames, config.shown_size, [sizes[at] for at in frames.requested])
    tiles, natives = part(frames, 0, len(chosen)), part(frames, len(chosen), len(asked))
    if config.near_frames:
        tiles = whole_pairs(tiles)

    planned, decoded = len(np.unique(asked)), len(np.unique(asked[frames.requested]))
    needed = planned if config.on_damage == "fail" else max(1, math.ceil(config.min_decoded_share * planned))
    if decoded < needed or not tiles or (len(local) and not natives):
        raise ClipError(
            "corrupt",
            f"{clip.uri}: {decoded} of {planned} frames could be decoded ({len(tiles)} for global, {len(natives)} for "
            f"local pictures), {needed} are needed; encode it again, or "
            + ("score it in part (on_damage=partial)" if config.on_damage == "fail" else "lower min_decoded_share"),
            (decoded, planned),
        )
    shown, global_pictures = laid_out(tiles, seconds[chosen], grid=grid if config.global_kind == "mosaic" else None)
    local_shots = [natives[k] for k in place.tolist() if k in natives]
    if config.spatial == "frames":
        crops = tuple(shot.pixels for shot in local_shots)
        boxes = tuple(CropBox(second=s.second, x=0, y=0, width=native[0], height=native[1]) for s in local_shots)
    else:
        crops, boxes = cut_out(
            local_shots, tiles=list(tiles.values()), spatial=config.spatial, side=config.crop_pixels, seed=seed
        )
    return Views(
        clip=clip,
        info=info,
        global_pictures=global_pictures,
        local_pictures=crops,
        keyframe_seconds=shown,
        crop_boxes=boxes,
        frames_planned=planned,
        frames_decoded=decoded,
        decode_backend=config.backend,
        decode_seconds=time.perf_counter() - started,
        enlargement=enlargement((info.width, info.height), config.shown_size) if config.shown_size else None,
        told_repeats=repeats_of([shot.pixels for shot in tiles.values()]) if config.count_repeats else None,
    )
