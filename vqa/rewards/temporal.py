"""Terms that compare answers for a clip with answers for its frames in another order."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def contrast(
    paid: Numbers,
    perturbed: Numbers,
    is_parsed: NDArray[np.bool_],
    perturbed_is_parsed: NDArray[np.bool_],
    *,
    share: float,
    above: float,
    bonus: float = 0.3,
) -> Numbers:
    """Bonus for groups that do better on the true order of frames than on a perturbed one.

    Answers paid more than `above` get `bonus` where the group's mean is at least `share` times the mean on perturbed
    frames; means are over parsed answers, and without any on either side there is no bonus. VQ-Insight (arXiv
    2506.18564): share 0.8, above 0.1, K' = K/2 on shuffled frames. VQAThinker (arXiv 2508.06051): share 1, above 0.5
    for its rank term and 0.9 for its regression term.

    Args:
        paid: [B, K], an accuracy term.
        perturbed: [B, K'], the same term for answers to perturbed frames.
        is_parsed: bool [B, K].
        perturbed_is_parsed: bool [B, K'].
        share: of the perturbed mean that is needed.
        above: accuracy that is needed.
        bonus: paid.

    Returns:
        float [B, K], 0 or `bonus`.
    """
    with np.errstate(invalid="ignore"):  # 0/0 for a group without a parsed answer is NaN, which compares false
        mean = np.where(is_parsed, paid, 0.0).sum(axis=1) / is_parsed.sum(axis=1)
        other = np.where(perturbed_is_parsed, perturbed, 0.0).sum(axis=1) / perturbed_is_parsed.sum(axis=1)
    paid_more: Numbers = bonus * ((mean >= share * other)[:, None] & (paid > above) & is_parsed)
    return paid_more
