"""Calibration: the interval holds on clips the curve never saw, and only what has a score gets one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.support import opinions
from vqa.data.score_table import SCHEMA, read_scores, rewrite
from vqa.errors import UsageError
from vqa.evaluate.calibrate import CURVES, Calibration, calibrate, calibrated, find_origin, load_calibration
from vqa.evaluate.inputs import read_table
from vqa.evaluate.join import Pairing, join
from vqa.metrics.fits import fit_line

ORIGIN = {"scores": "s", "labels": "l"}


def pairings(
    count: int = 400,
    *,
    seed: int = 0,
    noise: float = 0.4,
    map_score: Any = lambda score: score,
    content: str | None = None,
) -> list[Pairing]:
    labels, scores = opinions.clips(count, seed=seed, noise=noise)
    labels = [label | ({"content_id": content} if content else {}) for label in labels]
    return [
        Pairing(
            clip_id=label["clip_id"],
            uri=label["uri"],
            dataset="set",
            label=label,
            mos=label["mos"],
            status="ok",
            score=float(map_score(score["score"])),
        )
        for label, score in zip(labels, scores, strict=True)
    ]


@pytest.mark.parametrize("curve", ["logistic", "isotonic", "line"])
@pytest.mark.parametrize("split", [{}, {"fit_on": "train", "measure_on": "test"}])
def test_the_interval_holds_about_as_often_as_wanted(curve: Any, split: dict[str, str]) -> None:
    shares = []
    for seed in range(8):
        found = calibrate(pairings(seed=seed), curve=curve, origin=ORIGIN, seed=seed, **split)
        assert found.coverage_low <= found.coverage <= found.coverage_high
        shares.append(found.coverage)
        assert found.test.clips == 200
    assert 0.86 <= np.mean(shares) <= 0.95


def test_contents_are_never_torn_apart_and_parts_never_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[frozenset[str]] = set()
    clips = pairings(240)
    of = {clip.score: clip.label["content_id"] for clip in clips}
    import vqa.evaluate.calibrate as module

    whole = module._numbers

    def spy(part: Any) -> Any:
        seen.add(frozenset(of[one.score] for one in part))
        return whole(part)

    monkeypatch.setattr(module, "_numbers", spy)
    calibrate(clips, origin=ORIGIN, coverage=0.8)
    assert len(seen) == 3
    assert len(frozenset.union(*seen)) == sum(map(len, seen))


def test_few_clips_are_left_out_in_turn_by_whole_contents(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = pairings(80)
    contents = {name: {one.score for one in clips if one.label["content_id"] == name} for name in of_contents(clips)}
    seen: list[set[float]] = []

    def spy(x: Any, y: Any) -> Any:
        seen.append(set(x.tolist()))
        return fit_line(x, y)

    monkeypatch.setitem(CURVES, "line", spy)  # listens, fits as before: which clips a fit had is told nowhere
    found = calibrate(clips, origin=ORIGIN)
    assert all(own <= some or not own & some for some in seen for own in contents.values())
    assert [len(one) for one in seen].count(80) == 1  # the curve that is kept is of all
    assert sum(80 - len(one) for one in seen if len(one) > 68) == 80  # each is left out once
    assert (found.fit.clips, found.conformal.clips, found.test.clips) == (80, 80, 80)


@pytest.mark.parametrize(("clips", "kind"), [(98, "line"), (100, "logistic4"), (200, "logistic4")])
def test_the_curve_goes_by_how_many_clips_there_are(clips: int, kind: str) -> None:
    assert calibrate(pairings(clips), origin=ORIGIN).kind == kind
    assert calibrate(pairings(clips), origin=ORIGIN, curve="isotonic").kind == "isotonic"


def of_contents(clips: list[Pairing]) -> set[str]:
    return {one.label["content_id"] for one in clips}


@pytest.mark.parametrize(("off", "least", "most"), [(0.0, 0.8, 1.06), (-1.0, 0.0, 0.5)])
def test_few_clips_leave_good_scores_and_mend_those_that_are_off(off: float, least: float, most: float) -> None:
    shares, hits = [], []
    for seed in range(20):
        clips = pairings(540, seed=seed, map_score=lambda score: score + off)
        found = calibrate(clips[:40], origin=ORIGIN, seed=seed)
        truth, scores = (np.array([getattr(one, name) for one in clips[40:]]) for name in ("mos", "score"))
        mos, low, high = found.mos(scores)
        shares.append(np.sqrt(np.mean((mos - truth) ** 2) / np.mean((scores - truth) ** 2)))
        hits.append((np.mean((low <= truth) & (truth <= high)), found.coverage))
    assert least < np.mean(shares) < most
    inside, said = np.mean(hits, axis=0)
    assert 0.86 < inside < 0.95
    assert said == pytest.approx(inside, abs=0.04)


@pytest.mark.parametrize("curve", ["logistic", "isotonic", "line"])
def test_the_curve_never_falls_and_stays_on_the_scale(curve: Any) -> None:
    found = calibrate(pairings(map_score=lambda score: np.exp(score)), curve=curve, origin=ORIGIN)
    middle, low, high = found.mos(np.linspace(-50, 500, 300))
    assert (np.diff(middle) >= 0).all()
    assert ((low >= 1) & (low <= middle) & (middle <= high) & (high <= 5)).all()


@pytest.mark.parametrize(
    ("clips", "options", "says"),
    [
        (pairings(20), {}, "20 scored clips have an opinion, 24 are needed"),
        (pairings(40, map_score=lambda score: 3.1 - score / 50), {}, "do not rise"),
        (pairings(40, content="one"), {}, "40 scored clips have an opinion, of 1 contents; 3 are needed"),
        (pairings(30), {"coverage": 0.99}, "30 clips are too few for intervals"),
        (pairings(30), {"fit_on": "train", "measure_on": "test"}, "to fit has 8 scored clips .* needs 10"),
        (pairings(map_score=lambda score: -score), {}, "do not rise"),
        (pairings(map_score=lambda score: 1.0), {}, "do not rise"),
        (pairings(), {"fit_on": "train"}, "two different splits"),
        (pairings(), {"fit_on": "train", "measure_on": "val"}, "no scored clip of split 'val'\\. .* test, train"),
        (pairings(), {"scale": (1.0, 3.0)}, "outside the scale"),
        (pairings(), {"scale": (5.0, 1.0)}, "the lower first"),
        (pairings(), {"coverage": 0.999}, "too few for intervals"),
    ],
)
def test_what_cannot_be_calibrated_says_why(clips: list[Pairing], options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        calibrate(clips, origin=ORIGIN, **options)


def test_only_rows_with_a_score_of_this_model_get_an_opinion() -> None:
    rows = [
        {"clip_id": "a", "score": 3.0, "model_id": "m"},
        {"clip_id": "b", "score": None, "model_id": "m"},
        {"clip_id": "c", "score": 3.0, "model_id": "other"},
        {"clip_id": "d", "score": 3.0, "model_id": None},
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    found = calibrate(pairings(), origin=ORIGIN | {"model_id": "m"})
    done = calibrated(table, found)
    assert done.schema == SCHEMA
    assert [value is None for value in done.column("mos").to_pylist()] == [False, True, True, True]
    row = done.to_pylist()[0]
    assert row["mos_low"] < row["mos"] < row["mos_high"]
    assert row["mos_high"] - row["mos"] == pytest.approx(found.half_width)
    assert calibrated(done, None).equals(table)


def test_a_folder_of_scores_is_rewritten_whole_and_back(tmp_path: Path) -> None:
    _, scores = opinions.clips(5)
    out = opinions.write_scores(tmp_path / "out", [{"uri": row["path"], "score": row["score"]} for row in scores])
    before = read_scores(out)
    found = calibrate(pairings(), origin=ORIGIN)
    rewrite(out, lambda rows: calibrated(rows, found))
    assert read_scores(out, ["mos"]).column("mos").null_count == 0
    rewrite(out, lambda rows: calibrated(rows, None))
    assert read_scores(out).equals(before)


def test_a_saved_calibration_is_read_back_and_a_broken_one_refused(tmp_path: Path) -> None:
    found = calibrate(pairings(), origin=ORIGIN)
    path = tmp_path / "c.json"
    path.write_text(found.model_dump_json(), encoding="utf-8")
    assert load_calibration(path) == found
    values = json.loads(path.read_text(encoding="utf-8"))
    for change, says in (
        ({"parameters": [1.0, 2.0]}, "2 parameters are"),
        ({"half_width": -1}, "half_width"),
        ({"unknown": 1}, "unknown"),
    ):
        path.write_text(json.dumps(values | change), encoding="utf-8")
        with pytest.raises(UsageError, match=says):
            load_calibration(path)
    for text in ("{", "[" * 100_000):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match="cannot be read"):
            load_calibration(path)
    with pytest.raises(UsageError, match="cannot be read"):
        load_calibration(tmp_path / "gone.json")


def test_it_is_saved_beside_the_model_or_the_scores(tmp_path: Path) -> None:
    labels, scores = opinions.clips(3)
    out = opinions.write_scores(
        tmp_path / "out", [{"uri": row["path"], "score": 2.0, "model_id": "m"} for row in scores]
    )
    assert find_origin(read_table(out), tmp_path)[1] == out / "calibration.json"
    model = tmp_path / "model"
    model.mkdir()
    (out / "run.json").write_text(json.dumps({"settings": "abc", "config": {"model": {"source": str(model)}}}))
    facts, place = find_origin(read_table(out), tmp_path)
    assert place == model / "calibration.json"
    assert (facts["model_id"], facts["settings"]) == ("m", "abc")
    rival = opinions.write_csv(tmp_path / "rival.csv", scores)
    assert find_origin(read_table(rival), tmp_path)[1] == tmp_path / "rival.calibration.json"
    assert join(read_table(rival), read_table(opinions.write_csv(tmp_path / "l.csv", labels))).pairings


def test_reliability_is_kept_where_the_spread_is_known() -> None:
    assert calibrate(pairings(), origin=ORIGIN).reliability is None
    rng = np.random.default_rng(0)
    sure = [
        Pairing(
            **{name: getattr(one, name) for name in Pairing.__slots__ if name != "row"}, row={"score_std": rng.random()}
        )
        for one in pairings()
    ]
    bins = calibrate(sure, origin=ORIGIN).reliability
    assert bins is not None
    assert sum(one["n"] for one in bins) == 200
    assert isinstance(Calibration.model_validate(calibrate(sure, origin=ORIGIN).model_dump()), Calibration)
