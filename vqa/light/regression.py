"""A student's head: one direction by ridge regression on several sets at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqa.light.config import RegressionConfig
from vqa.light.embedding import SIZES

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSet:
    """Embeddings with labels on a scale of their own, higher is better."""

    embeddings: Matrix  # [N, D]
    labels: Matrix  # [N]
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """A line in the space of embeddings: `embeddings @ weights + bias`."""

    weights: Matrix  # [D]
    bias: float

    def along(self, embeddings: Matrix) -> Matrix:
        """Where embeddings [N, D] lie on it, [N]."""
        return embeddings @ self.weights + self.bias


def fit_direction(sets: Sequence[LabelledSet], config: RegressionConfig) -> Direction:
    """Fit one direction to sets that do not share a scale.

    Each set has its own offset and, from the second on, its own gain: after each round the labels of a set are put on
    the common scale by the regression of what was predicted on them. The first set's labels, standardised, are the
    scale. Minimises `sum_d w_d / N_d * ||a_d y_d + b_d - X_d v||^2 + strength * D * ||v||^2`, X standardised.

    Args:
        sets: At least one; the first with weight 1 should be people's.
        config: Strength, emphasis and rounds.

    Returns:
        The direction, for embeddings as given.
    """
    centre, scale = standardisation([one.embeddings for one in sets], config)
    centred, weights = [], []
    for one in sets:
        standard = (one.embeddings - centre) * scale
        centred.append(standard - standard.mean(0))
        weights.append(np.full(len(standard), np.sqrt(one.weight / len(standard))))
    row_weights = np.concatenate(weights)
    rows = np.concatenate(centred) * row_weights[:, None]
    size = rows.shape[1]
    kernel = rows @ rows.T / size + config.strength * np.eye(len(rows))
    targets = [(one.labels - one.labels.mean()) / max(float(one.labels.std()), 1e-9) for one in sets]
    found: Matrix = np.zeros(size)
    for _ in range(config.rounds):
        found = rows.T @ np.linalg.solve(kernel, np.concatenate(targets) * row_weights) / size
        for k, features in enumerate(centred[1:], start=1):
            predicted = features @ found
            gain = float(predicted @ targets[k] / (targets[k] @ targets[k]))
            targets[k] = targets[k] * np.clip(gain, 0.5, 2.0)
    return Direction(weights=found * scale, bias=-float(centre @ (found * scale)))


def standardisation(sets: Sequence[Matrix], config: RegressionConfig) -> tuple[Matrix, Matrix]:
    """Centre and scale of each feature: sets count alike, groups by their emphasis."""
    centre: Matrix = np.add.reduce([one.mean(0) / len(sets) for one in sets])
    variance = np.add.reduce([one.var(0) / len(sets) for one in sets])
    emphasis = np.concatenate([np.full(size, config.emphasis.get(name, 1.0)) for name, size in SIZES.items()])
    return centre, np.sqrt(emphasis) / (np.sqrt(variance) + 1e-6)
