"""Losses of order, from comparisons and from ladders: pure functions of scores.

Ladders are learnt from as HiRQA (arXiv 2508.15130) does: from the order of pairs, and from the order of the gaps of
pairs of pairs. Its losses' forms and weights are not published; these are chosen here.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vqa.light.config import PairMethod

Indices = NDArray[np.int64]


class Order(NamedTuple):
    """Order known of N pictures without opinions: pairs, pairs of pairs, by index."""

    pairs: Indices  # [P, 2] the first is better
    gaps: Indices  # [Q, 4] a, b, c, d: a is better than b by more than c is better than d

    def moved(self, by: int) -> "Order":
        """The same of pictures that begin at index `by`."""
        return Order(self.pairs + by, self.gaps + by)


def order_of(kinds: NDArray[np.str_], losses: NDArray[np.float64], *, pristine: str) -> Order:
    """The order within one ladder: along each kind, from the pristine picture on.

    Args:
        kinds: [N] kind of degradation of each picture, `pristine` for none.
        losses: [N] how much worse than pristine each should look.
        pristine: The name of no degradation.

    Returns:
        Every pair of one kind with different losses, and every two such pairs with different gaps.
    """
    pairs: list[tuple[int, int]] = []
    gaps: list[tuple[int, ...]] = []
    for kind in np.unique(kinds[kinds != pristine]).tolist():
        along = np.flatnonzero((kinds == kind) | (kinds == pristine)).tolist()
        here = [(a, b) for a in along for b in along if losses[a] < losses[b]]
        wide = [(losses[b] - losses[a], a, b) for a, b in here]
        gaps += [(a, b, c, d) for one, a, b in wide for other, c, d in wide if one > other + 1e-9]
        pairs += here
    return Order(np.array(pairs, np.int64).reshape(-1, 2), np.array(gaps, np.int64).reshape(-1, 4))


def pairs_loss(
    scores: Tensor, first: Tensor, second: Tensor, share: Tensor, count: Tensor, *, method: PairMethod
) -> Tensor:
    """Mean negative log likelihood of comparisons.

    Args:
        scores: [N] in units of the method: 1 is a difference seen by 73 % (Bradley-Terry) or 84 % (Thurstone, Case V).
        first: [P] index of a picture.
        second: [P] index of the other.
        share: [P] share of the comparisons that the first won, ties as half.
        count: [P] how many comparisons those are.
        method: Logistic (Bradley and Terry 1952) or normal (Thurstone 1927).
    """
    gap = scores[first] - scores[second]
    log_likely = functional.logsigmoid if method == "bradley-terry" else torch.special.log_ndtr
    return -(count * (share * log_likely(gap) + (1 - share) * log_likely(-gap))).sum() / count.sum()


def order_loss(scores: Tensor, pairs: Tensor, *, width: float) -> Tensor:
    """Mean of softplus(-(better - worse) / width) over pairs [P, 2] of scores [N]."""
    return functional.softplus((scores[pairs[:, 1]] - scores[pairs[:, 0]]) / width).mean()


def gaps_loss(scores: Tensor, gaps: Tensor, *, width: float) -> Tensor:
    """Mean of softplus(-(wide - narrow) / width) over gaps [Q, 4] of scores [N]."""
    a, b, c, d = scores[gaps].unbind(1)
    return functional.softplus(((c - d) - (a - b)) / width).mean()
