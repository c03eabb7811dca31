"""The embedded model does what the first run promises: it answers in words that can be read, and ranks plain damage."""

from pathlib import Path

import pytest

from vqa import Scorer
from vqa.data.synthetic.demo import make_demo
from vqa.light.student import Student
from vqa.types import Clip, Score
from vqa.views import ViewsConfig, look


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    paths = make_demo(tmp_path_factory.mktemp("demo"))
    return [path for path in paths if path.stem not in ("cut_off", "not_a_video")]


@pytest.fixture(scope="module")
def scores(demo: list[Path]) -> dict[str, Score]:
    scorer = Scorer.load("embedded")
    return {path.stem: scorer.score_file(path) for path in demo}


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


COPIES = ("compressed", "compressed_hard", "blurred", "blurred_hard", "noisy", "frozen", "upscaled")


def test_the_original_and_the_reference_beat_every_distorted_copy(scores: dict[str, Score]) -> None:
    by_name = {name: score.score or 0.0 for name, score in scores.items()}
    for clean in ("big_buck_bunny", "reference"):
        assert all(by_name[clean] > by_name[copy] for copy in COPIES), by_name


def test_so_they_do_by_the_light_tier(demo: list[Path]) -> None:
    student = Student.load()
    views = ViewsConfig.model_validate(student.card.views)
    found = student.score([look(Clip(clip_id=path.stem, uri=str(path)), views) for path in demo])
    by_name = {path.stem: one.score or 0.0 for path, one in zip(demo, found, strict=True) if isinstance(one, Score)}
    for clean in ("big_buck_bunny", "reference"):
        assert all(by_name[clean] > by_name[copy] for copy in COPIES), by_name


def test_weights_are_small_and_safe() -> None:
    folder = Path(__file__).resolve().parent.parent / "vqa" / "assets" / "embedded"
    assert {path.suffix for path in folder.iterdir()} <= {".safetensors", ".json", ".jinja", ".md"}
    assert (folder / "model.safetensors").stat().st_size <= 40 * 2**20
