"""Temporal samplers: properties that hold for any clip, and budgets known from construction."""

from functools import partial
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplers import temporal
from samplers.temporal import TemporalName, change_from_luma, change_from_packets, fps, keyframe, segment, uniform


@st.composite
def times(draw: st.DrawFn, *, max_frames: int = 80) -> np.ndarray:
    """Presentation times of a clip: constant or variable frame rate, pauses, equal stamps, one frame."""
    frames = draw(st.integers(1, max_frames))
    gap = st.sampled_from([1 / 30, 0.04, 0.5]) if draw(st.booleans()) else st.floats(0, 3)
    gaps = draw(st.lists(gap, min_size=frames - 1, max_size=frames - 1))
    return np.concatenate([[0.0], np.cumsum(gaps)])


def signal_for(seconds: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).exponential(size=len(seconds))


EXACT = {
    "uniform": uniform,
    "segment": segment,
    "segment_seeded": partial(segment, seed=5),
    "keyframe": lambda seconds, *, count: keyframe(seconds, count=count, change=signal_for(seconds, 3)),
}


@pytest.mark.parametrize("name", EXACT)
@given(seconds=times(), count=st.integers(1, 40))
def test_exactly_count_ascending_indices_inside_the_clip_distinct_where_it_is_long_enough(name, seconds, count):
    before = seconds.copy()
    indices = EXACT[name](seconds, count=count)
    assert indices.dtype == np.int64 and indices.shape == (count,)
    assert indices.min() >= 0 and indices.max() < len(seconds)
    assert (np.diff(indices) >= 0).all()
    assert len(np.unique(indices)) == min(count, len(seconds))
    assert np.array_equal(indices, EXACT[name](seconds, count=count))
    assert np.array_equal(seconds, before)


@given(seconds=times(), rate=st.floats(0.01, 1000), limit=st.integers(1, 40))
def test_fps_is_ascending_distinct_within_the_limit(seconds, rate, limit):
    indices = fps(seconds, rate=rate, limit=limit)
    assert indices.dtype == np.int64 and 1 <= len(indices) <= limit
    assert (np.diff(indices) > 0).all() and indices[-1] < len(seconds)


def test_fps_takes_the_first_frame_of_each_slot_and_never_more_than_the_clip_has():
    seconds = np.arange(100) / 25
    assert fps(seconds, rate=1, limit=16).tolist() == [0, 25, 50, 75]
    assert fps(seconds, rate=1000, limit=100).tolist() == list(range(100))
    assert np.array_equal(fps(seconds, rate=1, limit=3), uniform(seconds, count=3))


@given(count=st.integers(1, 30), rate=st.sampled_from([10.0, 25.0, 30000 / 1001]), parts=st.integers(1, 9))
def test_uniform_takes_the_middle_of_each_part_at_a_constant_rate(count, rate, parts):
    frames = count * (2 * parts - 1)  # odd parts have one middle frame
    expected = np.arange(count) * (2 * parts - 1) + parts - 1
    assert np.array_equal(uniform(np.arange(frames) / rate, count=count), expected)


def test_uniform_is_even_in_time_not_in_index():
    seconds = np.concatenate([np.arange(0, 5, 0.01), np.arange(5, 10, 0.1)])  # 500 frames, then 50 in the same time
    chosen = seconds[uniform(seconds, count=10)]
    assert np.abs(chosen - np.arange(0.5, 10)).max() <= 0.1 + 1e-9


def test_uniform_over_a_long_frozen_frame_shows_it_once_and_stays_around_it():
    seconds = np.array([0.0, 1, 2, 3, 4, 54, 55, 56, 57, 58])  # frame 4 is on screen for 50 seconds
    indices = uniform(seconds, count=5)
    assert len(set(indices)) == 5 and 4 in indices
    assert indices.min() < 4 < indices.max()  # pushed out to both sides


@given(seconds=times(), count=st.integers(1, 30), level=st.floats(0, 1e6))
def test_keyframe_on_a_flat_signal_is_uniform(seconds, count, level):
    change = np.full(len(seconds), level)
    assert np.array_equal(keyframe(seconds, count=count, change=change), uniform(seconds, count=count))


@given(seconds=times(), count=st.integers(1, 30), scale=st.floats(1e-3, 1e3))
def test_keyframe_does_not_depend_on_the_unit_of_change(seconds, count, scale):
    change = np.random.default_rng(1).integers(0, 9, len(seconds)).astype(float)
    plain, scaled = (keyframe(seconds, count=count, change=change * factor) for factor in (1.0, scale))
    assert np.abs(plain - scaled).max() <= 1  # rounding may move a position that falls on the border of two frames


@pytest.mark.parametrize(("start", "stop"), [(0, 100), (200, 300), (350, 400)])
def test_keyframe_spends_more_where_change_is_and_some_everywhere(start, stop):
    seconds, change = np.arange(400) / 25, np.zeros(400)
    change[start:stop] = 1.0
    indices = keyframe(seconds, count=16, change=change)
    inside = int(((indices >= start) & (indices < stop)).sum())
    share = (stop - start) / 400
    assert inside >= 16 * min(0.5, 2.2 * share)
    outside = np.setdiff1d(indices, np.arange(start, stop))
    assert len(outside) >= 16 * (1 - share) / 2 - 1
    assert np.diff(np.concatenate([[0], indices, [399]])).max() <= 2 * 400 / 16 + 1  # no stretch is left out


def test_keyframe_gives_one_cut_a_closer_look_not_a_burst():
    change = np.zeros(400)
    change[200] = 1e6
    indices = keyframe(np.arange(400) / 25, count=16, change=change)
    near = np.abs(indices - 200) <= 16
    assert 3 <= near.sum() <= 6
    assert np.diff(indices).min() >= 3


@given(seconds=times(), count=st.integers(2, 20))
def test_only_a_seed_moves_segment_and_draws_stay_in_their_part(seconds, count):
    assert np.array_equal(segment(seconds, count=count), uniform(seconds, count=count))
    assert np.array_equal(segment(seconds, count=count, seed=1), segment(seconds, count=count, seed=1))
    even = np.arange(count * 10) / 25
    draws = np.stack([segment(even, count=count, seed=seed) for seed in range(8)])
    assert (draws // 10 == np.arange(count)).all()
    assert len(np.unique(draws, axis=0)) > 1


@given(sizes=st.lists(st.integers(0, 10**7), min_size=1, max_size=60), key_every=st.integers(1, 20))
def test_change_from_packets_is_finite_and_not_negative_for_any_table(sizes, key_every):
    is_key = np.arange(len(sizes)) % key_every == 0
    change = change_from_packets(np.array(sizes), is_key)
    assert change.shape == (len(sizes),) and np.isfinite(change).all() and (change >= 0).all()
    keyframe(np.arange(len(sizes)) / 25, count=4, change=change)


def test_key_frames_are_not_taken_for_change():
    is_key = np.arange(250) % 25 == 0
    sizes = np.where(is_key, 60_000, 2_000)
    assert np.allclose(change_from_packets(sizes, is_key), 2_000)
    sizes[100:150] *= 3
    indices = keyframe(np.arange(250) / 25, count=15, change=change_from_packets(sizes, is_key))
    assert ((indices >= 100) & (indices < 150)).sum() > 15 / 5 + 1


def test_sizes_of_a_clip_with_key_frames_only_say_nothing_about_change():
    sizes = np.random.default_rng(0).integers(1, 10**6, 50)
    assert len(np.unique(change_from_packets(sizes, np.ones(50, dtype=bool)))) == 1


def test_change_from_luma_is_the_mean_absolute_difference():
    luma = np.zeros((4, 2, 3))
    luma[2:, 0, 0] = 6.0
    assert change_from_luma(luma).tolist() == [0, 0, 1, 0]
    assert change_from_luma(luma[1:]).tolist() == [1, 1, 0]
    assert change_from_luma(luma[:1]).tolist() == [0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: uniform([], count=3),
        lambda: uniform([0.0, 1.0], count=0),
        lambda: uniform([1.0, 0.0], count=1),
        lambda: uniform([0.0, np.nan], count=1),
        lambda: fps([0.0], rate=0, limit=1),
        lambda: fps([0.0], rate=1, limit=0),
        lambda: keyframe([0.0, 1.0], count=1, change=[1.0]),
        lambda: keyframe([0.0, 1.0], count=1, change=[1.0, -1.0]),
        lambda: change_from_packets([1, 2], [True]),
        lambda: change_from_luma(np.zeros((0, 2, 2))),
    ],
)
def test_senseless_input_is_refused(call):
    with pytest.raises(ValueError):
        call()


def test_every_choice_is_a_function():
    assert all(callable(getattr(temporal, name)) for name in get_args(TemporalName))


@pytest.mark.parametrize(
    ("frames", "rate", "wanted"),
    [
        (50, 25.0, [0, 16, 33, 49]),  # 2 s: 4 frames
        (75, 25.0, [0, 15, 30, 44, 59, 74]),  # 3 s: 6
        (500, 25.0, np.linspace(0, 499, 16).round().astype(int).tolist()),  # 20 s: 40 are too many
        (3, 25.0, [0, 2]),
        (1, 25.0, [0]),
    ],
)
def test_linspace_takes_an_even_number_of_frames_from_the_first_to_the_last(
    frames: int, rate: float, wanted: list[int]
) -> None:
    assert temporal.linspace(np.arange(frames) / rate, rate=2.0, limit=16).tolist() == wanted
