"""Tests of dependent correlations against published examples; paired bootstrap; Holm; Krasula's areas; conformal."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from tests.support import slow_metrics as slow
from vqa.metrics.conformal import half_width, share_interval
from vqa.metrics.intervals import draws, interval, replicates
from vqa.metrics.pairs import analyse_pairs
from vqa.metrics.significance import bootstrap_p, holm, meng, steiger


def test_mengs_own_example() -> None:
    z, p = meng(0.63, -0.03, -0.19, clips=15)  # Meng, Rosenthal, Rubin 1992, p. 173
    assert (round(z, 2), round(p / 2, 3)) == (1.68, 0.047)


@pytest.mark.parametrize(("between", "z"), [(0.0, 2.03), (0.3, 2.32), (0.5, 2.66), (0.8, 4.05)])
def test_meng_as_tabled_by_may_and_hittner_1997(between: float, z: float) -> None:
    assert round(meng(0.7, 0.4, between, clips=50)[0], 2) == z


def test_both_as_computed_by_silver_hittner_and_may_2006() -> None:
    assert [round(value, 4) for value in meng(0.3, 0.4, 0.5, clips=100)] == [-1.0707, 0.2843]
    assert [round(value, 4) for value in steiger(0.3, 0.4, 0.5, clips=100)] == [-1.0718, 0.2838]


def test_steigers_own_example() -> None:
    # Steiger 1980, p. 249, case A; he rounds the covariance to .0042 and so comes to -.8913
    assert steiger(0.4, 0.5, 0.1, clips=103)[0] == pytest.approx(-0.8887185, abs=1e-7)


@pytest.mark.parametrize("test", [meng, steiger])
def test_where_there_is_no_test_there_is_no_number(test: type) -> None:
    for values in ((0.5, 0.6, 1.0), (1.0, 0.6, 0.5), (math.nan, 0.6, 0.5)):
        assert all(map(math.isnan, test(*values, clips=50)))
    assert all(map(math.isnan, test(0.5, 0.6, 0.5, clips=3)))


def test_p_values_are_level_where_models_are_alike() -> None:
    """Of two models equally good in the population about one in twenty samples says otherwise at 5 %."""
    rng = np.random.default_rng(0)
    low = {"meng": 0, "steiger": 0, "bootstrap": 0}
    for seed in range(200):
        opinion = rng.normal(size=100)
        first, second = opinion + rng.normal(size=100), opinion + rng.normal(size=100)
        r = np.corrcoef([first, second, opinion])
        low["meng"] += meng(r[0, 2], r[1, 2], r[0, 1], clips=100)[1] < 0.05
        low["steiger"] += steiger(r[0, 2], r[1, 2], r[0, 1], clips=100)[1] < 0.05
        drawn = [replicates(x, opinion, resamples=200, seed=seed)["plcc"] for x in (first, second)]
        low["bootstrap"] += bootstrap_p(drawn[0] - drawn[1]) < 0.05
    assert all(2 <= count <= 24 for count in low.values()), low


def test_bootstrap_p_is_never_zero_and_symmetric() -> None:
    assert bootstrap_p(np.full(999, 0.2)) == pytest.approx(2 / 1000)
    draws = np.random.default_rng(0).normal(0.1, 1, 500)
    assert bootstrap_p(draws) == bootstrap_p(-draws)
    assert bootstrap_p(np.zeros(100)) == 1.0
    assert math.isnan(bootstrap_p(np.full(10, math.nan)))


def test_holm_on_a_known_example_and_around_gaps() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    adjusted = holm([0.02, math.nan, 0.6])
    assert adjusted[0] == pytest.approx(0.04)
    assert math.isnan(adjusted[1])
    assert holm([]) == []


def test_krasulas_areas_are_those_of_all_pairs() -> None:
    rng = np.random.default_rng(1)
    y = np.round(rng.uniform(1, 5, 24), 1)
    x, errors = np.round(y + rng.normal(0, 0.6, 24), 1), rng.uniform(0.1, 0.4, 24)
    for given in ({"apart": 0.9}, {"errors": errors}):
        different, similar, agreed = [], [], []
        for i in range(24):
            for j in range(i + 1, 24):
                limit = 1.959963984540054 * math.hypot(errors[i], errors[j]) if "errors" in given else 0.9
                dy, dx = y[i] - y[j], x[i] - x[j]
                (different if abs(dy) > limit else similar).append(abs(dx))
                if abs(dy) > limit:
                    agreed.append(dx * slow.sign(dy))
        found = analyse_pairs(x, y, **given)
        assert found.auc_different_similar == pytest.approx(slow.auc(different, similar))
        assert found.auc_better_worse == pytest.approx(slow.auc(agreed, [-v for v in agreed]))
        assert (found.pairs, found.different) == (276, len(different))


def test_krasula_of_many_clips_is_drawn_and_near_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    y = rng.uniform(1, 5, 500)
    x = y + rng.normal(0, 0.6, 500)
    whole = analyse_pairs(x, y, apart=0.5)
    monkeypatch.setattr("vqa.metrics.pairs.MAX_PAIRS", 20_000)
    drawn = analyse_pairs(x, y, apart=0.5)
    assert (drawn.pairs, drawn.pairs_of_all) == (20_000, whole.pairs)
    assert drawn.auc_different_similar == pytest.approx(whole.auc_different_similar, abs=0.02)
    assert drawn.auc_better_worse == pytest.approx(whole.auc_better_worse, abs=0.01)


def areas_of_weights(x: np.ndarray, y: np.ndarray, apart: float) -> Callable[[np.ndarray], np.ndarray]:
    """Krasula's two areas [2, b] by every pair of pairs, of clips that count as the weights [N, b] say."""
    first, second = np.triu_indices(len(x), 1)
    by_score, by_opinion = x[first] - x[second], y[first] - y[second]
    far = np.abs(by_opinion) > apart
    agreed, sizes = (by_score * np.sign(by_opinion))[far], np.abs(by_score)
    won = [(np.sign(a[:, None] - b) + 1) / 2 for a, b in ((sizes[far], sizes[~far]), (agreed, -agreed))]

    def areas(weights: np.ndarray) -> np.ndarray:
        counts = weights[first] * weights[second]
        shares = [part / part.sum(axis=0) for part in (counts[far], counts[~far], counts[far], counts[far])]
        return np.array([np.sum(shares[2 * at] * (marks @ shares[2 * at + 1]), axis=0) for at, marks in enumerate(won)])

    return areas


def test_krasulas_influences_are_derivatives() -> None:
    rng = np.random.default_rng(3)
    y = np.round(rng.uniform(1, 5, 20), 1)
    x = np.round(y + rng.normal(0, 0.8, 20), 1)
    found, areas = analyse_pairs(x, y, apart=0.9), areas_of_weights(x, y, 0.9)
    step = 1e-5 * np.eye(20)
    slopes = (areas(1 + step) - areas(1 - step)) / 2e-5
    assert found.influence_different_similar == pytest.approx(slopes[0], abs=1e-7)
    assert found.influence_better_worse == pytest.approx(slopes[1], abs=1e-7)


def test_krasulas_intervals_are_those_of_areas_measured_on_each_resample() -> None:
    rng = np.random.default_rng(4)
    y = rng.uniform(1, 5, 50)
    x = y + rng.normal(0, 0.8, 50)
    found, areas = analyse_pairs(x, y, apart=0.57), areas_of_weights(x, y, 0.57)
    followed = {
        "different": (found.auc_different_similar, found.influence_different_similar),
        "better": (found.auc_better_worse, found.influence_better_worse),
    }
    quick = replicates(x, y, areas=followed, resamples=200)
    counts = np.concatenate(list(draws(50, 200, 0)), axis=1).astype(float)
    for name, measured in zip(followed, areas(counts), strict=True):
        assert np.corrcoef(quick[name], measured)[0, 1] > 0.9
        assert interval(quick[name]) == pytest.approx(interval(measured), abs=0.02)


def test_areas_at_the_end_of_their_range_do_not_move() -> None:
    x = np.linspace(1, 5, 30)
    perfect = analyse_pairs(x, x, apart=0.5)
    made = replicates(x, x, areas={"better": (1.0, perfect.influence_better_worse)}, resamples=20)
    assert (made["better"] == 1.0).all()


def test_conformal_width_covers_new_clips_as_often_as_it_says() -> None:
    assert half_width(range(1, 10)) == 9  # ceil(10 x 0.9) = 9th of nine
    assert half_width(range(8)) == math.inf
    rng = np.random.default_rng(0)
    covered = [np.mean(np.abs(rng.standard_t(3, 400)) <= half_width(rng.standard_t(3, 200))) for _ in range(200)]
    assert 0.89 <= np.mean(covered) <= 0.92


def test_wilsons_interval() -> None:
    low, high = share_interval(90, 100)  # Wilson 1927: (0.8256, 0.9448)
    assert (round(low, 4), round(high, 4)) == (0.8256, 0.9448)
