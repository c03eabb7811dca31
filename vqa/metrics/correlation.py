"""Agreement of two lists of numbers: ranks, line, distance."""

import math

import numpy as np
import scipy  # its parts load when first used
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]


def srcc(scores: ArrayLike, opinions: ArrayLike) -> float:
    """Spearman's rank correlation coefficient; ties share ranks.

    Args:
        scores: [N].
        opinions: [N], in the same order.

    Returns:
        -1 to 1; NaN for fewer than two clips or a constant.

    Raises:
        ValueError: for lists of different lengths.
    """
    return _correlation(scipy.stats.spearmanr, scores, opinions)


def plcc(scores: ArrayLike, opinions: ArrayLike) -> float:
    """Pearson's linear correlation coefficient, without a fit before it.

    Args:
        scores: [N].
        opinions: [N], in the same order.

    Returns:
        -1 to 1; NaN for fewer than two clips or a constant.

    Raises:
        ValueError: for lists of different lengths.
    """
    return _correlation(scipy.stats.pearsonr, scores, opinions)


def krcc(scores: ArrayLike, opinions: ArrayLike) -> float:
    """Kendall's rank correlation coefficient tau-b (Kendall 1945).

    Args:
        scores: [N].
        opinions: [N], in the same order.

    Returns:
        -1 to 1; NaN for fewer than two clips or a constant.

    Raises:
        ValueError: for lists of different lengths.
    """
    return _correlation(scipy.stats.kendalltau, scores, opinions)


def _correlation(statistic: object, scores: ArrayLike, opinions: ArrayLike) -> float:
    x, y = pair(scores, opinions)
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(statistic(x, y).statistic)  # type: ignore[operator]  # scipy has no types


def rmse(predicted: ArrayLike, opinions: ArrayLike) -> float:
    """Root mean squared error.

    Args:
        predicted: [N], on the scale of the opinions.
        opinions: [N], in the same order.

    Returns:
        In points of the opinions' scale, at least 0; NaN for no clips.

    Raises:
        ValueError: for lists of different lengths.
    """
    x, y = pair(predicted, opinions)
    return float(np.sqrt(np.mean((x - y) ** 2))) if len(x) else float("nan")


def mae(predicted: ArrayLike, opinions: ArrayLike) -> float:
    """Mean absolute error.

    Args:
        predicted: [N], on the scale of the opinions.
        opinions: [N], in the same order.

    Returns:
        In points of the opinions' scale, at least 0; NaN for no clips.

    Raises:
        ValueError: for lists of different lengths.
    """
    x, y = pair(predicted, opinions)
    return float(np.mean(np.abs(x - y))) if len(x) else float("nan")


def outlier_ratio(predicted: ArrayLike, opinions: ArrayLike, spreads: ArrayLike) -> float:
    """Share of clips more than two spreads off (VQEG FR-TV Phase I, 2000, metric 4).

    Args:
        predicted: [N], on the scale of the opinions.
        opinions: [N], in the same order.
        spreads: [N]; VQEG takes the standard error of the mean opinion.

    Returns:
        0 to 1; NaN for no clips.

    Raises:
        ValueError: for lists of different lengths.
    """
    x, y = pair(predicted, opinions)
    return float(np.mean(np.abs(x - y) > 2 * np.asarray(spreads, dtype=np.float64))) if len(x) else float("nan")


def pairwise_accuracy(scores: ArrayLike, opinions: ArrayLike) -> float:
    """Share of pairs of unequal opinion in right order; equal scores count a half.

    Args:
        scores: [N].
        opinions: [N], in the same order.

    Returns:
        0 to 1; NaN where no two opinions differ.

    Raises:
        ValueError: for lists of different lengths.
    """
    x, y = pair(scores, opinions)
    pairs = _pairs(len(x)) - tied_pairs(y)
    if pairs == 0:
        return float("nan")
    tau = krcc(x, y)
    if np.isnan(tau):  # equal scores
        return 0.5
    return 0.5 + tau * math.sqrt((_pairs(len(x)) - tied_pairs(x)) / pairs) / 2


def tied_pairs(values: Numbers) -> int:
    """Number of pairs of equal values in [N]."""
    _, counts = np.unique(values, return_counts=True)
    return int((counts * (counts - 1) // 2).sum())


def _pairs(count: int) -> int:
    return count * (count - 1) // 2


def pair(scores: ArrayLike, opinions: ArrayLike) -> tuple[Numbers, Numbers]:
    """Both lists as float64 [N]; ValueError unless they are vectors of one length."""
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(opinions, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"scores of shape {x.shape} and opinions of shape {y.shape}: wanted two lists of one length")
    return x, y
