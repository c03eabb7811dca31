"""Checks that a run can learn; one whose batches teach nothing is stopped."""

from collections.abc import Sequence

import numpy as np

from vqa.errors import ModelError, UsageError
from vqa.prompt import GRADES
from vqa.train.grpo.reward import RewardBatch

SAME_SCORE = 0.02  # points; a smaller standard deviation over clips of different quality counts as one constant
FEWEST_PARSED = 0.05


class LearningCheck:
    """Counter of batches in a row per complaint; ModelError at `patience` of them.

    With `check_first_batch` the first batch, generated before any step, must give no cause at all.
    """

    def __init__(self, *, patience: int, check_first_batch: bool = False, allow_silent: Sequence[str] = ()) -> None:
        self._patience, self._check_first_batch, self._allow_silent = patience, check_first_batch, allow_silent
        self._rows: dict[str, int] = {}

    def __call__(self, batch: RewardBatch, *, is_first: bool = False) -> None:
        """Check one batch.

        Raises:
            ModelError: for a run that cannot learn.
            UsageError: for a term that the first answers leave silent.
        """
        is_silent = "consistency" in batch.terms and not batch.terms["consistency"].any()
        if is_first and is_silent and "consistency" not in self._allow_silent:
            raise UsageError(
                f"grpo: term consistency would be 0 throughout: no reasoning holds a grade word ({', '.join(GRADES)}). "
                "Ask for one in `questions`, teach it by a cold start, or run without by allow_silent: [consistency]."
            )
        found = complaints(batch)
        if found and is_first and self._check_first_batch:
            raise ModelError(
                f"grpo: this run cannot learn from its first answers: {'; '.join(found)}. An answer reads "
                f"{batch.texts[0][0][:200]!r}. check_first_batch: false trains all the same."
            )
        self._rows = {words: self._rows.get(words, 0) + 1 for words in found}
        for words, batches in self._rows.items():
            if batches >= self._patience:
                raise ModelError(f"grpo: this run cannot learn: {words}, {batches} batches in a row.")


def complaints(batch: RewardBatch) -> list[str]:
    """Reasons why a batch teaches nothing, each with the way out; else empty."""
    is_about_damage = np.isnan(batch.opinions)[:, None]  # a right answer to it holds no score
    parsed = np.where(is_about_damage, batch.terms["format"] > 0, ~np.isnan(batch.scores))
    if not parsed.any():
        return ["no answer could be parsed (give it a longer cold start, or raise max_completion_length)"]
    found = []
    if all(len(set(group)) == 1 for group in batch.texts):
        found.append("the answers to each clip are all the same (raise the temperature)")
    elif not (np.ptp(batch.terms["total"], axis=1) > 0).any():
        found.append("the answers to each clip earn all the same (choose a reward that tells them apart)")
    if parsed.mean() < FEWEST_PARSED:
        found.append(
            f"fewer than {FEWEST_PARSED:.0%} of the answers could be parsed (give it a "
            "longer cold start, or raise max_completion_length)"
        )
    scores, opinions = (values[~np.isnan(values)] for values in (batch.scores, batch.opinions))
    if len(scores) > 1 and np.ptp(opinions) > 0.5 and np.std(scores) < SAME_SCORE:
        found.append("every clip gets the same score (lower learning_rate, or begin from an earlier checkpoint)")
    return found
