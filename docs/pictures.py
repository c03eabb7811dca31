"""Pictures of README and docs from a scored folder: `vqa data demo --out clips`, `vqa score clips --out out`, then
`python docs/pictures.py out` writes docs/images/{hero,views,report}.png, those that differ from what is there. The
screenshot needs a Chromium."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vqa.data.score_table import read_scores
from vqa.media import fingerprint
from vqa.types import Clip, Views
from vqa.views import ViewsConfig, look, view_seed

IMAGES = Path(__file__).resolve().parent / "images"
SHOWN = ("big_buck_bunny_end.mp4", "compressed_hard.mp4")
WIDTH, SIDE, GAP, MARGIN, COLUMNS = 1000, 112, 6, 14, 2
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ALIKE = 0.01  # of 255, mean difference of pictures that stay: other seconds of decoding in views.png come to half of it
INK, QUIET, PAPER = "#1b2430", "#5b6472", "#fbfbf9"


def hero(out: Path) -> Image.Image:
    """Per clip: the mosaic and six of the crops that the model saw, beside the answer that it gave."""
    config = ViewsConfig(**json.loads((out / "run.json").read_text(encoding="utf-8"))["config"]["views"])
    rows = {row["clip_id"]: row for row in read_scores(out).to_pylist()}
    height = 3 * (SIDE + GAP) + 34
    sheet = Image.new("RGB", (WIDTH, len(SHOWN) * (height + MARGIN) + MARGIN), PAPER)
    for place, name in enumerate(SHOWN):
        clip = Clip(clip_id=name, uri=rows[name]["uri"])
        views = look(clip, config, seed=view_seed(fingerprint(clip.uri), clip))
        _row(sheet, views, rows[name], top=MARGIN + place * (height + MARGIN))
    return sheet


def _row(sheet: Image.Image, views: Views, row: dict[str, Any], *, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, top), f"{row['clip_id']}: what the model sees", fill=QUIET, font=ImageFont.load_default(18))
    top += 30
    mosaic = Image.fromarray(views.global_pictures[0])
    high = 3 * SIDE + 2 * GAP
    mosaic = mosaic.resize((round(mosaic.width * 1.6), round(mosaic.height * 1.6)), Image.Resampling.LANCZOS)
    sheet.paste(mosaic, (MARGIN, top + (high - mosaic.height) // 2))
    left = MARGIN + mosaic.width + 3 * GAP
    for place, crop in enumerate(views.local_pictures[: 3 * COLUMNS]):
        x, y = left + place % COLUMNS * (SIDE + GAP), top + place // COLUMNS * (SIDE + GAP)
        sheet.paste(Image.fromarray(crop).resize((SIDE, SIDE)), (x, y))
    left += COLUMNS * (SIDE + GAP) + 5 * GAP
    draw.text((left, top + 40), f"{row['score']:.2f}", fill=INK, font=ImageFont.load_default(84))
    notes = [f"spread {row['score_std']:.2f} over {row['answers_total']} answers"]
    notes += [f"global {row['score_global']:.2f}, local {row['score_local']:.2f}", "", *_wrapped(row["reason"], 34)]
    draw.multiline_text((left, top + 150), "\n".join(notes), fill=QUIET, font=ImageFont.load_default(20), spacing=8)


def _wrapped(words: str, width: int) -> list[str]:
    lines = [""]
    for word in f'"{words}"'.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines


def page(out: Path, browser: str) -> Image.Image:
    """The top of report.html."""
    subprocess.run([sys.executable, "-m", "vqa.cli", "report", out], check=True)
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "page.png"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking"]
        flags += [f"--user-data-dir={folder}/profile", "--virtual-time-budget=8000", "--window-size=1100,1130"]
        address = (out / "report.html").resolve().as_uri()
        # It complains about desktops that are not there, whatever comes of the picture.
        ran = subprocess.run(
            [browser, *flags, f"--screenshot={shot}", address], check=False, capture_output=True, text=True
        )
        if not shot.is_file():
            sys.exit(f"{browser}: no picture came of {address} (exit code {ran.returncode}): {ran.stderr[-300:]}")
        return Image.open(shot).convert("RGB")


def save(picture: Image.Image, name: str, *, width: int = WIDTH, is_dithered: bool = False) -> None:
    """Write a picture with 256 colours at most this wide."""
    high = round(picture.height * width / picture.width)
    small = picture.resize((width, high), Image.Resampling.LANCZOS) if picture.width > width else picture
    few = small.quantize(256, dither=Image.Dither.NONE)
    if is_dithered:  # finer shades, larger files
        few = small.quantize(palette=few, dither=Image.Dither.FLOYDSTEINBERG)
    path = IMAGES / f"{name}.png"
    if not (path.is_file() and is_alike(few, Image.open(path))):
        few.save(path, optimize=True)
        print(path)


def is_alike(one: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures show the same, but for a digit or two."""
    if one.size != other.size:
        return False
    a, b = (np.asarray(each.convert("RGB"), np.float32) for each in (one, other))
    return float(np.abs(a - b).mean()) < ALIKE


def find_browser() -> str:
    """Path of a Chromium."""
    if found := next(filter(None, map(shutil.which, BROWSERS)), None):
        return found
    sys.exit(f"report.png: a screenshot needs a Chromium, and none of {', '.join(BROWSERS)} is on the PATH")


def main(out: Path) -> None:
    """Make all three."""
    save(hero(out), "hero", is_dithered=True)
    with tempfile.TemporaryDirectory() as folder:
        clip = next(row["uri"] for row in read_scores(out).to_pylist() if row["clip_id"] == SHOWN[1])
        drawn = Path(folder) / "views.png"
        subprocess.run(
            [sys.executable, "-m", "vqa.cli", "views", clip, "--out", drawn, "--model", "embedded"], check=True
        )
        save(Image.open(drawn).convert("RGB"), "views", width=760)
    save(page(out, find_browser()), "report")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
