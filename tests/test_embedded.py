"""The embedded model does what the first run promises: it answers in words that can be read, and ranks plain damage."""

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
from vqa.data.synthetic.demo import make_demo
from vqa.model.card import find_card
from vqa.types import Clip, Pixels, Score, Views
from vqa.views import ViewsConfig, look

ASSETS = Path(__file__).resolve().parent.parent / "vqa" / "assets"


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Score]:
    folder = tmp_path_factory.mktemp("demo")
    scorer = Scorer.load("embedded")
    whole = [path for path in make_demo(folder) if path.stem not in ("cut_off", "not_a_video")]
    return {path.stem: scorer.score_file(path) for path in whole}


def test_every_clip_gets_an_answer_with_a_reason(scores: dict[str, Score]) -> None:
    for name, score in scores.items():
        assert score.score is not None, name
        assert 1 <= score.score <= 5
        assert score.reason


def test_the_clean_clip_beats_hard_blur(scores: dict[str, Score]) -> None:
    clean = scores["big_buck_bunny"].score
    assert clean is not None
    damaged = scores["blurred_hard"].score
    assert damaged is not None
    assert damaged < clean


def test_it_ranks_a_fixed_excerpt_as_measured() -> None:
    """One bundled clip blurred and the other compressed, in five steps each: of 20 pairs 19 were in order."""
    chains = [
        [_each(_seen("big_buck_bunny"), partial(_blurred, step=step)) for step in range(5)],
        [_each(_seen("big_buck_bunny_end"), partial(_compressed, step=step)) for step in range(5)],
    ]
    scorer = Scorer.load("embedded", k=1)
    scores = [[one.score for one in scorer.score(chain)] for chain in chains]
    pairs = [own[low] > own[high] for own in scores for low in range(5) for high in range(low + 1, 5)]
    assert len(pairs) == 20 and sum(pairs) >= 18, scores
    assert all(own[0] - own[4] > 2.5 for own in scores), scores  # 3.4 and 3.3 points


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
    folder = Path(__file__).resolve().parent.parent / "vqa" / "assets" / "embedded"
    assert {path.suffix for path in folder.iterdir()} <= {".safetensors", ".json", ".jinja", ".md"}
    assert (folder / "model.safetensors").stat().st_size <= 40 * 2**20
