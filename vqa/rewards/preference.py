"""Terms between clips: order and distance of two or three clips of one data set."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Numbers = NDArray[np.float64]
Truths = NDArray[np.bool_]


def pairwise(scores: Numbers, opinions: Numbers, peers: Truths, *, is_strict: bool = False) -> Numbers:
    """Pairwise score-and-rank term of PreResQ-R1 (arXiv 2511.05393, released code).

    The k-th lowest answer of a clip meets the k-th lowest of each peer. With c = 1 for the right order and
    m = |dg| / (|dg| + both errors) it pays sqrt(m) for c = 1 and sqrt(1 - m) for c = 0, averaged over peers. A wrong
    order thus pays at least 0.707, more for a larger error; `is_strict` pays nothing for it, with the same peak.

    Pairs of equal opinions are skipped (they say nothing about order, and the code's formula pays them the wrong way
    round), as are ranks that a clip with unparsed answers lacks. Equal answers keep their order, as in the code.

    Args:
        scores: [B, K] on 1-5, NaN where unparsed.
        opinions: [B] on 1-5.
        peers: bool [B, B], two different clips of one data set.
        is_strict: pay nothing for a wrong order, in place of the released formula.

    Returns:
        float [B, K], 0 to 1; 0 where unparsed.
    """
    order = np.argsort(scores, axis=1, kind="stable")  # NaN comes last
    ranked = np.take_along_axis(scores, order, axis=1)
    gap = opinions[:, None] - opinions
    distance = np.abs(gap)[:, :, None]
    error = np.abs(ranked - opinions[:, None])
    right = np.sign(ranked[:, None] - ranked) == np.sign(gap)[:, :, None]  # [B, B, K]
    known = ~np.isnan(ranked)
    pairs = (peers & (gap != 0))[:, :, None] & known[:, None] & known
    m = np.divide(distance, distance + error[:, None] + error, out=np.zeros(pairs.shape), where=pairs)
    reward = np.sqrt(np.where(right, m, 0.0 if is_strict else 1.0 - m))
    paid = np.empty_like(scores)
    np.put_along_axis(paid, order, _mean(reward, pairs), axis=1)
    return _filled(paid, scores)


def triplet(scores: Numbers, opinions: Numbers, peers: Truths) -> Numbers:
    """Share of right orders in triples of clips (PreResQ-R1, arXiv 2511.05393).

    As in the released code: in each triple (i, a, b), a before b, at the same answer j, an order counts as right when
    [s_p > s_q] equals [g_p > g_q] for (i,a), (a,b), (i,b); averaged over all pairs of peers. Needs three clips of a
    data set, else 0.

    Args:
        scores: [B, K] on 1-5, NaN where unparsed.
        opinions: [B] on 1-5.
        peers: bool [B, B], two different clips of one data set.

    Returns:
        float [B, K], 0 to 1; 0 where unparsed.
    """
    known = ~np.isnan(scores)
    above = scores[:, None] > scores
    right = above == (opinions[:, None] > opinions)[:, :, None]  # [B, B, K]: p, q, j
    met = peers[:, :, None] & known[:, None] & known
    others = met.sum(axis=1)  # of clip i, at answer j
    first = np.triu(np.ones(peers.shape, bool), 1)[:, :, None] & met & right  # p before q
    # Orders of pairs (a, b) that leave i out: all in its data set, less those in which it takes part.
    of_set = np.einsum("ip,pj->ij", (peers | np.eye(len(peers), dtype=bool)).astype(float), first.sum(axis=1))
    without = of_set - first.sum(axis=1) - first.sum(axis=0)
    count = others * (others - 1) / 2
    total = (met & right).sum(axis=1) * (others - 1) + without
    paid = np.divide(total, 3 * count, out=np.full(scores.shape, np.nan), where=known & (count > 0))
    return _filled(paid, scores)


def fidelity(
    scores: Numbers,
    opinions: Numbers,
    peers: Truths,
    *,
    ties_win: bool = False,
    epsilon: float = 1e-6,
) -> Numbers:
    """Thurstone fidelity term of VisualQuality-R1 (arXiv 2505.14460).

    p = Phi((s_ij - mean_z) / sqrt(var_i + var_z + e)) is the probability that answer j of clip i beats clip z, and p*
    is 1, 1/2 or 0 by the opinions. The term is sqrt(p p* + e) + sqrt((1 - p)(1 - p*) + e), averaged over peers, with
    unbiased variances (0 for a single parsed answer). Unparsed answers are skipped, where the released code puts a
    random score.

    Args:
        scores: [B, K] on 1-5, NaN where unparsed.
        opinions: [B] on 1-5.
        peers: bool [B, B], two different clips of one data set.
        ties_win: whether p* is 1 for equal opinions, as in Aes-R1 (arXiv 2509.21871), in place of 1/2.
        epsilon: e.

    Returns:
        float [B, K], 0 to about 1; 0 where unparsed or without a peer.
    """
    count = (~np.isnan(scores)).sum(axis=1)
    filled = np.nan_to_num(scores)
    mean = np.divide(filled.sum(axis=1), count, out=np.zeros(len(scores)), where=count > 0)
    squares = np.where(np.isnan(scores), 0.0, (filled - mean[:, None]) ** 2).sum(axis=1)
    variance = np.divide(squares, count - 1, out=np.zeros(len(scores)), where=count > 1)
    p = ndtr((filled[:, None] - mean[:, None]) / np.sqrt(variance[:, None] + variance + epsilon)[:, :, None])
    gap = opinions[:, None] - opinions
    wins = (np.where(gap == 0, 1.0 if ties_win else 0.5, gap > 0))[:, :, None]
    reward = np.sqrt(p * wins + epsilon) + np.sqrt((1.0 - p) * (1.0 - wins) + epsilon)
    met = peers & (count > 0)
    return np.where(np.isnan(scores), 0.0, np.nan_to_num(_mean(reward, met[:, :, None])))


def _mean(reward: Numbers, pairs: Truths) -> Numbers:
    """Mean over the second axis where `pairs`; NaN where there is none."""
    count = np.broadcast_to(pairs, reward.shape).sum(axis=1)
    total = np.where(pairs, reward, 0.0).sum(axis=1)
    mean: Numbers = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


def _filled(paid: Numbers, scores: Numbers) -> Numbers:
    """Terms with the group's mean for parsed answers that met no other.

    Such an answer neither wins nor loses by the others' failures.
    """
    known, met = ~np.isnan(scores), ~np.isnan(paid)
    count = met.sum(axis=1, keepdims=True)
    mean = np.divide(
        np.nan_to_num(paid).sum(axis=1, keepdims=True), count, out=np.zeros((len(paid), 1)), where=count > 0
    )
    return np.where(known, np.where(met, paid, mean), 0.0)
