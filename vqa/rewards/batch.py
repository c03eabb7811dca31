"""Batch of answers, opinions and data sets for the reward terms, checked once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa.errors import UsageError
from vqa.rewards.format import Demand

Numbers = NDArray[np.float64]

MODES = ("paper", "released", "strict")
# What `compute` takes beside the numbers, for B clips with K answers; a term without its entry is 0.
CONTEXT = {
    "stage": "1 or 2, of PreResQ-R1's two: in mode paper the spread penalty is of stage 1 only (default 1)",
    "mode": "paper (default) or released, where the two differ: see `modes` of a preset; strict: as paper, and the "
    "pairwise term pays nothing for a wrong order",
    "perturbed": "float [B, K', D], answers to the clips with their frames in another order (NaN: unparsed)",
    "compared": "int, consecutive clips whose means the temporal term of VQAThinker compares as one (default: all)",
    "tokens": "int [B, K], length of each answer",
    "texts": "str [B, K], each answer; without them the format term is 1 for every parsed answer",
    "classes": "str [B, K], damage as the answer names it",
    "severities": "str [B, K], its severity",
    "true_classes": "str [B], the damage, empty where none was asked for; the opinion may be NaN there",
    "true_severities": "str [B], its severity",
    "think": "float [B, K], probability of the opinion's tenths digit in the answer",
    "no_think": "float [B, K], the same in the j-th answer of another rollout, without reasoning",
    "reason_scores": "float [B, K], the score that the reasoning alone implies (NaN: none)",
}


@dataclass(frozen=True, slots=True)
class RolloutBatch:
    """B clips with K answers of D numbers each.

    `values` [B, K, D] and their means `scores` [B, K] are on 1-5 and NaN where unparsed; `opinions` [B] are on 1-5;
    `peers` bool [B, B] is true for two different clips of one data set; `context` holds keys of CONTEXT.
    """

    values: Numbers
    scores: Numbers
    opinions: Numbers
    peers: NDArray[np.bool_]
    context: Mapping[str, Any]
    demand: Demand = "tags"  # of the preset's format term

    def array(self, name: str) -> NDArray[Any] | None:
        """An entry of the context as an array, or None where it is missing.

        Raises:
            UsageError: for a shape other than [B, K], or [B] for the true classes and severities.
        """
        if self.context.get(name) is None:
            return None
        is_text = name in ("texts", "classes", "severities", "true_classes", "true_severities")
        array = np.asarray(self.context[name], dtype=object if is_text else None)
        wanted = self.scores.shape[: 1 if name.startswith("true_") else 2]
        if array.shape != wanted:
            raise UsageError(f"rewards: {name} has shape {list(array.shape)}, not {list(wanted)} as the answers do")
        return array


def make_batch(
    values: Numbers, opinions: Numbers, datasets: Sequence[str], context: Mapping[str, object]
) -> RolloutBatch:
    """Check a batch and mask unparsed answers.

    Args:
        values: float [B, K, D], changed in place: an answer with one number that is not finite becomes NaN as a whole.
        opinions: float [B].
        datasets: B names.
        context: keys of CONTEXT.

    Raises:
        UsageError: for shapes that do not fit, unknown keys, and clips without an opinion.
    """
    if values.ndim != 3 or 0 in values.shape[1:]:
        raise UsageError(f"rewards: values have shape {list(values.shape)}, not [clips, answers, numbers]")
    if opinions.shape != values.shape[:1] or len(datasets) != len(values) or isinstance(datasets, str):
        raise UsageError(
            f"rewards: {len(values)} clips with opinions of shape {list(opinions.shape)} and {len(datasets)} data "
            "sets. Give one of each per clip."
        )
    for name, allowed in (("stage", (1, 2)), ("mode", MODES)):
        if context.get(name, allowed[0]) not in allowed:
            raise UsageError(f"rewards: {name} is {context[name]!r}; allowed are {', '.join(map(str, allowed))}.")
    if unknown := sorted(set(context) - set(CONTEXT)):
        raise UsageError(f"rewards: {', '.join(unknown)} is not known. Known are: {', '.join(CONTEXT)}.")
    values[~np.isfinite(values).all(axis=2)] = np.nan
    _, places = np.unique(np.asarray(datasets, dtype=str), return_inverse=True)
    judged = np.isfinite(opinions)
    peers = (places[:, None] == places) & judged[:, None] & judged & ~np.eye(len(values), dtype=bool)
    batch = RolloutBatch(values, values.mean(axis=2), np.where(judged, opinions, np.nan), peers, context)
    asked = batch.array("true_classes")
    missing = np.flatnonzero(~judged & (True if asked is None else asked == ""))
    if len(missing):
        raise UsageError(
            f"rewards: clip {missing[0]} of {datasets[missing[0]]!r} has the opinion {opinions[missing[0]]}. "
            "Remove clips without an opinion from training."
        )
    return batch
