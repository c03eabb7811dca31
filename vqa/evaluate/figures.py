"""The figures of one set of clips: every statistic with its interval, or null and the reason."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vqa import metrics
from vqa.evaluate.join import Pairing
from vqa.metrics.correlation import Numbers
from vqa.metrics.fits import FORMULAS, Fit, Kind, fit_logistic4, fit_logistic5, rises
from vqa.metrics.intervals import interval, replicates
from vqa.metrics.pairs import analyse_pairs

PLAIN = ("srcc", "plcc", "krcc", "rmse", "mae", "pairwise_accuracy")
MAPPED = ("plcc", "rmse", "mae")
STATISTICS = (
    *PLAIN,
    *(f"{name}_{curve}" for curve in ("logistic4", "logistic5") for name in MAPPED),
    *("outlier_ratio", "auc_different_similar", "auc_better_worse"),
)
FEWEST = 3  # clips: with two every correlation is 1 or -1
APART = 0.5  # without rating errors: pairs whose opinions differ by more of their standard deviations are different
TEST_SHARE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What changes the figures."""

    resamples: int = 10_000
    confidence: float = 0.95
    seed: int = 0
    splits: int = 10
    allow_missing: bool = False


@dataclass(slots=True, kw_only=True)
class Figures:
    """`values` is FIGURES of vqa.evaluate; the rest is for those that build on it."""

    values: dict[str, Any]
    fits: dict[str, Fit] = field(default_factory=dict)
    replicates: dict[str, Numbers] = field(default_factory=dict)
    used: int = 0


def figures(pairings: Sequence[Pairing], settings: Settings) -> Figures:
    """Every statistic over the pairings that have a score; all null where some have none, unless that is allowed."""
    used = [pairing for pairing in pairings if pairing.score is not None]
    head = {"expected": len(pairings), "used": len(used)}
    reason = _refusal(pairings, settings)
    if reason:
        nothing = {name: statistic(math.nan, reason=reason) for name in STATISTICS}
        return Figures(values=head | {"statistics": nothing, "fits": {}, "rules": {}, "splits": None}, used=len(used))
    x = np.array([pairing.score for pairing in used], dtype=np.float64)
    y = np.array([pairing.mos for pairing in used])
    fits, fit_values = _fits(x, y)
    mapped = {name: fit(x) for name, fit in fits.items()}
    spreads, outlier_rule = _spreads(used)
    errors, pair_rule, apart = _pair_rule(used, y)
    values = {name: getattr(metrics, name)(x, y) for name in PLAIN}
    values |= {f"{name}_{curve}": getattr(metrics, name)(mapped[curve], y) for curve in mapped for name in MAPPED}
    if spreads is not None and "logistic4" in mapped:
        values["outlier_ratio"] = metrics.outlier_ratio(mapped["logistic4"], y, spreads)
    drawn = {}
    if len(used) >= FEWEST:
        found = analyse_pairs(x, y, errors=errors, apart=apart, seed=settings.seed)
        areas = {
            "auc_different_similar": (found.auc_different_similar, found.influence_different_similar),
            "auc_better_worse": (found.auc_better_worse, found.influence_better_worse),
        }
        values |= {name: value for name, (value, _) in areas.items()}
        drawn_pairs = f"; {found.pairs} of {found.pairs_of_all} pairs" + " drawn" * (found.pairs < found.pairs_of_all)
        pair_rule += f"{drawn_pairs}, {found.different} different"
        if settings.resamples:
            options = {"resamples": settings.resamples, "seed": settings.seed}
            drawn = replicates(x, y, mapped=mapped, spreads=spreads, areas=areas, **options)
    statistics = {}
    for name in STATISTICS:
        value = values.get(name, math.nan)
        why = _why_none(name, x, y, fit_values, outlier_rule if spreads is None else "")
        bounds = interval(drawn[name], confidence=settings.confidence) if name in drawn and not why else None
        statistics[name] = statistic(math.nan if why else value, bounds=bounds, reason=why)
    rules = {"outlier_ratio": outlier_rule, "auc": pair_rule, "rmse": "divided by n, in units of the opinions"}
    values = head | {"statistics": statistics, "fits": fit_values, "rules": rules, "splits": _splits(used, settings)}
    return Figures(values=values, fits=fits, replicates=drawn, used=len(used))


def statistic(value: float, *, bounds: tuple[float, float] | None = None, reason: str = "") -> dict[str, Any]:
    """STATISTIC of vqa.evaluate; a value that is no number is null and has a reason."""
    if not math.isfinite(value):
        return {"value": None, "low": None, "high": None, "reason": reason or "not defined on these clips"}
    low, high = bounds or (None, None)
    return {"value": value, "low": low, "high": high, "reason": None}


def _refusal(pairings: Sequence[Pairing], settings: Settings) -> str:
    missing = sum(pairing.score is None for pairing in pairings)
    if not missing or settings.allow_missing:
        return ""
    return (
        f"{len(pairings) - missing} of {len(pairings)} expected clips have a score; figures on those alone could "
        "mislead (--allow-missing states them)"
    )


def _fits(x: Numbers, y: Numbers) -> tuple[dict[str, Fit], dict[str, Any]]:
    """The curves that hold, and FIT of each."""
    held: dict[str, Fit] = {}
    values: dict[str, dict[str, Any]] = {}
    curves: dict[Kind, Fit | None] = {"logistic4": fit_logistic4(x, y), "logistic5": fit_logistic5(x, y)}
    for name, found in curves.items():
        if found is None:
            reason = "a curve needs 5 clips" if len(x) < 5 else _constant(x, y)
            values[name] = {"formula": FORMULAS[name], "parameters": None, "converged": False, "reason": reason}
            continue
        note = found.note
        if not rises(found, x):
            note = "the curve falls: opinions go down as scores go up (--lower-is-better turns scores round)"
        else:
            held[name] = found
        values[name] = {
            "formula": FORMULAS[name],
            "parameters": list(found.parameters),
            "converged": found.converged,
            "reason": note or None,
        }
    return held, values


def _constant(x: Numbers, y: Numbers) -> str:
    return "all scores are equal" if len(x) and np.ptp(x) == 0 else "all opinions are equal" if len(y) else ""


def _why_none(name: str, x: Numbers, y: Numbers, fits: Mapping[str, Any], outlier_rule: str) -> str:
    """Why a statistic has no value; nothing where it has one."""
    if not len(x):
        return "no clip has a score"
    curve = "logistic4" if name == "outlier_ratio" else name.partition("_")[2]
    if curve in fits and (fits[curve]["parameters"] is None or "falls" in (fits[curve]["reason"] or "")):
        return str(fits[curve]["reason"])
    if name == "outlier_ratio" and outlier_rule:
        return outlier_rule
    if name in ("rmse", "mae") or curve in fits:
        return ""
    if len(x) < FEWEST:
        return f"n = {len(x)}: needs {FEWEST} clips"
    if np.ptp(y) == 0 or (np.ptp(x) == 0 and name in ("srcc", "plcc", "krcc")):
        return _constant(x, y) if np.ptp(y) else "all opinions are equal"
    return ""


def _spreads(used: Sequence[Pairing]) -> tuple[Numbers | None, str]:
    """What an outlier is measured by, and the rule in words."""
    spreads = [number(pairing.label.get("mos_std")) for pairing in used]
    known = [spread for spread in spreads if spread is not None]
    if not known or len(known) < len(used):
        return None, f"mos_std is known for {len(known)} of {len(used)} clips"
    ratings = [number(pairing.label.get("ratings")) for pairing in used]
    if all(count is not None and count > 0 for count in ratings):
        errors = np.array(known) / np.sqrt(np.array(ratings, dtype=np.float64))
        return errors, "|mapped - mos| > 2 mos_std / sqrt(ratings), the standard error (VQEG 2000)"
    return np.array(known), "|mapped - mos| > 2 mos_std, the spread of single ratings: their number is not known"


def _pair_rule(used: Sequence[Pairing], y: Numbers) -> tuple[Numbers | None, str, float]:
    spreads, rule = _spreads(used)
    if spreads is not None and "standard error" in rule:
        return spreads, "different: opinions more than 1.96 joint standard errors apart", 0.0
    apart = APART * float(y.std()) if len(y) else 0.0
    words = f"different: opinions more than {apart:.4g} apart, {APART} of their standard deviation"
    return None, f"{words} (standard errors are not known)", apart


def number(value: object) -> float | None:
    """A finite float of a label's cell, or None."""
    try:
        found = float(value)  # type: ignore[arg-type]  # what float cannot take is caught
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _splits(used: Sequence[Pairing], settings: Settings) -> dict[str, Any] | None:
    """Medians over random test parts: the usual protocol of models that are trained on the rest.

    Contents (content_id, else clips) are shuffled by a seed; the first fifth is the test part.
    """
    contents = [str(pairing.label.get("content_id") or pairing.clip_id) for pairing in used]
    names = sorted(set(contents))
    if not settings.splits or len(names) < 5 * FEWEST:
        return None
    where = {name: index for index, name in enumerate(names)}
    of = np.array([where[content] for content in contents])
    x, y = np.array([pairing.score for pairing in used], dtype=np.float64), np.array([pairing.mos for pairing in used])
    rows: dict[str, list[float]] = {}
    for turn in range(settings.splits):
        shuffled = np.random.default_rng([settings.seed, turn]).permutation(len(names))
        test = np.isin(of, shuffled[: math.ceil(TEST_SHARE * len(names))])
        a, b = x[test], y[test]
        fit = fit_logistic4(a, b)
        found = {name: getattr(metrics, name)(a, b) for name in ("srcc", "plcc", "krcc")}
        if fit is not None and rises(fit, a):
            found |= {f"{name}_logistic4": getattr(metrics, name)(fit(a), b) for name in ("plcc", "rmse")}
        for name, value in found.items():
            rows.setdefault(name, []).append(value)
    # A statistic that some part does not define has no median.
    whole = {name: row for name, row in rows.items() if len(row) == settings.splits and np.isfinite(row).all()}
    return {
        "count": settings.splits,
        "test_share": TEST_SHARE,
        "by": "content_id" if any(pairing.label.get("content_id") for pairing in used) else "clip",
        "median": {name: float(np.median(row)) for name, row in whole.items()},
        "least": {name: min(row) for name, row in whole.items()},
        "most": {name: max(row) for name, row in whole.items()},
    }


def means(sets: Mapping[str, Figures], settings: Settings) -> dict[str, dict[str, Any]]:
    """Plain and weighted (by clips used) means over data sets; data sets are resampled independently."""
    result: dict[str, dict[str, Any]] = {}
    for kind in ("plain", "weighted"):
        weights = np.array([one.used if kind == "weighted" else 1 for one in sets.values()], dtype=np.float64)
        result[kind] = {}
        for name in STATISTICS:
            values = [one.values["statistics"][name]["value"] for one in sets.values()]
            lacking = [label for label, value in zip(sets, values, strict=True) if value is None]
            if lacking:
                result[kind][name] = statistic(math.nan, reason=f"none for {', '.join(map(str, lacking[:5]))}")
                continue
            bounds = None
            if all(name in one.replicates for one in sets.values()):
                drawn = np.stack([one.replicates[name] for one in sets.values()])
                bounds = interval(weights @ drawn / weights.sum(), confidence=settings.confidence)
            result[kind][name] = statistic(float(np.average(values, weights=weights)), bounds=bounds)
    return result
