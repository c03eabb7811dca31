"""report.html in a real browser: the system's Chromium, driven by Playwright (apt-get install chromium)."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support import opinions
from tests.support.browser import PATIENCE
from vqa.errors import UsageError
from vqa.evaluate.calibrate import calibrate, find_origin
from vqa.evaluate.evaluation import EvaluationConfig, evaluate, write_evaluation
from vqa.evaluate.inputs import read_table
from vqa.evaluate.join import join
from vqa.evaluate.statistics import StatisticsConfig
from vqa.files import write_json
from vqa.report.page import write_library, write_report
from vqa.types import CropBox

# Resolves with where the fifth clip of set b is on the screen, once the point has stood still for ten frames.
STEADY = """() => new Promise((done) => {
    byId("scatter").scrollIntoView({ block: "center" });
    let last = null, still = 0;
    const look = () => {
        const point = charts.scatter.getDatasetMeta(1).data[4], box = byId("scatter").getBoundingClientRect();
        const now = [box.left + point.x, box.top + point.y];
        still = last && now.every((value, k) => value === last[k]) ? still + 1 : 0;
        last = now;
        if (still >= 10) done(now); else requestAnimationFrame(look);
    };
    look();
})"""
MARKUP = "<img src=x onerror=alert(1)></script><script>alert(2)</script> & <b>bold</b>"


@pytest.fixture
def visit(browser: Browser) -> Iterator[Any]:
    """Opens a page; afterwards nothing may have been fetched, refused, logged as an error or asked in a dialog."""
    bad: list[str] = []
    context = browser.new_context(color_scheme="light", reduced_motion="reduce")
    expect.set_options(timeout=PATIENCE)

    def start(path: Path) -> Page:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: bad.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: bad.append(str(error)))
        page.on("dialog", lambda dialog: (bad.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda one: None if one.url.startswith(("file:", "data:")) else bad.append(one.url))
        page.goto(path.resolve().as_uri())
        page.wait_for_selector("html[data-ready]")
        return page

    yield start
    context.close()
    assert bad == []


def evaluated(folder: Path, *, noise: float = 0.5, count: int = 30, splits: int = 0) -> Path:
    """Two sets of clips, evaluated; the second clip is named in markup, the fourth failed."""
    pairs = [opinions.clips(count, seed=seed, dataset=name, noise=noise) for seed, name in enumerate("ab")]
    labels, scores = ([row for pair in pairs for row in pair[side]] for side in (0, 1))
    for row in scores:
        row["uri"] = row.pop("path")
    folder.mkdir()
    labels[1]["clip_id"] = labels[1]["uri"] = scores[1]["uri"] = MARKUP
    scores[1] |= {"score": 5.0 if labels[1]["mos"] < 3 else 1.0, "reason": MARKUP}
    scores[3] |= {"score": None, "status": "failed", "error_kind": "corrupt", "error": MARKUP}
    for at, row in enumerate(labels):
        row["distortion"] = ["blur", "noise", MARKUP][at % 3]
    config = EvaluationConfig(
        scores=opinions.write_scores(folder / "scored", scores),
        labels=opinions.write_csv(folder / "labels.csv", labels),
        key="uri",
        by=("distortion",),
        statistics=StatisticsConfig(resamples=50, splits=splits, allow_missing=True),
    )
    write_evaluation(evaluate(config), folder)
    return folder


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluated(tmp_path_factory.mktemp("page") / "one")


def rows_of(page: Page) -> list[str]:
    return page.locator("#clips tbody .link").all_text_contents()


def test_filters_leave_the_clips_of_the_set_and_the_search(evaluation: Path, visit: Any) -> None:
    page = visit(write_report(evaluation, pictures=0))
    expect(page.locator("#count")).to_contain_text("60 of 60 clips")
    page.select_option("select[name='data set']", label="b")
    expect(page.locator("#count")).to_contain_text("30 of 60 clips")
    assert all(name.startswith("b/") for name in rows_of(page))
    page.select_option("select[name='distortion']", label="blur")
    expect(page.locator("#count")).to_contain_text("10 of 60 clips")
    page.fill("input[type=search]", "nothing is called so")
    expect(page.locator("#clips tbody tr")).to_have_count(0)


def test_the_table_sorts_both_ways_and_keeps_the_focus(evaluation: Path, visit: Any) -> None:
    page = visit(write_report(evaluation, pictures=0))
    for order in (1, -1):
        page.click("#clips [data-key=mos]")
        expect(page.locator("#clips th:nth-child(4)")).to_have_attribute(
            "aria-sort", "ascending" if order > 0 else "descending"
        )
        shown = [float(text) for text in page.locator("#clips tbody td:nth-child(4)").all_text_contents()]
        assert shown == sorted(shown, reverse=order < 0)
        expect(page.locator("#clips [data-key=mos]")).to_be_focused()


def test_a_click_on_a_point_or_enter_opens_its_clip_and_escape_closes_it(evaluation: Path, visit: Any) -> None:
    page = visit(write_report(evaluation, pictures=0))
    page.mouse.click(*page.evaluate(STEADY))
    expect(page.locator("#clip-title")).to_have_text(re.compile("^b/"))
    page.keyboard.press("Escape")
    expect(page.locator("#clip")).to_be_hidden()
    page.focus("#scatter")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("#clip")).to_be_visible()


def test_markup_in_names_reasons_and_errors_is_text(evaluation: Path, visit: Any) -> None:
    page = visit(write_report(evaluation, pictures=0))
    card = page.locator("#worst .card").first
    expect(card.locator("h3")).to_have_text(MARKUP)
    expect(card.locator("p")).to_have_text(MARKUP)
    expect(page.locator("img[src=x]")).to_have_count(0)
    expect(page.locator("script")).to_have_count(4)


def test_two_models_stand_side_by_side(evaluation: Path, tmp_path: Path, visit: Any) -> None:
    other = evaluated(tmp_path / "other", noise=1.0)
    page = visit(write_report(evaluation, against=other, pictures=0))
    expect(page.locator("#scatters canvas")).to_have_count(2)
    expect(page.locator("#clips")).to_contain_text("other score")
    lines = "id => charts[id].data.datasets.filter(one => one.type === 'line').length"
    assert [page.evaluate(lines, id) for id in ("scatter", "scatter_b")] == [0, 0]
    page.select_option("select[name='data set']", label="b")
    expect(page.locator("#scatter_b-fit")).to_contain_text("4-parameter logistic")
    assert [page.evaluate(lines, id) for id in ("scatter", "scatter_b")] == [3, 3]  # the fit and its band's edges
    ends = "id => charts[id].data.datasets.find(one => one.type === 'line').data.map(({ y }) => y)"
    assert page.evaluate(ends, "scatter") != page.evaluate(ends, "scatter_b")
    bars = "charts.histogram.data.datasets.map(({ data }) => data.map(({ x, y }) => [x, y]))"
    first, second = page.evaluate(bars)
    assert [x for x, _ in first] == [x for x, _ in second]  # both on the opinions' scale, in the same bins
    assert [sum(y for _, y in side) for side in (first, second)] == [30, 30]


def test_residuals_and_errors_show_both_models(evaluation: Path, tmp_path: Path, visit: Any) -> None:
    other = evaluated(tmp_path / "two", noise=1.0)
    page = visit(write_report(evaluation, against=other, pictures=0))
    names = [f"scored, {folder.name}" for folder in (evaluation, other)]  # neither has another name
    expect(page.locator("#residual-models .model")).to_have_text(names)
    expect(page.locator("#error-models .model")).to_have_text(names)
    drawn = page.evaluate("charts.residuals.data.datasets.map(({ data }) => data.map(({ y }) => y))")
    for side, folder in zip(drawn, (evaluation, other), strict=True):
        residuals = [row["residual"] for row in pq.read_table(folder / "clips.parquet").to_pylist()]
        assert sorted(side) == pytest.approx(sorted(value for value in residuals if value is not None), abs=1e-4)
    page.select_option("#by", label="data set")
    shown = [float(text.split("±")[0]) for text in page.locator("#errors td.number .line").all_text_contents()]
    wanted = [mean_error(folder, name) for name in "ab" for folder in (evaluation, other)]
    assert shown == pytest.approx(wanted, abs=0.00501)


def mean_error(folder: Path, dataset: str) -> float:
    rows = pq.read_table(folder / "clips.parquet").to_pylist()
    found = [abs(row["residual"]) for row in rows if row["dataset"] == dataset and row["residual"] is not None]
    return sum(found) / len(found)


def test_the_table_of_statistics_holds_areas_medians_and_means(tmp_path: Path, visit: Any) -> None:
    folder = evaluated(tmp_path / "one", splits=10)
    page = visit(write_report(folder, pictures=0))
    metrics = json.loads((folder / "metrics.json").read_text())
    heads = page.locator("#figures > table th").all_text_contents()
    assert heads[-4:] == ["different / similar", "better / worse", "SRCC, splits", "PLCC fitted, splits"]
    lines = page.locator("#figures > table tbody tr")
    shown = [line.locator("td").all_text_contents() for line in lines.all()]
    part = metrics["datasets"]["a"]
    statistics, splits = part["statistics"], part["splits"]
    areas = [statistics[f"auc_{name}"] for name in ("different_similar", "better_worse")]
    wanted = [f"{one['value']:.3f}{one['low']:.3f}–{one['high']:.3f}" for one in areas]
    medians = [[splits[end][name] for end in ("median", "min", "max")] for name in ("srcc", "plcc_logistic4")]
    wanted += [f"{middle:.3f}{least:.3f}–{most:.3f}" for middle, least, most in medians]
    assert shown[0][-4:] == wanted
    assert [line[0].partition(" mean")[0] for line in shown[2:4]] == ["plain", "weighted"]
    assert shown[2][1].startswith(f"{metrics['means']['plain']['srcc']['value']:.3f}")
    expect(page.locator("#splits")).to_contain_text("the median over 10 random fifths")


def test_a_clip_counts_under_each_of_its_distortions(tmp_path: Path, visit: Any) -> None:
    labels, scores = opinions.clips(12)
    kinds = [["blur"], ["blur", "noise"], [], ["noise"]]
    for at, row in enumerate(labels):
        row["distortions"] = json.dumps(kinds[at % 4])
    config = EvaluationConfig(
        scores=opinions.write_csv(tmp_path / "scores.csv", scores),
        labels=opinions.write_csv(tmp_path / "labels.csv", labels),
        statistics=StatisticsConfig(resamples=0, splits=0),
    )
    write_evaluation(evaluate(config), tmp_path)
    page = visit(write_report(tmp_path, pictures=0))
    assert page.locator("#errors td.name").all_text_contents() == ["blur", "noise", "none"]
    assert [text.split("n = ")[1] for text in page.locator("#errors small").all_text_contents()] == ["6", "6", "3"]
    for name, count in (("noise", 6), ("none", 3)):
        page.select_option("select[name='distortion']", label=name)
        expect(page.locator("#count")).to_contain_text(f"{count} of 12 clips")


def test_scores_of_another_scale_are_told_apart(tmp_path: Path, visit: Any) -> None:
    rows = [{"uri": f"{at}.mp4", "score": value} for at, value in enumerate((-0.0312, -0.0298, -0.0004, 0.0))]
    opinions.write_scores(tmp_path, rows)
    page = visit(write_library(tmp_path, pictures=0))
    assert page.locator("#clips td.number").all_text_contents() == ["−0.0312", "−0.0298", "−0.0004", "0.0000"]


def test_clips_of_one_score_make_one_bar(tmp_path: Path, visit: Any) -> None:
    opinions.write_scores(tmp_path, [{"uri": f"{at}.mp4", "score": 3.0} for at in range(5)])
    page = visit(write_library(tmp_path, pictures=0))
    assert page.evaluate("charts.histogram.data.datasets[0].data.map(({ y }) => y)") == [5]
    axis = page.evaluate("[charts.histogram.scales.x.min, charts.histogram.scales.x.max]")
    assert axis == pytest.approx([3.0, 3.1])
    expect(page.locator("#worst .card")).to_have_count(3)
    expect(page.locator("#best .card")).to_have_count(2)


def test_clips_are_picked_by_codec_and_size_in_order(tmp_path: Path, visit: Any) -> None:
    looks = [("h264", 1920, 1080), ("hevc", 640, 360), (None, 1280, 720)]
    rows = [
        {"uri": f"{at}.mp4", "score": 2.0, **dict(zip(("codec", "width", "height"), looks[at % 3], strict=True))}
        for at in range(6)
    ]
    opinions.write_scores(tmp_path, rows)
    page = visit(write_library(tmp_path, pictures=0))
    names = page.locator("select[name='resolution'] option").all_text_contents()
    assert names == ["all", "up to 360p", "up to 720p", "up to 1080p"]
    page.select_option("select[name='codec']", label="hevc")
    expect(page.locator("#count")).to_contain_text("2 of 6 clips")
    assert rows_of(page) == ["1.mp4", "4.mp4"]
    page.select_option("select[name='codec']", label="unknown")
    expect(page.locator("#clips tbody .link")).to_have_text(["2.mp4", "5.mp4"])


def test_timelines_step_through_the_windows_and_break_where_one_failed(tmp_path: Path, visit: Any) -> None:
    scores = {"good": [4.0, 4.5, 4.0], "bad": [2.0, None, 1.0]}
    rows = [
        {
            "clip_id": f"{name}.mp4#t={at * 10},{at * 10 + 10}",
            "uri": f"{name}.mp4",
            "start_seconds": at * 10.0,
            "end_seconds": at * 10 + 10.0,
            "score": score,
            "status": "ok" if score else "failed",
            "error_kind": None if score else "timeout",
        }
        for name, windows in scores.items()
        for at, score in enumerate(windows)
    ]
    opinions.write_scores(tmp_path, rows)
    page = visit(write_library(tmp_path, pictures=0))
    steps = "charts.timeline.data.datasets[0].data.map(({ x, y }) => [x, y])"
    worst = [[0, 2], [10, 2], [10, None], [20, None], [20, 1], [30, 1]]
    assert page.evaluate(steps) == worst
    assert page.locator("#video option").all_text_contents() == ["bad.mp4", "good.mp4"]
    page.click("#videos .link >> text=good.mp4")
    assert page.evaluate(steps) == [[0, 4], [10, 4], [10, 4.5], [20, 4.5], [20, 4], [30, 4]]
    page.select_option("#video", label="bad.mp4")
    assert page.evaluate(steps) == worst
    expect(page.locator("#failures")).to_contain_text("timeout")


def test_certainty_is_shown_with_and_without_a_calibration(tmp_path: Path, visit: Any) -> None:
    labels, scores = opinions.clips(80)
    rows = [
        {"uri": row["path"], "score": row["score"], "score_std": 0.1 + at % 20 / 40} for at, row in enumerate(scores)
    ]
    config = EvaluationConfig(
        scores=opinions.write_scores(tmp_path / "scored", rows),
        labels=opinions.write_csv(tmp_path / "labels.csv", labels),
        statistics=StatisticsConfig(resamples=0, splits=0),
    )
    write_evaluation(evaluate(config), tmp_path)
    page = visit(write_report(tmp_path, pictures=0))
    expect(page.locator("#coverage")).to_contain_text("Not calibrated")
    table = read_table(config.scores)
    joined = join(table, read_table(config.labels))
    found = calibrate(joined.pairings, origin=find_origin(table, config.labels)[0])
    write_json(tmp_path / "c.json", found.model_dump(mode="json"))
    page = visit(write_report(tmp_path, calibration=tmp_path / "c.json", pictures=0))
    says = f"contains {100 * found.coverage:.1f} % of 80 held-out clips (target 90 %"
    expect(page.locator("#coverage")).to_contain_text(says)
    assert found.reliability is not None
    drawn = page.evaluate("charts.reliability.data.datasets[0].data.map(({ x, y }) => [x, y])")
    assert drawn == [[one["score_std"], one["rmse"]] for one in found.reliability]


def test_a_cascade_shows_its_agreement_by_the_share_reasoned(tmp_path: Path, visit: Any) -> None:
    labels, scores = opinions.clips(20)
    rows = [{"uri": row["path"], "score": row["score"]} for row in scores]
    for at, row in enumerate(rows[:4]):
        row |= {"tier": "reason", "light_score": 3.0, "light_std": 0.1 * at}
    config = EvaluationConfig(
        scores=opinions.write_scores(tmp_path / "scored", rows),
        labels=opinions.write_csv(tmp_path / "labels.csv", labels),
        statistics=StatisticsConfig(resamples=0, splits=0),
    )
    found = evaluate(config)
    write_evaluation(found, tmp_path)
    assert found.metrics["shares"] is not None
    page = visit(write_report(tmp_path, pictures=0))
    expect(page.locator("#cascade")).to_be_visible()
    drawn = page.evaluate("charts.shares.data.datasets[0].data.map(({ x, y }) => [x, y])")
    assert drawn == [[100 * one["share"], one["srcc"]] for one in found.metrics["shares"]]
    assert drawn[-1][0] == 20


def test_dark_and_narrow_pages_do_not_scroll_sideways(evaluation: Path, visit: Any) -> None:
    page = visit(write_report(evaluation, pictures=0))
    page.set_viewport_size({"width": 390, "height": 800})
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    expect(page.locator("body")).not_to_have_css("background-color", light)
    page.wait_for_function("document.documentElement.scrollWidth <= 390")


def test_a_job_without_opinions_shows_pictures_timelines_and_failures(tmp_path: Path, visit: Any) -> None:
    video = Path(__file__).parents[2] / "vqa/assets/clips/big_buck_bunny.mp4"
    box = CropBox(second=0.5, x=0, y=0, width=64, height=64)
    rows: list[dict[str, Any]] = [
        {
            "clip_id": f"film.mp4#t={at},{at + 1}",
            "uri": str(video),
            "start_seconds": float(at),
            "end_seconds": at + 1.0,
            "score": 2.0 + at,
            "keyframe_seconds": [0.2, 0.6],
            "crop_boxes": [box],
        }
        for at in range(3)
    ]
    rows.append({"clip_id": "gone", "uri": str(tmp_path / "gone.mp4"), "score": 1.5})
    rows.append({"clip_id": MARKUP, "uri": MARKUP, "status": "failed", "error_kind": "corrupt", "error": MARKUP})
    opinions.write_scores(tmp_path, [{"clip_id": row["uri"], **row} for row in rows])
    page = visit(write_library(tmp_path))
    cards = page.locator("#worst .card")
    expect(cards.nth(0)).to_contain_text("not_found")
    decoded = "all => Promise.all(all.map(one => one.decode().then(() => one.naturalWidth > 0)))"
    assert cards.nth(1).locator("img").evaluate_all(decoded) == [True, True]
    expect(page.locator("#timelines")).to_be_visible()
    expect(page.locator("#failures")).to_contain_text("corrupt")


def test_ten_thousand_clips_stay_below_fifteen_megabytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = ("sharp soft grain banding light motion steady " * 12).split()
    rows = [
        {
            "uri": f"a/folder/with/a/long/name/clip-{at:05}.mp4",
            "score": float(rng.uniform(1, 5)),
            "reason": " ".join(words),
        }
        for at in range(10_000)
    ]
    opinions.write_scores(tmp_path, rows)
    assert write_library(tmp_path, pictures=0).stat().st_size <= 15e6


def test_a_folder_with_nothing_to_show_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither scores nor an evaluation"):
        write_library(tmp_path)
    with pytest.raises(UsageError, match="no evaluation"):
        write_report(tmp_path)
