"""The warm-up's short cuts give what the library's own long way gives."""

from typing import Any

import numpy as np
import pytest
import torch

from vqa.train.clips.ladder import CLASSES, NAMES
from vqa.train.scratch.crops import Crops
from vqa.train.scratch.model import filters, make_model, make_processor, make_tokenizer
from vqa.train.scratch.warmup import (
    HANDED,
    LOUDNESS,
    QUIET,
    WarmupHead,
    draw,
    equalise,
    hand_over,
    patches,
    pooled,
    responses,
    turned_about,
)


@pytest.fixture(scope="module")
def made() -> tuple[Any, Any]:
    tokenizer = make_tokenizer(["the quality is 1 2 3 4 5"], vocabulary=300)
    sizes = {"vision_width": 96, "vision_layers": 2, "text_width": 64, "text_layers": 1}
    model = make_model(tokenizer, **sizes, seed=0)
    return model.model.visual, make_processor(tokenizer, min_pixels=3136, max_pixels=112896).image_processor


def squares(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 112, 112, 3), dtype=np.uint8)


def test_patches_and_features_are_those_of_the_library(made: tuple[Any, Any]) -> None:
    visual, images = made
    crops = squares(3)
    inputs = images(images=list(crops), return_tensors="pt")
    torch.testing.assert_close(patches(images, crops).flatten(0, 1), inputs["pixel_values"])
    own = visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output.view(3, 16, -1).mean(1)
    torch.testing.assert_close(pooled(visual, responses(visual, images, crops)), own, atol=1e-4, rtol=1e-4)


def test_equalised_filters_answer_equally_strongly(made: tuple[Any, Any]) -> None:
    visual, images = made
    crops = squares(8)
    equalise(visual, images, crops)
    strength = responses(visual, images, crops).pow(2).mean((0, 1)).sqrt()
    seen = strength[strength > 0.01]  # all but those of change in time
    assert len(seen) == filters(96)
    torch.testing.assert_close(seen, torch.ones_like(seen))


def test_turning_a_crop_about_keeps_its_values(made: tuple[Any, Any]) -> None:
    crop = squares(1)[0]
    for seed in range(30):
        turned = turned_about(crop, np.random.default_rng(seed)).astype(int)
        whole = np.sort(turned, axis=None)
        assert (whole == np.sort(crop, axis=None)).all() or (whole == np.sort(255 - crop, axis=None)).all()


def test_a_draw_hangs_on_its_generator_alone() -> None:
    pixels = squares(6).reshape(3, 2, 112, 112, 3)
    crops = Crops(
        pixels=pixels,
        opinions=np.ones(3, np.float32),
        shown=np.zeros((3, 18), np.float32),
        is_still=np.ones(3, np.bool_),
    )
    first, second = (draw(crops, 6, np.random.default_rng(7), each=2) for _ in range(2))
    assert (first[0] == second[0]).all() and (first[1] == second[1]).all()
    assert first[0].shape == (6, 112, 112, 3) and len(first[1]) == 3


@torch.no_grad()
def test_the_first_channels_tell_what_the_head_read(made: tuple[Any, Any]) -> None:
    visual, images = made
    pixels = squares(80, seed=3)
    crops = Crops(
        pixels=pixels.reshape(40, 2, 112, 112, 3),
        opinions=np.linspace(1, 5, 40, dtype=np.float32),
        shown=np.eye(18, dtype=np.float32)[[list(NAMES).index(name) for name in ("vp9", "noise") * 20]],
        is_still=np.ones(40, np.bool_),
    )
    torch.manual_seed(4)
    head = WarmupHead(visual.config.out_hidden_size, 8)
    before = pooled(visual, responses(visual, images, pixels))
    opinions, kinds, _ = head(before)
    hand_over(visual, head, images, crops, each=2)
    after = pooled(visual, responses(visual, images, pixels))
    torch.testing.assert_close(after[:, HANDED:], QUIET * before[:, HANDED:])
    found = [CLASSES.index(NAMES[name]) for name in ("vp9", "noise")]
    told = [(after[:, 0], opinions), *((after[:, 1 + place], kinds[:, place]) for place in found)]
    for channel, read in told:
        assert torch.corrcoef(torch.stack([channel, read]))[0, 1] > 0.9999
    loud = before.view(40, 2, -1).mean(1).std(0).mean()
    clips = after.view(40, 2, -1).mean(1)
    torch.testing.assert_close(clips[:, 0].std(), LOUDNESS * loud)
    torch.testing.assert_close(clips.mean(0)[0], torch.tensor(0.0), atol=1e-3, rtol=0)
    rest = [1 + place for place in range(len(CLASSES)) if place not in found]
    assert (after[:, rest] == 0).all()  # damage that no clip has
