"""Degradations of pictures: each level changes more than the one before, and a seed repeats them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from tests.support import clips
from vqa.data.synthetic.degradations import DEGRADATIONS, LEVELS, degrade
from vqa.data.synthetic.picture_ladder import PRISTINE, LadderConfig, find_pictures, steps
from vqa.errors import UsageError
from vqa.types import Pixels

ARNIQA_GROUPS = {"blur": 3, "colour": 4, "compression": 2, "noise": 4, "brightness": 3, "space": 5, "contrast": 3}


def test_the_24_kinds_of_arniqa_are_there() -> None:
    found = [one.group for one in DEGRADATIONS.values()]
    assert {group: found.count(group) for group in ARNIQA_GROUPS} == ARNIQA_GROUPS | {"compression": 5}
    assert found.count("viewing") == 5


def landscape() -> Pixels:
    """Detail of every size, as photographs have it."""
    noise = np.random.default_rng(0).standard_normal((101, 150, 3))
    layers = [gaussian_filter(noise, (sigma, sigma, 0.5)) * sigma for sigma in (0.7, 2, 6, 18)]
    whole = np.add.reduce(layers)
    return np.asarray(np.clip(128 + 45 * whole / whole.std(), 0, 255), dtype=np.uint8)


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_levels_are_in_order_of_the_change(kind: str) -> None:
    picture = landscape()
    copies = [degrade(picture, kind, level, np.random.default_rng(3)) for level in range(1, LEVELS + 1)]
    changes = [float(np.square(copy.astype(float) - picture).mean()) for copy in copies]
    assert all(copy.shape == picture.shape for copy in copies)
    assert changes[0] > 0
    assert changes == sorted(changes)
    assert np.array_equal(copies[2], degrade(picture, kind, 3, np.random.default_rng(3)))


def test_a_ladder_repeats_and_says_how_much_is_lost(tmp_path: Path) -> None:
    path = clips.write_image(tmp_path / "a.png", width=900, height=600)
    config = LadderConfig(kinds=2, levels=2, shortest=96, longest=128)
    first, again = list(steps(path, config)), list(steps(path, config))
    assert all(np.array_equal(one.pixels, other.pixels) for one, other in zip(first, again, strict=True))
    assert (first[0].kind, first[0].loss, len(first)) == (PRISTINE, 0.0, 5)
    assert all(0 < one.loss <= 1 for one in first[1:])
    assert first[1].level < first[2].level
    assert max(Image.fromarray(first[0].pixels).size) <= 128


def test_sources_are_drawn_and_checked(tmp_path: Path) -> None:
    for n in range(5):
        clips.write_image(tmp_path / f"{n}.png")
    clips.write_text(tmp_path / "notes.txt")
    assert [path.name for path in find_pictures([tmp_path])] == [f"{n}.png" for n in range(5)]
    two, three = (find_pictures([tmp_path], most=most, seed=1) for most in (2, 3))
    assert two == three[:2]
    with pytest.raises(UsageError, match="does not exist"):
        find_pictures([tmp_path / "gone"])
    with pytest.raises(UsageError, match="no picture in"):
        find_pictures([tmp_path / "notes.txt"])
