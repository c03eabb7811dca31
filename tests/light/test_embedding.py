"""Statistics of whole frames: what they say of signals whose answer is known."""

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter

from vqa.light.embedding import _CONTRASTS, WHOLE_BANDS, _asymmetric, _contrasts, _full_size, _rings, blurred


@pytest.mark.parametrize("frequency", [0.03, 0.11, 0.3])
def test_a_wave_stands_in_the_ring_of_its_frequency(frequency: float) -> None:
    wave = np.sin(2 * np.pi * frequency * np.arange(400))[None] * np.ones((300, 1))
    found = int(np.argmax(_rings(wave.astype(np.float32), WHOLE_BANDS)))
    edges = np.geomspace(0.01, 0.5, WHOLE_BANDS + 1)
    assert edges[found] <= frequency < edges[found + 1]


def test_the_two_sides_of_a_skewed_gaussian_are_recovered() -> None:
    draws = np.random.default_rng(0)
    sides = np.abs(draws.normal(size=200_000))
    is_left = draws.random(200_000) < 0.3 / (0.3 + 0.9)  # by their widths, as the density is continuous at 0
    skewed = np.where(is_left, -0.3 * sides, 0.9 * sides).astype(np.float32)
    shape, mean, left, right = _asymmetric(skewed.reshape(400, 500), np.ones((400, 500), np.float32))
    assert np.exp(shape) == pytest.approx(2, abs=0.1)
    assert (np.exp(left), np.exp(right)) == (pytest.approx(0.09, rel=0.05), pytest.approx(0.81, rel=0.05))
    assert mean == pytest.approx((0.9 - 0.3) * np.sqrt(2 / np.pi), rel=0.05)  # as in BRISQUE's equation 11


@pytest.mark.parametrize("shape", [(33, 47), (64, 50), (1, 5)])
def test_blurring_is_scipy_s_and_leaves_what_is_flat(shape: tuple[int, int]) -> None:
    plane = np.random.default_rng(0).random(shape, dtype=np.float32)
    for sigma, step in ((7 / 6, 1), (0.8, 2), (0.8, 3)):
        wanted = gaussian_filter(plane, sigma, truncate=3)[::step, ::step]
        np.testing.assert_allclose(blurred(plane, sigma, step=step), wanted, rtol=0, atol=6e-8)
        assert (blurred(np.full(shape, 0.3, np.float32), sigma, step=step) == np.float32(0.3)).all()


def test_blur_takes_the_high_rings_and_flattens_contrasts() -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (120, 160, 3), dtype=np.uint8))
    sharp, blurred = (_full_size(np.asarray(one)) for one in (noise, noise.filter(ImageFilter.GaussianBlur(2))))
    assert (sharp - blurred)[WHOLE_BANDS - 6 : WHOLE_BANDS].min() > 4  # of log power
    deviations = slice(2 * WHOLE_BANDS + _CONTRASTS - 6, 2 * WHOLE_BANDS + _CONTRASTS)
    assert (sharp - blurred)[deviations].min() > 1


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (33, 47)])
def test_any_size_and_a_flat_frame_give_finite_numbers(size: tuple[int, int]) -> None:
    found = _full_size(np.full((*size, 3), 77, dtype=np.uint8))
    assert found.shape == (2 * WHOLE_BANDS + 2 * _CONTRASTS,)
    assert np.isfinite(found).all()
    assert np.isfinite(_contrasts(np.zeros(size, dtype=np.float32))).all()
