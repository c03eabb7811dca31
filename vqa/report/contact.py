"""Data sets on one picture: how their opinions spread, and their best, worst and most disputed clips."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from vqa.data.examine import in_guards, middle_frame
from vqa.errors import ClipError
from vqa.report.canvas import CURVE, INK, PANEL, PAPER, QUIET, RULE, Draw, fitted, shortened, text
from vqa.report.dataset_sheet import BINS, Glance, Row
from vqa.types import Pixels

CELL, CAPTION, GAP, MARGIN = (256, 160), 44, 16, 32  # pixels
HEADER, BARS, TITLE = 48, 110, 34
LEAST_COLUMNS = 4


def contact_sheet(glances: Sequence[Glance], *, workers: int = 2) -> tuple[Image.Image, dict[str, ClipError]]:
    """An RGB picture, and by uri why a clip has none: its middle frame is decoded in a guarded child."""
    uris = sorted({row["uri"] for glance in glances for _, rows in _rows(glance) for row in rows})
    outcomes = dict(zip(uris, in_guards(middle_frame, uris, workers=workers, room=CELL), strict=True))
    columns = max([LEAST_COLUMNS, *(len(rows) for glance in glances for _, rows in _rows(glance))])
    width = 2 * MARGIN + columns * (CELL[0] + GAP) - GAP
    row_height = TITLE + CELL[1] + CAPTION
    heights = [HEADER + BARS + 2 * TITLE + len(_rows(glance)) * row_height for glance in glances]
    sheet = Image.new("RGB", (width, sum(heights) + 2 * MARGIN), PAPER)
    draw, top = ImageDraw.Draw(sheet), MARGIN
    for glance, height in zip(glances, heights, strict=True):
        y = _opinions(draw, glance, top=top, right=width - MARGIN)
        for title, rows in _rows(glance):
            text(draw, (MARGIN, y), title, size=19)
            for at, row in enumerate(rows):
                _clip(sheet, draw, row, outcomes[row["uri"]], at=(MARGIN + at * (CELL[0] + GAP), y + TITLE - 6))
            y += row_height
        top += height
    return sheet, {uri: one for uri, one in outcomes.items() if isinstance(one, ClipError)}


def _rows(glance: Glance) -> list[tuple[str, Sequence[Row]]]:
    rows = [("Best", glance.best), ("Worst", glance.worst), ("Most disputed", glance.disputed)]
    return [(title, clips) for title, clips in rows if clips]


def _opinions(draw: Draw, glance: Glance, *, top: int, right: int) -> int:
    """Name, facts and histogram of a data set; returns where the next thing may stand."""
    facts = f"{glance.count:,} clips, opinions {glance.least:.2f} to {glance.greatest:.2f}, mean {glance.mean:.2f}"
    text(draw, (MARGIN, top), shortened(glance.dataset, size=26, width=right - MARGIN - 480), size=26)
    text(draw, (right, top + 6), facts, size=19, fill=QUIET, anchor="ra")
    top += HEADER
    low, wide = top + BARS, right - MARGIN
    draw.rectangle((MARGIN, top, right, low), fill=PANEL, outline=RULE)
    tallest = max(1, int(glance.histogram.max()))
    for at, count in enumerate(glance.histogram.tolist()):
        x0, x1 = (MARGIN + round(wide * (at + side) / BINS) for side in (0, 1))
        if count:
            draw.rectangle((x0 + 1, low - max(1, round(count / tallest * (BARS - 6))), x1 - 1, low), fill=CURVE)
    for opinion in range(1, 6):
        x = MARGIN + round(wide * (opinion - 1) / 4)
        draw.line((x, low, x, low + 5), fill=INK)
        text(draw, (x, low + 9), str(opinion), size=16, fill=QUIET, anchor="la" if opinion == 1 else "ra")
    text(draw, (MARGIN + 6, top + 4), f"up to {tallest:,}", size=14, fill=QUIET)
    return low + TITLE + 6


def _clip(sheet: Image.Image, draw: Draw, row: Row, picture: Pixels | ClipError, *, at: tuple[int, int]) -> None:
    x, y = at
    if isinstance(picture, ClipError):
        draw.rectangle((x, y, x + CELL[0] - 1, y + CELL[1] - 1), fill=PANEL, outline=RULE)
        text(draw, (x + CELL[0] // 2, y + CELL[1] // 2), picture.kind, size=18, fill=QUIET, anchor="mm")
    else:
        small = fitted(picture, CELL)
        sheet.paste(small, (x + (CELL[0] - small.width) // 2, y + (CELL[1] - small.height) // 2))
    spread = "" if row["mos_std"] is None else f"  +- {row['mos_std']:.2f}"
    name = row["clip_id"].removeprefix(f"{row['dataset']}/")
    text(draw, (x, y + CELL[1] + 4), f"{row['mos']:.2f}{spread}", size=16)
    text(draw, (x, y + CELL[1] + 22), shortened(name, size=14, width=CELL[0]), size=14, fill=QUIET)
