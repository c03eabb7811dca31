"""Statistics of whole frames: what they say of signals whose answer is known."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter

from vqa.light.card import EmbeddingConfig
from vqa.light.embedding import ENCODED, MOTION, SIZE, SIZES, _reduced, embed, from_usual, large
from vqa.light.encoder import EfficientNetLite0
from vqa.light.statistics import (
    CONTRASTS,
    CROP_RINGS,
    LUMA_RINGS,
    WHOLE_BANDS,
    _asymmetric,
    _contrasts,
    _planes,
    _products,
    _spectrum,
    blurred,
    change,
    full_size,
)


@pytest.mark.parametrize("frequency", [0.03, 0.11, 0.3])
def test_a_wave_stands_in_the_ring_of_its_frequency(frequency: float) -> None:
    wave = np.sin(2 * np.pi * frequency * np.arange(400))[None] * np.ones((300, 1))
    found = int(np.argmax(_spectrum(wave.astype(np.float32), LUMA_RINGS, 1e-8)))
    assert LUMA_RINGS[found] <= frequency < LUMA_RINGS[found + 1]


@pytest.mark.parametrize("shape", [(64, 48), (33, 47), (32, 1000)])
def test_a_ring_holds_the_mean_power_of_its_frequencies(shape: tuple[int, int]) -> None:
    plane = np.random.default_rng(0).random(shape, dtype=np.float32)
    window = np.hanning(shape[0])[:, None] * np.hanning(shape[1])
    power = np.abs(np.fft.rfft2((plane - plane.mean()) * window)) ** 2
    radius = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    rings = [power[(low <= radius) & (radius < high)] for low, high in pairwise(LUMA_RINGS)]
    wanted = [np.log((one.mean() if one.size else 0) / plane.size + 1e-8) for one in rings]
    np.testing.assert_allclose(_spectrum(plane, LUMA_RINGS, 1e-8), wanted, rtol=0, atol=1e-5)
    assert any(one.size == 0 for one in rings) == (shape != (32, 1000))


def test_the_two_sides_of_a_skewed_gaussian_are_recovered() -> None:
    draws = np.random.default_rng(0)
    sides = np.abs(draws.normal(size=200_000))
    is_left = draws.random(200_000) < 0.3 / (0.3 + 0.9)  # by their widths, as the density is continuous at 0
    skewed = np.where(is_left, -0.3 * sides, 0.9 * sides).astype(np.float32)
    products = _products(skewed.reshape(400, 500), np.ones((400, 500), np.float32))
    shape, mean, left, right = _asymmetric(*products)
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


@pytest.mark.parametrize("shape", [(70, 45), (64, 48), (33, 100), (640, 20), (641, 20), (705, 33)])
def test_planes_and_contrasts_by_strips_are_those_of_the_whole_frame(shape: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    frame[: shape[0] // 2, :20] = 90
    luma, blue, red = _planes(frame)
    colours = frame / 255
    wanted = colours @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(luma, wanted, atol=1e-6)
    np.testing.assert_allclose(blue, (colours[..., 2] - wanted)[::2, ::2], atol=1e-6)
    np.testing.assert_allclose(red, (colours[..., 0] - wanted)[::2, ::2], atol=1e-6)

    mean, square = (gaussian_filter(one, 7 / 6, truncate=3) for one in (luma, luma * luma))
    deviation = np.sqrt(np.maximum(square - mean * mean, 0))
    normal = (luma - mean) / (deviation + np.float32(1 / 255))
    found = _contrasts(luma)
    is_tall = shape[0] > 640  # every second strip of 32 rows is told of then
    rows = np.arange(shape[0])[np.arange(shape[0]) // 32 % (1 + is_tall) == 0]
    assert found[1] == pytest.approx(np.log((normal[rows] ** 2).mean() + 1e-4), abs=1e-5)
    below = rows[rows % 32 > 0] if is_tall else rows
    for k, shift in enumerate(((0, 1), (1, 0), (1, 1), (1, -1))):
        fitted = _asymmetric(*_products(normal[below], np.roll(normal, shift, (0, 1))[below]))
        np.testing.assert_allclose(found[2 + 4 * k : 6 + 4 * k], fitted, rtol=0, atol=1e-5)
    quantiles = np.quantile(deviation[rows][::4, ::4], (0.05, 0.25, 0.5, 0.75, 0.95, 0.995))
    np.testing.assert_allclose(found[-6:], np.log(quantiles + 1e-4), rtol=0, atol=1e-4)


def test_blur_takes_the_high_rings_and_flattens_contrasts() -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (120, 160, 3), dtype=np.uint8))
    sharp, blurred = (full_size(np.asarray(one)) for one in (noise, noise.filter(ImageFilter.GaussianBlur(2))))
    assert (sharp - blurred)[WHOLE_BANDS - 6 : WHOLE_BANDS].min() > 4  # of log power
    deviations = slice(2 * WHOLE_BANDS + CONTRASTS - 6, 2 * WHOLE_BANDS + CONTRASTS)
    assert (sharp - blurred)[deviations].min() > 1


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (33, 47)])
def test_any_size_and_a_flat_frame_give_finite_numbers(size: tuple[int, int]) -> None:
    found = full_size(np.full((*size, 3), 77, dtype=np.uint8))
    assert found.shape == (2 * WHOLE_BANDS + 2 * CONTRASTS,)
    assert np.isfinite(found).all()
    assert np.isfinite(_contrasts(np.zeros(size, dtype=np.float32))).all()


@pytest.mark.parametrize("size", [(720, 1280), (301, 97), (2000, 40)])
def test_a_frame_is_reduced_as_pillow_reduces_it(size: tuple[int, int]) -> None:
    smooth = Image.fromarray(np.random.default_rng(2).integers(0, 256, (40, 40, 3), dtype=np.uint8)).resize(size[::-1])
    frame = np.asarray(smooth)
    found = _reduced(frame, 96**2)
    wanted = np.asarray(smooth.resize(found.shape[1::-1], Image.Resampling.BICUBIC))
    assert found.shape == wanted.shape and found.dtype == np.uint8
    off = np.abs(found.astype(int) - wanted)
    assert off.max() <= 2 and off.mean() < 0.25
    assert _reduced(frame, size[0] * size[1]) is frame


@pytest.mark.parametrize("frequency", [0.04, 0.2])
def test_what_changes_stands_in_the_ring_of_its_frequency(frequency: float) -> None:
    grey = np.full((192, 192, 3), 128, np.uint8)
    wave = np.round(20 * np.sin(2 * np.pi * frequency * np.arange(192)))[None, :, None]
    found = change(grey, (grey + wave).astype(np.uint8))
    ring = int(np.argmax(found[6:]))
    assert CROP_RINGS[ring] <= frequency < CROP_RINGS[ring + 1]
    assert found[0] == pytest.approx(np.log(np.abs(wave).mean() / 255), abs=0.01)


def test_a_frozen_frame_changes_in_no_pixel_and_a_flicker_in_all_alike() -> None:
    crop = np.random.default_rng(3).integers(0, 200, (192, 192, 3), dtype=np.uint8)
    still, flicker = change(crop, crop), change(crop, crop + 20)
    assert (still[5], flicker[5]) == (1, 0) and still[:5].max() == np.log(np.float64(1e-4))
    assert np.exp(flicker[[0, 2]]) == pytest.approx(20 / 255, rel=0.01) and np.exp(flicker[1]) < 1e-3
    assert np.isfinite(change(crop[:1, :3], crop[1:2, :3])).all()


def test_only_pairs_have_motion_and_every_other_group_sees_their_first_frames() -> None:
    frames = list(np.random.default_rng(4).integers(0, 256, (4, 80, 100, 3), dtype=np.uint8))
    network, paired = EfficientNetLite0().eval(), EmbeddingConfig(motion=True)
    found, alone = embed(network, frames, paired), embed(network, frames[::2], EmbeddingConfig())
    assert found.shape == (SIZE,) and found[MOTION].all() and not alone[MOTION].any()
    np.testing.assert_array_equal(found[: MOTION.start], alone[: MOTION.start])
    assert not embed(network, frames[:1], paired)[MOTION].any()
    motion = found[MOTION] + np.linspace(-5, 5, 22, dtype=np.float32)
    usual = np.concatenate([np.arange(ENCODED, dtype=np.float32), motion])
    moved, unmoved = from_usual(found.copy(), usual), from_usual(alone.copy(), usual)
    np.testing.assert_array_equal(moved[MOTION], np.clip(found[MOTION] - motion, -2, 2))
    np.testing.assert_array_equal(unmoved[MOTION], alone[MOTION])
    np.testing.assert_array_equal(moved[: large(SIZE).start], found[: large(SIZE).start])


def test_a_still_is_seen_larger_and_a_clip_gets_the_usual_one_of_that() -> None:
    frame = np.random.default_rng(6).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    network, config = EfficientNetLite0().eval(), EmbeddingConfig(whole_pixels=128, large_pixels=256)
    usual, larger = np.arange(ENCODED + 22, dtype=np.float32), large(SIZE)
    still, clip = embed(network, [frame], config), embed(network, [frame, frame], config)
    assert still[larger].any() and not clip[larger].any()
    at_that_size = embed(network, [frame], EmbeddingConfig(whole_pixels=256))
    np.testing.assert_allclose(still[larger], at_that_size[:ENCODED], rtol=1e-5, atol=1e-6)
    assert np.abs(still[larger] - still[:ENCODED]).max() > 1e-3
    np.testing.assert_array_equal(from_usual(still.copy(), usual), still)
    np.testing.assert_array_equal(from_usual(clip.copy(), usual)[larger], usual[:ENCODED])


def test_statistics_beside_the_encoder_are_the_same() -> None:
    frames = list(np.random.default_rng(5).integers(0, 256, (2, 80, 100, 3), dtype=np.uint8))
    network, before = EfficientNetLite0().eval(), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(embed(network, frames, EmbeddingConfig(motion=True)))
    finally:
        torch.set_num_threads(before)
    plain = SIZES["whole"] + SIZES["crops"]
    np.testing.assert_array_equal(found[0][plain:], found[1][plain:])
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


def test_of_a_still_a_grid_of_crops_is_seen_and_of_a_clip_its_quarters_in_turn() -> None:
    frame = np.random.default_rng(3).integers(0, 256, (300, 420, 3), dtype=np.uint8)
    seen: list[torch.Tensor] = []
    network = EfficientNetLite0().eval()
    network.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    config = EmbeddingConfig(crop_pixels=64, crops=5, still_grid=3)
    embed(network, [frame], config)
    embed(network, [frame, frame[::-1].copy()], config)
    (_, still, _, _, clip) = (one.permute(0, 2, 3, 1).numpy() for one in seen)
    tops, lefts = (18, 118, 218), (38, 178, 318)  # of fields of 100 x 140 pixels, whose middles are seen
    wanted = [frame[top : top + 64, left : left + 64] for top in tops for left in lefts]
    np.testing.assert_array_equal(still, wanted)
    assert len(clip) == 5
    np.testing.assert_array_equal(clip[0], frame[43:107, 73:137])
