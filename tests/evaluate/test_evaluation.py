"""`vqa evaluate` and its files: published numbers are reproduced, missing scores reported, null has a reason."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import vqa.metrics
from tests.support import opinions
from tests.support import slow_metrics as slow
from vqa.data.score_table import SCHEMA
from vqa.errors import UsageError
from vqa.evaluate.evaluation import CLIP_FIELDS, Evaluation, EvaluationConfig, evaluate, write_evaluation
from vqa.evaluate.statistics import STATISTICS, StatisticsConfig
from vqa.metrics.fits import CurveFit
from vqa.types import CropBox

SHARED = Path(__file__).resolve().parents[3] / "shared"
QUICK = StatisticsConfig(resamples=100, splits=2)


def evaluated(
    folder: Path, labels: opinions.Rows, scores: opinions.Rows, *, statistics: StatisticsConfig = QUICK, **options: Any
) -> Evaluation:
    config = EvaluationConfig(
        scores=opinions.write_csv(folder / "scores.csv", scores),
        labels=opinions.write_csv(folder / "labels.csv", labels),
        statistics=statistics,
        **options,
    )
    return evaluate(config)


def numbers(values: Any) -> list[float]:
    """Every number in nested JSON."""
    if isinstance(values, dict | list):
        return [n for value in (values.values() if isinstance(values, dict) else values) for n in numbers(value)]
    return [values] if isinstance(values, float) else []


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the authors' label files")
@pytest.mark.parametrize(
    ("scores", "labels", "clips", "srcc", "plcc"),
    [("konvid1k", "KoNViD", 1200, 0.8613, 0.8554), ("livevqc", "LIVE_VQC", 585, 0.8243, 0.8420)],
)
def test_dovers_published_predictions(scores: str, labels: str, clips: int, srcc: float, plcc: float) -> None:
    config = EvaluationConfig(
        scores=SHARED / f"predictions/dover_{scores}.csv",
        labels=SHARED / f"labels/fast-vqa-txt/{labels}/labels.txt",
        column="technical",
        mos_column="4",
        statistics=StatisticsConfig(resamples=100),
    )
    evaluation = evaluate(config)
    found = evaluation.metrics["all"]["statistics"]
    assert evaluation.metrics["counts"]["used"] == evaluation.metrics["counts"]["expected"] == clips
    assert (round(found["srcc"]["value"], 4), round(found["plcc"]["value"], 4)) == (srcc, plcc)
    for name in ("srcc", "plcc"):
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]
    assert found["plcc_logistic4"]["value"] > plcc
    assert found["plcc_logistic5"]["value"] > plcc
    x, y = evaluation.clips["score"].to_pylist()[:200], evaluation.clips["mos"].to_pylist()[:200]
    for name in ("srcc", "plcc", "krcc", "rmse", "mae", "pairwise_accuracy"):
        assert getattr(vqa.metrics, name)(x, y) == pytest.approx(getattr(slow, name)(x, y), abs=1e-12), name


def test_every_statistic_is_there_with_its_interval_and_fit(tmp_path: Path) -> None:
    labels, scores = opinions.clips(80)
    metrics = evaluated(tmp_path, labels, scores).metrics
    found = metrics["all"]["statistics"]
    assert tuple(found) == STATISTICS
    for name, one in found.items():
        assert one["value"] is not None, name
        assert one["low"] <= one["value"] <= one["high"], name
    x, y = [row["score"] for row in scores], [row["mos"] for row in labels]
    assert found["srcc"]["value"] == pytest.approx(slow.srcc(x, y))
    fit = metrics["all"]["fits"]["logistic4"]
    mapped = CurveFit(kind="logistic4", parameters=tuple(fit["parameters"]), converged=True)(x).tolist()
    assert found["plcc_logistic4"]["value"] == pytest.approx(slow.plcc(mapped, y))
    assert found["outlier_ratio"]["value"] == sum(abs(a - b) > 0.8 for a, b in zip(mapped, y, strict=True)) / 80
    assert fit["converged"] is True
    assert metrics["all"]["splits"]["count"] == 2
    assert metrics["all"]["splits"]["by"] == "content_id"
    assert metrics["all"] == metrics["datasets"]["set"]


def test_statistics_with_missing_scores_are_refused_unless_allowed(tmp_path: Path) -> None:
    labels, scores = opinions.clips(30)
    more, their = opinions.clips(30, seed=1, dataset="whole")
    refused = evaluated(tmp_path, [*labels, *more], [*scores[3:], *their])
    assert not refused.metrics["reported"]
    assert refused.metrics["reason"] == "57 of 60 expected clips have a score"
    gaps, whole = (refused.metrics["datasets"][name]["statistics"]["srcc"] for name in ("set", "whole"))
    assert gaps["value"] is None
    assert "27 of 30" in gaps["reason"]
    assert whole["value"] is not None
    assert refused.metrics["all"]["statistics"]["srcc"]["value"] is None
    assert refused.metrics["means"]["plain"]["srcc"] == {
        "value": None, "low": None, "high": None, "reason": "none for set",
    }  # fmt: skip
    allowed = evaluated(
        tmp_path, [*labels, *more], [*scores[3:], *their], statistics=StatisticsConfig(resamples=50, allow_missing=True)
    )
    assert allowed.metrics["reported"]
    assert allowed.metrics["datasets"]["set"]["statistics"]["srcc"]["value"] is not None
    assert (allowed.metrics["datasets"]["set"]["used"], allowed.metrics["datasets"]["set"]["expected"]) == (27, 30)


def test_means_over_data_sets_are_plain_and_weighted(tmp_path: Path) -> None:
    small, their = opinions.clips(20, dataset="a", noise=1.0)
    large, other = opinions.clips(60, seed=1, dataset="b", noise=0.2)
    metrics = evaluated(tmp_path, [*small, *large], [*their, *other]).metrics
    a, b = (metrics["datasets"][name]["statistics"]["srcc"]["value"] for name in "ab")
    plain, weighted = (metrics["means"][kind]["srcc"] for kind in ("plain", "weighted"))
    assert plain["value"] == pytest.approx((a + b) / 2)
    assert weighted["value"] == pytest.approx((20 * a + 60 * b) / 80)
    for mean in (plain, weighted):
        assert mean["low"] < mean["value"] < mean["high"]


def test_groups_are_by_any_column_of_labels_or_scores(tmp_path: Path) -> None:
    labels, scores = opinions.clips(40)
    rows = [row | {"codec": "h264" if at % 4 else ""} for at, row in enumerate(scores)]
    groups = evaluated(tmp_path, labels, rows, by=("split", "codec")).metrics["groups"]
    assert {name: one["used"] for name, one in groups["split"].items()} == {"test": 20, "train": 20}
    assert {name: one["used"] for name, one in groups["codec"].items()} == {"(none)": 10, "h264": 30}
    with pytest.raises(UsageError, match="--by nothing"):
        evaluated(tmp_path, labels, rows, by=("nothing",))
    labels, scores = opinions.clips(201)
    with pytest.raises(UsageError, match="201 different values"):
        evaluated(tmp_path, labels, scores, by=("uri",))


def test_low_scores_can_be_the_good_ones(tmp_path: Path) -> None:
    labels, scores = opinions.clips(40)
    turned = [row | {"score": -row["score"]} for row in scores]
    fallen = evaluated(tmp_path, labels, turned).metrics["all"]["statistics"]
    assert fallen["srcc"]["value"] < -0.5
    assert "--lower-is-better" in fallen["plcc_logistic4"]["reason"]
    right = evaluated(tmp_path, labels, turned, lower_is_better=True).metrics["all"]["statistics"]
    assert right == evaluated(tmp_path, labels, scores).metrics["all"]["statistics"]


@pytest.mark.parametrize(
    ("scores", "opinion", "says"),
    [
        ([1.0, 2.0], [2.0, 3.0], "needs 3 clips"),
        ([2.0] * 9, list(range(9)), "all scores are equal"),
        (list(range(9)), [3.0] * 9, "all opinions are equal"),
    ],
)
def test_where_there_is_no_value_there_is_a_reason(
    tmp_path: Path, scores: list[float], opinion: list[float], says: str
) -> None:
    labels = [{"path": f"{at}.mp4", "mos": value} for at, value in enumerate(opinion)]
    rows = [{"path": f"{at}.mp4", "score": value} for at, value in enumerate(scores)]
    evaluation = evaluated(tmp_path, labels, rows)
    for name, one in evaluation.metrics["all"]["statistics"].items():
        assert (one["value"] is None) == (one["reason"] is not None), name
    for name in ("srcc", "plcc", "krcc"):
        assert says in evaluation.metrics["all"]["statistics"][name]["reason"]
    write_evaluation(evaluation, tmp_path / "out")
    text = (tmp_path / "out/metrics.json").read_text(encoding="utf-8")
    assert all(map(math.isfinite, numbers(json.loads(text))))
    assert "NaN" not in text


def test_without_any_scored_clip_nothing_is_stated(tmp_path: Path) -> None:
    labels, scores = opinions.clips(5)
    blank = [row | {"score": ""} for row in scores]
    evaluation = evaluated(tmp_path, labels, blank, statistics=StatisticsConfig(resamples=20, allow_missing=True))
    assert {one["reason"] for one in evaluation.metrics["all"]["statistics"].values()} == {"no clip has a score"}


def test_standard_errors_make_the_stricter_rules(tmp_path: Path) -> None:
    labels, scores = opinions.clips(40)
    plain = evaluated(tmp_path, labels, scores).metrics["all"]
    rated = evaluated(tmp_path, [row | {"ratings": 16} for row in labels], scores).metrics["all"]
    assert "sqrt(ratings)" in rated["definitions"]["outlier_ratio"]
    assert "standard errors apart" in rated["definitions"]["auc"]
    assert rated["statistics"]["outlier_ratio"]["value"] > plain["statistics"]["outlier_ratio"]["value"]
    gone = evaluated(tmp_path, [row | {"mos_std": ""} for row in labels], scores).metrics["all"]
    assert "known for 0 of 40" in gone["statistics"]["outlier_ratio"]["reason"]


def test_clips_have_what_the_page_needs(tmp_path: Path) -> None:
    labels, scores = opinions.clips(30)
    rows: opinions.Rows = [
        {
            "uri": f"/v/{row['path']}", "score": row["score"], "score_std": at / 30, "reason": "<b>soft</b>",
            "keyframe_seconds": [0.5, 1.0], "frames_planned": 2, "width": 640, "height": 360, "codec": "h264",
            "crop_boxes": [CropBox(second=0.5, x=1, y=2, width=3, height=4)], "duration_seconds": 8.0,
        }
        for at, row in enumerate(scores)
    ]  # fmt: skip
    rows[3] |= {"score": None, "status": "failed", "error_kind": "timeout", "error": "too slow"}
    out = opinions.write_scores(tmp_path / "out", rows)
    nested = [row | {"mos_raw": row["mos"] * 20, "aspects": {"colour": 1.0}, "score": "taken"} for row in labels]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, nested)), encoding="utf-8")
    config = EvaluationConfig(
        scores=out, labels=tmp_path / "labels.jsonl", statistics=StatisticsConfig(resamples=0, allow_missing=True)
    )
    evaluation = evaluate(config)
    write_evaluation(evaluation, tmp_path / "judged")
    clips = pq.read_table(tmp_path / "judged/clips.parquet")
    assert clips.schema.names[: len(CLIP_FIELDS)] == [field.name for field in CLIP_FIELDS]
    assert clips.schema.field("crop_boxes").type == SCHEMA.field("crop_boxes").type
    assert {"split", "content_id", "mos_raw", "aspects", "label_score"} < set(clips.schema.names)
    first, failed = clips.to_pylist()[0], clips.to_pylist()[3]
    assert first["aspects"] == '{"colour": 1.0}'
    assert (first["reason"], first["keyframe_seconds"], first["codec"]) == ("<b>soft</b>", [0.5, 1.0], "h264")
    assert first["residual"] == pytest.approx(first["mapped"] - first["mos"])
    assert (failed["status"], failed["error_kind"], failed["used"]) == ("failed", "timeout", False)
    assert failed["mapped"] is None
    bins = evaluation.metrics["reliability"]
    assert (len(bins), sum(one["n"] for one in bins)) == (10, 29)
    assert [one["score_std"] for one in bins] == sorted(one["score_std"] for one in bins)


def test_names_that_read_as_numbers_stay_names(tmp_path: Path) -> None:
    labels = [{"path": f"00{at}.mp4", "mos": at, "content_id": f"00{at}", "mos_raw": f"{at}.5"} for at in range(6)]
    scores = [{"path": f"00{at}.mp4", "score": at} for at in range(6)]
    row = evaluated(tmp_path, labels, scores).clips.to_pylist()[1]
    assert (row["content_id"], row["mos_raw"]) == ("001", 1.5)
