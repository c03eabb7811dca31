"""A student's folder, whole and damaged, and the scores it gives."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from tests.light.conftest import VIEWS
from tests.support import clips
from vqa.errors import ModelError
from vqa.light.card import CARD, WEIGHTS, student_digest
from vqa.light.embedding import SIZE
from vqa.light.student import OpinionMap, Student
from vqa.types import Clip, Score, Views
from vqa.views import ViewsConfig, look


def views_of(path: Path, **settings: object) -> Views:
    return look(Clip(clip_id=path.name, uri=str(path)), ViewsConfig.model_validate(VIEWS | settings))


def test_a_saved_student_gives_the_same_scores_whatever_else_is_scored(
    student: Student, student_folder: Path, tmp_path: Path
) -> None:
    paths = [clips.write_video(tmp_path / f"{n}.mp4", frames=8, seed=n) for n in range(3)]
    views = [views_of(path) for path in paths]
    loaded = Student.load(student_folder)
    together = [one.score for one in loaded.score(views) if isinstance(one, Score)]
    alone = [one.score for view in reversed(views) for one in student.score([view]) if isinstance(one, Score)]
    assert together == alone[::-1]
    assert len(set(together)) == 3
    assert all(1 < score < 5 for score in together)
    (score,) = loaded.score(views[:1])
    assert isinstance(score, Score)
    assert (score.answers, score.reason, score.score_std) == ((), None, None)


def test_pictures_of_any_size_have_an_embedding(student: Student, tmp_path: Path) -> None:
    sizes = [(1, 1), (3, 200), (200, 3), (64, 48), (1000, 700)]
    for width, height in sizes:
        path = tmp_path / f"{width}x{height}.png"
        clips.write_image(path, width=width, height=height)
        found = student.embed(views_of(path))
        assert found.shape == (SIZE,)
        assert np.isfinite(found).all()


def test_the_digest_names_the_weights_and_the_card(student_folder: Path, tmp_path: Path) -> None:
    changed = tmp_path / "student"
    shutil.copytree(student_folder, changed)
    assert student_digest(changed) == student_digest(student_folder)
    card = changed / CARD
    card.write_text(card.read_text().replace("whole_pixels: 224", "whole_pixels: 225"))
    assert student_digest(changed) != student_digest(student_folder)


def fewer_centres(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {"radial.centres": tensors["radial.centres"][1:].contiguous()}, folder / WEIGHTS)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / WEIGHTS).unlink(), "give the folder that `vqa distill` wrote"),
        (lambda folder: (folder / CARD).write_text("name: x"), "make it anew"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"\x80\x04K\x01."), "cannot be used"),  # a pickle
        (lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100]), "cannot be used"),
        (fewer_centres, r"radial part of \[.*\(4, 3\), \(5,\)\]"),
    ],
)
def test_a_folder_that_is_no_student_is_refused(
    student_folder: Path, tmp_path: Path, damage: object, said: str
) -> None:
    folder = tmp_path / "student"
    shutil.copytree(student_folder, folder)
    assert callable(damage)
    damage(folder)
    with pytest.raises(ModelError, match=said):
        Student.load(folder)


def test_the_map_to_opinions_is_monotone_and_stays_on_the_scale() -> None:
    places = np.linspace(-3, 3, 50)
    opinions = 1 + 4 / (1 + np.exp(-2 * (places - 0.5)))
    found = OpinionMap.fit(places, opinions)
    assert (found.middle, found.gain) == (pytest.approx(0.5), pytest.approx(2.0))
    far = found.opinions(np.array([-1e6, *places, 1e6]))
    assert (np.diff(far) > 0).all()
    assert (far[0], far[-1]) == (pytest.approx(1.0), pytest.approx(5.0))
