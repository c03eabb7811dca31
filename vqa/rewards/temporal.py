"""Terms that compare answers to a clip with answers to its frames out of order."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def order_bonus(
    paid: Numbers,
    perturbed: Numbers,
    is_parsed: NDArray[np.bool_],
    perturbed_is_parsed: NDArray[np.bool_],
    *,
    share: float,
    above: float,
    bonus: float = 0.3,
    compared: int = 1,
) -> Numbers:
    """Bonus for groups that do better on frames in order than on perturbed ones.

    Answers paid more than `above` get `bonus` where the mean is at least `share` times the mean on perturbed frames;
    means are over the parsed answers of `compared` consecutive clips, and without any on either side there is no bonus.
    VQ-Insight (arXiv 2506.18564): share 0.8, above 0.1, one clip, K' = K/2 on shuffled frames. VQAThinker (arXiv
    2508.06051): share 1, above 0.5 for its rank term and 0.9 for its regression term, all clips of a GPU's micro-batch
    (2 in its script).

    Args:
        paid: [B, K], an accuracy term.
        perturbed: [B, K'], the same term for answers to perturbed frames.
        is_parsed: bool [B, K].
        perturbed_is_parsed: bool [B, K'].
        share: of the perturbed mean that is needed.
        above: accuracy that is needed.
        bonus: paid.
        compared: clips whose means are compared as one.

    Returns:
        float [B, K], 0 or `bonus`.
    """
    with np.errstate(invalid="ignore"):  # 0/0 for a group without a parsed answer is NaN, which compares false
        mean = _means(paid, is_parsed, compared)
        other = _means(perturbed, perturbed_is_parsed, compared)
    return np.where((mean >= share * other)[:, None] & (paid > above) & is_parsed, bonus, 0.0)


def _means(paid: Numbers, is_parsed: NDArray[np.bool_], compared: int) -> Numbers:
    """Means [B] over the parsed answers of each clip's run of `compared` clips."""
    starts = np.arange(0, len(paid), compared)
    total: Numbers = np.add.reduceat(np.where(is_parsed, paid, 0.0).sum(axis=1), starts)
    count = np.add.reduceat(is_parsed.sum(axis=1), starts)
    return np.repeat(total / count, compared)[: len(paid)]
