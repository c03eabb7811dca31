"""The preview picture: whatever the clip, one page that shows the very pixels the model gets."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.support import clips
from vqa.report import canvas
from vqa.report.canvas import nice, shortened, text_width
from vqa.report.preview import MARGIN, WIDTH, picture
from vqa.types import Clip
from vqa.views import ViewsConfig, look


def contains(page: np.ndarray, part: np.ndarray) -> bool:
    """Whether the picture stands on the page pixel for pixel."""
    height, width, _ = part.shape
    rows, columns = np.nonzero((page[: 1 - height or None, : 1 - width or None] == part[0, 0]).all(axis=-1))
    for y, x in np.random.default_rng(0).integers(0, (height, width), (50, 2)):  # few places are left to compare
        like = (page[rows + y, columns + x] == part[y, x]).all(axis=-1)
        rows, columns = rows[like], columns[like]
    return any(np.array_equal(page[y : y + height, x : x + width], part) for y, x in zip(rows, columns, strict=True))


def test_the_page_shows_the_pictures_that_the_model_gets(tmp_path):
    path = clips.write_video(tmp_path / "clip.mp4", width=640, height=360, frames=40)
    clip = Clip(clip_id="a", uri=str(path))
    page = np.asarray(picture(clip, ViewsConfig(crop_pixels=160)))
    assert page.shape[1] == WIDTH and page.dtype == np.uint8
    views = look(clip, ViewsConfig(crop_pixels=160))
    assert all(contains(page, crop) for crop in views.local_pictures)
    second_row = views.global_pictures[0][144 + 8 : 288 - 8, 8 : 256 - 8]  # a tile without outline
    assert contains(page, second_row)
    assert (page[:8] == page[0, 0]).all() and (page[:, : MARGIN // 2] == page[0, 0]).all()  # clean margins


@pytest.mark.parametrize(
    "settings",
    [
        {"spatial": "fragments"},
        {"spatial": "frames", "global_kind": "frames", "keyframes": 3},
        {"local_pictures": 0},
        {"local_pictures": 7, "temporal": "uniform", "keyframes": 2},
    ],
)
def test_every_kind_of_view_can_be_drawn(tmp_path, settings):
    path = clips.write_video(tmp_path / "clip.mp4", width=108, height=192, frames=20)
    span = Clip(clip_id="a", uri=str(path), start_seconds=0.2, end_seconds=0.7)
    assert picture(span, ViewsConfig(**settings)).width == WIDTH


def test_stills_tiny_and_damaged_clips_and_strange_names_can_be_drawn(tmp_path):
    good = clips.write_video(tmp_path / "good.mp4", frames=60, container_options={"movflags": "faststart"})
    files = [
        clips.write_image(tmp_path / "line.png", width=1, height=400),
        clips.write_video(tmp_path / "tiny.mp4", width=16, height=16, frames=3),
        clips.cut_off(good, 0.7, out=tmp_path / "cut\n\U0001f3ac 'é'.mp4"),
        clips.write_animation(tmp_path / ("long" * 50 + ".gif"), frames=2),
    ]
    for path in files:
        assert picture(Clip(clip_id="a", uri=str(path)), ViewsConfig()).width == WIDTH


def drawn(words: str) -> np.ndarray:
    image = Image.new("L", (400, 40))
    canvas.text(ImageDraw.Draw(image), (4, 4), words, size=20, fill="white")
    return np.asarray(image)


def test_letters_beyond_ascii_are_drawn_with_a_font_of_the_system():
    if len(canvas._fonts(20)) == 1:
        pytest.skip(f"none of the fonts {', '.join(canvas.SYSTEM_FONTS)} on this machine")
    words = "Zürich Жук λ.mp4"
    assert shortened(words, size=20, width=400) == words
    assert not np.array_equal(drawn(words), drawn(ascii(words)[1:-1]))
    assert not np.array_equal(drawn("é"), drawn("è"))
    assert shortened("\u202emp4", size=20, width=400) == "\\u202emp4"  # turns the direction of what follows


def test_without_such_a_font_only_the_missing_letters_are_escaped(monkeypatch):
    monkeypatch.setattr(canvas, "SYSTEM_FONTS", ())
    canvas._fonts.cache_clear()
    try:
        assert shortened("Zürich ± 1", size=20, width=400) == r"Z\xfcrich ± 1"
        assert np.array_equal(drawn("Zürich"), drawn(r"Z\xfcrich"))
    finally:
        canvas._fonts.cache_clear()


def test_long_names_are_shortened_in_the_middle_and_odd_letters_told_apart():
    name = "start" + "x" * 500 + ".mp4"
    short = shortened(name, size=20, width=300)
    assert text_width(short, size=20) <= 300 and short.startswith("start") and short.endswith(".mp4")
    assert shortened("é", size=20, width=300) != shortened("è", size=20, width=300)
    assert shortened("a\nb", size=20, width=300) == "a\\nb"


@pytest.mark.parametrize(("step", "expected"), [(0.012, 0.02), (0.1, 0.1), (0.3, 0.5), (7, 10), (41, 50), (900, 1000)])
def test_ticks_are_at_round_numbers(step, expected):
    assert nice(step) == pytest.approx(expected)
