"""The page in a real browser against a real server: two people at once, kills in the middle, markup in names, full
screen at native size."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.support import clips
from tests.support.browser import PATIENCE

MARKUP = "<img src=x onerror=alert(1)>"


@contextmanager
def serving(sources: Path, out: Path, *options: str, port: int = 0) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The URL and the process of a `vqa rate`; ended by Ctrl-C if it still runs."""
    command = [sys.executable, "-m", "vqa.cli", "rate", str(sources), "--out", str(out), "--port", str(port), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), process.communicate()
        yield url, process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(20)
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rate") / "pictures"
    folder.mkdir()
    for at in range(5):
        clips.write_image(folder / (f"{MARKUP}.png" if at == 0 else f"{at}.png"), number=at)
    return folder


@pytest.fixture
def contexts(browser: Browser) -> Iterator[Any]:
    """Makes contexts, each a person's browser; afterwards none may have opened a dialog or asked another host."""
    made: list[BrowserContext] = []
    bad: list[str] = []

    def start(**options: Any) -> Page:
        made.append(browser.new_context(viewport={"width": 1000, "height": 700}, **options))
        page = made[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.on("dialog", lambda dialog: (bad.append(dialog.message), dialog.dismiss()))
        page.on("pageerror", lambda error: bad.append(str(error)))
        page.on(
            "request", lambda one: None if one.url.startswith(("http://127.0.0.1:", "data:")) else bad.append(one.url)
        )
        return page

    expect.set_options(timeout=PATIENCE)
    yield start
    for context in made:
        context.close()
    assert bad == []


def enter(page: Page, url: str, name: str) -> None:
    page.goto(url)
    page.wait_for_selector("html[data-ready]")
    page.fill("#subject", name)
    page.click("#who button")


def answer(page: Page, number: int, key: str) -> None:
    """Press the key once the task of that number can be judged."""
    page.wait_for_selector(f"#clips[data-ready='{number}']")
    expect(page.locator("#answers button").first).to_be_enabled()
    page.keyboard.press(key)


def rows(out: Path) -> list[dict[str, str]]:
    with out.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_two_people_at_once_rate_by_keyboard_and_markup_in_names_is_text(
    pictures: Path, tmp_path: Path, contexts: Any
) -> None:
    out = tmp_path / "ratings.csv"
    with serving(pictures, out, "--training", "1", "--repeats", "0") as (url, process):
        ann, bob = contexts(), contexts()
        enter(ann, url, MARKUP)
        enter(bob, url, "bob")
        expect(ann.locator("#note")).to_have_text("Training: this one does not count.")
        ann.wait_for_selector("#clips[data-ready='0'] img")
        size = ann.evaluate(
            "() => { const one = document.querySelector('#clips img').getBoundingClientRect();"
            "return [one.width * devicePixelRatio, one.height * devicePixelRatio]; }"
        )
        assert size == [160, 96]  # native
        for number in range(6):
            answer(ann, number, "4")
            answer(bob, number, "2")
        expect(ann.locator("#total")).to_have_text(f"{MARKUP}: 5 judgements are recorded. You can close this page.")
        expect(bob.locator("#total")).to_contain_text("bob: 5")
        expect(ann.locator("img[src=x]")).to_have_count(0)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert f"12 votes; next: vqa data recover {out}" in err
    found = rows(out)
    assert Counter((row["subject"], row["rating"]) for row in found) == {(MARKUP, "4"): 5, ("bob", "2"): 5}
    assert {row["clip"] for row in found} == {path.name for path in pictures.iterdir()}
    assert all(row["scale"] == "1.0" and 0 < float(row["seconds"]) < 60 for row in found)


def test_a_server_killed_in_the_middle_loses_nothing(pictures: Path, tmp_path: Path, contexts: Any) -> None:
    out = tmp_path / "pairs.csv"
    options = ("--mode", "pairs", "--per-subject", "6", "--training", "0", "--repeats", "0")
    page = contexts()
    with serving(pictures, out, *options) as (url, process):
        enter(page, url, "ann")
        for number in range(3):
            answer(page, number, "ArrowLeft")
        page.wait_for_selector("#clips[data-ready='3']")
        os.kill(process.pid, signal.SIGKILL)
        process.wait(20)
    assert len(rows(out)) == 3  # acknowledged votes are on disk
    page.keyboard.press("ArrowDown")
    expect(page.locator("#trouble")).to_contain_text("Your last judgement is kept")
    with serving(pictures, out, *options, port=int(url.split(":")[2].split("/")[0])) as (again, _):
        assert again == url
        for number in range(4, 6):
            answer(page, number, "ArrowRight")
        expect(page.locator("#total")).to_contain_text("ann: 6")
    assert [row["result"] for row in rows(out)] == ["1"] * 3 + ["0"] + ["-1"] * 2
    journal = out.with_name("pairs.journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["number"] for line in journal[1:]] == list(range(6))


def test_a_browser_that_dies_resumes_and_pause_stops_the_clock(pictures: Path, tmp_path: Path, contexts: Any) -> None:
    out = tmp_path / "ratings.csv"
    with serving(pictures, out, "--training", "0", "--repeats", "0") as (url, _):
        first = contexts()
        enter(first, url, "ann")
        answer(first, 0, "3")
        first.wait_for_selector("#clips[data-ready='1']")
        first.keyboard.press("p")
        expect(first.locator("#paused")).to_be_visible()
        first.keyboard.press("3")  # nothing is judged in a pause
        time.sleep(1.5)
        first.keyboard.press("p")
        answer(first, 1, "3")
        first.wait_for_selector("#clips[data-ready='2']")
        first.context.close()  # dies
        second = contexts()
        enter(second, url, "ann")
        expect(second.locator("#progress")).to_have_text("3 of 5")
        answer(second, 2, "5")
        second.wait_for_selector("#clips[data-ready='3']")
        # A vote that the browser kept without an answer is sent on the next visit, once.
        second.evaluate(
            "() => localStorage.setItem(location.pathname + 'pending', JSON.stringify("
            "{subject: 'ann', number: 2, first: 0, second: null, value: 1, seconds: 1, scale: 1}))"
        )
        enter(second, url, "ann")
        expect(second.locator("#progress")).to_have_text("4 of 5")
    found = rows(out)
    assert [row["rating"] for row in found] == ["3", "3", "5"]
    assert float(found[1]["seconds"]) < 1.5


def test_full_screen_shows_clips_at_native_size_or_reduced_by_a_recorded_factor(tmp_path: Path, contexts: Any) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for at in range(2):
        clips.write_image(folder / f"{at}.png", width=1600, height=900, number=at)
    out = tmp_path / "ratings.csv"
    # Of 1000 x 700 units of the page: a picture fits where a unit is two pixels of the screen, else its width does not.
    factors = {"dense": (2, 1.0), "coarse": (1, 0.625)}
    with serving(folder, out, "--training", "0", "--repeats", "0") as (url, _):
        for who, (pixels, factor) in factors.items():
            page = contexts(device_scale_factor=pixels)
            enter(page, url, who)
            page.wait_for_function("() => document.fullscreenElement === document.documentElement")
            for key_leads_to in ("null", "document.documentElement"):
                page.keyboard.press("f")
                page.wait_for_function(f"() => document.fullscreenElement === {key_leads_to}")
            page.wait_for_selector("#clips[data-ready='0'] img")
            natural, shown = page.evaluate(
                "() => { const img = document.querySelector('#clips img'), one = img.getBoundingClientRect();"
                "return [[img.naturalWidth, img.naturalHeight],"
                "[one.width * devicePixelRatio, one.height * devicePixelRatio]]; }"
            )
            assert natural == [1600, 900]
            assert shown == pytest.approx([1600 * factor, 900 * factor], abs=0.1)
            answer(page, 0, "3")
            page.wait_for_selector("#clips[data-ready='1']")
    assert {row["subject"]: float(row["scale"]) for row in rows(out)} == {who: one for who, (_, one) in factors.items()}


def test_videos_are_judged_after_their_end(tmp_path: Path, contexts: Any) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        clips.write_video(folder / name, frames=25)
    out = tmp_path / "pairs.csv"
    with serving(folder, out, "--mode", "pairs", "--per-subject", "1", "--training", "0") as (url, _):
        page = contexts()
        enter(page, url, "ann")
        page.wait_for_selector("#clips[data-ready='0'] video")
        page.keyboard.press("ArrowLeft")  # too early
        answer(page, 0, "ArrowRight")
        expect(page.locator("#total")).to_contain_text("ann: 1")
    assert [row["result"] for row in rows(out)] == ["-1"]
    assert float(rows(out)[0]["seconds"]) >= 0.9
