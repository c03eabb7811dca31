"""The page of a simulated job: its curve is drawn to scale, and its words are text."""

import html
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from vqa.report.scaling import BOTTOM, LEFT, RIGHT, TOP, ScalingPoint, write_scaling

SVG_TEXT = re.compile(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="(middle|end)">([\d.e+]+)</text>')


def point(workers: int, clips_per_second: float, *, linear: float | None = None, why: str = "cores") -> ScalingPoint:
    return ScalingPoint(
        workers=workers,
        clips_per_second=clips_per_second,
        linear=5.0 * workers if linear is None else linear,
        time="2 h",
        cost=None,
        worth_from=1234,
        busy={"decoding": 0.25, "scoring": 0.5},
        why=why,
    )


def page_of(folder: Path, *curve: ScalingPoint, verdict: str = "Up to 64.") -> str:
    write_scaling(folder / "plan.html", curve, title="6 files", verdict=verdict, unit="GPUs")
    return (folder / "plan.html").read_text(encoding="utf-8")


def places(text: str, kind: str) -> list[tuple[float, float]]:
    (found,) = re.findall(rf'<polyline class="{kind}" points="([^"]*)"/>', text)
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in found.split())]


def test_points_lie_where_the_ticks_say(tmp_path: Path) -> None:
    text = page_of(tmp_path, point(1, 5), point(8, 20), point(64, 100))
    circles = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', text)]
    assert circles == places(text, "line")
    assert all(LEFT < x < RIGHT and TOP < y < BOTTOM for x, y in circles)
    ticks = [(float(x), float(y), anchor, float(said)) for x, y, anchor, said in SVG_TEXT.findall(text)]
    across = {said: x for x, _, anchor, said in ticks if anchor == "middle"}
    along = {said: y - 4 for _, y, anchor, said in ticks if anchor == "end"}  # the text stands 4 below its line
    assert across == {1: circles[0][0], 8: circles[1][0], 64: circles[2][0]}
    assert list(along) == [5, 10, 20, 50, 100, 200]
    assert [along[value] for value in (5, 20, 100)] == [pytest.approx(y, abs=0.11) for _, y in circles]
    assert across[64] - across[8] == pytest.approx(across[8] - across[1], abs=0.11)
    assert along[10] - along[100] == pytest.approx(along[5] - along[50], abs=0.21)


def test_the_dashed_line_is_where_no_worker_waits(tmp_path: Path) -> None:
    text = page_of(tmp_path, point(1, 5), point(8, 20))
    assert places(text, "linear")[0] == places(text, "line")[0]
    assert places(text, "linear")[1][1] < places(text, "line")[1][1]  # above it
    assert '<td class="number">50 %</td><td class="number">2 h</td><td class="number">1,234</td>' in text
    assert '<td class="number">25 %</td><td class="number">50 %</td>' in text


def test_without_a_limit_there_is_no_dashed_line(tmp_path: Path) -> None:
    text = page_of(tmp_path, point(1, 5, linear=math.inf), point(8, 20, linear=math.inf))
    assert places(text, "linear") == []


def test_linear_is_as_many_times_the_smallest_size(tmp_path: Path) -> None:
    local = replace(point(1, 5, linear=10.0), busy={"decoding": 0.25, "scoring": 0.5, "cores": 0.99})
    text = page_of(tmp_path, local, point(8, 20, linear=80.0))
    shares = re.findall(r">([\d.]+)</td><td class=\"number\">(\d+ %)</td>", text)
    assert shares == [("5", "100 %"), ("20", "50 %")], "not a share of what models could do that never wait"
    assert ">cores at work</th>" in text
    assert '<td class="number">50 %</td><td class="number">99 %</td>' in text
    assert '<td class="number">50 %</td><td class="number">-</td>' in text


def test_one_point_is_a_page(tmp_path: Path) -> None:
    text = page_of(tmp_path, point(4, 3.7))
    assert text.count("<circle") == 1
    assert ">3.7 clips/s<" in text


def test_words_are_text_and_nothing_runs(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>"
    text = page_of(tmp_path, point(1, 5, why=bad), verdict=bad)
    assert text.count(html.escape(bad)) == 2
    assert "<script" not in text
    assert "default-src 'none'" in text


def test_the_table_fits_a_window_and_no_word_is_broken(tmp_path: Path, browser: Browser) -> None:
    parts = ("decoding", "scoring", "storage", "driver", "cores")
    curve = [
        replace(point(n, 5.0 * n, why="storage bandwidth"), busy=dict.fromkeys(parts, 0.5), cost="1,200.00")
        for n in (1, 8)
    ]
    write_scaling(tmp_path / "plan.html", curve, title="6 files", verdict="Up to 8.", unit="machines")
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    page.goto((tmp_path / "plan.html").as_uri())
    inside, whole = page.evaluate("(box => [box.clientWidth, box.scrollWidth])(document.querySelector('.wide'))")
    assert whole <= inside
    lines = page.evaluate(
        "[...document.querySelectorAll('th, td')].map(cell => { const range = document.createRange();"
        "range.selectNodeContents(cell); return [cell.innerText, range.getClientRects().length]; })"
    )
    assert all(count <= len(text.split()) for text, count in lines), lines
    page.close()
