"""Correlations: known values, ranks, three implementations that agree, and no number where there is none."""

import math

import numpy as np
import pytest
from scipy import stats

from tests.support import slow_metrics as slow
from vqa import metrics
from vqa.metrics import krcc, mae, outlier_ratio, pairwise_accuracy, plcc, rmse, srcc


def drawn(seed: int, *, clips: int = 60, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.uniform(1, 5, clips)
    x = y + rng.normal(0, 0.8, clips)
    return (np.round(x, 1), np.round(y, 1)) if ties else (x, y)


def test_known_values() -> None:
    # ranks 1 2 3 4 against 1 3 2 4: 1 - 6 * 2 / (4 * 15) = 0.8; Pearson by hand: 4.5 / sqrt(5 * 5) of these integers
    # is 0.8; of six pairs five agree: tau (5 - 1) / 6
    x, y = [1, 2, 3, 4], [1, 3, 2, 4]
    assert srcc(x, y) == pytest.approx(0.8)
    assert plcc(x, y) == pytest.approx(0.8)
    assert krcc(x, y) == pytest.approx(4 / 6)
    assert pairwise_accuracy(x, y) == pytest.approx(5 / 6)
    assert rmse(x, y) == pytest.approx(math.sqrt(2 / 4))
    assert mae(x, y) == pytest.approx(2 / 4)
    assert outlier_ratio(x, y, [1, 0.4, 0.5, 0]) == 0.25


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["srcc", "plcc", "krcc", "pairwise_accuracy", "rmse", "mae"])
def test_agrees_with_the_definition(name: str, seed: int, ties: bool) -> None:
    x, y = drawn(seed, ties=ties)
    assert getattr(metrics, name)(x, y) == pytest.approx(getattr(slow, name)(x.tolist(), y.tolist()), abs=1e-12)


def test_agrees_with_scipy() -> None:
    x, y = drawn(7)
    assert srcc(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert plcc(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert krcc(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)


def test_ranks_see_order_only() -> None:
    x = np.random.default_rng(0).random(50)
    for statistic in (srcc, krcc, pairwise_accuracy):
        assert statistic(np.exp(5 * x), x) == pytest.approx(1.0)
    assert plcc(np.exp(5 * x), x) < 0.99
    assert srcc(-x, x) == pytest.approx(-1.0)
    assert pairwise_accuracy(-x, x) == pytest.approx(0.0)


@pytest.mark.parametrize(("x", "y"), [([], []), ([1], [2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [2, 2, 2])])
def test_no_number_where_there_is_none(x: list[float], y: list[float]) -> None:
    for statistic in (srcc, plcc, krcc):
        assert math.isnan(statistic(x, y))


def test_no_clips_have_no_distance_and_no_opinions_no_order() -> None:
    assert math.isnan(rmse([], []))
    assert math.isnan(mae([], []))
    assert math.isnan(outlier_ratio([], [], []))
    assert math.isnan(pairwise_accuracy([1, 2], [3, 3]))
    assert pairwise_accuracy([1, 1], [2, 3]) == 0.5


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        srcc([1, 2, 3], [1, 2])
