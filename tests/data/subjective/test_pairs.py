"""Comparisons to opinions: the numbers of choix, a set's own share of wins, what is known of simulated viewers."""

import csv
from pathlib import Path
from typing import Any

import choix
import numpy as np
import pytest
from scipy.stats import norm
from typer.testing import CliRunner

from tests.data.subjective.test_mos import table
from tests.support.labels import PEOPLE
from vqa.cli.app import app
from vqa.data.manifest import RatingScale, make_manifest, read_manifest, write_manifest
from vqa.data.subjective.pairs import Comparisons, make_comparisons, read_pairs, refuse_parts
from vqa.data.subjective.ratings import read_ratings
from vqa.data.subjective.strengths import FEWEST_SUBJECTS, PAIR_METHODS, PairMethod, fit_strengths, recover_strengths
from vqa.errors import UsageError

PCUID = PEOPLE / "pcuid"


def simulated(
    *, seed: int, clips: int, pairs: int, spread: float = 1.5, tie: float = 0.0, subjects: int = 0
) -> tuple[Comparisons, Any]:
    """Comparisons by Thurstone's viewers, who see a difference below `tie` as none, and the values that made them."""
    random = np.random.default_rng(seed)
    value = random.normal(0, spread, clips)
    entries = []
    for number in range(pairs):
        first, second = random.choice(clips, 2, replace=False)
        seen = value[first] - value[second] + random.normal()
        who = f"s{number % subjects}" if subjects else None
        entries.append((f"c{first}", f"c{second}", 0 if abs(seen) < tie else int(np.sign(seen)), who, 1.0))
    made = make_comparisons(entries)
    return made, value[[int(name[1:]) for name in made.clips]]


def test_bradley_terry_is_that_of_choix() -> None:
    pairs, _ = simulated(seed=0, clips=12, pairs=150)
    ends = zip(pairs.first.tolist(), pairs.second.tolist(), pairs.result.tolist(), strict=True)
    wins = [(one, other) if result > 0 else (other, one) for one, other, result in ends]
    for prior_std, alpha in ((3.0, 1 / 18), (1.0, 0.5), (100.0, 5e-5)):  # choix penalises alpha * sum of squares
        expected = choix.opt_pairwise(12, wins, alpha=alpha, tol=1e-10)
        found = fit_strengths(pairs, method="bradley-terry", prior_std=prior_std).value
        np.testing.assert_allclose(found, expected - expected.mean(), atol=1e-5)


def test_thurstone_without_ties_maximises_its_likelihood() -> None:
    pairs, _ = simulated(seed=1, clips=8, pairs=120)
    found = fit_strengths(pairs, method="thurstone", prior_std=2.0).value

    def loss(value: Any) -> float:
        gap = (value[pairs.first] - value[pairs.second]) * pairs.result
        return float(-norm.logcdf(gap).sum() + (value**2).sum() / 8)

    random = np.random.default_rng(0)
    assert all(loss(found) < loss(found + random.normal(0, 0.01, 8)) for _ in range(200))


@pytest.mark.parametrize("method", PAIR_METHODS)
def test_the_gradient_is_that_of_the_loss_and_ties_have_their_own_share(method: PairMethod) -> None:
    from vqa.data.subjective.strengths import _counted, _distinct, _Objective

    pairs, _ = simulated(seed=2, clips=9, pairs=400, tie=0.4)
    objective = _Objective(_counted(pairs, *_distinct(pairs), pairs.count), 9, method, None)
    at = np.random.default_rng(3).normal(0, 1, 10)
    slopes = [(objective(at + step)[0] - objective(at - step)[0]) / 2e-5 for step in np.eye(10) * 1e-5]
    np.testing.assert_allclose(objective(at)[1], slopes, rtol=1e-5, atol=1e-5)
    share = (pairs.result == 0).mean()
    found = fit_strengths(pairs, method=method, prior_std=50.0)
    gap = found.value[pairs.first] - found.value[pairs.second]
    assert np.exp(objective.model(gap, found.tie)[0][2]).mean() == pytest.approx(share, abs=2e-3)


@pytest.mark.parametrize("method", PAIR_METHODS)
def test_what_made_the_comparisons_is_found_and_intervals_hold_it(method: PairMethod) -> None:
    pairs, value = simulated(seed=4, clips=20, pairs=1500, tie=0.3, subjects=15)
    found = recover_strengths(pairs, method=method, seed=5)
    assert found.resampled == "subjects"
    scaled = found.value * (1.0 if method == "thurstone" else value.std() / found.value.std())
    np.testing.assert_allclose(scaled, value - value.mean(), atol=0.45)
    if method == "thurstone":
        inside = (found.low <= value - value.mean()) & (value - value.mean() <= found.high)
        assert inside.mean() >= 0.85
    assert (found.low < found.value).all() and (found.value < found.high).all()
    assert found.agreement.mean() > 0.75
    again = recover_strengths(pairs, method=method, seed=5)
    np.testing.assert_array_equal(again.low, found.low)
    other = recover_strengths(pairs, method=method, seed=6)
    assert (other.low != found.low).any()


def test_four_times_the_comparisons_halve_the_interval() -> None:
    pairs, _ = simulated(seed=6, clips=10, pairs=400, spread=0.5)
    more = make_comparisons(
        (pairs.clips[a], pairs.clips[b], int(r), None, 4.0)
        for a, b, r in zip(pairs.first, pairs.second, pairs.result, strict=True)
    )
    few, many = (recover_strengths(one, method="thurstone") for one in (pairs, more))
    assert (many.high - many.low).mean() / (few.high - few.low).mean() == pytest.approx(0.5, abs=0.08)


def test_clips_that_won_or_lost_everything_have_no_limit_there() -> None:
    results = [("a", "b", 1), ("a", "c", 1), ("b", "c", 1), ("c", "b", 1), ("b", "d", 1), ("c", "d", 1), ("a", "d", 1)]
    pairs = make_comparisons((one, other, result, None, 3.0) for one, other, result in results)
    found = recover_strengths(pairs, method="bradley-terry")
    assert np.isfinite(found.value).all()
    assert list(np.argsort(-found.value)[[0, 3]]) == [pairs.clips.index("a"), pairs.clips.index("d")]
    assert np.isnan(found.high).tolist() == [name == "a" for name in pairs.clips]
    assert np.isnan(found.low).tolist() == [name == "d" for name in pairs.clips]
    assert found.groups == 3
    best, worst = pairs.clips.index("a"), pairs.clips.index("d")
    assert (
        found.low[best] < found.value[best] - 1 and found.high[worst] > found.value[worst] + 1
    )  # resamples say +- 0.3
    assert (found.won[0], found.lost[0], found.tied[0]) == (9, 0, 0)


def test_parts_without_a_comparison_between_them_are_named() -> None:
    entries = [("a", "b", 1), ("b", "c", -1), ("x", "y", 0)]
    pairs = make_comparisons((one, other, result, None, 1.0) for one, other, result in entries)
    with pytest.raises(UsageError, match=r"fall into 2 parts .*: a, b, c \(3\); x, y \(2\)\. Judge pairs"):
        refuse_parts(pairs, source="p.csv")
    with pytest.raises(UsageError, match="all 1 comparisons are ties"):
        recover_strengths(make_comparisons([("a", "b", 0, None, 1.0)]), method="thurstone")


def test_every_shape_of_table_holds_the_same_comparisons(tmp_path: Path) -> None:
    signs = table(
        tmp_path / "signs.csv",
        ["Image1", "image2", "Label", "user", "count"],
        *(["a", "b", 1, "ann", 2], ["b", "c", "-1.0", "bob", 1], ["a", "c", 0, "ann", 1], ["a", "b", "", "bob", 1]),
    )
    winners = table(
        tmp_path / "winners.csv",
        ["first", "second", "winner", "subject"],
        *(["a", "b", "a", "ann"], ["a", "b", "a", "ann"], ["b", "c", "c", "bob"], ["a", "c", "tie", "ann"]),
    )
    for path in (signs, winners):
        read = read_pairs(path)
        assert read.clips == ("a", "b", "c") and read.subjects == ("ann", "bob")
        won = {(read.clips[a], read.clips[b], int(r)) for a, b, r in zip(read.first, read.second, read.result)}  # noqa: B905
        assert won == {("a", "b", 1), ("b", "c", -1), ("a", "c", 0)}
        assert read.count.sum() == 4


HEAD = ["first", "second", "result"]
WRONG: list[tuple[list[list[Any]], str]] = [
    ([["clip", "subject", "rating"], ["a", "s", 3]], "no comparisons. Give the clips .* --method p910"),
    ([HEAD, ["a", "b", 2]], r"row 1: result = '2' is no result. Give 1 \(first better\)"),
    ([HEAD, ["a", "a", 1]], "row 1: compares 'a' with 'a'. Name two different"),
    ([["first", "second", "winner"], ["a", "b", "c"]], "winner = 'c' is no result. Give a, b or tie"),
    ([[*HEAD, "count"], ["a", "b", 1, 0]], "count = '0' is no count"),
    ([[*HEAD, "subject"], ["a", "b", 1, "x"], ["a", "b", 1, ""]], "some comparisons name a subject and others none"),
    ([HEAD, ["a", "b", ""]], "holds no comparison with a result"),
]


@pytest.mark.parametrize(("rows", "message"), WRONG)
def test_wrong_tables_say_what_is_wrong(rows: list[list[Any]], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read_pairs(table(tmp_path / "x.csv", *rows))


def test_ratings_are_not_taken_for_comparisons_nor_the_reverse(tmp_path: Path) -> None:
    path = table(tmp_path / "x.csv", HEAD, ["a", "b", 1])
    with pytest.raises(UsageError, match=r"holds comparisons of two clips, no ratings\. Give --method bradley-terry"):
        read_ratings(path)


def manifest(path: Path, opinions: dict[str, float]) -> Path:
    rows = (
        {"clip_id": f"s/{name}", "uri": f"/x/{name}.png", "dataset": "s", "content_id": name, "kind": "image"}
        | {"mos_raw": mos, "mos": mos}
        for name, mos in opinions.items()
    )
    write_manifest(path, make_manifest(rows, scales={"s": RatingScale(low=1, high=5)}))
    return path


def recovered(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["data", "recover", *map(str, arguments)])


def test_the_command_writes_what_import_reads(tmp_path: Path) -> None:
    pairs, value = simulated(seed=7, clips=10, pairs=300, tie=0.2, subjects=FEWEST_SUBJECTS)
    names = pairs.clips
    rows = zip(pairs.first, pairs.second, pairs.result, pairs.subject, strict=True)
    lines = [[f"{names[a]}.png", names[b] + ".png", r, pairs.subjects[s]] for a, b, r, s in rows]
    source = table(tmp_path / "pairs.csv", [*HEAD, "subject"], *lines)
    out, made = tmp_path / "mos.csv", tmp_path / "m.parquet"
    done = recovered(source, "--out", out, "--method", "thurstone")
    assert done.exit_code == 0, done.output
    assert "10 clips, 300 comparisons by 5 subjects" in done.output
    assert "95 % intervals by resampling subjects" in done.output
    hint = next(line for line in done.output.splitlines() if line.startswith("to import: ")).split()[2:]
    hint[hint.index("NAME")] = "mine"
    done = CliRunner().invoke(app, ["data", "import", *hint, "--labels", str(out), "--out", str(made), "--no-check"])
    assert done.exit_code == 0, done.output
    mos = {row["uri"].split("/")[-1]: row["mos"] for row in read_manifest(made).table.to_pylist()}
    order = sorted(mos, key=lambda name: mos[name])
    assert np.corrcoef([value[names.index(name[:-4])] for name in order], range(10))[0, 1] > 0.9
    with (tmp_path / "mos.subjects.csv").open(newline="") as file:
        assert [row["judged"] for row in csv.DictReader(file)] == ["60"] * 5


def test_comparisons_that_contradict_the_manifest_or_are_of_other_clips_are_refused(tmp_path: Path) -> None:
    names = [f"c{at}" for at in range(8)]
    wins = [[names[b], names[a], 1] for a in range(8) for b in range(a + 1, 8)]  # the later the better
    source, out = table(tmp_path / "pairs.csv", HEAD, *wins), tmp_path / "mos.csv"
    rising = manifest(tmp_path / "up.parquet", {name: 1 + at / 2 for at, name in enumerate(names)})
    falling = manifest(tmp_path / "down.parquet", {name: 5 - at / 2 for at, name in enumerate(names)})
    other = manifest(tmp_path / "other.parquet", {f"d{at}": 3.0 for at in range(8)})
    call = (source, "--out", out, "--method", "bradley-terry", "--against")
    assert recovered(*call, rising).exit_code == 0
    for wrong, message in ((falling, "0 of 28 comparisons agree"), (other, "8 of 8 clips are not in the manifest")):
        done = recovered(*call, wrong)
        assert isinstance(done.exception, UsageError) and message in str(done.exception)
    votes = table(tmp_path / "votes.csv", ["clip", "subject", "rating"], ["q", "s", 3], ["q", "t", 4])
    done = recovered(votes, "--out", out, "--method", "mean", "--against", rising)
    assert isinstance(done.exception, UsageError) and "1 of 1 clips are not in the manifest" in str(done.exception)


@pytest.mark.skipif(not PCUID.is_dir(), reason="the pictures with opinions of people are not beside this checkout")
def test_pcuid_comes_out_at_its_own_share_of_wins() -> None:
    pairs = read_pairs(PCUID / "pairs.csv")
    with (PCUID / "scores.csv").open(newline="", encoding="utf-8") as file:
        own = {row["image_id"]: float(row["mos"]) for row in csv.DictReader(file)}
    found = recover_strengths(pairs, method="bradley-terry", resamples=2)
    at = [pairs.clips.index(name) for name in own]
    shares = np.array(list(own.values()))
    assert (len(pairs.clips), pairs.count.sum()) == (300, 44_850)
    assert abs(found.share[at] - shares).max() < 0.5
    order = np.argsort(shares)
    assert (np.diff(found.value[at][order])[np.diff(shares[order]) > 1e-9] > 0).all()  # the very same ranking


def test_anchors_set_the_scale(tmp_path: Path) -> None:
    pairs, value = simulated(seed=8, clips=8, pairs=400)
    lines = [
        [pairs.clips[a], pairs.clips[b], r] for a, b, r in zip(pairs.first, pairs.second, pairs.result, strict=True)
    ]
    source, out = table(tmp_path / "pairs.csv", HEAD, *lines), tmp_path / "mos.csv"
    order = [pairs.clips[at] for at in np.argsort(value)]
    call = (source, "--out", out, "--method", "thurstone", "--resamples", 20, "--anchors")
    known = table(tmp_path / "known.csv", ["file_name", "mos"], [order[1], 2], [order[-2], 4], ["elsewhere", 1])
    done = recovered(*call, known)
    assert done.exit_code == 0 and "--scale 1,5" in done.output
    with out.open(newline="") as file:
        mos = {row["file_name"]: float(row["mos"]) for row in csv.DictReader(file)}
    assert (mos[order[1]], mos[order[-2]]) == (pytest.approx(2), pytest.approx(4))
    assert all(1 <= one <= 5 for one in mos.values())
    turned = table(tmp_path / "turned.csv", ["file_name", "mos"], [order[1], 4], [order[-2], 2])
    single = table(tmp_path / "single.csv", ["file_name", "mos"], [order[1], 4])
    beyond = table(tmp_path / "beyond.csv", ["file_name", "mos"], [order[1], 40])
    for wrong, message in (
        (turned, "opinions do not rise with the comparisons of these 2 clips"),
        (single, "1 of 8 compared clips have an opinion there"),
        (beyond, "mos = '40' is no opinion on 1 to 5"),
        (source, "Give file_name and mos"),
    ):
        done = recovered(*call, wrong)
        assert isinstance(done.exception, UsageError) and message in str(done.exception)
