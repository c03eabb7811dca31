"""Uncertainty weighting of advantages (Q-Hawkeye, arXiv 2601.22920)."""

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vqa.train.grpo.objective import AdvantageObjective

if TYPE_CHECKING:
    from torch import Tensor

    from vqa.train.grpo.reward import RewardBatch


class UncertaintyWeight(AdvantageObjective):
    """Multiply advantages by exp(-alpha u), u = min(1, var(scores) / (width^2 / 4)).

    Population variance over the K scores of a group; unparsed answers do not count, a group without any score keeps
    weight 1.
    """

    kind: Literal["uncertainty_weight"]
    alpha: float = Field(0.2, gt=0, description="strength; 0.2 in the paper")
    width: float = Field(4.0, gt=0, description="of the scale; 4 for 1-5")

    def change_advantages(self, advantages: "Tensor", batch: "RewardBatch") -> "Tensor":
        """Return the advantages [B, K] times a weight per clip."""
        return advantages * advantages.new_tensor(self.weights(batch.scores), dtype=advantages.dtype)

    def weights(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights [B, 1] of the scores [B, K], NaN where unparsed."""
        there = ~np.isnan(scores)
        count = np.maximum(there.sum(axis=1, keepdims=True), 1)
        mean = np.nansum(scores, axis=1, keepdims=True) / count
        variance = np.nansum((scores - mean) ** 2, axis=1, keepdims=True) / count
        weights: NDArray[np.float64] = np.exp(-self.alpha * np.clip(variance / (0.25 * self.width**2), 0.0, 1.0))
        return weights
