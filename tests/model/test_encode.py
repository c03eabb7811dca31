"""Pictures of any shape become what every family's processor takes."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.references.make_checkpoints import FAMILIES, Family
from tests.support.samples import random_views
from vqa.model.encode import encode, padded
from vqa.model.load import Policy
from vqa.model.rollout import prefill


@given(st.integers(1, 400), st.integers(1, 400))
def test_padding_keeps_the_picture_and_repeats_its_border(height: int, width: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = padded(picture)
    assert min(out.shape[:2]) >= 28
    assert max(out.shape[:2]) <= 100 * min(out.shape[:2])
    assert np.array_equal(out[:height, :width], picture)
    assert (out[height:, :width] == picture[-1:]).all()
    assert (out[:, width:] == out[:, width - 1 : width]).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (3000, 3), (27, 29), (200, 31)])
def test_odd_pictures_go_through_every_family(
    family: Family, shape: tuple[int, int], policy: Callable[[Family], Policy]
) -> None:
    model = policy(family)
    views = random_views("odd", [np.zeros((*shape, 3), np.uint8), np.full((40, 50, 3), 255, np.uint8)])
    logits = prefill(model.model, encode(model.processor, views, prompt="q_insight")).logits
    assert logits.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prompt_holds_each_picture_in_order(family: Family, policy: Callable[[Family], Policy]) -> None:
    processor = policy(family).processor
    views = random_views("three", [np.full((60, 60, 3), shade, np.uint8) for shade in (0, 128, 255)])
    text = processor.tokenizer.decode(encode(processor, views, prompt="preresq_video")["input_ids"][0])
    places = [text.index(label) for label in ("Global multiframe", "frame picture 1:", "frame picture 2:", "How good")]
    assert places == sorted(places)
    swapped = random_views("three", list(views.pictures[::-1]))
    one, other = (encode(processor, v, prompt="preresq_video")["pixel_values"] for v in (views, swapped))
    assert one.shape == other.shape
    assert not (one == other).all()
