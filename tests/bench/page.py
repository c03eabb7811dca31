"""The page's weight and speed: `python tests/bench/page.py [--clips 10000]`.

Bytes of report.html for labelled clips with reasons, pictures of the 24 worst among them (wanted: at most 15 MB), and
seconds from opening the file in headless Chromium to everything drawn (wanted: under 3 s), of several openings; beside
them the processor seconds of all of Chromium, which say more on a busy machine.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from playwright.sync_api import sync_playwright

from vqa.evaluate.evaluation import EvaluationConfig, evaluate, write_evaluation
from vqa.evaluate.statistics import StatisticsConfig
from vqa.report.page import write_report

CLIPS = Path(__file__).parents[2] / "vqa/assets/clips"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WORDS = ("sharp", "soft", "grain", "banding", "light", "motion", "steady", "blocking", "noise", "dark", "even")
OPENINGS = 5


def judged(folder: Path, clips: int) -> None:
    """An evaluation of links to the bundled clips, half in each of two data sets, with reasons of about 500 letters."""
    rng = np.random.default_rng(0)
    films = [path for path in sorted(CLIPS.iterdir()) if path.suffix in (".mp4", ".webm")]
    names = [f"folder-{at % 40}/a-clip-of-some-length-{at:05}.mp4" for at in range(clips)]
    for at, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(films[at % len(films)])
    opinions = rng.uniform(1, 5, clips)
    labels = {"uri": names, "mos": opinions, "dataset": [f"set{at % 2}" for at in range(clips)]}
    labels["distortion"] = [WORDS[at % len(WORDS)] for at in range(clips)]
    scores = {"uri": names, "score": np.clip(opinions + rng.normal(0, 0.5, clips), 1, 5)}
    scores["reason"] = [" ".join(rng.choice(WORDS, 80)) for _ in range(clips)]
    for name, columns in (("labels", labels), ("scores", scores)):
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    settings = StatisticsConfig(resamples=100, splits=0)
    config = EvaluationConfig(
        scores=folder / "scores.parquet", labels=folder / "labels.parquet", by=("distortion",), statistics=settings
    )
    write_evaluation(evaluate(config), folder)


def _worked() -> float:
    """Processor seconds of all child processes that live."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(one.user + one.system for one in times)


def main(clips: int) -> None:
    """Prints bytes and seconds."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        judged(folder, clips)
        began = time.perf_counter()
        path = write_report(folder)
        print(f"{clips} clips: {path.stat().st_size / 1e6:.2f} MB, written in {time.perf_counter() - began:.1f} s")
        if browser is None:
            print("  no Chromium: apt-get install chromium to measure how fast it opens")
            return
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            for opening in range(OPENINGS):
                page = chromium.new_page(viewport={"width": 1280, "height": 900})
                began, worked = time.perf_counter(), _worked()
                page.goto(path.as_uri())
                page.wait_for_selector("html[data-ready]", state="attached")
                processor = _worked() - worked
                seconds, script = time.perf_counter() - began, int(page.get_attribute("html", "data-ready") or 0)
                shown = page.locator("#worst img.mosaic").count()
                print(
                    f"  opening {opening + 1}: drawn after {seconds:.2f} s (scripts {script} ms), "
                    f"{processor:.2f} s of processor, {shown} mosaics"
                )
                page.close()
            chromium.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=10_000)
    main(**vars(parser.parse_args()))
