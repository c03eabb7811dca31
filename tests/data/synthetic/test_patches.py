"""Drawn damage, and crops with VMAF and its parts."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.support.detailed import detailed
from vqa.data.synthetic.drawn import DRAWN
from vqa.data.synthetic.encoding import still_figures
from vqa.data.synthetic.patches import PAIRS, PATCH, SIDE, damage, draw_chunk, draw_pairs


@pytest.mark.parametrize("kind", DRAWN)
def test_drawn_damage_grows_with_severity_and_repeats(kind: str) -> None:
    """VMAF over ten draws of the family: what one draws may cost little."""
    clean = detailed(0, PATCH)[:SIDE, :SIDE]
    levels = [
        np.stack([DRAWN[kind](clean, severity, np.random.default_rng(seed)) for seed in range(10)])
        for severity in (0.1, 0.9)
    ]
    assert levels[0].shape == (10, SIDE, SIDE, 3) and levels[0].dtype == np.uint8
    mild, severe = (still_figures(np.stack([clean] * 10), bad)[:, 0].mean() for bad in levels)
    assert mild > severe + 0.1
    assert np.array_equal(levels[0][3], DRAWN[kind](clean, 0.1, np.random.default_rng(3)))
    assert not np.array_equal(levels[1][3], levels[1][4])


def test_parts_of_vmaf_are_those_of_stills() -> None:
    clean = np.stack([detailed(k, PATCH)[:SIDE, :SIDE] for k in range(2)])
    soft = np.stack([ndimage.gaussian_filter(one, (1.2, 1.2, 0)) for one in clean])
    same, blurred = still_figures(clean, clean), still_figures(clean, soft)
    assert same[:, 1:] == pytest.approx(np.ones((2, 6)), abs=1e-3)
    assert (same[:, 0] > 0.95).all() and (blurred[:, 0] < 0.8).all()
    assert (np.diff(blurred[:, 2:6]) > 0).all(), "a blur takes the finest scale first"
    assert still_figures(clean[::-1], soft[::-1])[::-1] == pytest.approx(blurred), "each is a clip of its own"


def test_a_cast_and_a_change_of_light_count_though_vmaf_passes_over_them() -> None:
    clean = np.stack([detailed(k, PATCH)[:SIDE, :SIDE] // 2 + 50 for k in range(2)])
    cast, light = clean.copy(), clean + 40
    cast[..., 0] += 30
    for changed in (cast, light):
        told = still_figures(clean, changed)
        assert (told[:, 0] > 0.9).all() and (told[:, 6] < 0.6).all()


def test_a_chunk_is_the_same_each_time_and_pairs_crops_with_their_own_figures(tmp_path: Path) -> None:
    for k in range(2):
        Image.fromarray(detailed(k, 540)).save(tmp_path / f"{k}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    sources = sorted(tmp_path.iterdir())
    one, again, other = (draw_chunk(sources, 16, seed=5, number=number) for number in (0, 0, 1))
    assert one.crops.shape == (16, SIDE, SIDE, 3) and one.targets.shape == (16, 7)
    assert np.array_equal(one.crops, again.crops) and np.array_equal(one.targets, again.targets)
    assert not np.array_equal(one.crops, other.crops)
    assert one.targets[:, 0].std() > 0.05 and one.targets.min() >= 0


def test_crops_of_a_patch_are_of_two_places_in_turn(tmp_path: Path) -> None:
    Image.fromarray(detailed(0, 540)).save(tmp_path / "0.png")
    clean, damaged = draw_pairs([tmp_path / "0.png"], 2 * PAIRS, seed=5, number=0)
    assert clean.shape == damaged.shape == (2 * PAIRS, SIDE, SIDE, 3)
    for patch in np.split(clean, 2):
        assert (patch[::2] == patch[0]).all() and (patch[1::2] == patch[1]).all()
        assert not np.array_equal(patch[0], patch[1])
    assert not np.array_equal(clean[0], clean[PAIRS])
    assert len({one.tobytes() for one in damaged}) > PAIRS


def test_a_part_of_a_patch_may_stay_as_it_was() -> None:
    clean, kept = detailed(1, PATCH), []
    for seed in range(30):
        same = (damage(clean, np.random.default_rng(seed)) == clean).all(-1)
        kept.append(same.mean())
    assert 1 <= sum(0.2 < share < 0.95 for share in kept) < 20
