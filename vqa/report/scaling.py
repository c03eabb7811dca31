"""The page of a simulated job: clips per second by workers, and what limits it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from vqa.files import replacing
from vqa.report.page import ASSETS

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 420, 70, 870, 40, 360


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPoint:
    """A point of the curve."""

    workers: int
    clips_per_second: float
    linear: float  # clips/s if no model process ever waited; may be infinite
    time: str  # of the whole job
    cost: str | None
    worth_from: int  # clips, for starting and ending to take a tenth of the time or less
    busy: Mapping[str, float]  # 0 to 1, by part
    why: str


def write_scaling(path: Path, curve: Sequence[ScalingPoint], *, title: str, verdict: str, unit: str) -> None:
    """Write the page, which holds no script and asks for nothing.

    Args:
        path: Of the file.
        curve: One point at least.
        title: Of the page.
        verdict: Where it stops scaling, in words.
        unit: What is counted: `GPUs`.

    Raises:
        UsageError: `path` is a folder.
    """
    shown = [one.clips_per_second for one in curve] + [one.linear for one in curve if math.isfinite(one.linear)]
    across = _Axis([one.workers for one in curve], LEFT, RIGHT)
    along = _Axis(shown, BOTTOM, TOP)
    places = [(across(one.workers), along(one.clips_per_second)) for one in curve]
    linear = [(across(one.workers), along(one.linear)) for one in curve if math.isfinite(one.linear)]
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(ASSETS), autoescape=True)
    text = environment.get_template("scaling.html.j2").render(
        title=title,
        verdict=verdict,
        unit=unit,
        style=Markup((ASSETS / "page.css").read_text(encoding="utf-8")),  # noqa: S704 (a file of this package)
        curve=curve,
        parts=list(dict.fromkeys(part for one in curve for part in one.busy)),
        x_ticks=[(across(one.workers), f"{one.workers}") for one in curve],
        y_ticks=[(along(tick), f"{tick:g}") for tick in _decades(shown)],
        points=[(*place, f"{one.clips_per_second:.3g} clips/s") for place, one in zip(places, curve, strict=True)],
        line=_polyline(places),
        linear=_polyline(linear),
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=RIGHT,
        top=TOP,
        bottom=BOTTOM,
    )
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


class _Axis:
    """A logarithmic axis: a value to a place on the page."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self._low, high = math.log(min(values)) - 0.1, math.log(max(values)) + 0.1
        self._start, self._step = start, (end - start) / (high - self._low)

    def __call__(self, value: float) -> float:
        return round(self._start + (math.log(value) - self._low) * self._step, 1)


def _decades(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 times powers of ten within the values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    ticks = [digit * 10.0**power for power in range(low, high + 1) for digit in (1, 2, 5)]
    return [tick for tick in ticks if 0.9 * min(values) <= tick <= 1.1 * max(values)]


def _polyline(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in places)
