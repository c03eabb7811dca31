"""Contact sheet: histograms count every clip, the most extreme are chosen, the sheet shows their pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.support import clips
from vqa.cli.app import app
from vqa.data.audit import middle_frame
from vqa.data.manifest import Manifest, RatingScale, make_manifest, write_manifest
from vqa.report.contact_sheet import BINS, CELL, MARGIN, contact_sheet, sparkline, summarise_sets


def manifest(folder: Path, *clips_of: tuple[str, str, float, float | None]) -> Manifest:
    """Rows of (dataset, file, mos, mos_std)."""
    rows: list[dict[str, Any]] = [
        {"clip_id": f"{dataset}/{name}", "uri": str(folder / name), "dataset": dataset, "content_id": name}
        | {"kind": "video", "mos_raw": mos, "mos": mos, "mos_std": std}
        for dataset, name, mos, std in clips_of
    ]
    return make_manifest(rows, scales={dataset: RatingScale(low=1, high=5) for dataset, *_ in clips_of})


def test_every_clip_is_counted_and_the_most_extreme_are_chosen() -> None:
    rng = np.random.default_rng(0)
    rows = [("b", f"{at:03d}", float(rng.uniform(1, 5)), float(rng.uniform(0, 1))) for at in range(200)]
    rows += [("a", "one", 1.0, None), ("a", "two", 5.0, None)]
    a, b = summarise_sets(manifest(Path("/x"), *rows), top=3)
    assert (a.dataset, b.dataset, b.count, b.histogram.sum(), a.histogram[[0, -1]].tolist()) == (
        "a",
        "b",
        200,
        200,
        [1, 1],
    )
    assert len(b.histogram) == BINS
    of_b = [row for row in rows if row[0] == "b"]
    assert [row["mos"] for row in b.best] == sorted((row[2] for row in of_b), reverse=True)[:3]
    assert [row["mos"] for row in b.worst] == sorted(row[2] for row in of_b)[:3]
    assert [row["mos_std"] for row in b.disputed] == sorted((row[3] for row in of_b), reverse=True)[:3]
    assert a.disputed == []


def test_ties_go_by_name() -> None:
    rows = [("a", name, 3.0, None) for name in "cab"]
    (one,) = summarise_sets(manifest(Path("/x"), *rows), top=2)
    assert [row["clip_id"] for row in one.best] == [row["clip_id"] for row in one.worst] == ["a/a", "a/b"]


def test_blocks_show_every_bin_that_holds_anything() -> None:
    assert sparkline(np.array([0, 1, 500, 1000])) == " ▁▄█"
    assert sparkline(np.zeros(3, np.int64)) == "   "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("set")
    clips.write_video(path / "a.mp4", frames=10)
    clips.write_video(path / "tall.mp4", frames=6, width=96, height=160, seed=1)
    clips.write_text(path / "text.mp4")
    return path


def test_the_sheet_shows_middle_frames_and_says_why_one_is_missing(folder: Path) -> None:
    rows = [("s", "a.mp4", 4.0, 0.2), ("s", "tall.mp4", 3.0, 0.9), ("s", "text.mp4", 2.0, None)]
    sheet, missing = contact_sheet(summarise_sets(manifest(folder, *rows), top=1))
    assert [error.kind for error in missing.values()] == ["not_video"]
    pixels, left = np.asarray(sheet), MARGIN + (CELL[0] - 160) // 2  # the best clip stands first, at its own size
    frame = middle_frame(str(folder / "a.mp4"), room=CELL)
    assert clips.read_number(frame) == 5
    assert any(np.array_equal(pixels[y : y + 96, left : left + 160], frame) for y in range(len(pixels) - 96))


def test_the_command_prints_histograms_and_writes_the_sheet(folder: Path, tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.parquet", manifest(folder, ("s", "a.mp4", 4.0, 0.2), ("s", "gone.mp4", 3.0, None)))
    out = tmp_path / "deep" / "sheet.png"
    done = CliRunner().invoke(app, ["data", "show", str(tmp_path / "m.parquet"), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "s: 2 clips, 3.00 to 4.00, mean 3.50" in done.stdout
    assert "no picture: " in done.stderr
    with Image.open(out) as image:
        assert image.format == "PNG"
