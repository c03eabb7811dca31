"""Bootstrap: every resample's statistics are those of the clips written out and measured by scipy; paired; covering."""

import math

import numpy as np
import pytest
from scipy import stats

from vqa import metrics
from vqa.metrics import intervals
from vqa.metrics.fits import fit_logistic4
from vqa.metrics.intervals import draws, interval, replicates


def sample(seed: int, clips: int, decimals: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.uniform(1, 5, clips)
    return np.round(y + rng.normal(0, 0.7, clips), decimals), np.round(y, decimals)


@pytest.mark.parametrize("decimals", [0, 1, 9], ids=["many ties", "some ties", "no ties"])
def test_each_resample_is_measured_as_if_written_out(decimals: int) -> None:
    x, y = sample(decimals, 40, decimals)
    curve, spreads = x + 0.1 * x**2, np.full(40, 0.4)
    made = replicates(x, y, mapped={"logistic4": curve}, spreads=spreads, resamples=30, seed=3)
    counts = np.concatenate(list(draws(40, 30, 3)), axis=1)
    assert (counts.sum(axis=0) == 40).all()
    for number in range(30):
        clips = np.repeat(np.arange(40), counts[:, number])
        a, b, c = x[clips], y[clips], curve[clips]
        expected = {
            "srcc": stats.spearmanr(a, b).statistic,
            "krcc": stats.kendalltau(a, b).statistic,
            "plcc": stats.pearsonr(a, b).statistic,
            "pairwise_accuracy": metrics.pairwise_accuracy(a, b),
            "rmse": metrics.rmse(a, b),
            "mae": metrics.mae(a, b),
            "plcc_logistic4": stats.pearsonr(c, b).statistic,
            "rmse_logistic4": metrics.rmse(c, b),
            "mae_logistic4": metrics.mae(c, b),
            "outlier_ratio": metrics.outlier_ratio(c, b, spreads[clips]),
        }
        assert {name: values[number] for name, values in made.items()} == pytest.approx(expected, abs=1e-9)


def test_the_same_seed_draws_the_same_clips_for_every_model() -> None:
    x, y = sample(0, 50, 9)
    one, two = replicates(x, y, resamples=200), replicates(2 * x + 1, y, resamples=200)
    assert one["srcc"] == pytest.approx(two["srcc"], abs=1e-12)
    assert not np.allclose(one["srcc"], replicates(x, y, resamples=200, seed=1)["srcc"])


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    truth, hits = 0.8, 0
    for seed in range(150):
        pairs = rng.multivariate_normal([0, 0], [[1, truth], [truth, 1]], size=80)
        found = interval(replicates(pairs[:, 0], pairs[:, 1], resamples=400, seed=seed)["plcc"])
        assert found is not None
        hits += found[0] <= truth <= found[1]
    assert 0.87 <= hits / 150 <= 0.99


def test_fitting_the_curve_anew_in_each_resample_changes_little() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(0, 1, 300)
    y = np.tanh(x) + rng.normal(0, 0.4, 300)
    fit = fit_logistic4(x, y)
    assert fit is not None
    held = replicates(x, y, mapped={"logistic4": fit(x)}, resamples=120, seed=4)["plcc_logistic4"]
    counts = np.concatenate(list(draws(300, 120, 4)), axis=1)
    refitted = []
    for number in range(120):
        clips = np.repeat(np.arange(300), counts[:, number])
        again = fit_logistic4(x[clips], y[clips])
        assert again is not None
        refitted.append(metrics.plcc(again(x[clips]), y[clips]))
    assert np.abs(held - refitted).max() < 0.01  # the interval is about 0.08 wide
    assert (np.array(refitted) >= held - 1e-6).all()


def test_resamples_without_a_number_are_left_out_or_there_is_no_interval() -> None:
    assert interval(np.array([math.nan] + [0.5] * 99)) == (0.5, 0.5)
    assert interval(np.array([math.nan] * 10 + [0.5] * 90)) is None
    assert interval(np.array([])) is None
    constant = replicates([1, 1, 1], [1, 2, 3], resamples=50)
    assert interval(constant["srcc"]) is None
    assert interval(constant["rmse"]) is not None


def test_above_the_limit_parts_of_the_clips_give_the_same_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = sample(1, 6_000, 2)
    areas = {"area": (0.7, (x - x.mean()) / 6_000 / 20)}
    given = {"mapped": {"logistic4": x}, "spreads": np.full(6_000, 0.4), "areas": areas, "resamples": 2_000}
    exact = replicates(x, y, **given | {"resamples": 300})
    monkeypatch.setattr(intervals, "MOST_CLIPS", 1_000)
    monkeypatch.setattr(intervals, "PART_CLIPS", 60)
    coarse = replicates(x, y, **given)
    assert set(coarse) == set(exact)
    for name, values in coarse.items():
        assert values.shape == (2_000,) and np.std(values) == pytest.approx(np.std(exact[name]), rel=0.35), name
        assert np.mean(values) == pytest.approx(np.mean(exact[name]), abs=3 * np.std(exact[name])), name


def test_a_hundred_thousand_clips_have_all_their_statistics() -> None:
    x, y = sample(2, 100_000, 3)
    assert metrics.pairwise_accuracy(x, y) == pytest.approx(0.5 + metrics.krcc(x, y) / 2, abs=1e-3)
    made = replicates(x, y, resamples=50)
    assert all(np.isfinite(values).all() for values in made.values())
