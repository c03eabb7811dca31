"""Thumbnails of scored clips: keyframes and crops named by a row, decoded again.

A module of its own, since the guarded child that decodes imports it, and the page's imports would slow that down.
"""

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from PIL import Image

from vqa.data.dialects import Row
from vqa.errors import ClipError
from vqa.media.decode import decode
from vqa.media.probe import probe
from vqa.media.sandbox import Guard
from vqa.report.canvas import shrink_to_fit
from vqa.types import Clip, Pixels
from vqa.views import ViewsConfig, look

MOSAIC_SIDE, CROP_SIDE = 640, 240  # pixels
DEADLINE_SECONDS, MEMORY_BYTES = 30.0, 4 * 2**30


class Thumbnails(TypedDict, total=False):
    """Pictures of one clip as data URIs, or why there are none."""

    mosaic: str
    crops: list[str]
    missing: str


def clip_thumbnails(rows: Iterable[Row], *, root: Path) -> dict[str, Thumbnails]:
    """Decode thumbnails by clip_id, or give the reason why a file has none.

    Args:
        rows: Rows of clips.parquet or of a scores table.
        root: Folder of relative paths.
    """
    found: dict[str, Thumbnails] = {}
    with Guard(deadline_seconds=DEADLINE_SECONDS, memory_bytes=MEMORY_BYTES) as guard:
        for row in rows:
            uri = row["uri"] if "://" in row["uri"] else str(root / row["uri"])
            clip = Clip(
                clip_id=row["clip_id"],
                uri=uri,
                start_seconds=row.get("start_seconds"),
                end_seconds=row.get("end_seconds"),
            )
            seconds, boxes = row.get("keyframe_seconds") or [], row.get("crop_boxes") or []
            try:
                found[clip.clip_id] = guard.run(decode_thumbnails, clip, seconds=seconds, boxes=boxes)
            except ClipError as error:
                found[clip.clip_id] = {"missing": f"{error.kind}: {error}"}
    return found


def decode_thumbnails(clip: Clip, *, seconds: Sequence[float], boxes: Sequence[Mapping[str, float]]) -> Thumbnails:
    """Decode the mosaic and up to three crops of a clip; runs in the guarded child.

    Args:
        clip: The clip.
        seconds: Times of the keyframes; if empty, `look` samples with its defaults.
        boxes: Crop boxes, as in a row of the scores table.

    Raises:
        ClipError: If the clip cannot be decoded.
    """
    if not seconds:
        views = look(clip, ViewsConfig())
        return _encoded(views.global_pictures, views.local_pictures[:3])
    info, packets = probe(clip.uri)
    columns = math.ceil(math.sqrt(len(seconds)))
    scale = min(1.0, MOSAIC_SIDE / columns / max(info.width, info.height))
    tile = (max(1, round(info.width * scale)), max(1, round(info.height * scale)))
    boxes = boxes[:3]
    times = [*seconds, *(box["second"] for box in boxes)]
    frames = decode(clip.uri, times, sizes=[tile] * len(seconds) + [None] * len(boxes), info=info, packets=packets)
    mosaic = np.full((-(-len(seconds) // columns) * tile[1], columns * tile[0], 3), 128, np.uint8)
    crops = []
    for request, pixels in zip(frames.requested.tolist(), frames.pixels, strict=True):
        if request < len(seconds):
            y, x = (place * side for place, side in zip(divmod(request, columns), tile[::-1], strict=True))
            mosaic[y : y + tile[1], x : x + tile[0]] = pixels
        else:
            box = boxes[request - len(seconds)]
            crops.append(pixels[box["y"] : box["y"] + box["height"], box["x"] : box["x"] + box["width"]])
    return _encoded([mosaic], crops)


def _encoded(mosaics: Sequence[Pixels], crops: Sequence[Pixels]) -> Thumbnails:
    return {"mosaic": _jpeg(mosaics[0], MOSAIC_SIDE), "crops": [_jpeg(crop, CROP_SIDE) for crop in crops if crop.size]}


def _jpeg(pixels: Pixels, side: int) -> str:
    file = io.BytesIO()
    image: Image.Image = shrink_to_fit(np.ascontiguousarray(pixels), (side, side))
    image.save(file, format="JPEG", quality=78)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
