"""Krasula's analysis: can the model tell pairs that people tell apart, and say which is better?

L. Krasula, K. Fliegel, P. Le Callet, M. Klima: On the accuracy of objective image and video quality models: new
methodology for performance evaluation. QoMEX 2016.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from vqa.metrics.correlation import pair

MAX_PAIRS = 2_000_000  # more would cost seconds and gigabytes; the clips themselves are a far rougher sample


@dataclass(frozen=True, slots=True, kw_only=True)
class PairAnalysis:
    """Areas under two curves, 0 to 1 (a coin: 0.5); NaN where a class holds no pair."""

    auc_different_similar: float  # does the size of the difference in score tell different pairs from similar ones?
    auc_better_worse: float  # of different pairs: does the sign tell the better clip?
    pairs: int  # looked at
    pairs_of_all: int
    different: int


def analyse_pairs(
    scores: ArrayLike, opinions: ArrayLike, *, errors: ArrayLike | None = None, apart: float = 0.0, seed: int = 0
) -> PairAnalysis:
    """Both areas over all pairs of clips [N], or over MAX_PAIRS drawn with `seed` where there are more.

    A pair is different where its opinions differ by more than 1.96 of their joint standard error (`errors` [N], of
    each mean opinion), or, without errors, by more than `apart`. Each pair of the second analysis counts in both
    orders, so that the order of the clips is of no consequence.
    """
    x, y = pair(scores, opinions)
    total = len(x) * (len(x) - 1) // 2
    if total <= MAX_PAIRS:
        first, second = np.triu_indices(len(x), 1)
    else:
        draws = np.random.default_rng(seed).integers(0, (len(x), len(x) - 1), (MAX_PAIRS, 2))
        first, second = draws[:, 0], (draws[:, 0] + 1 + draws[:, 1]) % len(x)
    by_opinion, by_score = y[first] - y[second], x[first] - x[second]
    if errors is None:
        different = np.abs(by_opinion) > apart
    else:
        variance = np.asarray(errors, dtype=np.float64) ** 2
        different = np.abs(by_opinion) > stats.norm.ppf(0.975) * np.sqrt(variance[first] + variance[second])
    agreed = by_score[different] * np.sign(by_opinion[different])
    return PairAnalysis(
        auc_different_similar=_auc(np.abs(by_score[different]), np.abs(by_score[~different])),
        auc_better_worse=_auc(agreed, -agreed),
        pairs=len(first),
        pairs_of_all=total,
        different=int(different.sum()),
    )


def _auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """P(positive > negative) + P(equal) / 2, the area under the ROC curve (Mann and Whitney 1947)."""
    if not len(positive) or not len(negative):
        return float("nan")
    ordered = np.sort(negative)
    below, up_to = np.searchsorted(ordered, positive, "left"), np.searchsorted(ordered, positive, "right")
    return float((below.mean() + up_to.mean()) / 2 / len(negative))
