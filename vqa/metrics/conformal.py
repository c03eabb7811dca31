"""Split conformal intervals, without a model of errors, and how often they hold."""

import math

import numpy as np
import scipy  # its parts load when first used
from numpy.typing import ArrayLike


def half_width(residuals: ArrayLike, *, coverage: float = 0.9) -> float:
    """Half width of a split conformal interval (Lei et al. 2018, JASA 113, alg. 2).

    Args:
        residuals: [n], of clips that the curve was not fitted on.
        coverage: probability that a new residual lies inside, at least, on average over samples.

    Returns:
        The ceil((n + 1) coverage)-th smallest absolute residual; infinite where n is too small.
    """
    sizes = np.sort(np.abs(np.asarray(residuals, dtype=np.float64)))
    rank = math.ceil((len(sizes) + 1) * coverage - 1e-9)  # 0.9 x 10 is 9, not 9.000000000000002
    return float(sizes[rank - 1]) if rank <= len(sizes) else math.inf


def share_interval(hits: int, of: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of the share `hits` / `of`, 0 to 1."""
    found = scipy.stats.binomtest(hits, of).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)
