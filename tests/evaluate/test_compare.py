"""`vqa compare`: a better model is told from an equal one, on the clips that both scored."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support import opinions
from vqa.errors import UsageError
from vqa.evaluate.compare import COMPARED, TESTS, compare
from vqa.evaluate.evaluation import EvaluationConfig
from vqa.evaluate.statistics import StatisticsConfig

QUICK = StatisticsConfig(resamples=400, splits=0)


@pytest.fixture
def configs(tmp_path: Path) -> list[EvaluationConfig]:
    """Three models: good, as good, poor."""
    labels, _ = opinions.clips(120)
    rng = np.random.default_rng(9)
    files = {"good": 0.5, "alike": 0.5, "poor": 1.5}
    for name, noise in files.items():
        rows = [{"path": row["uri"], "score": row["mos"] + float(rng.normal(0, noise))} for row in labels]
        opinions.write_csv(tmp_path / f"{name}.csv", rows)
    label_file = opinions.write_csv(tmp_path / "labels.csv", labels)
    return [EvaluationConfig(scores=tmp_path / f"{name}.csv", labels=label_file) for name in files]


def test_the_poor_model_differs_and_the_alike_do_not(configs: list[EvaluationConfig]) -> None:
    found = compare(configs, settings=QUICK)
    assert (found["expected"], found["used"], found["reported"]) == (120, 120, True)
    assert len(found["differences"]) == 3 * len(COMPARED)
    by = {(row["first"], row["second"], row["statistic"]): row for row in found["differences"]}
    for test in TESTS:
        assert by["good", "poor", "srcc"]["p_holm"][test] < 0.05
        assert by["good", "alike", "srcc"]["p_holm"][test] > 0.05
    poor = by["good", "poor", "srcc"]
    assert 0 < poor["low"] < poor["difference"] < poor["high"]
    assert poor["difference"] == pytest.approx(poor["values"][0] - poor["values"][1])
    assert by["good", "poor", "rmse_logistic4"]["difference"] < 0
    assert by["good", "poor", "krcc"]["p"]["meng"] is None
    for row in found["differences"]:
        for test in TESTS:
            assert row["p"][test] is None or row["p_holm"][test] >= row["p"][test]


def test_only_clips_scored_by_all_are_compared_and_only_when_allowed(configs: list[EvaluationConfig]) -> None:
    path = configs[1].scores
    path.write_text("\n".join(path.read_text(encoding="utf-8").splitlines()[:-20]), encoding="utf-8")
    refused = compare(configs[:2], settings=QUICK)
    assert (refused["reported"], refused["differences"]) == (False, [])
    assert "100 of 120" in refused["reason"]
    allowed = compare(configs[:2], settings=replace(QUICK, allow_missing=True))
    assert {row["clips"] for row in allowed["differences"]} == {100}


def test_a_model_does_not_differ_from_itself(configs: list[EvaluationConfig], tmp_path: Path) -> None:
    twin = tmp_path / "twin.csv"
    twin.write_bytes(configs[0].scores.read_bytes())
    found = compare([configs[0], replace(configs[0], scores=twin)], settings=QUICK)
    for row in found["differences"]:
        assert (row["difference"], row["p"]["bootstrap"]) == (0, 1)
        assert row["p"]["meng"] in (None, pytest.approx(1))  # their correlation is 1, or just below


def test_fewer_than_two_or_the_same_twice_are_refused(configs: list[EvaluationConfig]) -> None:
    with pytest.raises(UsageError, match="two or more"):
        compare(configs[:1], settings=QUICK)
    with pytest.raises(UsageError, match="given twice"):
        compare([configs[0], configs[0]], settings=QUICK)
