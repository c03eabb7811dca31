"""Krasula's analysis of pairs: different or similar, better or worse.

L. Krasula, K. Fliegel, P. Le Callet, M. Klima: On the accuracy of objective image and video quality models: new
methodology for performance evaluation. QoMEX 2016.
"""

from dataclasses import dataclass

import numpy as np
import scipy  # its parts load when first used
from numpy.typing import ArrayLike

from vqa.metrics.correlation import Numbers, pair

MAX_PAIRS = 2_000_000  # more would cost seconds and gigabytes; the clips themselves are a far rougher sample


@dataclass(frozen=True, slots=True, kw_only=True)
class PairAnalysis:
    """Areas under two ROC curves, 0 to 1 (chance: 0.5); NaN where a class is empty."""

    auc_different_similar: float  # does the size of the difference in score tell different pairs from similar ones?
    auc_better_worse: float  # of different pairs: does the sign tell the better clip?
    pairs: int  # looked at
    pairs_of_all: int
    different: int
    influence_different_similar: Numbers  # [N]: how fast the area grows as a clip is counted more often; sums to 0
    influence_better_worse: Numbers


def analyse_pairs(
    scores: ArrayLike, opinions: ArrayLike, *, errors: ArrayLike | None = None, apart: float = 0.0, seed: int = 0
) -> PairAnalysis:
    """Both areas over all pairs of clips, or over MAX_PAIRS random ones of more.

    A pair is different where its opinions differ by more than 1.96 of their joint standard error or, without errors, by
    more than `apart`. Each pair of the second analysis counts in both orders, so that the order of the clips does not
    matter.

    Args:
        scores: [N].
        opinions: [N].
        errors: [N], standard error of each mean opinion.
        apart: in points of the opinions' scale.
        seed: of random pairs.

    Raises:
        ValueError: for lists of different lengths.
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
        different = np.abs(by_opinion) > scipy.stats.norm.ppf(0.975) * np.sqrt(variance[first] + variance[second])
    agreed = by_score[different] * np.sign(by_opinion[different])
    far, near = np.abs(by_score[different]), np.abs(by_score[~different])
    above, below = _won(far, near), 1 - _won(near, far)
    better = _won(agreed, -agreed)  # as positive and, seen from the other side, as negative
    clips = (first[different], second[different])
    return PairAnalysis(
        auc_different_similar=_mean(above),
        auc_better_worse=_mean(better),
        pairs=len(first),
        pairs_of_all=total,
        different=int(different.sum()),
        influence_different_similar=_influence(above, clips, len(x))
        + _influence(below, (first[~different], second[~different]), len(x)),
        influence_better_worse=2 * _influence(better, clips, len(x)),
    )


def _won(ones: Numbers, others: Numbers) -> Numbers:
    """Share of `others` below each of `ones`, equal ones counting a half.

    Its mean is the area under the ROC curve (Mann and Whitney 1947). Empty where there are no others.
    """
    if not len(others):
        return np.empty(0)
    ordered = np.sort(others)
    return (np.searchsorted(ordered, ones, "left") + np.searchsorted(ordered, ones, "right")) / 2 / len(others)


def _mean(values: Numbers) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _influence(won: Numbers, clips: tuple[np.ndarray, np.ndarray], count: int) -> Numbers:
    """Derivative of the mean of `won`, one value per pair, by the count of each clip.

    A pair counts as its clips do.
    """
    if not len(won):
        return np.zeros(count)
    off = (won - won.mean()) / len(won)
    return np.asarray(sum(np.bincount(side, weights=off, minlength=count) for side in clips), dtype=np.float64)
