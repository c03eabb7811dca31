"""The embedded model does what the first run promises: it answers in words that can be read, and ranks plain damage."""

from pathlib import Path

import pytest

from vqa import Scorer
from vqa.data.synthetic.demo import make_demo
from vqa.types import Score


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


def test_weights_are_small_and_safe() -> None:
    folder = Path(__file__).resolve().parent.parent / "vqa" / "assets" / "embedded"
    assert {path.suffix for path in folder.iterdir()} <= {".safetensors", ".json", ".jinja", ".md"}
    assert (folder / "model.safetensors").stat().st_size <= 40 * 2**20
