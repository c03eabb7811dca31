"""Terms of one answer against its clip's opinion: scores [B, K], opinions [B] -> [B, K]; unparsed answers get 0."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def threshold(scores: Numbers, opinions: Numbers, *, within: float, inclusive: bool = False) -> Numbers:
    """1 where |s - g| < `within` (or <= where `inclusive`), else 0.

    Q-Insight (arXiv 2503.22679): below 0.35. Refine-IQA (2508.03763): up to 0.5.
    """
    error = _error(scores, opinions)
    return (error <= within if inclusive else error < within).astype(float)


def linear(scores: Numbers, opinions: Numbers, *, width: float = 4.0) -> Numbers:
    """`1 - |s - g| / width`, not below 0. Ours: stands in where a paper's continuous accuracy was NOT FOUND."""
    return np.nan_to_num(np.maximum(0.0, 1.0 - _error(scores, opinions) / width))


def relative(scores: Numbers, opinions: Numbers) -> Numbers:
    """`1 - min(1, |s - g| / |g|)`, relative L1 of VQ-Insight (arXiv 2506.18564); an opinion of 0 pays exact hits alone.

    The paper's opinions are on 0-100. Only the ratio enters: 1-5 here is as 20-100 there.
    """
    error = _error(scores, opinions)
    size = np.abs(opinions)[:, None]
    ratio = np.divide(error, size, out=np.where(error > 0, 1.0, error), where=size > 0)
    paid: Numbers = np.nan_to_num(1.0 - np.minimum(1.0, ratio))
    return paid


def laplace(scores: Numbers, opinions: Numbers, *, scale: float = 0.30) -> Numbers:
    """`exp(-|s - g| / scale)`; Q-Hawkeye (arXiv 2601.22920): 0.30."""
    return np.nan_to_num(np.exp(-_error(scores, opinions) / scale))


def gaussian(scores: Numbers, opinions: Numbers, *, sigma: float) -> Numbers:
    """`exp(-(s - g)^2 / (2 sigma^2))`, sigma in points of the opinions' scale.

    VQAThinker (arXiv 2508.06051) 0.5; OmniQuality-R (2510.10609) 0.8 at its start; Aes-R1 (2509.21871) 0.1 of a 0-1
    scale, which is 0.4 of 1-5.
    """
    return np.nan_to_num(np.exp(-0.5 * (_error(scores, opinions) / sigma) ** 2))


def decimals(values: Numbers, *, factor: float = 0.8) -> Numbers:
    """`factor` where a number of the answer has fewer than two decimals, trailing zeros not counted; else 1.

    VQAThinker (arXiv 2508.06051), times the Gaussian: 3.40 counts as 3.4. Values [B, K, D] as read from the text.
    """
    tenths = values * 10
    is_short = np.abs(tenths - np.round(tenths)) < 1e-4  # room for numbers that went through float32
    return np.where(is_short.any(axis=2), factor, 1.0)


def rank_to_truth(scores: Numbers, opinions: Numbers, *, hit: float = 0.02) -> Numbers:
    """1 within `hit` of the opinion, else exp(-|rank(s) - rank(g)| / (n + 1)) among the n parsed answers and g.

    Equal values share the first rank. PreResQ-R1's image script (arXiv 2511.05393, released code).
    """
    known = ~np.isnan(scores)
    truth = opinions[:, None]
    rank = (scores[:, None, :] < scores[:, :, None]).sum(axis=2) + (truth < scores)
    of_truth = (scores < truth).sum(axis=1, keepdims=True)
    far = np.exp(-np.abs(rank - of_truth) / (known.sum(axis=1, keepdims=True) + 1))
    return np.where(known & ~np.isnan(truth), np.where(_error(scores, opinions) < hit, 1.0, far), 0.0)


def degradation(
    classes: NDArray[np.object_],
    severities: NDArray[np.object_],
    true_classes: NDArray[np.object_],
    true_severities: NDArray[np.object_],
) -> Numbers:
    """0.25 for the right class of damage, 0.75 more when the severity is right too (Q-Insight, arXiv 2503.22679).

    Answers [B, K], truths [B]; an empty true class is a clip without this task, which gets 0.
    """
    is_class = (classes == true_classes[:, None]) & (true_classes != "")[:, None]
    paid: Numbers = 0.25 * is_class + 0.75 * (is_class & (severities == true_severities[:, None]))
    return paid


def probability(think: Numbers, no_think: Numbers, earned: Numbers) -> Numbers:
    """`clamp(P_think - P_no_think, 0, 1) * (earned // 2)` (Refine-IQA, arXiv 2508.03763, stage 2).

    Both [B, K]: the chance of the opinion's digit with and without the reasoning; `earned` is the sum of the other
    rewards (threshold and format), so that it is paid only where both are.
    """
    return np.nan_to_num(np.clip(think - no_think, 0.0, 1.0)) * (earned // 2)


def _error(scores: Numbers, opinions: Numbers) -> Numbers:
    return np.abs(scores - opinions[:, None])
