"""No negative advantages beside a right answer (Refine-IQA, arXiv 2508.03763)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from vqa.errors import UsageError
from vqa.train.grpo.objective import AdvantageObjective

if TYPE_CHECKING:
    from torch import Tensor

    from vqa.train.grpo.config import GrpoSettings
    from vqa.train.grpo.dataset import Example
    from vqa.train.grpo.reward import RewardBatch


class ZeroNegativeAdvantages(AdvantageObjective):
    """Set negative advantages to 0 in groups where any answer has the full reward.

    Full is 1 of each of the terms `threshold` and `format`.
    """

    kind: Literal["zero_negative_advantages"]

    def check(self, settings: "GrpoSettings", examples: Sequence["Example"]) -> None:
        """Check that the reward has the terms that tell a right answer."""
        super().check(settings, examples)
        if settings.reward != "refine_iqa":
            raise UsageError(f"grpo: objective {self.kind} needs reward refine_iqa, not {settings.reward}. Remove one.")

    def change_advantages(self, advantages: "Tensor", batch: "RewardBatch") -> "Tensor":
        """Return the advantages [B, K] without the negative ones of spared groups."""
        right = ((batch.terms["threshold"] + batch.terms["format"]) == 2).any(axis=1, keepdims=True)
        spared = advantages.new_tensor(right.astype(float)).bool()
        return advantages.masked_fill(spared & (advantages < 0), 0.0)
