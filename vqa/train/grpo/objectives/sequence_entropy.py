"""Entropy regulariser of the answers (Q-Hawkeye, arXiv 2601.22920)."""

from typing import Literal

from pydantic import Field

from vqa.train.grpo.objective import Effect, LossObjective, Update


class SequenceEntropy(LossObjective):
    """Subtract weight x mean log-probability of an answer from the loss.

    An answer's is the sum over its tokens. The mean is minus a one-sample estimate of the answers' entropy, so the term
    lowers it. Of the paper's two regularisers there is the one on the undegraded pictures.
    """

    kind: Literal["sequence_entropy"]
    weight: float = Field(1e-3, gt=0, description="eta; 1e-3 in the paper")

    def apply(self, update: Update) -> Effect:
        """Return minus the weighted mean of the answers' log-probabilities."""
        return Effect(loss=-self.weight * (update.logps * update.mask).sum(dim=1).mean())
