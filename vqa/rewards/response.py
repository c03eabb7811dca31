"""Terms inside one group of K answers (PreResQ-R1, arXiv 2511.05393, its response rewards, as in the released code)."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def spread(values: Numbers, *, least: float = 0.5, weight: float = 0.5) -> Numbers:
    """Penalty for aspects that hardly differ, `weight * max(0, least - std)`: values [B, K, D] -> [B, K], >= 0.

    The std is the population's, over the D numbers of an answer; with D=2 it is half their difference, so nothing is
    paid back before global and local differ by 1. PreResQ-R1's code: 0.5 and 0.5; its figure: stage 1 only.
    """
    penalty: Numbers = np.nan_to_num(weight * np.maximum(0.0, least - values.std(axis=2)))
    return penalty


def balance(values: Numbers, *, near: float = 0.05, weight: float = 0.5, aspects: int | None = None) -> Numbers:
    """How often an answer stands in the middle of its group: values [B, K, D] -> [B, K] in 0..weight.

    Over each triple of a clip's answers and each of the first `aspects` numbers: 1 for the median and for whatever is
    less than `near` from it; the mean over the C(K-1, 2) triples of an answer and the aspects, times `weight`.
    Unparsed answers are in no triple; with fewer than three parsed it is 0. PreResQ-R1's code: 0.05, 0.5, four aspects
    of five for images, two for videos.
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
    """`1 - |s - r| / width`, 0..1: the answer against the score r [B, K] that its own reasoning speaks for.

    Q-Ponder (arXiv 2506.05384) rewards such agreement; its form was NOT FOUND, this one is ours. NaN in r pays 0.
    """
    return np.nan_to_num(1.0 - np.minimum(1.0, np.abs(scores - reason_scores) / width))


def _pairs(count: NDArray[np.int64]) -> NDArray[np.int64]:
    return count * (count - 1) // 2
