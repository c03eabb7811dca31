"""Correlations: known values, ranks, and no number where there is none."""

import math

import numpy as np
import pytest

from vqa.metrics import plcc, srcc


def test_known_values() -> None:
    # ranks 1 2 3 4 against 1 3 2 4: 1 - 6 * 2 / (4 * 15) = 0.8; Pearson by hand: 4.5 / sqrt(5 * 5) of these integers
    # is 0.8
    assert srcc([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert plcc([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)


def test_srcc_sees_order_only() -> None:
    x = np.random.default_rng(0).random(50)
    assert srcc(np.exp(5 * x), x) == pytest.approx(1.0)
    assert plcc(np.exp(5 * x), x) < 0.99
    assert srcc(-x, x) == pytest.approx(-1.0)


@pytest.mark.parametrize(("x", "y"), [([], []), ([1], [2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [2, 2, 2])])
def test_no_number_where_there_is_none(x: list[float], y: list[float]) -> None:
    assert math.isnan(srcc(x, y))
    assert math.isnan(plcc(x, y))
