"""`vqa compare`: do models differ on the same clips, or by chance?"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from vqa.errors import UsageError
from vqa.evaluate.figures import FEWEST, Figures, Settings, figures
from vqa.evaluate.join import Joined, Pairing
from vqa.evaluate.run import Question, grouped, read
from vqa.metrics import plcc, srcc
from vqa.metrics.intervals import interval
from vqa.metrics.significance import bootstrap_p, holm, meng, steiger

AREAS = ("auc_different_similar", "auc_better_worse")
COMPARED = ("srcc", "plcc", "krcc", "pairwise_accuracy", "plcc_logistic4", "rmse_logistic4", *AREAS)
TESTS = ("bootstrap", "meng", "steiger")


def compare(questions: Sequence[Question], *, settings: Settings) -> dict[str, Any]:
    """Every pair of score files on the clips that all of them scored, for each data set.

    {models: [{name, source, column, used}], expected, used, stands, reason, holm: words, differences: [{dataset,
    clips, first, second, statistic, values: [a, b], difference, low, high, p: {bootstrap, meng, steiger}, p_holm:
    {...}}]}. Differences are first - second on the same resamples; meng and steiger exist for srcc and plcc. Holm's
    rule is applied to all pairs and data sets of one statistic and one test. Raises UsageError.
    """
    if len(questions) < 2:
        raise UsageError("compare: wanted two or more SCORES")
    joined = [read(question)[2] for question in questions]
    names = _names(questions, joined)
    everywhere = [all(one.pairings[at].used for one in joined) for at in range(len(joined[0].pairings))]
    used, expected = sum(everywhere), len(everywhere)
    stands = used == expected or settings.allow_missing
    reason = f"{used} of {expected} expected clips are scored by all; --allow-missing compares on those"
    rows: list[dict[str, Any]] = []
    if stands:
        kept = [[pairing for pairing, use in zip(one.pairings, everywhere, strict=True) if use] for one in joined]
        by_set = [grouped(pairings, "dataset") for pairings in kept]
        quiet = replace(settings, splits=0)
        for dataset in by_set[0]:
            members = [sets[dataset] for sets in by_set]
            measured = [figures(pairings, quiet) for pairings in members]
            for a, b in combinations(range(len(names)), 2):
                found = _differences(measured[a], measured[b], members[a], members[b], settings)
                rows += [{"dataset": dataset, "first": names[a], "second": names[b], **row} for row in found]
        _correct(rows)
    return {
        "models": [
            {"name": name, "source": str(question.scores), "column": one.score_column, **one.counts()}
            for name, question, one in zip(names, questions, joined, strict=True)
        ],
        "expected": expected,
        "used": used,
        "stands": stands,
        "reason": None if stands else reason,
        "holm": "over all pairs of models and data sets, for each statistic and test",
        "differences": rows,
    }


def _names(questions: Sequence[Question], joined: Sequence[Joined]) -> list[str]:
    """Short and different: the file's name, with its column or its folder where that is needed."""
    stems = [question.scores.stem for question in questions]
    one_file = len({question.scores for question in questions}) == 1
    for names in (
        [one.score_column for one in joined] if one_file else stems,
        [f"{stem}:{one.score_column}" for stem, one in zip(stems, joined, strict=True)],
        [f"{question.scores}:{one.score_column}" for question, one in zip(questions, joined, strict=True)],
    ):
        if len(set(names)) == len(names):
            return names
    raise UsageError("compare: the same scores are given twice")


def _differences(
    first: Figures, second: Figures, a: Sequence[Pairing], b: Sequence[Pairing], settings: Settings
) -> list[dict[str, Any]]:
    x, z = (np.array([one.score for one in side], dtype=np.float64) for side in (a, b))
    y = np.array([one.mos for one in a])
    rows: list[dict[str, Any]] = []
    for name in COMPARED:
        values = [one.values["statistics"][name]["value"] for one in (first, second)]
        row: dict[str, Any] = {"clips": len(y), "statistic": name, "values": values}
        row |= dict.fromkeys(("difference", "low", "high"))
        row |= {"p": dict.fromkeys(TESTS), "p_holm": dict.fromkeys(TESTS)}
        if None not in values and len(y) >= FEWEST:
            row["difference"] = values[0] - values[1]
            if name in first.replicates and name in second.replicates:
                drawn = first.replicates[name] - second.replicates[name]
                row["low"], row["high"] = interval(drawn, confidence=settings.confidence) or (None, None)
                row["p"]["bootstrap"] = _known(bootstrap_p(drawn))
            if name in ("srcc", "plcc"):
                between = (srcc if name == "srcc" else plcc)(x, z)
                for test, function in (("meng", meng), ("steiger", steiger)):
                    row["p"][test] = _known(function(values[0], values[1], between, clips=len(y))[1])
        rows.append(row)
    return rows


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _correct(rows: Sequence[Mapping[str, Any]]) -> None:
    for name in COMPARED:
        family = [row for row in rows if row["statistic"] == name]
        for test in TESTS:
            adjusted = holm([float("nan") if row["p"][test] is None else row["p"][test] for row in family])
            for row, value in zip(family, adjusted, strict=True):
                row["p_holm"][test] = _known(value)
