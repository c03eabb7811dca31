"""Picture of a clip's views: timeline, global pictures, frames with boxes, crops."""

import math
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
from PIL import Image, ImageDraw

from vqa.media.decode import decode
from vqa.media.probe import probe
from vqa.report.canvas import (
    CURVE,
    GLOBAL,
    INK,
    KEY,
    LOCAL,
    OUTSIDE,
    PANEL,
    PAPER,
    QUIET,
    RULE,
    Draw,
    colour,
    flag,
    nice,
    outline_box,
    scaled,
    shortened,
    shrink_to_fit,
    text,
    text_width,
)
from vqa.types import Clip, CropBox, Packets, Views
from vqa.views import ViewsConfig, look

WIDTH, MARGIN, GAP = 1600, 40, 24
CONTENT = WIDTH - 2 * MARGIN
GLOBAL_SIDE = 1024  # pixels; a larger mosaic is reduced
PLOT_HEIGHT, FRAME_HEIGHT = 130, 420
COLUMNS = 3


def picture(clip: Clip, config: ViewsConfig, *, seed: int = 0) -> Image.Image:
    """Draw what `vqa.views.look` returns for a clip.

    Args:
        clip: The clip.
        config: Settings of the views.
        seed: Seed of stochastic samplers.

    Returns:
        An RGB picture, 1600 pixels wide.

    Raises:
        ClipError: As of `look`.
    """
    views = look(clip, config, seed=seed)
    _, packets = probe(clip.uri)
    rows = -(-len(views.local_pictures) // COLUMNS)
    sheet = Image.new("RGB", (WIDTH, 3_000 + rows * 1_300), PAPER)  # higher than needed, cropped at the end
    draw = ImageDraw.Draw(sheet)
    y = _header(draw, views)
    y = _timeline(draw, views, packets, top=y + GAP)
    y = _global(sheet, draw, views, packets, config, top=y + GAP)
    if views.local_pictures:
        y = _local(sheet, draw, views, config, top=y + GAP)
    return sheet.crop((0, 0, WIDTH, y + MARGIN))


def _header(draw: Draw, views: Views) -> int:
    info, clip = views.info, views.clip
    text(draw, (MARGIN, MARGIN - 8), shortened(PurePath(clip.uri).name, size=32, width=CONTENT), size=32)
    names = info.container.split(",")  # FFmpeg names a family: mov,mp4,m4a,...
    suffix = PurePath(clip.uri).suffix.lower().removeprefix(".")
    facts = [f"{info.width} x {info.height}", info.codec, suffix if suffix in names else names[0]]
    if not info.is_image:
        facts += [f"{info.fps:.4g} fps", f"{info.duration_seconds:.2f} s", f"{info.frame_count:,} frames"]
    if info.rotation_degrees:
        facts.append(f"rotated by {info.rotation_degrees} degrees")
    if info.is_mirrored:
        facts.append("mirrored" if info.rotation_degrees else "upside down")
    if clip.start_seconds is not None or clip.end_seconds is not None:
        end = "end" if clip.end_seconds is None else f"{clip.end_seconds:g} s"
        facts.append(f"span {clip.start_seconds or 0:g} s to {end}")
    text(draw, (MARGIN, MARGIN + 34), "   |   ".join(facts), size=19, fill=QUIET)
    return MARGIN + 60


def _timeline(draw: Draw, views: Views, packets: Packets, *, top: int) -> int:
    """Packet sizes as area, key frames as ticks, times as lines, local ones as flags."""
    if len(packets.seconds) == 1:
        return top - GAP
    text(draw, (MARGIN, top), "Packet sizes and sampled times", size=22)
    largest = int(packets.sizes.max())
    _legend(draw, right=MARGIN + CONTENT, top=top + 3, largest=largest, with_local=bool(views.crop_boxes))
    top += 36
    flags, left, right = 30, MARGIN, MARGIN + CONTENT
    low = top + flags + PLOT_HEIGHT
    draw.rectangle((left, top, right, low), fill=PANEL, outline=RULE)
    length = max(views.info.duration_seconds, float(packets.seconds[-1])) or 1.0

    def at(second: float) -> int:
        return left + round(min(second / length, 1.0) * CONTENT)

    start, end = views.clip.start_seconds or 0.0, views.clip.end_seconds
    for x0, x1 in ((left, at(start)), (at(length if end is None else end), right)):
        if x1 > x0:  # outside the span
            draw.rectangle((x0, top, x1, low), fill=OUTSIDE)
    # Square roots, since key frames would flatten all others.
    heights = np.sqrt(packets.sizes / max(1, largest))
    starts = np.array([at(second) for second in packets.seconds])
    columns = np.arange(left, right)
    first, stop = np.searchsorted(starts, columns), np.searchsorted(starts, columns + 1)
    for x, i, j in zip(columns.tolist(), first.tolist(), stop.tolist(), strict=True):
        tallest = heights[i:j].max() if j > i else heights[max(0, i - 1)]  # a frame's size holds until the next frame
        draw.line((x, low - round(tallest * PLOT_HEIGHT), x, low), fill=CURVE)
    for x in np.unique(starts[packets.is_key]).tolist():
        draw.line((x, low + 1, x, low + 9), fill=KEY, width=2)
    for second in views.keyframe_seconds:
        x = at(second)
        draw.line((x, top + 14, x, low), fill=GLOBAL, width=2)
        draw.ellipse((x - 5, top + 9, x + 5, top + 19), fill=GLOBAL)
    for j, boxes in enumerate(_boxes_of_pictures(views)):
        x = at(boxes[0].second)
        draw.line((x, top + 14, x, low), fill=colour(j), width=3)
        flag(draw, (x, top + 14), j)
    draw.line((left, low, right, low), fill=INK)
    step = nice(length / 10)
    for k in range(int(length / step) + 1):
        x = at(k * step)
        draw.line((x, low, x, low + 5), fill=INK)
        anchor = "la" if x < left + 20 else "ra" if x > right - 20 else "ma"
        text(draw, (x, low + 13), f"{k * step:g} s", size=16, fill=QUIET, anchor=anchor)
    return low + 34


def _legend(draw: Draw, *, right: int, top: int, largest: int, with_local: bool) -> None:
    size = f"{largest / 1000:,.1f} kB" if largest >= 1000 else f"{largest} bytes"
    items = [("key frame", KEY), (f"packet size (square root, up to {size})", CURVE), ("global", GLOBAL)]
    for name, paint in (items + [("local (numbered)", LOCAL[0])] * with_local)[::-1]:
        right -= text_width(name, size=16)
        text(draw, (right, top), name, size=16, fill=QUIET)
        draw.rectangle((right - 20, top + 3, right - 8, top + 15), fill=paint)
        right -= 44


def _global(sheet: Image.Image, draw: Draw, views: Views, packets: Packets, config: ViewsConfig, *, top: int) -> int:
    """The global pictures on the left, facts on the right."""
    count, shown = len(views.keyframe_seconds), views.global_pictures
    columns = math.ceil(math.sqrt(count))
    rows = -(-count // columns)
    height, width = (int(side) for side in shown[0].shape[:2])
    is_mosaic = config.global_kind == "mosaic"
    what = "one frame" if count == 1 else f"one mosaic of {count} frames" if is_mosaic else f"{count} frames"
    scale = min(1.0, GLOBAL_SIDE / (max(width, height) if is_mosaic else max(columns * width, rows * height)))
    note = "pixel for pixel" if scale == 1 else f"shown at {scale:.0%}"
    text(draw, (MARGIN, top), f"Global: {what}, {width} x {height} ({note})", size=22)
    top += 36
    # One picture of a mosaic, or separate ones as a contact sheet: the tile of frame k is at the same place in both.
    wide, high = max(1, round(width * scale)), max(1, round(height * scale))
    cell = (wide / columns, high / rows) if is_mosaic else (wide, high)
    for k, pixels in enumerate(shown):
        row, column = divmod(k, columns)
        sheet.paste(scaled(pixels, (wide, high)), (MARGIN + column * wide, top + row * high))
    seconds = {boxes[0].second: j for j, boxes in reversed(list(enumerate(_boxes_of_pictures(views))))}
    for k, second in enumerate(views.keyframe_seconds):
        if second in seconds and count > 1:
            row, column = divmod(k, columns)
            x, y = MARGIN + round(column * cell[0]), top + round(row * cell[1])
            outline_box(draw, (x, y, x + round(cell[0]), y + round(cell[1])), seconds[second])
    left = MARGIN + round(cell[0] * columns) + 2 * GAP
    return max(top + round(cell[1] * rows), _facts(draw, views, packets, config, left=left, top=top))


def _facts(draw: Draw, views: Views, packets: Packets, config: ViewsConfig, *, left: int, top: int) -> int:
    pixels = sum(picture.shape[0] * picture.shape[1] for picture in views.pictures)
    sizes = sorted({f"{p.shape[1]} x {p.shape[0]}" for p in views.local_pictures}) or ["none"]
    rows = [
        ("frames decoded", f"{views.frames_decoded} of {views.frames_planned} planned"),
        *(
            [("frames that repeat", f"{views.told_repeats} of {len(views.keyframe_seconds)}")]
            * bool(views.told_repeats)
        ),
        ("key frames", f"{int(packets.is_key.sum()):,} of {len(packets.seconds):,}"),
        ("temporal", config.temporal),
        ("spatial", config.spatial),
        ("local pictures", f"{len(views.local_pictures)}, {sizes[0]}" + (" ..." if len(sizes) > 1 else "")),
        ("all pictures", f"{pixels / 1e6:.2f} Mpx, {pixels / 784:,.0f} tokens of 28 x 28"),
        ("decoding", f"{views.decode_seconds:.2f} s ({views.decode_backend})"),
    ]
    for name, value in rows:
        text(draw, (left, top), name, size=17, fill=QUIET)
        text(draw, (left + 152, top), shortened(value, size=17, width=WIDTH - MARGIN - left - 152), size=17)
        top += 28
    top += 12
    text(draw, (left, top), "seconds, row by row", size=17, fill=QUIET)
    columns = min(6, math.ceil(math.sqrt(len(views.keyframe_seconds))))
    top += 28
    for k, second in enumerate(views.keyframe_seconds[:72]):
        row, column = divmod(k, columns)
        text(draw, (left + 70 * (column + 1) - 14, top + 26 * row), f"{second:.2f}", size=17, anchor="ra")
    return top + 26 * -(-min(72, len(views.keyframe_seconds)) // columns)


def _local(sheet: Image.Image, draw: Draw, views: Views, config: ViewsConfig, *, top: int) -> int:
    """Each whole frame with its box, and below it the crop; three per row."""
    what = {"frames": "whole frames", "fragments": "patches stitched together"}.get(
        config.spatial, "crops at native size"
    )
    text(draw, (MARGIN, top), f"Local: {len(views.local_pictures)} pictures, {what}", size=22)
    top += 40
    boxes = _boxes_of_pictures(views)
    frames = [None] * len(boxes) if config.spatial == "frames" else _whole_frames(views, boxes, config)
    wide = (CONTENT - GAP * (COLUMNS - 1)) // COLUMNS
    for first in range(0, len(boxes), COLUMNS):
        row = range(first, min(first + COLUMNS, len(boxes)))
        xs = {j: MARGIN + (j - first) * (wide + GAP) for j in row}
        for j in row:
            flag(draw, (xs[j] + 13, top + 12), j)
            text(draw, (xs[j] + 36, top + 2), _caption(boxes[j]), size=18)
        top += 36
        frame_bottom = picture_bottom = top
        for j in row:
            whole = frames[j]
            if whole is not None:
                sheet.paste(whole, (xs[j], top))
                ratio = whole.width / views.info.width, whole.height / views.info.height
                for b in boxes[j]:
                    x0, y0 = xs[j] + round(b.x * ratio[0]), top + round(b.y * ratio[1])
                    x1, y1 = xs[j] + round((b.x + b.width) * ratio[0]), top + round((b.y + b.height) * ratio[1])
                    outline_box(draw, (x0, y0, x1, y1), j, thin=len(boxes[j]) > 1)
                frame_bottom = max(frame_bottom, top + whole.height + 16)
        for j in row:
            shown = shrink_to_fit(views.local_pictures[j], (wide, wide + FRAME_HEIGHT // 2))
            sheet.paste(shown, (xs[j], frame_bottom))
            picture_bottom = max(picture_bottom, frame_bottom + shown.height)
        top = picture_bottom + GAP
    return top - GAP


def _whole_frames(views: Views, boxes: Sequence[Sequence[CropBox]], config: ViewsConfig) -> list[Image.Image | None]:
    """The frames of the local pictures, at the size drawn here (None: not decoded)."""
    wide = (CONTENT - GAP * (COLUMNS - 1)) // COLUMNS
    scale = min(wide / views.info.width, FRAME_HEIGHT / views.info.height, 1.0)
    size = max(1, round(views.info.width * scale)), max(1, round(views.info.height * scale))
    seconds = [of_picture[0].second for of_picture in boxes]
    frames = decode(views.clip.uri, seconds, sizes=[size] * len(seconds), backend=config.backend)
    found = dict(zip(frames.requested.tolist(), frames.pixels, strict=True))
    return [Image.fromarray(found[j]) if j in found else None for j in range(len(seconds))]


def _boxes_of_pictures(views: Views) -> list[tuple[CropBox, ...]]:
    """The boxes of each local picture: one, or those of its patches."""
    each = len(views.crop_boxes) // max(1, len(views.local_pictures))
    return [views.crop_boxes[j * each : (j + 1) * each] for j in range(len(views.local_pictures))]


def _caption(boxes: Sequence[CropBox]) -> str:
    b = boxes[0]
    one = f"{b.width} x {b.height} at {b.x}, {b.y}"
    place = f"{len(boxes)} patches of {b.width} x {b.height}" if len(boxes) > 1 else one
    return f"{b.second:.2f} s:  {place}"
