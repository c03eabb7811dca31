"""Spatial samplers: boxes inside any frame, and places known from construction."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samplers import spatial
from samplers.spatial import SPATIAL, SpatialName, centre, fragments, grid, salient

sides = st.one_of(st.integers(1, 40), st.integers(1, 4000))


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def shared(first: np.ndarray, second: np.ndarray) -> float:
    """Area common to two boxes of one size, as a part of one."""
    low = np.maximum(first[:2], second[:2])
    high = np.minimum(first[:2] + first[2:], second[:2] + second[2:])
    return float(np.prod(np.clip(high - low, 0, None)) / np.prod(first[2:]))


def assert_inside(boxes: np.ndarray, width: int, height: int) -> None:
    assert boxes.dtype == np.int64 and boxes.ndim == 2 and boxes.shape[1] == 4
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] >= 1).all()
    assert (boxes[:, 0] + boxes[:, 2] <= width).all() and (boxes[:, 1] + boxes[:, 3] <= height).all()


@pytest.mark.parametrize("sampler", [centre, grid])
@given(width=sides, height=sides, box=st.tuples(sides, sides), count=st.integers(1, 12))
def test_boxes_of_one_size_inside_the_frame(sampler, width, height, box, count):
    boxes = sampler(width, height, box_width=box[0], box_height=box[1], count=count)
    assert_inside(boxes, width, height)
    assert len(boxes) == count
    assert (boxes[:, 2] == min(box[0], width)).all() and (boxes[:, 3] == min(box[1], height)).all()
    assert np.array_equal(boxes, sampler(width, height, box_width=box[0], box_height=box[1], count=count))


@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    box=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    count=st.integers(1, 5),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_salient_boxes_are_inside_distinct_where_they_can_be_and_mutate_nothing(width, height, box, count, seed):
    luma, motion = noise(width, height, seed), noise(5, 3, seed).astype(float)
    kept = luma.copy(), motion.copy()
    arguments = {"motion": motion, "box_width": box[0], "box_height": box[1], "count": count}
    boxes = salient(luma, **arguments)
    assert_inside(boxes, width, height)
    assert boxes.shape == (count, 4) and (boxes[:, 2:] == [min(box[0], width), min(box[1], height)]).all()
    places = (width - boxes[0, 2] + 1) * (height - boxes[0, 3] + 1)
    assert len(np.unique(boxes, axis=0)) == min(count, places)
    assert np.array_equal(boxes, salient(luma, **arguments))
    assert np.array_equal(luma, kept[0]) and np.array_equal(motion, kept[1])


def test_centre_is_in_the_middle_and_the_same_each_time():
    assert centre(101, 51, box_width=20, box_height=10, count=2).tolist() == [[40, 20, 20, 10]] * 2


def test_grid_covers_the_frame_evenly_row_by_row():
    assert grid(300, 100, box_width=50, box_height=50, count=3)[:, :2].tolist() == [[25, 25], [125, 25], [225, 25]]
    assert grid(100, 300, box_width=50, box_height=50, count=3)[:, :2].tolist() == [[25, 25], [25, 125], [25, 225]]
    assert grid(200, 200, box_width=50, box_height=50, count=3)[:, :2].tolist() == [[25, 25], [125, 25], [75, 125]]


@given(width=sides, height=sides, cells=st.integers(1, 9), patch=st.integers(1, 40), seed=st.integers(0, 2**40))
def test_fragments_draw_one_patch_in_each_cell(width, height, cells, patch, seed):
    boxes = fragments(width, height, cells=cells, patch=patch, seed=seed)
    assert_inside(boxes, width, height)
    assert boxes.shape == (cells * cells, 4)
    assert len(np.unique(boxes[:, 2:], axis=0)) == 1  # one size, so that they can be stitched
    assert np.array_equal(boxes, fragments(width, height, cells=cells, patch=patch, seed=seed))
    if width >= cells and height >= cells:  # each patch stays in its own cell: none covers another's pixels
        rows, columns = np.divmod(np.arange(cells * cells), cells)
        assert (boxes[:, 0] >= columns * width // cells).all()
        assert (boxes[:, 0] + boxes[:, 2] <= (columns + 1) * width // cells).all()
        assert (boxes[:, 1] >= rows * height // cells).all()
        assert (boxes[:, 1] + boxes[:, 3] <= (rows + 1) * height // cells).all()


def test_fragments_are_those_of_fast_vqa_and_move_with_the_seed():
    boxes = fragments(1920, 1080, seed=0)
    assert boxes.shape == (49, 4) and (boxes[:, 2:] == 32).all()
    assert not np.array_equal(boxes, fragments(1920, 1080, seed=1))
    assert len(np.unique(boxes[:7, 0] - np.arange(7) * 1920 // 7)) > 1  # each cell draws its own place


def test_salient_finds_the_textured_patch():
    luma = np.full((1080, 1920), 90, dtype=np.uint8)
    luma[600:900, 1300:1700] = noise(400, 300)
    box = salient(luma, box_width=448, box_height=448, count=1)[0]
    assert box[0] <= 1300 and box[0] + 448 >= 1700 and box[1] <= 600 and box[1] + 448 >= 900


def test_salient_follows_motion_where_detail_is_even():
    luma, motion = noise(640, 360), np.zeros((36, 64))
    motion[4:8, 50:56] = 40.0  # at x 500-560, y 40-80 of the frame
    box = salient(luma, motion=motion, box_width=128, box_height=128, count=1)[0]
    assert box[0] <= 500 and box[0] + 128 >= 560 and box[1] <= 40 and box[1] + 128 >= 80


def test_salient_keeps_off_its_own_boxes_and_those_to_avoid():
    luma = noise(1280, 720)
    luma[200:500, 400:800] = np.where(luma[200:500, 400:800] > 127, 255, 0)  # the strongest texture, wider than a box
    boxes = salient(luma, box_width=256, box_height=256, count=4)
    assert max(shared(boxes[i], boxes[j]) for i in range(4) for j in range(i)) <= spatial.FREE_OVERLAP
    again = salient(luma, box_width=256, box_height=256, count=1, avoid=boxes[:1])
    assert np.array_equal(again[0], boxes[1])


def test_salient_on_a_flat_frame_takes_the_middle():
    boxes = salient(np.full((720, 1280), 7, dtype=np.uint8), box_width=448, box_height=448, count=1)
    assert np.abs(boxes[0] - [416, 136, 448, 448]).max() <= 2


def test_salient_sees_detail_finer_than_its_lattice():
    stripes = np.full((2160, 3840), 100, dtype=np.uint8)
    stripes[1000:1400, 3000:3400:2] = 140  # one-pixel stripes on a frame that is looked at on every 8th pixel
    box = salient(stripes, box_width=448, box_height=448, count=1)[0]
    assert box[0] <= 3000 and box[0] + 448 >= 3400


@pytest.mark.parametrize(
    "call",
    [
        lambda: centre(0, 10, box_width=5, box_height=5, count=1),
        lambda: grid(10, 10, box_width=5, box_height=5, count=0),
        lambda: fragments(10, 10, cells=0, seed=0),
        lambda: fragments(10, 10, patch=0, seed=0),
        lambda: salient(np.zeros((4, 4, 3)), box_width=2, box_height=2, count=1),
        lambda: salient(np.zeros((4, 4)), motion=np.zeros(4), box_width=2, box_height=2, count=1),
    ],
)
def test_senseless_input_is_refused(call):
    with pytest.raises(ValueError):
        call()


def test_the_table_names_every_choice():
    assert set(SPATIAL) == set(get_args(SpatialName))
    assert all(getattr(spatial, name) is function for name, function in SPATIAL.items())
