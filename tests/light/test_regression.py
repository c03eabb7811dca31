"""One direction through sets that do not share a scale."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from vqa.light.config import RegressionConfig
from vqa.light.embedding import SIZE
from vqa.light.regression import LabelledSet, fit_direction

Array = NDArray[np.float64]
PLAIN = RegressionConfig(strength=1e-6, emphasis={})


def drawn(seed: int, truth: Array, *, count: int, gain: float, offset: float) -> LabelledSet:
    embeddings = np.zeros((count, SIZE))
    embeddings[:, :3] = np.random.default_rng(seed).standard_normal((count, 3))
    return LabelledSet(embeddings=embeddings, labels=gain * (embeddings[:, :3] @ truth) + offset)


def test_sets_on_other_scales_agree_on_the_direction() -> None:
    truth = np.array([1.0, -2.0, 0.5])
    sets = [drawn(0, truth, count=60, gain=1.0, offset=3.0), drawn(1, truth, count=90, gain=40.0, offset=-7.0)]
    found = fit_direction(sets, PLAIN).weights[:3]
    assert found / np.linalg.norm(found) == pytest.approx(truth / np.linalg.norm(truth), abs=5e-3)


def test_a_ladder_of_weight_zero_changes_no_order_and_a_heavy_one_wins() -> None:
    people = drawn(0, np.array([1.0, 0.0, 0.0]), count=60, gain=1.0, offset=0.0)
    other = drawn(1, np.array([0.0, 1.0, 0.0]), count=60, gain=1.0, offset=0.0)
    test = drawn(2, np.array([1.0, 0.0, 0.0]), count=50, gain=1.0, offset=0.0)

    def weighted(weight: float) -> Array:
        """Places of the test on the direction."""
        ladder = LabelledSet(embeddings=other.embeddings, labels=other.labels, weight=weight)
        return fit_direction([people, ladder], PLAIN).along(test.embeddings)

    assert spearmanr(weighted(0.0), test.labels).statistic > 0.999
    assert spearmanr(weighted(100.0), test.embeddings[:, 1]).statistic > 0.99
