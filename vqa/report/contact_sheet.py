"""Contact sheet of data sets: opinions, and best, worst and most disputed clips."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vqa.data.audit import map_files, middle_frame
from vqa.data.dialects import Row
from vqa.data.manifest import Manifest
from vqa.errors import ClipError
from vqa.report.canvas import CURVE, INK, PANEL, PAPER, QUIET, RULE, Draw, shortened, shrink_to_fit, text
from vqa.types import Pixels

BINS = 32  # of an eighth of a point, from 1 to 5
CELL, CAPTION, GAP, MARGIN = (256, 160), 44, 16, 32  # pixels
HEADER, BARS, TITLE = 48, 110, 34
LEAST_COLUMNS = 4
_BLOCKS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SetSummary:
    """A set's opinions (1-5) and its extreme clips as rows, the most extreme first."""

    dataset: str
    count: int
    minimum: float
    mean: float
    maximum: float
    histogram: NDArray[np.int64]  # [BINS]
    best: Sequence[Row]
    worst: Sequence[Row]
    disputed: Sequence[Row]  # by mos_std; empty if no spread is known


def summarise_sets(manifest: Manifest, *, top: int) -> list[SetSummary]:
    """Summarise data sets, by name, with `top` clips of each kind; ties by clip_id."""
    of_set: dict[str, list[Row]] = {}
    for row in sorted(manifest.table.to_pylist(), key=lambda row: str(row["clip_id"])):
        of_set.setdefault(row["dataset"], []).append(row)
    found = []
    for dataset, rows in sorted(of_set.items()):
        opinions = np.array([row["mos"] for row in rows])
        spread = [row for row in rows if row["mos_std"] is not None]
        found.append(
            SetSummary(
                dataset=dataset,
                count=len(rows),
                minimum=float(opinions.min()),
                mean=float(opinions.mean()),
                maximum=float(opinions.max()),
                histogram=np.histogram(opinions, BINS, (1, 5))[0],
                best=sorted(rows, key=lambda row: -row["mos"])[:top],
                worst=sorted(rows, key=lambda row: row["mos"])[:top],
                disputed=sorted(spread, key=lambda row: -row["mos_std"])[:top],
            )
        )
    return found


def sparkline(histogram: NDArray[np.int64]) -> str:
    """Return a histogram as one line of text; a bin that is not empty is never blank."""
    heights = np.ceil(histogram * (len(_BLOCKS) - 1) / max(1, histogram.max())).astype(int)
    return "".join(_BLOCKS[height] for height in heights)


def contact_sheet(summaries: Sequence[SetSummary], *, workers: int = 2) -> tuple[Image.Image, dict[str, ClipError]]:
    """Draw the contact sheet; middle frames are decoded in a guarded child.

    Args:
        summaries: The data sets.
        workers: Files decoded at a time.

    Returns:
        An RGB picture, and the errors of clips without a picture, by uri.
    """
    uris = sorted({row["uri"] for summary in summaries for _, rows in _rows(summary) for row in rows})
    outcomes = dict(zip(uris, map_files(middle_frame, uris, workers=workers, room=CELL), strict=True))
    columns = max([LEAST_COLUMNS, *(len(rows) for summary in summaries for _, rows in _rows(summary))])
    width = 2 * MARGIN + columns * (CELL[0] + GAP) - GAP
    row_height = TITLE + CELL[1] + CAPTION
    heights = [HEADER + BARS + 2 * TITLE + len(_rows(summary)) * row_height for summary in summaries]
    sheet = Image.new("RGB", (width, sum(heights) + 2 * MARGIN), PAPER)
    draw, top = ImageDraw.Draw(sheet), MARGIN
    for summary, height in zip(summaries, heights, strict=True):
        y = _opinions(draw, summary, top=top, right=width - MARGIN)
        for title, rows in _rows(summary):
            text(draw, (MARGIN, y), title, size=19)
            for at, row in enumerate(rows):
                _clip(sheet, draw, row, outcomes[row["uri"]], at=(MARGIN + at * (CELL[0] + GAP), y + TITLE - 6))
            y += row_height
        top += height
    return sheet, {uri: one for uri, one in outcomes.items() if isinstance(one, ClipError)}


def _rows(summary: SetSummary) -> list[tuple[str, Sequence[Row]]]:
    rows = [("Best", summary.best), ("Worst", summary.worst), ("Most disputed", summary.disputed)]
    return [(title, clips) for title, clips in rows if clips]


def _opinions(draw: Draw, summary: SetSummary, *, top: int, right: int) -> int:
    """Name, facts and histogram of a data set; returns the y coordinate below."""
    facts = f"{summary.count:,} clips, opinions {summary.minimum:.2f} to {summary.maximum:.2f}, mean {summary.mean:.2f}"
    text(draw, (MARGIN, top), shortened(summary.dataset, size=26, width=right - MARGIN - 480), size=26)
    text(draw, (right, top + 6), facts, size=19, fill=QUIET, anchor="ra")
    top += HEADER
    low, wide = top + BARS, right - MARGIN
    draw.rectangle((MARGIN, top, right, low), fill=PANEL, outline=RULE)
    tallest = max(1, int(summary.histogram.max()))
    for at, count in enumerate(summary.histogram.tolist()):
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
        small = shrink_to_fit(picture, CELL)
        sheet.paste(small, (x + (CELL[0] - small.width) // 2, y + (CELL[1] - small.height) // 2))
    spread = "" if row["mos_std"] is None else f"  +- {row['mos_std']:.2f}"
    name = row["clip_id"].removeprefix(f"{row['dataset']}/")
    text(draw, (x, y + CELL[1] + 4), f"{row['mos']:.2f}{spread}", size=16)
    text(draw, (x, y + CELL[1] + 22), shortened(name, size=14, width=CELL[0]), size=14, fill=QUIET)
