"""Reward function for trl: a preset's terms over the batch of all processes."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from numpy.typing import NDArray

from vqa.errors import ModelError
from vqa.prompt import GRADES, parse, reason
from vqa.rewards import compute
from vqa.rewards.presets import known
from vqa.train.clips.degradation import NONE, Damage, parse_damage
from vqa.train.types import Chat

Numbers = NDArray[np.float64]

# Optional columns: a clip's damage, and those of vqa.train.grpo.perturbations.
MORE = ("damage", "perturbed", "think", "no_think")


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardBatch:
    """Batch of answers over all processes with its rewards: B clips, K answers each."""

    scores: Numbers  # [B, K], NaN where unparsed
    opinions: Numbers  # [B], NaN where the question is about damage
    terms: dict[str, Numbers]  # [B, K] each, `total` among them
    texts: list[list[str]]


class RankAndScore:
    """Reward function for trl: the preset's `total`, one float per answer.

    `batch` holds the last batch. The `k` answers of a clip come one after another in the global batch, as the sampler
    lays them out; anything else raises ModelError. `context` goes to `compute`: stage, mode, compared. An exception
    stops the run.
    """

    def __init__(
        self, preset: str, *, dimensions: int, k: int, weights: Mapping[str, float] | None = None, **context: object
    ) -> None:
        known(preset, weights or {})
        self.__name__ = preset  # trl's key of the metric
        self._preset, self._dimensions, self._k = preset, dimensions, k
        self._weights, self._context = weights or {}, context
        self.batch: RewardBatch | None = None

    def __call__(
        self,
        *,
        completions: Sequence[str | Chat],
        completion_ids: Sequence[Sequence[int]],
        clip_id: Sequence[str],
        dataset: Sequence[str],
        opinion: Sequence[float],
        log_metric: Callable[[str, float], None] | None = None,
        **more: object,
    ) -> list[float]:
        """Compute the rewards of this process's answers, as trl's `reward_funcs` do."""
        columns = {
            "clip_id": clip_id,
            "dataset": dataset,
            "opinion": opinion,
            "text": [one if isinstance(one, str) else one[0]["content"] for one in completions],
            "tokens": [len(ids) for ids in completion_ids],
        } | {name: more[name] for name in MORE if name in more}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        everyone = gather_object(rows) if PartialState().num_processes > 1 else rows
        groups = [everyone[i : i + self._k] for i in range(0, len(everyone), self._k)]
        for group in groups:
            if len(group) != self._k or len({row["clip_id"] for row in group}) != 1:
                names = ", ".join(sorted({row["clip_id"] for row in group}))
                raise ModelError(f"reward: a group of {self._k} answers holds {len(group)} of the clips {names}.")
        given = {name: [[row[name] for row in group] for group in groups] for name in columns}
        opinions, words = np.array([own[0] for own in given["opinion"]]), given["text"]
        damage = [own[0] for own in given.get("damage", [])] or [NONE] * len(groups)
        is_about_damage = [one[0] != "" for one in damage]
        values = self._read(words)
        values[is_about_damage] = np.nan  # a number there is no score
        context = self._context | {"texts": words, "tokens": given["tokens"]}
        context["reason_scores"] = [[spoken(text) for text in group] for group in words]
        context |= {name: given[name] for name in ("think", "no_think") if name in given}
        if "perturbed" in given:
            context["perturbed"] = self._read(given["perturbed"])
        if any(is_about_damage):
            context |= _damage(words, damage)
        terms = compute(self._preset, values, opinions, [own[0] for own in given["dataset"]], self._weights, **context)
        self.batch = RewardBatch(scores=values.mean(axis=2), opinions=opinions, terms=terms, texts=words)
        for name, term in terms.items():
            if log_metric is not None and name != "total":
                log_metric(f"rewards/{name}", float(term.mean()))
        first = PartialState().process_index * len(rows)
        own: list[float] = terms["total"].reshape(-1)[first : first + len(rows)].tolist()
        return own

    def _read(self, texts: Sequence[Sequence[str | None]]) -> Numbers:
        """Numbers of answers [B, K, D], NaN where there is none or it cannot be read."""
        values = np.full((len(texts), self._k, self._dimensions), np.nan)
        for i, group in enumerate(texts):
            for j, text in enumerate(group):
                read = None if text is None else parse(text, self._dimensions)
                if read is not None:
                    values[i, j] = read  # one number stands for all D
        return values


def spoken(text: str) -> float:
    """Score 1-5 of the last grade word in an answer's reasoning; NaN without one.

    Grade words are BT.500's five and the prompt's "very poor". Q-Ponder (arXiv 2506.05384) rewards its agreement with
    the score; its form was NOT FOUND, this one is our choice.
    """
    found = _GRADE.findall(reason(text).lower())
    return _GRADES[found[-1]] if found else float("nan")


_GRADES = {"very poor": 1.0} | {word: 1.0 + place for place, word in enumerate(GRADES)}
_GRADE = re.compile(rf"\b(?<!not )({'|'.join(_GRADES)})\b")


def _damage(texts: Sequence[Sequence[str]], damage: Sequence[Damage]) -> dict[str, object]:
    """Context of the term `degradation`: each clip's damage, and what answers name."""
    named = [
        [parse_damage(text) if truth[0] else None for text in group] for group, truth in zip(texts, damage, strict=True)
    ]
    return {
        "true_classes": [truth[0] for truth in damage],
        "true_severities": [truth[1] for truth in damage],
        "classes": [[one[0] if one else "" for one in group] for group in named],
        "severities": [[one[1] if one else "" for one in group] for group in named],
    }
