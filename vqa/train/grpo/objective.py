"""Interface and registry of the terms that single papers add to GRPO.

A term is one file in vqa/train/grpo/objectives, with one class: its settings are its fields, `kind` names it in a
recipe, and it changes the advantages (AdvantageObjective), the loss (LossObjective), or both. Nothing else is edited
for a new one. Light to import: recipes are checked before torch is.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from vqa.config import Strict
from vqa.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import BatchFeature, ProcessorMixin

    from vqa.train.grpo.config import GrpoSettings
    from vqa.train.grpo.dataset import BatchClip, Example
    from vqa.train.grpo.packing import EncodedPrompt
    from vqa.train.grpo.reward import RewardBatch

Transform = Callable[[dict[str, "Tensor"]], None]  # changes packed model inputs in place


class Objective(Strict):
    """Settings and needs of a term; `kind` is a Literal of its file's name."""

    kind: str
    needs_captions: ClassVar[bool] = False

    def check(self, settings: "GrpoSettings", examples: Sequence["Example"]) -> None:
        """Check settings and clips before anything is loaded.

        Raises:
            UsageError: where the term cannot work with them.
        """
        if self.needs_captions and (bare := next((one.clip_id for one in examples if not one.caption), None)):
            raise UsageError(
                f"clip {bare} has no caption, which objective {self.kind} needs. Give the stage `captions`."
            )


class AdvantageObjective(Objective):
    """A term that changes advantages once per batch of answers."""

    def change_advantages(self, advantages: "Tensor", batch: "RewardBatch") -> "Tensor":
        """Return the changed advantages [B, K] of the whole batch, over all processes."""
        raise NotImplementedError


class LossObjective(Objective):
    """Term that changes an update's loss or advantages by its log-probabilities.

    `weighs_advantages` says the second: such terms are applied before trl computes its loss, all others behind it.
    """

    weighs_advantages: ClassVar[bool] = False

    def check(self, settings: "GrpoSettings", examples: Sequence["Example"]) -> None:
        """Check as Objective does, and that the prompts are shared."""
        super().check(settings, examples)
        if not settings.shared_prefill:
            raise UsageError(f"grpo: objective {self.kind} needs shared_prefill: true, which is false. Set it.")

    def apply(self, update: "Update") -> "Effect":
        """Return the term's effect on one forward and backward pass."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Effect on one pass: `loss` is added, `advantage_weights` [rows] multiply."""

    loss: "Tensor | None" = None
    advantage_weights: "Tensor | None" = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One forward and backward pass of a process: R answers of at most T tokens."""

    logps: "Tensor"  # float [R, T], log-probabilities of the answers' tokens, with gradient
    mask: "Tensor"  # int [R, T], 1 for tokens of the answer
    clips: Sequence["BatchClip"]  # of each row
    processor: "ProcessorMixin"
    epoch: float
    seed: int  # of this step
    encode: Callable[["BatchFeature"], "EncodedPrompt"]  # of the processor's tensors of one prompt
    score: Callable[[Sequence["EncodedPrompt"] | None, Transform | None], "Tensor"]

    def logps_given(
        self, *, prompts: "Sequence[EncodedPrompt] | None" = None, transform: Transform | None = None
    ) -> "Tensor":
        """Log-probabilities [R, T] of the answers behind other inputs, without gradient.

        Args:
            prompts: one for each row, the same object for rows of one clip; None for the rows' own.
            transform: changes the model's packed inputs in place, such as `pixel_values`.
        """
        return self.score(prompts, transform)


def divergence(logps: "Tensor", other: "Tensor") -> "Tensor":
    """Estimate KL(p || q) >= 0 per token, [R, T], from a sample of p.

    exp(q - p) - (q - p) - 1 of log-probabilities: Schulman's k3 (http://joschu.net/blog/kl-approx.html), as in GRPO
    (arXiv 2402.03300, equation 4).
    """
    gap = other - logps
    return gap.exp() - gap - 1


def answer_means(values: "Tensor", mask: "Tensor") -> "Tensor":
    """Mean of `values` [R, T] over the tokens of each answer: [R]."""
    return (values * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def find_objectives() -> dict[str, type[Objective]]:
    """The terms in vqa/train/grpo/objectives by kind, found by listing that folder."""
    folder = importlib.import_module("vqa.train.grpo.objectives")
    found: dict[str, type[Objective]] = {}
    for entry in sorted(pkgutil.iter_modules(folder.__path__), key=lambda entry: entry.name):
        module = importlib.import_module(f"{folder.__name__}.{entry.name}")
        for own in vars(module).values():
            if isinstance(own, type) and issubclass(own, Objective) and own.__module__ == module.__name__:
                found[entry.name] = own
    return found
