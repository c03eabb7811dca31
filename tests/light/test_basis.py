"""Basis vectors: the formula, the buckets, the file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from tests.light.conftest import VIEWS
from tests.light.test_student import views_of
from tests.support import clips
from vqa.errors import ModelError
from vqa.light.basis import Basis, buckets, fit_vectors, principal, shares
from vqa.light.card import WEIGHTS, StudentCard
from vqa.light.config import BasisConfig
from vqa.light.embedding import SIZE
from vqa.light.encoder import EfficientNetLite0
from vqa.light.student import Student
from vqa.types import Score


def test_a_score_is_the_mean_of_scores_by_likeness() -> None:
    basis = Basis(
        projection=np.diag([2.0, 2.0]),
        offset=np.array([0.0, -2.0]),
        vectors=np.array([[3.0, 0.0], [0.0, 0.5]]),
        scores=np.array([2.0, 4.0]),
        temperature=0.5,
        words=("blur", "noise"),
    )
    points = np.array([[1.0, 1.0], [0.0, 5.0], [1.0, 2.0]])  # projected: (2, 0), (0, 8), (2, 2)
    likely = 1 / (1 + np.exp(-2.0))  # cosines 1 and 0, over 0.5
    assert basis.weights(points)[0] == pytest.approx([likely, 1 - likely])
    assert basis.opinions(points) == pytest.approx([2 + 2 * (1 - likely), 2 + 2 * likely, 3.0])
    assert [basis.nearest(one) for one in points[:2]] == ["blur", "noise"]
    assert replace(basis, words=()).nearest(points[0]) is None


def test_axes_are_standardised_and_ordered_by_variance() -> None:
    generator = np.random.default_rng(0)
    shared = generator.standard_normal((500, 1))
    points = np.concatenate([5 + 3 * shared, -40 * shared, generator.standard_normal((500, 1)), np.ones((500, 1))], 1)
    axes = principal(points, 2)
    assert np.abs(axes.components) == pytest.approx(np.array([[0.5**0.5, 0.5**0.5, 0, 0], [0, 0, 1, 0]]), abs=0.1)
    assert axes.scale[3] == 1  # a constant is not divided by 0
    assert principal(points, None).of(points)[:, :3].std(0) == pytest.approx(1.0)


def test_buckets_are_equal_parts_of_the_range_and_share_the_vectors_by_size() -> None:
    scores = np.array([1.0, 1.1, 1.2, 1.3, 2.6, 4.9, 5.0])
    assert [one.tolist() for one in buckets(scores, 4)] == [[0, 1, 2, 3], [4], [5, 6]]  # none from 3 to 4
    assert shares([4, 1, 2], 5) == [3, 1, 1]
    assert shares([4, 1, 2], 100) == [4, 1, 2]
    assert shares([4, 1, 2], 2) == [1, 1, 1]


def test_vectors_lie_in_their_bucket_and_repeat() -> None:
    generator = np.random.default_rng(0)
    points, scores = generator.standard_normal((200, 8)), generator.uniform(1, 5, 200)
    config = BasisConfig(buckets=4, vectors=12)
    vectors, values = fit_vectors(points, scores, config)
    assert len(vectors) == len(values) == 12
    low = np.sort(values)[:3]
    assert (low > 1).all()
    assert (low < 2).all()  # the quarter of the range from 1 to 2 has a quarter of the vectors
    again, same = fit_vectors(points, scores, config)
    assert (again == vectors).all()
    assert (same == values).all()
    everything, _ = fit_vectors(points, scores, config.model_copy(update={"buckets": 1, "vectors": 200}))
    assert np.linalg.norm(everything, axis=1) == pytest.approx(1.0)  # each point by itself


def test_a_student_with_a_basis_is_saved_and_its_reason_is_marked(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    basis = Basis(
        projection=generator.standard_normal((SIZE, 4)) / 50,
        offset=generator.standard_normal(4),
        vectors=generator.standard_normal((3, 4)),
        scores=np.array([1.5, 3.0, 4.5]),
        temperature=0.07,
        words=("blur", "noise", "nothing"),
    )
    card = StudentCard(name="drawn", views=dict(VIEWS), words=list(basis.words), trained_on=["nothing"])
    student = Student(EfficientNetLite0(), basis, card)
    student.save(tmp_path)
    clips.write_image(tmp_path / "a.png")
    view = views_of(tmp_path / "a.png")
    (found,), (again,) = student.score([view]), Student.load(tmp_path).score([view])
    assert isinstance(found, Score)
    assert isinstance(again, Score)
    assert (found.score, found.reason) == (again.score, again.reason)
    assert found.reason in ("nearest basis: blur", "nearest basis: noise", "nearest basis: nothing")
    assert found.answers == ()

    tensors = load_file(tmp_path / WEIGHTS)
    save_file(tensors | {"basis.scores": tensors["basis.scores"][:2].clone()}, tmp_path / WEIGHTS)
    with pytest.raises(ModelError, match=r"scores \(2,\) where \(3,\) is wanted"):
        Student.load(tmp_path)
