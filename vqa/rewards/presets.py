"""Published recipes as weighted terms with the papers' constants, and their sum.

NOT FOUND marks a constant or form that no public source we could read gives; the value in its place is our own. The
format terms are the papers' patterns over whole answers, stricter than the parser of scores.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vqa.errors import UsageError
from vqa.rewards import format as form
from vqa.rewards import preference, regression, response, temporal
from vqa.rewards.batch import RolloutBatch, make_batch

Numbers = NDArray[np.float64]
Terms = dict[str, Numbers]

Term = Callable[[RolloutBatch, Terms], Numbers]  # the terms before it in the list are its second argument


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardPreset:
    """The reward of a recipe.

    `total` is the sum of weight x term; `source` names the paper and what it does not state. `demand` is the form that
    its format term pays for, `modes` says where the modes `paper` and `released` differ.
    """

    source: str
    terms: Mapping[str, tuple[float, Term]]
    demand: form.Demand = "tags"
    modes: str = ""

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term, by name."""
        return {name: weight for name, (weight, _) in self.terms.items()}


def compute(
    preset: str,
    values: ArrayLike,
    opinions: ArrayLike,
    datasets: Sequence[str],
    weights: Mapping[str, float] | None = None,
    /,
    **context: object,
) -> Terms:
    """Compute the reward of a preset for a batch; pairs never cross data sets.

    Args:
        preset: a name in REWARD_PRESETS.
        values: [B, K, D] on 1-5: D numbers of K answers to B clips, NaN where an answer was not parsed. One NaN makes
            the whole answer unparsed, which is 0 in every term but `repetition`, and `format` where texts are given.
        opinions: [B] on 1-5.
        datasets: B names.
        weights: of terms, in place of the preset's; a term of weight 0 is in the result, not in `total`.
        context: what some terms take beside the numbers; see CONTEXT in `vqa.rewards.batch`. A term without it is 0.

    Returns:
        Each term and `total`, float [B, K]; `total` is never NaN.

    Raises:
        UsageError: for an unknown preset or key, shapes that do not fit, and clips without an opinion.
    """
    chosen = known(preset, weights or {})
    batch = make_batch(np.array(values, float), np.array(opinions, float), datasets, context)
    batch = replace(batch, demand=chosen.demand)
    terms: Terms = {}
    total = np.zeros_like(batch.scores)
    for name, (weight, term) in chosen.terms.items():
        terms[name] = term(batch, terms)
        total += weight * terms[name]
    return {**terms, "total": total}


def known(preset: str, weights: Mapping[str, float] = MappingProxyType({})) -> RewardPreset:
    """Preset of this name with these weights of its terms.

    A term of weight 0 is computed and pays nothing.

    Raises:
        UsageError: for another name, of a preset or a term, with the names there are; and where no term pays.
    """
    if preset not in REWARD_PRESETS:
        raise UsageError(f"reward {preset!r} is not known. Known are: {', '.join(REWARD_PRESETS)}.")
    chosen = REWARD_PRESETS[preset]
    if wrong := sorted(set(weights) - set(chosen.terms)):
        raise UsageError(f"reward_weights names {', '.join(wrong)}; reward {preset} has {', '.join(chosen.terms)}.")
    terms = {name: (weights.get(name, own), term) for name, (own, term) in chosen.terms.items()}
    if not any(weight for weight, _ in terms.values()):
        raise UsageError(f"reward_weights leaves no term of reward {preset}. Give one of them a weight other than 0.")
    return replace(chosen, terms=terms)


def _regression(batch: RolloutBatch, _: Terms) -> Numbers:
    return regression.gaussian(batch.scores, batch.opinions, sigma=0.5)


def _pairwise(batch: RolloutBatch, _: Terms) -> Numbers:
    is_strict = batch.context.get("mode") == "strict"
    return preference.pairwise(batch.scores, batch.opinions, batch.peers, is_strict=is_strict)


def _spread(batch: RolloutBatch, _: Terms) -> Numbers:
    is_on = batch.context.get("stage", 1) == 1 or batch.context.get("mode") == "released"
    return response.spread(batch.values) if is_on else np.zeros_like(batch.scores)


def _triplet(batch: RolloutBatch, _: Terms) -> Numbers:
    return preference.triplet(batch.scores, batch.opinions, batch.peers)


def _fidelity(batch: RolloutBatch, _: Terms) -> Numbers:
    return preference.fidelity(batch.scores, batch.opinions, batch.peers)


def _format(batch: RolloutBatch, _: Terms) -> Numbers:
    texts = batch.array("texts")
    if texts is None:
        return form.parsed(batch.values)
    return form.demanded(texts.tolist(), batch.demand, numbers=batch.values.shape[2]).reshape(batch.scores.shape)


def _vqathinker_regression(batch: RolloutBatch, _: Terms) -> Numbers:
    return regression.gaussian(batch.scores, batch.opinions, sigma=0.5) * regression.decimals(batch.values)


def _contrast(
    batch: RolloutBatch, paid: Numbers, accuracy: Term, *, share: float, above: float, compared: int = 1
) -> Numbers:
    if batch.context.get("perturbed") is None:
        return np.zeros_like(paid)
    values = np.array(batch.context["perturbed"], float)
    if values.ndim != 3 or (len(values), values.shape[2]) != (len(paid), batch.values.shape[2]):
        raise UsageError(
            f"rewards: perturbed has shape {list(values.shape)}; wanted [{len(paid)}, answers, {batch.values.shape[2]}]"
        )
    values[~np.isfinite(values).all(axis=2)] = np.nan
    scores = values.mean(axis=2)
    other = accuracy(RolloutBatch(values, scores, batch.opinions, batch.peers, {}), {})
    are_parsed = ~np.isnan(batch.scores), ~np.isnan(scores)
    return temporal.order_bonus(paid, other, *are_parsed, share=share, above=above, compared=compared)


def _vqathinker_temporal(batch: RolloutBatch, terms: Terms) -> Numbers:
    if batch.context.get("mode") == "released":
        return np.zeros_like(batch.scores)
    compared = int(batch.context.get("compared", max(1, len(batch.scores))))
    order = _contrast(batch, terms["fidelity"], _fidelity, share=1.0, above=0.5, compared=compared)
    return order + _contrast(
        batch, terms["regression"], _vqathinker_regression, share=1.0, above=0.9, compared=compared
    )


def _relative(batch: RolloutBatch, _: Terms) -> Numbers:
    return regression.relative(batch.scores, batch.opinions)


def _vq_insight_temporal(batch: RolloutBatch, terms: Terms) -> Numbers:
    return _contrast(batch, terms["regression"], _relative, share=0.8, above=0.1)


def _length(batch: RolloutBatch, terms: Terms) -> Numbers:
    tokens = batch.array("tokens")
    return np.zeros_like(batch.scores) if tokens is None else form.length_band(tokens, terms["regression"])


def _repetition(batch: RolloutBatch, _: Terms) -> Numbers:
    texts = batch.array("texts")
    return np.zeros_like(batch.scores) if texts is None else form.repetition(texts.tolist())


def _degradation(batch: RolloutBatch, _: Terms) -> Numbers:
    names = ("classes", "severities", "true_classes", "true_severities")
    parts = [part for part in map(batch.array, names) if part is not None]
    return regression.degradation(*parts) if len(parts) == len(names) else np.zeros_like(batch.scores)


def _probability(batch: RolloutBatch, terms: Terms) -> Numbers:
    think, no_think = batch.array("think"), batch.array("no_think")
    if think is None or no_think is None:
        return np.zeros_like(batch.scores)
    return regression.probability(think, no_think, terms["threshold"] + terms["format"])


def _consistency(batch: RolloutBatch, _: Terms) -> Numbers:
    reasons = batch.array("reason_scores")
    return np.zeros_like(batch.scores) if reasons is None else response.consistency(batch.scores, reasons)


_PRERESQ_R1 = "PreResQ-R1 (arXiv 2511.05393), as in its released code; the paper's own names and weights: NOT FOUND. "

_STAGES = "paper: the spread penalty in stage 1 only, as in its figure; released: in both, as the code has no switch."

REWARD_PRESETS: Mapping[str, RewardPreset] = {
    "preresq_video": RewardPreset(
        source=_PRERESQ_R1.strip(),
        demand="lines",
        modes=_STAGES,
        terms={
            "pairwise": (0.375, _pairwise),
            "spread": (-1.0, _spread),
            "balance": (0.5, lambda batch, _: response.balance(batch.values)),
            "triplet": (0.125, _triplet),
            "format": (1.0, _format),
        },
    ),
    "preresq_image": RewardPreset(
        source=_PRERESQ_R1 + "Its fifth aspect takes no part in `balance`, as in the code.",
        demand="numbers",
        modes=_STAGES,
        terms={
            "pairwise": (0.375 / 3, _pairwise),
            "spread": (-1.0 / 3, _spread),
            "balance": (0.5 / 3, lambda batch, _: response.balance(batch.values, aspects=4)),
            "triplet": (0.125 / 3, _triplet),
            "rank": (1.0 / 3, lambda batch, _: regression.rank_to_truth(batch.scores, batch.opinions)),
            "format": (1.0, _format),
        },
    ),
    "visualquality_r1": RewardPreset(
        source="VisualQuality-R1 (arXiv 2505.14460).",
        terms={"fidelity": (1.0, _fidelity), "format": (1.0, _format)},
    ),
    "vqathinker": RewardPreset(
        source="VQAThinker (arXiv 2508.06051); perturbed answers are ranked among themselves.",
        modes="paper: with `temporal`; released: without, as its script has `--temporal false`.",
        terms={
            "fidelity": (1.0, _fidelity),
            "regression": (1.0, _vqathinker_regression),
            "temporal": (1.0, _vqathinker_temporal),
            "format": (1.0, _format),
        },
    ),
    "q_insight": RewardPreset(
        source="Q-Insight (arXiv 2503.22679): score and damage questions side by side.",
        demand="json",
        terms={
            "threshold": (1.0, lambda batch, _: regression.threshold(batch.scores, batch.opinions, within=0.35)),
            "degradation": (1.0, _degradation),
            "format": (1.0, _format),
        },
    ),
    "vq_insight": RewardPreset(
        source="VQ-Insight (arXiv 2506.18564), its score task, on the 0-100 of its opinions.",
        terms={
            "regression": (1.0, _relative),
            "temporal": (1.0, _vq_insight_temporal),
            "length": (1.0, _length),
            "format": (1.0, _format),
        },
    ),
    "q_hawkeye": RewardPreset(
        source="Q-Hawkeye (arXiv 2601.22920); its uncertainty weight and perception loss are objectives.",
        terms={
            "accuracy": (1.0, lambda batch, _: regression.laplace(batch.scores, batch.opinions)),
            "repetition": (1.0, _repetition),
            "format": (0.8, _format),
        },
    ),
    "omniquality_r": RewardPreset(
        source="OmniQuality-R (arXiv 2510.10609): sigma 0.8 of its 0-5 scale, which is 0.64 of 1-5; constant, as its "
        "released function that should shrink it is empty.",
        terms={
            "regression": (1.0, lambda batch, _: regression.gaussian(batch.scores, batch.opinions, sigma=0.64)),
            "format": (0.5, _format),
        },
    ),
    "aes_r1": RewardPreset(
        source="Aes-R1 (arXiv 2509.21871); its scale is 0-1, so 0.1 there is 0.4 of 1-5.",
        terms={
            "fidelity": (
                1.0,
                lambda batch, _: preference.fidelity(batch.scores, batch.opinions, batch.peers, ties_win=True),
            ),
            "regression": (
                1.0,
                lambda batch, _: (
                    regression.gaussian(batch.scores, batch.opinions, sigma=0.4) + 1e-5 * form.parsed(batch.values)
                ),
            ),
            "format": (1.0, _format),
        },
    ),
    "refine_iqa": RewardPreset(
        source="Refine-IQA (arXiv 2508.03763), stage 2; a script's name says 0.35, the code 0.5.",
        demand="score",
        terms={
            "threshold": (
                1.0,
                lambda batch, _: regression.threshold(batch.scores, batch.opinions, within=0.5, inclusive=True),
            ),
            "format": (1.0, _format),
            "probability": (1.0, _probability),
        },
    ),
    "q_ponder": RewardPreset(
        source="Q-Ponder (arXiv 2506.05384): continuous accuracy and consistency of reason and score. Their forms and "
        "weights: NOT FOUND; both are linear here, with weight 1.",
        terms={
            "accuracy": (1.0, lambda batch, _: regression.linear(batch.scores, batch.opinions)),
            "consistency": (1.0, _consistency),
            "format": (1.0, _format),
        },
    ),
    "cappo": RewardPreset(
        source="CapPO (arXiv 2509.21854) acts on the loss, as an objective. It has no score reward of its own "
        "(NOT FOUND), so VQAThinker's Gaussian (sigma 0.5) stands here.",
        terms={"regression": (1.0, _regression), "format": (1.0, _format)},
    ),
}
