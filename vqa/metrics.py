"""How well scores follow opinions; numpy and scipy only."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


def srcc(scores: ArrayLike, opinions: ArrayLike) -> float:
    """Spearman's rank correlation, -1 to 1, ties sharing ranks; NaN for fewer than two clips or a constant."""
    return _correlation(stats.spearmanr, scores, opinions)


def plcc(scores: ArrayLike, opinions: ArrayLike) -> float:
    """Pearson's linear correlation, -1 to 1, without a fit before it; NaN for fewer than two clips or a constant."""
    return _correlation(stats.pearsonr, scores, opinions)


def _correlation(statistic: object, scores: ArrayLike, opinions: ArrayLike) -> float:
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(opinions, dtype=np.float64)
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(statistic(x, y).statistic)  # type: ignore[operator]  # scipy has no types
