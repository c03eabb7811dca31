"""Statistics of a set of clips, each with a bootstrap interval or why it is null."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vqa import metrics
from vqa.data.dialects import number_or_none
from vqa.errors import UsageError
from vqa.evaluate.join import Pairing
from vqa.evaluate.schema import FitRecord, SetMetrics, Splits, Statistic
from vqa.metrics.correlation import Numbers
from vqa.metrics.fits import FORMULAS, CurveFit, CurveKind, fit_logistic4, fit_logistic5, rises
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
APART = 0.5  # without rating errors, pairs are different if opinions differ by more than this many standard deviations
TEST_SHARE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsConfig:
    """Settings of the statistics."""

    resamples: int = 10_000  # of the bootstrap; 0 for no intervals
    confidence: float = 0.95
    seed: int = 0
    splits: int = 10  # random 80/20 splits
    allow_missing: bool = False  # report statistics although some clips have no score


@dataclass(slots=True, kw_only=True)
class SetResult:
    """Statistics of a set of clips, with their curves and bootstrap replicates."""

    metrics: SetMetrics
    fits: dict[str, CurveFit] = field(default_factory=dict)
    replicates: dict[str, Numbers] = field(default_factory=dict)
    used: int = 0


def compute_statistics(pairings: Sequence[Pairing], config: StatisticsConfig) -> SetResult:
    """Compute every statistic over the clips that have a score.

    Correlations and errors are computed on the scores as they are and after a 4- and a 5-parameter logistic (VQEG); the
    areas under the curve follow Krasula et al. 2016.

    Args:
        pairings: Opinions and scores of one data set.
        config: Settings.

    Returns:
        The statistics; all null if some clips have no score and `config.allow_missing` is False.
    """
    used = [pairing for pairing in pairings if pairing.score is not None]
    reason = _refusal(pairings, config)
    if reason:
        missing: SetMetrics = {
            "expected": len(pairings),
            "used": len(used),
            "statistics": {name: make_statistic(math.nan, reason=reason) for name in STATISTICS},
            "fits": {},
            "definitions": {},
            "splits": None,
        }
        return SetResult(metrics=missing, used=len(used))
    x = np.array([pairing.score for pairing in used], dtype=np.float64)
    y = np.array([pairing.mos for pairing in used])
    fits, fit_records = _fits(x, y)
    mapped = {name: fit(x) for name, fit in fits.items()}
    spreads, outlier_definition = _spreads(used)
    errors, pair_definition, apart = _pair_errors(used, y)
    values = {name: getattr(metrics, name)(x, y) for name in PLAIN}
    values |= {f"{name}_{curve}": getattr(metrics, name)(mapped[curve], y) for curve in mapped for name in MAPPED}
    if spreads is not None and "logistic4" in mapped:
        values["outlier_ratio"] = metrics.outlier_ratio(mapped["logistic4"], y, spreads)
    drawn: dict[str, Numbers] = {}
    if len(used) >= FEWEST:
        found = analyse_pairs(x, y, errors=errors, apart=apart, seed=config.seed)
        areas = {
            "auc_different_similar": (found.auc_different_similar, found.influence_different_similar),
            "auc_better_worse": (found.auc_better_worse, found.influence_better_worse),
        }
        values |= {name: value for name, (value, _) in areas.items()}
        drawn_pairs = f"; {found.pairs} of {found.pairs_of_all} pairs" + " drawn" * (found.pairs < found.pairs_of_all)
        pair_definition += f"{drawn_pairs}, {found.different} different"
        if config.resamples:
            drawn = replicates(
                x, y, mapped=mapped, spreads=spreads, areas=areas, resamples=config.resamples, seed=config.seed
            )
    statistics: dict[str, Statistic] = {}
    for name in STATISTICS:
        value = values.get(name, math.nan)
        why = _why_none(name, x, y, fit_records, outlier_definition if spreads is None else "")
        bounds = interval(drawn[name], confidence=config.confidence) if name in drawn and not why else None
        statistics[name] = make_statistic(math.nan if why else value, bounds=bounds, reason=why)
    found_metrics: SetMetrics = {
        "expected": len(pairings),
        "used": len(used),
        "statistics": statistics,
        "fits": fit_records,
        "definitions": {
            "outlier_ratio": outlier_definition,
            "auc": pair_definition,
            "rmse": "divided by n, in units of the opinions",
        },
        "splits": _splits(used, config),
    }
    return SetResult(metrics=found_metrics, fits=fits, replicates=drawn, used=len(used))


def make_statistic(value: float, *, bounds: tuple[float, float] | None = None, reason: str = "") -> Statistic:
    """Return a statistic; a value that is not finite becomes null with a reason."""
    if not math.isfinite(value):
        return {"value": None, "low": None, "high": None, "reason": reason or "not defined on these clips"}
    low, high = bounds or (None, None)
    return {"value": value, "low": low, "high": high, "reason": None}


def _refusal(pairings: Sequence[Pairing], config: StatisticsConfig) -> str:
    missing = sum(pairing.score is None for pairing in pairings)
    if not missing or config.allow_missing:
        return ""
    return (
        f"{len(pairings) - missing} of {len(pairings)} expected clips have a score; statistics of those alone could "
        "mislead (--allow-missing reports them)"
    )


def _fits(x: Numbers, y: Numbers) -> tuple[dict[str, CurveFit], dict[str, FitRecord]]:
    """The curves that rise, and the record of each."""
    rising: dict[str, CurveFit] = {}
    records: dict[str, FitRecord] = {}
    curves: dict[CurveKind, CurveFit | None] = {"logistic4": fit_logistic4(x, y), "logistic5": fit_logistic5(x, y)}
    for name, found in curves.items():
        if found is None:
            reason = "a curve needs 5 clips" if len(x) < 5 else _constant(x, y)
            records[name] = {"formula": FORMULAS[name], "parameters": None, "converged": False, "reason": reason}
            continue
        note = found.note
        if not rises(found, x):
            note = "the curve falls: opinions go down as scores go up (--lower-is-better inverts the scores)"
        else:
            rising[name] = found
        records[name] = {
            "formula": FORMULAS[name],
            "parameters": list(found.parameters),
            "converged": found.converged,
            "reason": note or None,
        }
    return rising, records


def _constant(x: Numbers, y: Numbers) -> str:
    return "all scores are equal" if len(x) and np.ptp(x) == 0 else "all opinions are equal" if len(y) else ""


def _why_none(name: str, x: Numbers, y: Numbers, fits: Mapping[str, FitRecord], outlier_definition: str) -> str:
    """Why a statistic has no value, or ""."""
    if not len(x):
        return "no clip has a score"
    curve = "logistic4" if name == "outlier_ratio" else name.partition("_")[2]
    if curve in fits and (fits[curve]["parameters"] is None or "falls" in (fits[curve]["reason"] or "")):
        return str(fits[curve]["reason"])
    if name == "outlier_ratio" and outlier_definition:
        return outlier_definition
    if name in ("rmse", "mae") or curve in fits:
        return ""
    if len(x) < FEWEST:
        return f"n = {len(x)}: needs {FEWEST} clips"
    if np.ptp(y) == 0 or (np.ptp(x) == 0 and name in ("srcc", "plcc", "krcc")):
        return _constant(x, y) if np.ptp(y) else "all opinions are equal"
    return ""


def _spreads(used: Sequence[Pairing]) -> tuple[Numbers | None, str]:
    """Standard errors (VQEG 2000) or spreads that define outliers, and how, in words."""
    spreads = [number_or_none(pairing.label.get("mos_std")) for pairing in used]
    known = [spread for spread in spreads if spread is not None]
    if not known or len(known) < len(used):
        return None, f"mos_std is known for {len(known)} of {len(used)} clips"
    if min(known) < 0:
        wrong = next(p.clip_id for p, spread in zip(used, known, strict=True) if spread < 0)
        raise UsageError(f"mos_std = {min(known):g} of {wrong!r} is no standard deviation. Give 0 or more, or nothing.")
    if max(known) == 0:
        return None, "mos_std is 0 for all clips, so that every clip would be an outlier"
    ratings = [number_or_none(pairing.label.get("ratings")) for pairing in used]
    if all(count is not None and count > 0 for count in ratings):
        errors = np.array(known) / np.sqrt(np.array(ratings, dtype=np.float64))
        return errors, "|mapped - mos| > 2 mos_std / sqrt(ratings), the standard error (VQEG 2000)"
    return np.array(known), "|mapped - mos| > 2 mos_std, the spread of single ratings, since their number is not known"


def _pair_errors(used: Sequence[Pairing], y: Numbers) -> tuple[Numbers | None, str, float]:
    spreads, definition = _spreads(used)
    if spreads is not None and "standard error" in definition:
        return spreads, "different: opinions more than 1.96 joint standard errors apart", 0.0
    apart = APART * float(y.std()) if len(y) else 0.0
    words = f"different: opinions more than {apart:.4g} apart, {APART} of their standard deviation"
    return None, f"{words} (standard errors are not known)", apart


def _splits(used: Sequence[Pairing], config: StatisticsConfig) -> Splits | None:
    """Median, min and max over random test parts, as for models trained on the rest.

    Contents (content_id, else clips) are shuffled by a seed; the first fifth is the test part.
    """
    contents = [str(pairing.label.get("content_id") or pairing.clip_id) for pairing in used]
    names = sorted(set(contents))
    if not config.splits or len(names) < 5 * FEWEST:
        return None
    where = {name: index for index, name in enumerate(names)}
    of = np.array([where[content] for content in contents])
    x, y = np.array([pairing.score for pairing in used], dtype=np.float64), np.array([pairing.mos for pairing in used])
    rows: dict[str, list[float]] = {}
    for turn in range(config.splits):
        shuffled = np.random.default_rng([config.seed, turn]).permutation(len(names))
        test = np.isin(of, shuffled[: math.ceil(TEST_SHARE * len(names))])
        a, b = x[test], y[test]
        fit = fit_logistic4(a, b)
        found = {name: getattr(metrics, name)(a, b) for name in ("srcc", "plcc", "krcc")}
        if fit is not None and rises(fit, a):
            found |= {f"{name}_logistic4": getattr(metrics, name)(fit(a), b) for name in ("plcc", "rmse")}
        for name, value in found.items():
            rows.setdefault(name, []).append(value)
    # A statistic that is not defined on some part has no median.
    whole = {name: row for name, row in rows.items() if len(row) == config.splits and np.isfinite(row).all()}
    return {
        "count": config.splits,
        "test_share": TEST_SHARE,
        "by": "content_id" if any(pairing.label.get("content_id") for pairing in used) else "clip",
        "median": {name: float(np.median(row)) for name, row in whole.items()},
        "min": {name: min(row) for name, row in whole.items()},
        "max": {name: max(row) for name, row in whole.items()},
    }


def means(sets: Mapping[str, SetResult], config: StatisticsConfig) -> dict[str, dict[str, Statistic]]:
    """Average each statistic over data sets, plain and weighted by the clips used.

    Intervals resample the data sets independently. A statistic that a set lacks has no mean.
    """
    result: dict[str, dict[str, Statistic]] = {}
    for kind in ("plain", "weighted"):
        weights = np.array([one.used if kind == "weighted" else 1 for one in sets.values()], dtype=np.float64)
        result[kind] = {}
        for name in STATISTICS:
            values = [one.metrics["statistics"][name]["value"] for one in sets.values()]
            known = [value for value in values if value is not None]
            lacking = [label for label, value in zip(sets, values, strict=True) if value is None]
            if lacking:
                result[kind][name] = make_statistic(math.nan, reason=f"none for {', '.join(lacking[:5])}")
                continue
            bounds = None
            if all(name in one.replicates for one in sets.values()):
                drawn = np.stack([one.replicates[name] for one in sets.values()])
                bounds = interval(weights @ drawn / weights.sum(), confidence=config.confidence)
            result[kind][name] = make_statistic(float(np.average(known, weights=weights)), bounds=bounds)
    return result
