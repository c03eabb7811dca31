"""Significance of differences of models on the same clips, and Holm's correction."""

from collections.abc import Sequence

import numpy as np
import scipy  # its parts load when first used

from vqa.metrics.correlation import Numbers


def meng(first: float, second: float, between: float, *, clips: int) -> tuple[float, float]:
    """Test of two dependent correlations (Meng, Rosenthal and Rubin 1992, eq. 1).

    Psychological Bulletin 111. Made for Pearson's correlation; with Spearman's it is an approximation.

    Args:
        first: correlation of one model with the opinions.
        second: correlation of the other model with the opinions.
        between: correlation of the two models' scores.
        clips: how many they were computed on.

    Returns:
        z and two-sided p; NaN for fewer than four clips or where a correlation is 1.
    """
    square = (first**2 + second**2) / 2
    if clips < 4 or np.isnan([first, second, between]).any() or max(abs(first), abs(second), between) >= 1:
        return float("nan"), float("nan")
    f = min((1 - between) / (2 * (1 - square)), 1.0)
    h = (1 - f * square) / (1 - square)
    z = (np.arctanh(first) - np.arctanh(second)) * np.sqrt((clips - 3) / (2 * (1 - between) * h))
    return float(z), _two_sided(z)


def steiger(first: float, second: float, between: float, *, clips: int) -> tuple[float, float]:
    """Test of two dependent correlations (Steiger 1980, eq. 3 and 14).

    Psychological Bulletin 87; with the pooled correlation.

    Args:
        first: correlation of one model with the opinions.
        second: correlation of the other model with the opinions.
        between: correlation of the two models' scores.
        clips: how many they were computed on.

    Returns:
        z and two-sided p; NaN for fewer than four clips or where a correlation is 1.
    """
    mean = (first + second) / 2
    if clips < 4 or np.isnan([first, second, between]).any() or max(abs(first), abs(second), between) >= 1:
        return float("nan"), float("nan")
    square = mean**2
    covariance = (between * (1 - 2 * square) - square * (1 - 2 * square - between**2) / 2) / (1 - square) ** 2
    z = (np.arctanh(first) - np.arctanh(second)) * np.sqrt((clips - 3) / (2 - 2 * covariance))
    return float(z), _two_sided(z)


def _two_sided(z: float) -> float:
    return float(2 * scipy.stats.norm.sf(abs(z)))


def bootstrap_p(differences: Numbers) -> float:
    """Two-sided p of paired bootstrap replicates of a difference.

    Args:
        differences: [R].

    Returns:
        Twice the smaller share beyond 0, never below 1 / R; NaN where more than one in twenty replicates is not a
        number.
    """
    defined = differences[np.isfinite(differences)]
    if len(defined) < max(1.0, 0.95 * len(differences)):
        return float("nan")
    tail = min(np.sum(defined <= 0), np.sum(defined >= 0))
    return float(min(1.0, 2 * (tail + 1) / (len(defined) + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979); NaN stays and is not counted."""
    adjusted = [float("nan")] * len(p_values)
    order = sorted((index for index, p in enumerate(p_values) if not np.isnan(p)), key=lambda index: p_values[index])
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
