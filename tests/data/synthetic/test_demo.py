"""The demo clips: every kind of trouble, and a first table that is right."""

from pathlib import Path

from vqa.data.synthetic.demo import DISTORTED, make_demo
from vqa.light.student import Student
from vqa.media import probe
from vqa.types import Clip, Score
from vqa.views import ViewsConfig, look


def test_copies_of_one_reference_at_its_size_score_below_it_and_the_original_by_the_light_tier(tmp_path: Path) -> None:
    paths = {path.stem: str(path) for path in make_demo(tmp_path)}
    assert {"cut_off", "not_a_video"} < set(paths)
    whole = {name: paths[name] for name in ("big_buck_bunny", "reference", *DISTORTED)}
    assert {(info.width, info.height) for info, _ in map(probe, whole.values())} == {(1280, 720)}
    student = Student.load()
    views = ViewsConfig.model_validate(student.card.views)
    found = student.score([look(Clip(clip_id=name, uri=path), views) for name, path in whole.items()])
    scores = {name: one.score or 0.0 for name, one in zip(whole, found, strict=True) if isinstance(one, Score)}
    for clean in ("big_buck_bunny", "reference"):
        assert all(scores[clean] > scores[copy] for copy in DISTORTED), scores
