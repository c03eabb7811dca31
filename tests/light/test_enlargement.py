"""What a student makes of pictures that were enlarged for their viewers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.light.conftest import VIEWS
from tests.support import clips
from vqa.light.config import RegressionConfig
from vqa.light.distill import fit_enlargement
from vqa.light.enlargement import Enlargement
from vqa.light.regression import LabelledSet, fit_regressor, places_left_out
from vqa.light.student import Line, Student
from vqa.types import Clip, Score
from vqa.views import ViewsConfig, look


def test_what_is_taken_follows_doublings_within_what_was_learnt_from() -> None:
    drawn = np.random.default_rng(0)
    doublings = drawn.uniform(1, 3, 400)
    places = -doublings + drawn.standard_normal(400)  # the pixels say some of it
    labels = 7 + 2 * places - 3 * doublings + 0.01 * drawn.standard_normal(400)
    found = Enlargement.fit(places, 2**doublings, labels)
    assert found is not None
    assert (found.slope, found.middle) == (pytest.approx(1.5, abs=0.01), pytest.approx(doublings.mean()))
    at_one, at_two, beyond, native = found.taken([2.0, 4.0, 64.0, 1.0]).tolist()
    assert at_two - at_one == pytest.approx(1.5, abs=0.02)
    assert beyond == found.taken([2 ** doublings.max()])[0]
    assert native == found.taken([2 ** doublings.min()])[0]
    assert found.taken([None, 4.0]).tolist() == [0.0, at_two]


@pytest.mark.parametrize("what", ["alike", "better where enlarged", "places against labels"])
def test_pictures_that_do_not_say_take_nothing(what: str) -> None:
    drawn = np.random.default_rng(1)
    doublings = np.full(50, 2.0) if what == "alike" else drawn.uniform(1, 3, 50)
    places = drawn.standard_normal(50)
    labels = places * (-1 if what == "places against labels" else 1) + doublings * (what == "better where enlarged")
    assert Enlargement.fit(places, 2**doublings, labels) is None


def test_rows_are_placed_by_regressors_that_did_not_see_their_fold() -> None:
    """Labels of one fold are turned round: that moves no place of its own rows, but all others."""
    drawn = np.random.default_rng(2)
    rows = np.pad(drawn.standard_normal((30, 3)), ((0, 0), (0, 8416)))
    folds, labels = np.arange(30) % 3, rows[:, 0]
    config = RegressionConfig(radial=0, emphasis={})
    before, after = (
        places_left_out([LabelledSet(embeddings=rows, labels=one)], 0, folds, config)
        for one in (labels, np.where(folds == 1, -labels, labels))
    )
    assert np.array_equal(before == after, folds == 1)
    whole = fit_regressor([LabelledSet(embeddings=rows, labels=labels)], config).along(rows)
    assert np.corrcoef(before, whole)[0, 1] > 0.9


def test_groups_are_too_few_or_a_size_is_not_known() -> None:
    rows = np.pad(np.random.default_rng(3).standard_normal((12, 3)), ((0, 0), (0, 8416)))
    own = [LabelledSet(embeddings=rows, labels=rows[:, 0] - 2 * np.arange(12))]
    config, times = RegressionConfig(radial=0, emphasis={}), [float(2 + k) for k in range(12)]
    assert fit_enlargement(own, 0, times, [f"{k}" for k in range(12)], config) is not None
    assert fit_enlargement(own, 0, times, [f"{k % 4}" for k in range(12)], config) is None
    assert fit_enlargement(own, 0, [*times[1:], None], [f"{k}" for k in range(12)], config) is None
    assert fit_enlargement(own, 0, (), (), config) is None


def test_a_student_counts_it_where_the_run_says_how_a_picture_was_shown(student: Student, tmp_path: Path) -> None:
    path = clips.write_image(tmp_path / "a.png", width=80, height=60)
    assert isinstance(student._head, Line)
    taught = Student(
        student._network, replace(student._head, enlargement=Enlargement(0.5, 2.0, 1.0, 3.0)), student.card
    )
    taught.save(tmp_path / "student")
    loaded = Student.load(tmp_path / "student")

    def scores(shown: tuple[int, int] | None) -> list[float]:
        views = look(Clip(clip_id="a", uri=str(path)), ViewsConfig.model_validate(VIEWS | {"shown_size": shown}))
        found = [one.score([views])[0] for one in (student, taught, loaded)]
        return [one.score for one in found if isinstance(one, Score) and one.score is not None]

    plain, same, read = scores(None)
    assert plain == same == read
    for times, is_below in ((2, False), (8, True)):
        plain, counted, read = scores((80 * times, 60 * times))
        assert counted == read != plain
        assert (counted < plain) == is_below
