"""Opinions from pairwise comparisons by maximum likelihood, with intervals.

    bradley-terry  P(first better) grows with the logistic function of the difference (Bradley and Terry 1952); ties by
                   Davidson (1970): odds of a tie against the geometric mean of both wins. The values then depend on
                   each clip's wins and half of its ties alone, the score that a count of half wins gives, but a tie is
                   one observation and not two halves of opposite ones, so that intervals stay right.
    thurstone      Case V (Thurstone 1927), the normal distribution in place of the logistic; a tie where the difference
                   as seen lies within a threshold (Glenn and David 1960)

Regularisation: each value, and the logarithm of the tie parameter, has a normal prior of mean 0 and standard deviation
`PRIOR_STD`. It keeps finite what has no maximum of likelihood, clips that won or lost every comparison, and hardly
moves a clip with a dozen others. Such clips get no upper (lower) limit.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import log_ndtr, ndtr

from vqa.data.subjective.mos import write_columns
from vqa.data.subjective.pairs import Comparisons, refuse_parts
from vqa.errors import UsageError, first_few

PairMethod = Literal["bradley-terry", "thurstone"]
PAIR_METHODS: tuple[PairMethod, ...] = get_args(PairMethod)
PRIOR_STD: dict[str, float] = {"bradley-terry": 3.0, "thurstone": 1.8}  # 3 / 1.7: the same width in both units
FEWEST_SUBJECTS = 5  # with fewer, resampling them gives hardly any different resamples

_NO_TIES = -50.0  # logarithm of the tie parameter where nobody judged a tie
_LEAST = 1e-300
_NEAR = 0.02  # standard errors to which a resample is solved

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StrengthFit:
    """Values of E clips with mean 0, and how well they are known."""

    value: Floats  # [E] in units of the method
    tie: float  # logarithm of Davidson's nu or of the threshold
    information: Floats  # [E, E] expected information with the prior's; its inverse is the covariance of `value`


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Strengths:
    """Opinions of E clips from comparisons; a limit of NaN: none set on that side."""

    value: Floats  # [E] in units of the method, mean 0
    low: Floats  # [E] limits of the 95 % interval
    high: Floats  # [E]
    share: Floats  # [E] expected share of wins against every other clip, ties as half, 0 to 100
    won: Floats  # [E] counts of the comparisons
    tied: Floats  # [E]
    lost: Floats  # [E]
    groups: int  # clips of one group are connected by wins in both directions; 1 is best
    agreement: Floats  # [S] share of each subject's wins that the values order alike
    resampled: Literal["subjects", "comparisons"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Counts:
    """Comparisons by distinct pair [P], the clip of smaller index first."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    outcome: Floats  # [3, P] wins of the first, of the second, ties


def recover_strengths(
    pairs: Comparisons, *, method: PairMethod, resamples: int = 200, seed: int = 0, source: str = "pairs"
) -> Strengths:
    """Recover opinions from pairwise comparisons.

    Args:
        pairs: N comparisons of E clips by S subjects.
        method: One of the methods of this module.
        resamples: Number of bootstrap resamples: of subjects where at least FEWEST_SUBJECTS are named, else of single
            comparisons. Percentiles 2.5 and 97.5 are the limits.
        seed: Seed of the resamples.
        source: Name of the table, for messages.

    Raises:
        UsageError: If comparisons do not connect all clips, or all of them are ties.
    """
    refuse_parts(pairs, source=source)
    if not pairs.result.any():
        raise UsageError(f"{source}: all {len(pairs.result)} comparisons are ties. Judge pairs that differ.")
    size = len(pairs.clips)
    at, pair = _distinct(pairs)
    fitted = fit_strengths(pairs, method=method)
    by_subject = len(pairs.subjects) >= FEWEST_SUBJECTS
    start = np.append(fitted.value, fitted.tie)
    root = cholesky(_Objective(_counted(pairs, at, pair, pairs.count), size, method, None).hessian(start))
    drawn = np.array(
        [
            _resolve(_Objective(_counted(pairs, at, pair, weight), size, method, None), start, root)[:size]
            for weight in _draws(pairs, resamples, seed, by_subject=by_subject)
        ]
    )
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    groups, unbeaten, beaten = _groups(pairs)
    # No resample of a clip that only won has a loss in it: its other limit is the wider one of the information's.
    error = 1.96 * np.sqrt(np.linalg.inv(fitted.information).diagonal())
    low = np.where(unbeaten, np.minimum(low, fitted.value - error), low)
    high = np.where(beaten, np.maximum(high, fitted.value + error), high)
    wins = [
        _sums(pairs.first, pairs.count * (pairs.result == sign), size)
        + _sums(pairs.second, pairs.count * (pairs.result == -sign), size)
        for sign in (1, 0, -1)
    ]
    return Strengths(
        value=fitted.value,
        low=np.where(beaten, np.nan, low),
        high=np.where(unbeaten, np.nan, high),
        share=_shares(fitted, method),
        won=wins[0],
        tied=wins[1],
        lost=wins[2],
        groups=groups,
        agreement=_agreement(pairs, fitted.value),
        resampled="subjects" if by_subject else "comparisons",
    )


def fit_strengths(pairs: Comparisons, *, method: PairMethod, prior_std: float | None = None) -> StrengthFit:
    """Fit values by penalised maximum likelihood; the graph need not be connected.

    Args:
        pairs: N comparisons of E clips.
        method: One of the methods of this module.
        prior_std: Standard deviation of the prior, in units of the method. None: PRIOR_STD.
    """
    size = len(pairs.clips)
    objective = _Objective(_counted(pairs, *_distinct(pairs), pairs.count), size, method, prior_std)
    found = minimize(
        objective, np.zeros(size + 1), jac=True, hess=objective.hessian, method="trust-exact", options={"gtol": 1e-7}
    ).x
    return StrengthFit(value=found[:size], tie=float(found[size]), information=objective.hessian(found)[:size, :size])


def anchored(pairs: Comparisons, found: Strengths, known: Mapping[str, float], *, source: str) -> Strengths:
    """Map values to 1-5 by the least-squares line through clips of known opinion.

    Args:
        pairs: The comparisons.
        found: The result of `recover_strengths`.
        known: Opinions on 1-5 by clip; those of clips without a comparison are not used.
        source: Name of their table, for messages.

    Returns:
        Values and limits on 1-5, those beyond an end set to it.

    Raises:
        UsageError: If fewer than two clips with different opinions are known, or opinions do not rise with the values.
    """
    at = [place for place, clip in enumerate(pairs.clips) if clip in known]
    opinion = np.array([known[pairs.clips[place]] for place in at])
    if len(at) < 2 or np.ptp(opinion) == 0:
        raise UsageError(
            f"{source}: {len(at)} of {len(pairs.clips)} compared clips have an opinion there. Give two or more that "
            "differ, named as in the comparisons."
        )
    value = found.value[at] - found.value[at].mean()
    slope = float(value @ opinion / max(value @ value, _LEAST))
    if not slope > 0:
        raise UsageError(f"{source}: opinions do not rise with the comparisons of these {len(at)} clips. Check both.")
    line = slope, float(opinion.mean() - slope * found.value[at].mean())
    on_scale = {name: np.clip(line[1] + line[0] * getattr(found, name), 1, 5) for name in ("value", "low", "high")}
    return replace(found, **on_scale)


def strength_notes(pairs: Comparisons, found: Strengths, *, method: PairMethod, is_anchored: bool = False) -> list[str]:
    """Notes for the user: counts, ties, intervals, clips without a limit, the import."""
    total, ties = pairs.count.sum(), pairs.count[pairs.result == 0].sum()
    who = f" by {len(pairs.subjects)} subjects" if pairs.subjects else ""
    lines = [f"{len(pairs.clips)} clips, {total:g} comparisons{who}, {ties:g} of them ties"]
    few = f", fewer than {FEWEST_SUBJECTS} subjects being named" if found.resampled == "comparisons" else ""
    lines.append(
        f"95 % intervals by resampling {found.resampled}{few}; prior of standard deviation "
        f"{PRIOR_STD[method]:g} on each value"
    )
    for what, known, limit in (("won", found.won, "upper"), ("lost", found.lost, "lower")):
        names = [pairs.clips[at] for at in np.flatnonzero(known == found.won + found.tied + found.lost)]
        if names:
            lines.append(f"{len(names)} clips {what} every comparison and have no {limit} limit: {first_few(names)}")
    if found.groups > 1:
        lines.append(
            f"the clips fall into {found.groups} groups that never lost to a lower one: distances between groups rest "
            "on the prior, their order does not"
        )
    ends = np.floor(found.value.min() * 100) / 100, np.ceil(found.value.max() * 100) / 100
    low, high = (1, 5) if is_anchored else ends
    return [*lines, f"to import: hf-videofolder --dataset {pairs.dataset or 'NAME'} --scale {low:g},{high:g}"]


def write_strengths(out: Path, pairs: Comparisons, found: Strengths) -> list[Path]:
    """Write opinions as `vqa data import hf-videofolder` reads them, and subjects.

    Args:
        out: Path of the opinions; its suffix (.csv or .parquet) sets the format. Files are written atomically.
        pairs: The comparisons, for the names of clips and subjects.
        found: The result of `recover_strengths`.

    Returns:
        The paths written: the opinions, and `NAME.subjects.SUFFIX` where subjects are named.

    Raises:
        UsageError: If `out` has another suffix.
    """
    columns = {"mos": found.value, "mos_low": found.low, "mos_high": found.high, "share": found.share}
    columns |= {"won": found.won, "tied": found.tied, "lost": found.lost}
    write_columns(out, {"file_name": pairs.clips, **columns})
    if not pairs.subjects:
        return [out]
    beside = out.with_name(f"{out.stem}.subjects{out.suffix}")
    judged = _sums(pairs.subject, pairs.count, len(pairs.subjects))
    write_columns(beside, {"subject": pairs.subjects, "judged": judged, "agreement": found.agreement})
    return [out, beside]


class _Objective:
    """Penalised negative log-likelihood of values and tie [E + 1]; gradient, Hessian."""

    def __init__(self, counts: _Counts, size: int, method: PairMethod, prior_std: float | None) -> None:
        self.counts, self.size = counts, size
        self.model: Callable[[Floats, float], tuple[Floats, Floats, Floats]] = _MODELS[method]
        self.precision = np.full(size + 1, (prior_std or PRIOR_STD[method]) ** -2)
        self.has_ties = bool(counts.outcome[2].any())
        self.total = counts.outcome.sum(0)

    def _model(self, values: Floats) -> tuple[Floats, Floats, Floats]:
        gap = values[self.counts.first] - values[self.counts.second]
        return self.model(gap, float(values[-1]) if self.has_ties else _NO_TIES)

    def __call__(self, values: Floats) -> tuple[float, Floats]:
        log, by_gap, by_tie = self._model(values)
        loss = -(self.counts.outcome * log).sum() + 0.5 * self.precision @ values**2
        pull = (self.counts.outcome * by_gap).sum(0)
        slope = self.precision * values
        slope[:-1] -= np.bincount(self.counts.first, pull, self.size)
        slope[:-1] += np.bincount(self.counts.second, pull, self.size)
        slope[-1] -= (self.counts.outcome * by_tie).sum() if self.has_ties else 0.0
        return float(loss), slope

    def hessian(self, values: Floats) -> Floats:
        log, by_gap, by_tie = self._model(values)
        chance = np.exp(log)
        first, second, size = self.counts.first, self.counts.second, self.size
        weight = self.total * (chance * by_gap**2).sum(0)
        found = np.zeros((size + 1, size + 1))
        found[first, second] = found[second, first] = -weight  # each pair occurs once
        found[np.diag_indices(size)] = np.bincount(first, weight, size) + np.bincount(second, weight, size)
        if self.has_ties:
            cross = self.total * (chance * by_gap * by_tie).sum(0)
            found[:-1, -1] = np.bincount(first, cross, size) - np.bincount(second, cross, size)
            found[-1] = found[:, -1]
            found[-1, -1] = (self.total * (chance * by_tie**2).sum(0)).sum()
        found[np.diag_indices(size + 1)] += self.precision
        return found


def _davidson(gap: Floats, tie: float) -> tuple[Floats, Floats, Floats]:
    """Log probabilities [3, P] of win, loss and tie; derivatives by gap and log nu."""
    half = 0.5 * abs(gap)
    chance = np.stack([np.exp(0.5 * gap - half), np.exp(-0.5 * gap - half), np.exp(tie - half)])  # largest: 1
    total = chance.sum(0)
    log = np.stack([0.5 * gap, -0.5 * gap, np.full_like(gap, tie)]) - (half + np.log(total))
    chance /= total
    by_gap = np.array([[0.5], [-0.5], [0.0]]) - (chance[0] - chance[1]) / 2
    return log, by_gap, np.array([[0.0], [0.0], [1.0]]) - chance[2]


def _case_five(gap: Floats, tie: float) -> tuple[Floats, Floats, Floats]:
    """As `_davidson`, for the threshold exp(tie) on a difference of deviation 1."""
    threshold = np.exp(tie)
    far, near = log_ndtr(gap - threshold), log_ndtr(-gap - threshold)
    between = ndtr(threshold - abs(gap)) - ndtr(-threshold - abs(gap))  # no cancellation in the tails
    log = np.stack([far, near, np.log(np.maximum(between, _LEAST))])
    right, left = (-0.5 * (gap + side) ** 2 - 0.5 * np.log(2 * np.pi) for side in (-threshold, threshold))
    slopes = np.exp(right - log), np.exp(left - log)  # densities at both thresholds over each probability
    by_gap = np.stack([slopes[0][0], -slopes[1][1], slopes[1][2] - slopes[0][2]])
    by_tie = threshold * np.stack([-slopes[0][0], -slopes[1][1], slopes[1][2] + slopes[0][2]])
    return log, by_gap, by_tie


_MODELS: dict[str, Callable[[Floats, float], tuple[Floats, Floats, Floats]]] = {
    "bradley-terry": _davidson,
    "thurstone": _case_five,
}


def _resolve(objective: _Objective, start: Floats, root: Floats) -> Floats:
    """Minimum of a resample near `start`, the whole sample's (Hessian root.T @ root).

    In the units of its standard errors a resample's valley is nearly round: after one step of Newton's a few of first
    order suffice.
    """

    def scaled(step: Floats) -> tuple[float, Floats]:
        loss, slope = objective(start + solve_triangular(root, step))
        return loss, solve_triangular(root, slope, trans="T")

    newton = -scaled(np.zeros_like(start))[1]
    found = minimize(scaled, newton, jac=True, method="L-BFGS-B", options={"gtol": _NEAR})
    return np.asarray(start + solve_triangular(root, found.x))


def _distinct(pairs: Comparisons) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Codes [P] of distinct pairs, smaller * E + larger; each comparison's pair [N]."""
    low, high = np.minimum(pairs.first, pairs.second), np.maximum(pairs.first, pairs.second)
    at, pair = np.unique(low * len(pairs.clips) + high, return_inverse=True)
    return at, pair


def _counted(pairs: Comparisons, at: NDArray[np.intp], pair: NDArray[np.intp], weight: Floats) -> _Counts:
    signed = np.where(pairs.first < pairs.second, pairs.result, -pairs.result)
    outcome = np.stack([_sums(pair, weight * (signed == sign), len(at)) for sign in (1, -1, 0)])
    first, second = np.divmod(at, len(pairs.clips))
    return _Counts(first=first, second=second, outcome=outcome)


def _draws(pairs: Comparisons, resamples: int, seed: int, *, by_subject: bool) -> Iterator[Floats]:
    """Weights [N] of each resample."""
    random = np.random.default_rng(seed)
    for _ in range(resamples):
        if by_subject:
            size = len(pairs.subjects)
            yield pairs.count * random.multinomial(size, np.full(size, 1 / size))[pairs.subject]
        else:
            total = pairs.count.sum()
            yield random.multinomial(round(total), pairs.count / total).astype(np.float64)


def _groups(pairs: Comparisons) -> tuple[int, NDArray[np.bool_], NDArray[np.bool_]]:
    """Count of strong components (Ford 1957); clips [E] of unbeaten, of winless ones.

    Clips of the largest group count as neither.
    """
    size = len(pairs.clips)
    better = np.where(pairs.result >= 0, pairs.first, pairs.second)
    worse = np.where(pairs.result >= 0, pairs.second, pairs.first)
    tied = pairs.result == 0  # both ways
    ends = np.append(better, worse[tied]), np.append(worse, better[tied])
    groups, group = connected_components(
        coo_array((np.ones(len(ends[0])), ends), shape=(size, size)), directed=True, connection="strong"
    )
    across = group[ends[0]] != group[ends[1]]
    members = np.bincount(group)
    frame = members == members.max() if members.max() > 1 else np.zeros(groups, bool)
    wins, losses = frame.copy(), frame.copy()  # the largest group is what the others have no limit against
    wins[group[ends[0]][across]] = losses[group[ends[1]][across]] = True
    return groups, ~losses[group], ~wins[group]


def _shares(found: StrengthFit, method: PairMethod) -> Floats:
    """Expected share of wins against every other clip [E], ties as half, 0 to 100."""
    size = len(found.value)
    gap = (found.value[:, None] - found.value).ravel()
    log, _, _ = _MODELS[method](gap, found.tie if found.tie else _NO_TIES)
    won = (np.exp(log[0]) + 0.5 * np.exp(log[2])).reshape(size, size)
    return np.asarray(100 * (won.sum(1) - won.diagonal()) / (size - 1))


def _agreement(pairs: Comparisons, value: Floats) -> Floats:
    """Share of each subject's wins [S] ordered alike; NaN for one with only ties."""
    agree = np.sign(value[pairs.first] - value[pairs.second]) == pairs.result
    told = pairs.result != 0
    size = len(pairs.subjects)
    total = _sums(pairs.subject[told], pairs.count[told], size)
    right = _sums(pairs.subject[told], (pairs.count * agree)[told], size)
    return np.asarray(np.divide(right, total, out=np.full(size, np.nan), where=total > 0))


def _sums(group: NDArray[np.intp], weight: Floats, size: int) -> Floats:
    return np.asarray(np.bincount(group, weight, size)[:size], np.float64)
