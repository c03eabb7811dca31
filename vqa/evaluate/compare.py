"""Comparison of models on the same clips, with significance tests."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from vqa.errors import UsageError
from vqa.evaluate.evaluation import EvaluationConfig, grouped, read_and_join
from vqa.evaluate.join import Joined, Pairing
from vqa.evaluate.schema import Comparison, Difference
from vqa.evaluate.statistics import FEWEST, SetResult, StatisticsConfig, compute_statistics
from vqa.metrics import plcc, srcc
from vqa.metrics.intervals import interval
from vqa.metrics.significance import bootstrap_p, holm, meng, steiger

AREAS = ("auc_different_similar", "auc_better_worse")
COMPARED = ("srcc", "plcc", "krcc", "pairwise_accuracy", "plcc_logistic4", "rmse_logistic4", *AREAS)
TESTS = ("bootstrap", "meng", "steiger")


def compare(configs: Sequence[EvaluationConfig], *, settings: StatisticsConfig) -> Comparison:
    """Compare each pair of models per data set, on the clips that all of them scored.

    Tests are the paired bootstrap and, for dependent correlations (srcc, plcc), those of Meng, Rosenthal and Rubin 1992
    and of Steiger 1980. Holm's correction covers all pairs and data sets of one statistic and one test.

    Args:
        configs: The score files, all with the same labels.
        settings: Settings of the statistics, of which `splits` is not used.

    Raises:
        UsageError: If there are fewer than two score files, or the same one twice.
    """
    if len(configs) < 2:
        raise UsageError("compare: one SCORES is given. Give two or more.")
    joined = [read_and_join(config)[2] for config in configs]
    names = _names(configs, joined)
    everywhere = [all(one.pairings[at].used for one in joined) for at in range(len(joined[0].pairings))]
    used, expected = sum(everywhere), len(everywhere)
    reported = used == expected or settings.allow_missing
    reason = f"{used} of {expected} expected clips are scored by all; --allow-missing compares on those"
    rows: list[Difference] = []
    if reported:
        kept = [[pairing for pairing, use in zip(one.pairings, everywhere, strict=True) if use] for one in joined]
        by_set = [grouped(pairings, "dataset") for pairings in kept]
        quiet = replace(settings, splits=0)
        for dataset in by_set[0]:
            members = [sets[dataset] for sets in by_set]
            measured = [compute_statistics(pairings, quiet) for pairings in members]
            for a, b in combinations(range(len(names)), 2):
                pair = (dataset, names[a], names[b])
                rows += _differences(pair, measured[a], measured[b], members[a], members[b], settings)
        _correct(rows)
    return {
        "models": [
            {"name": name, "source": str(config.scores), "column": one.score_column, **one.counts()}
            for name, config, one in zip(names, configs, joined, strict=True)
        ],
        "expected": expected,
        "used": used,
        "reported": reported,
        "reason": None if reported else reason,
        "correction": "Holm's, over all pairs of models and data sets, for each statistic and test",
        "differences": rows,
    }


def _names(configs: Sequence[EvaluationConfig], joined: Sequence[Joined]) -> list[str]:
    """Short and different names: the file's, with its column or folder where needed."""
    stems = [config.scores.stem for config in configs]
    one_file = len({config.scores for config in configs}) == 1
    for names in (
        [one.score_column for one in joined] if one_file else stems,
        [f"{stem}:{one.score_column}" for stem, one in zip(stems, joined, strict=True)],
        [f"{config.scores}:{one.score_column}" for config, one in zip(configs, joined, strict=True)],
    ):
        if len(set(names)) == len(names):
            return names
    raise UsageError("compare: the same scores are given twice. Give different files or columns.")


def _differences(
    pair: tuple[str, str, str],
    first: SetResult,
    second: SetResult,
    a: Sequence[Pairing],
    b: Sequence[Pairing],
    settings: StatisticsConfig,
) -> list[Difference]:
    x, z = (np.array([one.score for one in side], dtype=np.float64) for side in (a, b))
    y = np.array([one.mos for one in a])
    rows: list[Difference] = []
    for name in COMPARED:
        left, right = (one.metrics["statistics"][name]["value"] for one in (first, second))
        row: Difference = {
            "dataset": pair[0],
            "first": pair[1],
            "second": pair[2],
            "clips": len(y),
            "statistic": name,
            "values": [left, right],
            "difference": None,
            "low": None,
            "high": None,
            "p": dict.fromkeys(TESTS),
            "p_holm": dict.fromkeys(TESTS),
        }
        if left is not None and right is not None and len(y) >= FEWEST:
            row["difference"] = left - right
            if name in first.replicates and name in second.replicates:
                drawn = first.replicates[name] - second.replicates[name]
                row["low"], row["high"] = interval(drawn, confidence=settings.confidence) or (None, None)
                row["p"]["bootstrap"] = _known(bootstrap_p(drawn))
            if name in ("srcc", "plcc"):
                between = (srcc if name == "srcc" else plcc)(x, z)
                for test, function in (("meng", meng), ("steiger", steiger)):
                    row["p"][test] = _known(function(left, right, between, clips=len(y))[1])
        rows.append(row)
    return rows


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _correct(rows: Sequence[Difference]) -> None:
    for name in COMPARED:
        family = [row for row in rows if row["statistic"] == name]
        for test in TESTS:
            p_values = [row["p"][test] for row in family]
            adjusted = holm([float("nan") if p is None else p for p in p_values])
            for row, value in zip(family, adjusted, strict=True):
                row["p_holm"][test] = _known(value)
