"""Terms of one answer against its clip's opinion."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def threshold(scores: Numbers, opinions: Numbers, *, within: float, inclusive: bool = False) -> Numbers:
    """1 for an answer near the opinion, else 0.

    Q-Insight (arXiv 2503.22679): |s - g| < 0.35. Refine-IQA (arXiv 2508.03763): |s - g| <= 0.5.

    Args:
        scores: [B, K] on 1-5, NaN where unparsed.
        opinions: [B] on 1-5.
        within: limit of |s - g|, in points.
        inclusive: whether the limit itself counts.

    Returns:
        float [B, K], 0 or 1.
    """
    error = _error(scores, opinions)
    return (error <= within if inclusive else error < within).astype(float)


def linear(scores: Numbers, opinions: Numbers, *, width: float = 4.0) -> Numbers:
    """Linear in the error: `1 - |s - g| / width`, not below 0.

    Our own: it stands in where a paper's continuous accuracy was NOT FOUND.

    Args:
        scores: [B, K] on 1-5, NaN where unparsed.
        opinions: [B] on 1-5.
        width: error that pays nothing, in points.

    Returns:
        float [B, K], 0 to 1; 0 where unparsed.
    """
    return np.nan_to_num(np.maximum(0.0, 1.0 - _error(scores, opinions) / width))


def relative(scores: Numbers, opinions: Numbers) -> Numbers:
    """Relative L1 on 0-100, `1 - min(1, |s - g| / |g|)` (arXiv 2506.18564).

    Scores and opinions are mapped from 1-5 to VQ-Insight's 0-100, where an error counts more for a bad clip: half a
    point is 12.5 there, all of it for an opinion of 1.5. An opinion of 1, its 0, pays exact hits alone.

    Args:
        scores: [B, K] on 1-5, NaN where unparsed.
        opinions: [B] on 1-5.

    Returns:
        float [B, K], 0 to 1; 0 where unparsed.
    """
    error = 25.0 * _error(scores, opinions)
    size = 25.0 * np.abs(opinions - 1.0)[:, None]
    ratio = np.divide(error, size, out=np.where(error > 0, 1.0, error), where=size > 0)
    paid: Numbers = np.nan_to_num(1.0 - np.minimum(1.0, ratio))
    return paid


def laplace(scores: Numbers, opinions: Numbers, *, scale: float = 0.30) -> Numbers:
    """`exp(-|s - g| / scale)` of Q-Hawkeye (arXiv 2601.22920), whose scale is 0.30.

    Args:
        scores: [B, K] on 1-5, NaN where unparsed.
        opinions: [B] on 1-5.
        scale: in points.

    Returns:
        float [B, K], 0 to 1; 0 where unparsed.
    """
    return np.nan_to_num(np.exp(-_error(scores, opinions) / scale))


def gaussian(scores: Numbers, opinions: Numbers, *, sigma: float) -> Numbers:
    """Gaussian of the error: `exp(-(s - g)^2 / (2 sigma^2))`.

    VQAThinker (arXiv 2508.06051): sigma 0.5. OmniQuality-R (arXiv 2510.10609): 0.8 of a 0-5 scale, which is 0.64 of
    1-5. Aes-R1 (arXiv 2509.21871): 0.1 of a 0-1 scale, which is 0.4 of 1-5.

    Args:
        scores: [B, K] on 1-5, NaN where unparsed.
        opinions: [B] on 1-5.
        sigma: in points.

    Returns:
        float [B, K], 0 to 1; 0 where unparsed.
    """
    return np.nan_to_num(np.exp(-0.5 * (_error(scores, opinions) / sigma) ** 2))


def decimals(values: Numbers, *, factor: float = 0.8) -> Numbers:
    """Factor for answers with fewer than two decimals (VQAThinker, arXiv 2508.06051).

    It multiplies the paper's Gaussian. Trailing zeros are not counted: 3.40 counts as 3.4.

    Args:
        values: [B, K, D] as read from the text.
        factor: for an answer with such a number.

    Returns:
        float [B, K], `factor` or 1.
    """
    tenths = values * 10
    is_short = np.abs(tenths - np.round(tenths)) < 1e-4  # room for numbers that went through float32
    return np.where(is_short.any(axis=2), factor, 1.0)


def rank_to_truth(scores: Numbers, opinions: Numbers, *, hit: float = 0.02) -> Numbers:
    """Nearness of an answer's rank to the opinion's (PreResQ-R1, arXiv 2511.05393).

    As in the released image script: 1 within `hit` of the opinion, else exp(-|rank(s) - rank(g)| / (n + 1)) among the n
    parsed answers and g. Equal values share the first rank.

    Args:
        scores: [B, K] on 1-5, NaN where unparsed.
        opinions: [B] on 1-5.
        hit: limit of |s - g| for a full reward, in points.

    Returns:
        float [B, K], 0 to 1; 0 where unparsed.
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
    """Reward for naming a clip's damage and its severity (arXiv 2503.22679).

    Q-Insight's: 0.25 for the right class, 0.75 more for the right severity too.

    Args:
        classes: str [B, K], as answered.
        severities: str [B, K], as answered.
        true_classes: str [B]; empty for a clip that was not asked about its damage.
        true_severities: str [B].

    Returns:
        float [B, K], 0, 0.25 or 1.
    """
    is_class = (classes == true_classes[:, None]) & (true_classes != "")[:, None]
    paid: Numbers = 0.25 * is_class + 0.75 * (is_class & (severities == true_severities[:, None]))
    return paid


def probability(think: Numbers, no_think: Numbers, earned: Numbers) -> Numbers:
    """Gain in probability by reasoning (Refine-IQA, arXiv 2508.03763, stage 2).

    `clamp(P_think - P_no_think, 0, 1) * (earned // 2)`.

    Args:
        think: [B, K], probability of the opinion's tenths digit in the answer.
        no_think: [B, K], the same in the j-th answer of another rollout, without reasoning.
        earned: [B, K], sum of threshold and format terms, so that the term is paid only where both are.

    Returns:
        float [B, K], 0 to 1.
    """
    return np.nan_to_num(np.clip(think - no_think, 0.0, 1.0)) * (earned // 2)


def _error(scores: Numbers, opinions: Numbers) -> Numbers:
    return np.abs(scores - opinions[:, None])
