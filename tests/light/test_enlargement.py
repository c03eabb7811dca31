"""What a student makes of pictures that were enlarged for their viewers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.light.conftest import VIEWS
from tests.support import clips
from vqa.light.config import RegressionConfig
from vqa.light.distill import fit_enlargement
from vqa.light.embedding import SIZE
from vqa.light.enlargement import KEPT, Enlargement
from vqa.light.regression import LabelledSet, fit_regressor, places_left_out
from vqa.light.student import Line, Student
from vqa.types import Clip, Score
from vqa.views import ViewsConfig, look


def test_places_follow_doublings_within_what_was_learnt_from() -> None:
    drawn = np.random.default_rng(0)
    doublings = drawn.uniform(1, 3, 400)
    places = -doublings + drawn.standard_normal(400)  # the pixels say some of it
    targets = 7 + KEPT * places - 0.1 * doublings - 0.05 * doublings**2 + 0.01 * drawn.standard_normal(400)
    found = Enlargement.fit(places, 2**doublings, targets)
    assert found is not None
    assert (found.gain, found.slope, found.bend, found.offset) == pytest.approx((KEPT, 0.1, 0.05, 7.0), abs=0.02)
    at_one, at_two, beyond, native = found.placed(np.zeros(4), [2.0, 4.0, 64.0, 1.0]).tolist()
    assert at_one - at_two == pytest.approx(0.1 + 0.05 * (4 - 1), abs=0.02)
    assert beyond == found.placed(np.zeros(1), [2 ** doublings.max()])[0]
    assert native == found.placed(np.zeros(1), [2 ** doublings.min()])[0]
    assert found.placed(np.array([0.7, 0.0]), [None, 4.0]).tolist() == [0.7, at_two]


@pytest.mark.parametrize("what", ["alike", "better where enlarged", "best in the middle", "places against opinions"])
def test_pictures_that_do_not_say_change_nothing(what: str) -> None:
    drawn = np.random.default_rng(1)
    doublings = np.full(50, 2.0) if what == "alike" else drawn.uniform(1, 3, 50)
    places = drawn.standard_normal(50)
    targets = {
        "alike": places,
        "better where enlarged": places + doublings,
        "best in the middle": places - (doublings - 2) ** 2,
        "places against opinions": -places - doublings,
    }[what]
    assert Enlargement.fit(places, 2**doublings, targets) is None


def test_rows_are_placed_by_regressors_that_did_not_see_their_fold() -> None:
    """Labels of one fold are turned round: that moves no place of its own rows, but all others."""
    drawn = np.random.default_rng(2)
    rows = np.pad(drawn.standard_normal((30, 3)), ((0, 0), (0, SIZE - 3)))
    folds, labels = np.arange(30) % 3, rows[:, 0]
    config = RegressionConfig(radial=0, emphasis={})
    before, after = (
        places_left_out([LabelledSet(embeddings=rows, labels=one)], 0, folds, config)
        for one in (labels, np.where(folds == 1, -labels, labels))
    )
    assert np.array_equal(before == after, folds == 1)
    whole = fit_regressor([LabelledSet(embeddings=rows, labels=labels)], config).along(rows)
    assert np.corrcoef(before, whole)[0, 1] > 0.9


def test_a_set_s_labels_lie_on_the_line_s_own_scale() -> None:
    """Neither too few groups nor one size that is not known will do."""
    drawn = np.random.default_rng(3)
    rows = np.pad(drawn.standard_normal((40, 3)), ((0, 0), (0, SIZE - 3)))
    doublings = drawn.uniform(1, 3, 40)
    labels = 50 + 10 * (rows[:, 0] - 2.3 * doublings)  # of which the pixels say KEPT, on their own scale
    sets = [LabelledSet(embeddings=rows, labels=one) for one in (rows[:, 0], labels)]
    config, times = RegressionConfig(radial=0, emphasis={}), (2**doublings).tolist()
    regressor = fit_regressor(sets, config)
    groups = [f"{k}" for k in range(40)]
    found = fit_enlargement(sets, 1, regressor, times, groups, config=config)
    assert found is not None
    own, placed = (one for one in (regressor.along(rows), found.placed(regressor.along(rows), times)))
    assert np.corrcoef(placed, sets[1].labels)[0, 1] > 0.97 > np.corrcoef(own, sets[1].labels)[0, 1]
    assert (placed.mean(), placed.std()) == pytest.approx((own.mean(), own.std()), rel=0.2, abs=0.1)
    assert fit_enlargement(sets, 1, regressor, times, [f"{k % 4}" for k in range(40)], config=config) is None
    assert fit_enlargement(sets, 1, regressor, [*times[1:], None], groups, config=config) is None
    assert fit_enlargement(sets, 0, regressor, (), (), config=config) is None


def test_a_student_counts_it_where_the_run_says_how_a_picture_was_shown(student: Student, tmp_path: Path) -> None:
    path = clips.write_image(tmp_path / "a.png", width=80, height=60)
    assert isinstance(student._head, Line)
    taught = Student(
        student._network, replace(student._head, enlargement=Enlargement(1.0, 0.5, 0.0, 1.0, 1.0, 3.0)), student.card
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
