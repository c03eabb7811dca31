"""Filter of groups with nearly equal rewards (OmniQuality-R, arXiv 2510.10609)."""

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vqa.train.grpo.objective import AdvantageObjective

if TYPE_CHECKING:
    from torch import Tensor

    from vqa.train.grpo.reward import RewardBatch


class SpreadFilter(AdvantageObjective):
    """Zero the advantages of groups with rewards of a deviation of at most `min_std`.

    Normalisation within a group would blow up differences however small. It is the standard deviation of the K rewards
    for accuracy: the Gaussian term, as in the released code; for presets without one the total.
    """

    kind: Literal["spread_filter"]
    min_std: float = Field(0.001, ge=0, description="of a group's rewards; 0.001 in the paper")

    def change_advantages(self, advantages: "Tensor", batch: "RewardBatch") -> "Tensor":
        """Return the advantages [B, K], 0 for filtered groups."""
        return advantages * advantages.new_tensor(
            self.weights(batch.terms.get("regression", batch.terms["total"])), dtype=advantages.dtype
        )

    def weights(self, rewards: NDArray[np.float64]) -> NDArray[np.float64]:
        """0 or 1 for each group, [B, 1], of the rewards [B, K]."""
        weights: NDArray[np.float64] = (rewards.std(axis=1, keepdims=True) > self.min_std).astype(float)
        return weights
