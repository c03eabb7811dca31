"""Terms inside one group of K answers.

`spread` and `balance` are response rewards of PreResQ-R1 (arXiv 2511.05393), as in its released code; `consistency` is
Q-Ponder's.
"""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def spread(values: Numbers, *, least: float = 0.5, weight: float = 0.5) -> Numbers:
    """Penalty for aspects that hardly differ, `weight * max(0, least - std)`.

    The std is the population's, over the D numbers of an answer; with D=2 it is half their difference, so there is a
    penalty until global and local differ by 1. PreResQ-R1's code has 0.5 and 0.5; in its figure it is part of stage 1
    only.

    Args:
        values: [B, K, D] on 1-5, NaN where unparsed.
        least: std without a penalty, in points.
        weight: of the penalty.

    Returns:
        float [B, K], at least 0; a preset gives it a negative weight.
    """
    penalty: Numbers = np.nan_to_num(weight * np.maximum(0.0, least - values.std(axis=2)))
    return penalty


def balance(values: Numbers, *, near: float = 0.05, weight: float = 0.5, aspects: int | None = None) -> Numbers:
    """Share of triples of its group in which an answer is the median.

    Over each triple of a clip's answers and each of the first `aspects` numbers: 1 for the median and for whatever is
    less than `near` from it, averaged over the C(K-1, 2) triples of an answer and the aspects, times `weight`. Unparsed
    answers are in no triple. PreResQ-R1's code: 0.05, 0.5, four aspects of five for images, two for videos.

    Args:
        values: [B, K, D] on 1-5, NaN where unparsed.
        near: in points.
        weight: of the share.
        aspects: how many of the D numbers; None for all.

    Returns:
        float [B, K], 0 to `weight`; 0 with fewer than three parsed answers.
    """
    v = values[..., :aspects].swapaxes(1, 2)  # [B, D', K]
    step = v[..., None, :] - v[..., :, None]  # [.., j, o]: how far other o stands above answer j; NaN compares false
    mine, other = np.triu(np.ones(step.shape[-2:], bool), 1), np.tril(np.ones(step.shape[-2:], bool), -1)
    above = (step > 0) | ((step == 0) & mine)  # equal ones in the order of the answers; either is the median then
    below = (step < 0) | ((step == 0) & other)
    high, low = above.sum(-1), below.sum(-1)
    high_far, low_far = (above & (step >= near)).sum(-1), (below & (step <= -near)).sum(-1)
    # Median of a triple; or its lowest with the median near: all pairs above it but those where both stand far off.
    gain = high * low + _pairs(high) - _pairs(high_far) + _pairs(low) - _pairs(low_far)
    triples = _pairs(high + low)
    share: Numbers = np.divide(gain, triples, out=np.zeros(gain.shape), where=triples > 0)
    mean: Numbers = weight * share.mean(axis=1)
    return mean


def consistency(scores: Numbers, reason_scores: Numbers, *, width: float = 4.0) -> Numbers:
    """Agreement of a score with its own reasoning: `1 - |s - r| / width`, at least 0.

    Q-Ponder (arXiv 2506.05384) rewards such agreement; its form was NOT FOUND, this one is our own.

    Args:
        scores: [B, K] on 1-5, NaN where unparsed.
        reason_scores: [B, K], the score that the reasoning alone implies; NaN for none.
        width: difference that pays nothing, in points.

    Returns:
        float [B, K], 0 to 1; 0 where either is NaN.
    """
    return np.nan_to_num(1.0 - np.minimum(1.0, np.abs(scores - reason_scores) / width))


def _pairs(count: NDArray[np.int64]) -> NDArray[np.int64]:
    return count * (count - 1) // 2
