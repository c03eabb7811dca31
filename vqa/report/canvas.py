"""Drawing for pages: colours, text, numbered flags, outlines, fitted pictures."""

import math
from contextlib import suppress
from functools import cache
from typing import cast

from PIL import Image, ImageDraw, ImageFont

from vqa.types import Pixels

PAPER, INK, QUIET, RULE, PANEL = "#fbfbf9", "#1d2733", "#66717f", "#d5dae1", "#ffffff"
CURVE, OUTSIDE, KEY, GLOBAL = "#b9c8da", "#eff1f3", "#d99a1c", "#2456c7"
LOCAL = ("#d6452b", "#12875a", "#8a3fb0", "#b3771a", "#0f7f9b", "#a83266")
# Fonts of the system, for characters that Pillow's own font lacks: all letters beyond ASCII.
SYSTEM_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf")

Draw = ImageDraw.ImageDraw
Box = tuple[int, int, int, int]


Font = ImageFont.FreeTypeFont


@cache
def _fonts(size: int) -> tuple[Font, ...]:
    """Pillow's own font first, so that ASCII looks the same on every machine."""
    found = [cast(Font, ImageFont.load_default(size=size))]  # the bitmap font of its type is never returned for a size
    for name in SYSTEM_FONTS:
        with suppress(OSError):
            found.append(ImageFont.truetype(name, size))
    return tuple(found)


@cache
def _has_glyph(font: Font, character: str) -> bool:
    return bytes(font.getmask(character)) != bytes(font.getmask("\uffff"))  # drawn as the box of a missing glyph


def _laid_out(words: str, size: int) -> tuple[str, Font]:
    """The text with escapes for what cannot be drawn, and the font that draws most."""
    words = "".join(c if c.isprintable() else repr(c)[1:-1] for c in words)
    font = max(_fonts(size), key=lambda one: sum(_has_glyph(one, c) for c in words))  # of equals the first
    return "".join(c if _has_glyph(font, c) else ascii(c)[1:-1] for c in words), font


def shortened(words: str, *, size: int, width: int) -> str:
    """The text, its middle an ellipsis where it is wider than `width` pixels."""
    words, _ = _laid_out(words, size)
    shown = words
    keep = len(words)
    while keep > 2 and text_width(shown, size=size) > width:
        keep = keep * 9 // 10
        shown = f"{words[: keep // 2]} ... {words[len(words) - keep // 2 :]}"
    return shown


def text(draw: Draw, at: tuple[int, int], words: str, *, size: int, fill: str = INK, anchor: str = "la") -> None:
    """Draw one line; `anchor` as in Pillow (la: left, top)."""
    shown, font = _laid_out(words, size)
    draw.text(at, shown, fill=fill, font=font, anchor=anchor)


def text_width(words: str, *, size: int) -> int:
    """Return the width in pixels of what `text` draws."""
    shown, font = _laid_out(words, size)
    return round(font.getlength(shown))


def colour(j: int) -> str:
    """Return the colour of local picture j, in the timeline and on its box."""
    return LOCAL[j % len(LOCAL)]


def flag(draw: Draw, at: tuple[int, int], j: int) -> None:
    """Draw the number of local picture j on a disc in its colour."""
    x, y = at
    draw.ellipse((x - 12, y - 12, x + 12, y + 12), fill=colour(j), outline=PAPER, width=2)
    draw.text((x, y), str(j + 1), fill=PANEL, font=_fonts(16)[0], anchor="mm")


def outline_box(draw: Draw, box: Box, j: int, *, thin: bool = False) -> None:
    """Outline a box in the colour of local picture j, on white unless `thin`."""
    if not thin:
        draw.rectangle(box, outline=PANEL, width=5)
    inner = (box[0] + 1, box[1] + 1, max(box[0] + 1, box[2] - 1), max(box[1] + 1, box[3] - 1))
    draw.rectangle(box if thin else inner, outline=colour(j), width=1 if thin else 3)


def scaled(pixels: Pixels, size: tuple[int, int]) -> Image.Image:
    """Return the picture at this size (width, height)."""
    image = Image.fromarray(pixels)
    return image if image.size == size else image.resize((max(1, size[0]), max(1, size[1])), Image.Resampling.LANCZOS)


def shrink_to_fit(pixels: Pixels, room: tuple[int, int]) -> Image.Image:
    """Return the picture, reduced if needed to fit into `room` (width, height)."""
    scale = min(1.0, room[0] / pixels.shape[1], room[1] / pixels.shape[0])
    return scaled(pixels, (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)))


def nice(step: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(k * power for k in (1, 2, 5, 10) if k * power >= step * 0.999)
