"""The embedded model's files; what it answers about the demo clips is in tests/docs/test_howto.py."""

import io
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from vqa import Scorer
from vqa.model.card import find_card
from vqa.model.resolve import EMBEDDED
from vqa.types import Clip, Pixels, Views
from vqa.views import ViewsConfig, look

pytestmark = pytest.mark.slow

ASSETS = Path(__file__).resolve().parent.parent / "vqa" / "assets"


def test_it_ranks_a_fixed_excerpt_as_measured() -> None:
    """One bundled clip blurred and the other compressed, in five steps each: all 20 pairs were in order."""
    chains = [
        [_each(_seen("big_buck_bunny"), partial(_blurred, step=step)) for step in range(5)],
        [_each(_seen("big_buck_bunny_end"), partial(_compressed, step=step)) for step in range(5)],
    ]
    scorer = Scorer.load("embedded", k=1)
    scores = [[one.score for one in scorer.score(chain)] for chain in chains]
    pairs = [own[low] > own[high] for own in scores for low in range(5) for high in range(low + 1, 5)]
    assert len(pairs) == 20 and sum(pairs) >= 19, scores
    assert all(own[0] - own[4] > 0.7 for own in scores), scores  # 1.4 and 1.0 points


def _seen(name: str) -> Views:
    clip = Clip(clip_id=name, uri=str(ASSETS / "clips" / f"{name}.mp4"))
    return look(clip, ViewsConfig(**find_card("embedded")["views"]))


def _each(views: Views, change: Callable[[Pixels], Pixels]) -> Views:
    pictures = {name: tuple(map(change, getattr(views, name))) for name in ("global_pictures", "local_pictures")}
    return replace(views, **pictures)


def _blurred(picture: Pixels, *, step: int) -> Pixels:
    return np.asarray(gaussian_filter(picture, (0.7 * step, 0.7 * step, 0)))


def _compressed(picture: Pixels, *, step: int) -> Pixels:
    if not step:
        return picture
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=(60, 30, 15, 6)[step - 1])
    return np.asarray(Image.open(data))


def test_weights_are_small_and_safe() -> None:
    assert {path.suffix for path in EMBEDDED.iterdir()} <= {".safetensors", ".json", ".jinja", ".md"}
    assert (EMBEDDED / "model.safetensors").stat().st_size <= 40 * 2**20
