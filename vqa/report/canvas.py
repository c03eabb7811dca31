"""What the drawn pages share: colours, text, numbered flags, outlines, fitted pictures."""

import math
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from vqa.types import Pixels

PAPER, INK, QUIET, RULE, PANEL = "#fbfbf9", "#1d2733", "#66717f", "#d5dae1", "#ffffff"
CURVE, OUTSIDE, KEY, GLOBAL = "#b9c8da", "#eff1f3", "#d99a1c", "#2456c7"
LOCAL = ("#d6452b", "#12875a", "#8a3fb0", "#b3771a", "#0f7f9b", "#a83266")

Draw = ImageDraw.ImageDraw
Box = tuple[int, int, int, int]


def _font(size: int) -> Any:  # Pillow's types allow its bitmap font too, which it never gives for a size
    return ImageFont.load_default(size=size)


def _plain(words: str) -> str:
    """Text as data: letters that Pillow's own font lacks, and control characters, by their code."""
    words = words.encode("ascii", "backslashreplace").decode()
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in words)


def shortened(words: str, *, size: int, width: int) -> str:
    """The text with its middle left out where it is wider than `width` pixels."""
    words = shown = _plain(words)
    keep = len(words)
    while keep > 2 and text_width(shown, size=size) > width:
        keep = keep * 9 // 10
        shown = f"{words[: keep // 2]} ... {words[len(words) - keep // 2 :]}"
    return shown


def text(draw: Draw, at: tuple[int, int], words: str, *, size: int, fill: str = INK, anchor: str = "la") -> None:
    """Write one line; `anchor` as in Pillow (la: left, top)."""
    draw.text(at, _plain(words), fill=fill, font=_font(size), anchor=anchor)


def text_width(words: str, *, size: int) -> int:
    """Pixels that `text` will take."""
    return round(float(_font(size).getlength(_plain(words))))


def colour(j: int) -> str:
    """The colour of local picture j, in the timeline as on its box."""
    return LOCAL[j % len(LOCAL)]


def flag(draw: Draw, at: tuple[int, int], j: int) -> None:
    """The number of local picture j on a disc in its colour."""
    x, y = at
    draw.ellipse((x - 12, y - 12, x + 12, y + 12), fill=colour(j), outline=PAPER, width=2)
    draw.text((x, y), str(j + 1), fill=PANEL, font=_font(16), anchor="mm")


def frame(draw: Draw, box: Box, j: int, *, thin: bool = False) -> None:
    """An outline in the colour of local picture j, on white so that it shows on any ground."""
    if not thin:
        draw.rectangle(box, outline=PANEL, width=5)
    inner = (box[0] + 1, box[1] + 1, max(box[0] + 1, box[2] - 1), max(box[1] + 1, box[3] - 1))
    draw.rectangle(box if thin else inner, outline=colour(j), width=1 if thin else 3)


def scaled(pixels: Pixels, size: tuple[int, int]) -> Image.Image:
    """The picture at this size."""
    image = Image.fromarray(pixels)
    return image if image.size == size else image.resize((max(1, size[0]), max(1, size[1])), Image.Resampling.LANCZOS)


def fitted(pixels: Pixels, room: tuple[int, int]) -> Image.Image:
    """The picture as it is, or reduced to fit."""
    scale = min(1.0, room[0] / pixels.shape[1], room[1] / pixels.shape[0])
    return scaled(pixels, (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)))


def nice(step: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(k * power for k in (1, 2, 5, 10) if k * power >= step * 0.999)
