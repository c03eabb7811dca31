"""A recipe's reward in trl's shape: groups are gathered over all processes before any answer is compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from numpy.typing import NDArray

from vqa.errors import ModelError
from vqa.prompt import parse
from vqa.rewards import compute
from vqa.rewards.presets import known

Numbers = NDArray[np.float64]

# Terms that pay nothing in training, as the trainer does not make what they compare: a recipe runs without them.
UNFED = {
    "vqathinker": "temporal: answers on frames out of order",
    "vq_insight": "temporal: answers on frames out of order",
    "refine_iqa": "probability: chances of the opinion's digit with and without reasoning",
    "q_insight": "degradation: questions about damage beside those about quality",
    "q_ponder": "consistency: the score that the reasoning alone speaks for",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One generation batch over all processes: B clips, K answers each."""

    scores: Numbers  # [B, K], NaN where unparsed
    opinions: Numbers  # [B]
    terms: dict[str, Numbers]  # [B, K] each, `total` among them
    texts: list[list[str]]


class RankAndScore:
    """Callable for trl: one float an answer, the preset's `total`; `judged` holds the last batch for hooks and checks.

    `k` answers of a clip come one after another in the global batch, as trl's sampler lays them out; anything else
    raises ModelError. An exception stops the run.
    """

    def __init__(self, preset: str, *, dimensions: int, k: int, stage: int = 1, mode: str = "paper_code") -> None:
        known(preset)
        self.__name__ = preset  # trl's key of the metric
        self._preset, self._dimensions, self._k = preset, dimensions, k
        self._context = {"stage": stage, "mode": mode}
        self.judged: Judged | None = None

    def __call__(
        self,
        *,
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        clip_id: Sequence[str],
        dataset: Sequence[str],
        opinion: Sequence[float],
        log_metric: Callable[[str, float], None] | None = None,
        **_: Any,
    ) -> list[float]:
        """See trl's GRPOTrainer, `reward_funcs`."""
        texts = [one if isinstance(one, str) else one[0]["content"] for one in completions]
        lengths = [len(ids) for ids in completion_ids]
        rows = list(zip(clip_id, dataset, opinion, texts, lengths, strict=True))
        everyone = gather_object(rows) if PartialState().num_processes > 1 else rows
        groups = [everyone[i : i + self._k] for i in range(0, len(everyone), self._k)]
        for group in groups:
            if len(group) != self._k or len({row[0] for row in group}) != 1:
                names = ", ".join(sorted({row[0] for row in group}))
                raise ModelError(f"reward: a group of {self._k} answers holds {len(group)} of the clips {names}")
        values = np.full((len(groups), self._k, self._dimensions), np.nan)
        for i, group in enumerate(groups):
            for j, row in enumerate(group):
                read = parse(row[3], self._dimensions)
                if read is not None:
                    values[i, j] = read  # one number stands for all D
        opinions = np.array([group[0][2] for group in groups])
        words = [[row[3] for row in group] for group in groups]
        context = self._context | {"texts": words, "tokens": [[row[4] for row in group] for group in groups]}
        terms = compute(self._preset, values, opinions, [group[0][1] for group in groups], **context)
        self.judged = Judged(scores=values.mean(axis=2), opinions=opinions, terms=terms, texts=words)
        for name, term in terms.items():
            if log_metric is not None and name != "total":
                log_metric(f"rewards/{name}", float(term.mean()))
        first = PartialState().process_index * len(rows)
        own: list[float] = terms["total"].reshape(-1)[first : first + len(rows)].tolist()
        return own
