"""Curves: found again from points on them, never worse than a line, and honest where there is none."""

import numpy as np
import pytest
from scipy import optimize

from vqa.metrics import plcc, rmse
from vqa.metrics.fits import CURVES, CurveFit, fit_isotonic, fit_line, fit_logistic4, fit_logistic5, rises


def points(seed: int = 0, clips: int = 150) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.4, clips)


def test_a_logistic_is_found_again_from_points_on_it() -> None:
    x = points()
    made = CurveFit(kind="logistic4", parameters=(4.5, 1.4, -0.11, 0.052), converged=True)
    found = fit_logistic4(x, made(x))
    assert found is not None
    assert found.converged
    assert found.parameters == pytest.approx(made.parameters, rel=1e-3)


def test_a_logistic_with_a_line_is_found_again() -> None:
    x = points()
    made = CurveFit(kind="logistic5", parameters=(1.1, 33.0, -0.1, 6.0, 3.5), converged=True)
    found = fit_logistic5(x, made(x))
    assert found is not None
    assert found.parameters == pytest.approx(made.parameters, rel=1e-2)


@pytest.mark.parametrize(("kind", "fit"), [("logistic4", fit_logistic4), ("logistic5", fit_logistic5)])
@pytest.mark.parametrize("seed", range(3))
def test_no_search_over_all_parameters_does_better(kind: str, fit: type, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(50, 20, 120)
    y = 1 + 4 / (1 + np.exp(-(x - 55) / 12)) + rng.normal(0, 0.4, 120)
    found = fit(x, y)
    again, _ = optimize.curve_fit(lambda x, *b: CURVES[kind](x, np.array(b)), x, y, p0=found.parameters, maxfev=20_000)
    assert rmse(found(x), y) <= rmse(CURVES[kind](x, again), y) * (1 + 1e-6)
    assert plcc(found(x), y) >= plcc(x, y) - 1e-6


def test_a_straight_relation_is_said_to_be_one() -> None:
    x = points()
    found = fit_logistic4(x, 3 * x + 2)
    assert found is not None
    assert "straight" in found.note
    assert rmse(found(x), 3 * x + 2) < 1e-3


def test_units_of_the_scores_do_not_matter() -> None:
    rng = np.random.default_rng(5)
    x = rng.random(200)
    y = np.tanh(3 * x) + rng.normal(0, 0.1, 200)
    small, large = fit_logistic4(x, y), fit_logistic4(1e4 * x - 7e3, y)
    assert small is not None
    assert large is not None
    assert small(x) == pytest.approx(large(1e4 * x - 7e3), abs=1e-4)


def test_a_falling_relation_is_seen() -> None:
    x = points()
    for y, up in ((np.tanh(5 * x), True), (-np.tanh(5 * x), False)):
        fit = fit_logistic4(x, y)
        assert fit is not None
        assert rises(fit, x) is up


@pytest.mark.parametrize("x", [[], [1, 2, 3, 4], [2, 2, 2, 2, 2]])
def test_no_curve_through_nothing(x: list[float]) -> None:
    y = list(range(len(x)))
    assert fit_logistic4(x, y) is None
    assert fit_logistic5(x, y) is None


def test_isotonic_never_falls_and_is_the_best_of_its_kind() -> None:
    assert fit_isotonic([], []) is None
    rng = np.random.default_rng(1)
    x = np.round(rng.random(80), 2)
    y = x + rng.normal(0, 0.3, 80)
    fit = fit_isotonic(x, y)
    assert fit is not None
    assert np.all(np.diff(fit(np.linspace(-1, 2, 500))) >= 0)
    expected = _pooled(x, y)
    assert fit(x) == pytest.approx(expected, abs=1e-9)


def _pooled(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Level at each clip by the max-min formula of isotonic regression, clip by clip."""
    order = sorted(set(x.tolist()))

    def mean(low: float, high: float) -> float:
        return float(y[(x >= low) & (x <= high)].mean())

    level = {v: max(min(mean(a, b) for b in order if b >= v) for a in order if a <= v) for v in order}
    return np.array([level[v] for v in x.tolist()])


@pytest.mark.parametrize(("slope", "start", "noise"), [(1.0, 0.0, 0.3), (1.0, -0.6, 0.3), (0.5, 1.4, 0.2)])
def test_a_line_is_the_likeliest_by_the_distribution_itself(slope: float, start: float, noise: float) -> None:
    """The evidence and the posterior mean, by dense matrices over the same grid of variances."""
    rng = np.random.default_rng(3)
    x = rng.uniform(1, 5, 30)
    y = slope * x + start + rng.normal(0, noise, 30)
    columns = np.stack([np.ones(30), (x - x.mean()) / x.std()], 1)
    ratios = np.append(0.0, np.geomspace(1e-3, 1e6, 46))
    best, kept = -np.inf, np.zeros(2)
    for both in np.stack(np.meshgrid(ratios, ratios), -1).reshape(-1, 2):
        spread = np.eye(30) + columns * both @ columns.T
        solved = np.linalg.solve(spread, y - x)
        evidence = -np.linalg.slogdet(spread)[1] / 2 - 15 * np.log((y - x) @ solved)
        if evidence > best:
            best, kept = evidence, both * (columns.T @ solved)
    found = fit_line(x, y)
    assert found is not None
    assert found(x) == pytest.approx(x + columns @ kept, abs=1e-6)


def test_a_line_stays_at_the_scores_until_clips_say_otherwise() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 5, 40)
    noise = rng.normal(0, 0.3, 40)
    noise -= np.polyval(np.polyfit(x, noise, 1), x)  # nothing a line could tell
    stays, moves = fit_line(x, x + noise), fit_line(x, 0.5 * x + 1 + noise)
    assert stays is not None
    assert moves is not None
    assert stays.parameters == (1.0, 0.0)
    assert moves.parameters == pytest.approx((0.5, 1.0), abs=0.02)
    far = fit_line(100 * x, x + noise)  # of another scale
    assert far is not None
    assert far.parameters == pytest.approx((0.01, 0), abs=1e-4)
    assert fit_line(x[:2], x[:2]) is None
    assert fit_line(np.ones(9), x[:9]) is None
