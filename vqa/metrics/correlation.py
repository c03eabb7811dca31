"""Agreement of two lists of numbers [N]: ranks, line, distance. Each is NaN where the data define no such number."""

import numpy as np
import scipy  # its parts load when first used
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]


def srcc(scores: ArrayLike, opinions: ArrayLike) -> float:
    """Spearman's rank correlation, -1 to 1, ties sharing ranks; NaN for fewer than two clips or a constant."""
    return _correlation(scipy.stats.spearmanr, scores, opinions)


def plcc(scores: ArrayLike, opinions: ArrayLike) -> float:
    """Pearson's linear correlation, -1 to 1, without a fit before it; NaN for fewer than two clips or a constant."""
    return _correlation(scipy.stats.pearsonr, scores, opinions)


def krcc(scores: ArrayLike, opinions: ArrayLike) -> float:
    """Kendall's rank correlation tau-b, -1 to 1 (Kendall 1945); NaN for fewer than two clips or a constant."""
    return _correlation(scipy.stats.kendalltau, scores, opinions)


def _correlation(statistic: object, scores: ArrayLike, opinions: ArrayLike) -> float:
    x, y = pair(scores, opinions)
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(statistic(x, y).statistic)  # type: ignore[operator]  # scipy has no types


def rmse(predicted: ArrayLike, opinions: ArrayLike) -> float:
    """Root of the mean squared difference, in units of the opinions; NaN for no clips."""
    x, y = pair(predicted, opinions)
    return float(np.sqrt(np.mean((x - y) ** 2))) if len(x) else float("nan")


def mae(predicted: ArrayLike, opinions: ArrayLike) -> float:
    """Mean absolute difference, in units of the opinions; NaN for no clips."""
    x, y = pair(predicted, opinions)
    return float(np.mean(np.abs(x - y))) if len(x) else float("nan")


def outlier_ratio(predicted: ArrayLike, opinions: ArrayLike, spreads: ArrayLike) -> float:
    """Share (0 to 1) of clips predicted more than two spreads away from their opinion; NaN for no clips.

    VQEG FR-TV Phase I (2000), metric 4, takes as spread the standard error of the mean opinion.
    """
    x, y = pair(predicted, opinions)
    return float(np.mean(np.abs(x - y) > 2 * np.asarray(spreads, dtype=np.float64))) if len(x) else float("nan")


def pairwise_accuracy(scores: ArrayLike, opinions: ArrayLike) -> float:
    """Share (0 to 1) of the pairs of unequal opinion that scores put in the same order; equal scores count a half.

    NaN where no two opinions differ.
    """
    x, y = pair(scores, opinions)
    pairs = _pairs(len(x)) - tied_pairs(y)
    if pairs == 0:
        return float("nan")
    tau = krcc(x, y)
    if np.isnan(tau):  # equal scores
        return 0.5
    agreeing_minus_opposing = tau * np.sqrt((_pairs(len(x)) - tied_pairs(x)) * pairs)
    return float(0.5 + agreeing_minus_opposing / pairs / 2)


def tied_pairs(values: Numbers) -> int:
    """How many pairs of equal values there are."""
    _, counts = np.unique(values, return_counts=True)
    return int((counts * (counts - 1) // 2).sum())


def _pairs(count: int) -> int:
    return count * (count - 1) // 2


def pair(scores: ArrayLike, opinions: ArrayLike) -> tuple[Numbers, Numbers]:
    """Both as float64 [N]; ValueError where the lengths differ."""
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(opinions, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"scores of shape {x.shape} and opinions of shape {y.shape}: wanted two lists of one length")
    return x, y
