"""Raw ratings to opinions: the numbers of SUREAL, what is known of simulated subjects, tables of every shape."""

import csv
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from vqa.cli.app import app
from vqa.data.manifest import read_manifest
from vqa.data.subjective.mos import Method, recover
from vqa.data.subjective.ratings import Ratings, read_ratings
from vqa.errors import UsageError

METHODS = get_args(Method)
REFERENCES = Path(__file__).parents[2] / "references"
GOLDEN = json.loads((REFERENCES / "recovered.json").read_text())
RESULTS = [(case, method) for case, golden in GOLDEN.items() for method in golden["results"]]


def from_cells(cells: list[list[list[float]]]) -> Ratings:
    """Each cell [clip][subject] holds that subject's ratings of that clip."""
    entries = [(c, s, value) for c, row in enumerate(cells) for s, cell in enumerate(row) for value in cell]
    clip, subject, value = map(np.array, zip(*entries, strict=True))
    names = tuple(f"c{at}" for at in range(len(cells))), tuple(f"s{at}" for at in range(len(cells[0])))
    return Ratings(clips=names[0], subjects=names[1], clip=clip, subject=subject, value=value.astype(float))


def simulated(
    *, seed: int, clips: int, subjects: int, share: float = 1.0, whole: bool = False
) -> tuple[Ratings, Any, Any, Any]:
    """Ratings, and the quality, bias and inconsistency that made them; a `share` of all pairs was rated."""
    rng = np.random.default_rng(seed)
    quality, bias = rng.uniform(1.5, 4.5, clips), rng.normal(0, 0.5, subjects)
    noise = rng.uniform(0.3, 1.2, subjects)
    value = quality[:, None] + bias + noise * rng.normal(size=(clips, subjects))
    value = np.clip(np.round(value), 1, 5) if whole else value
    clip, subject = np.nonzero(rng.uniform(size=(clips, subjects)) < share)
    names = tuple(map(str, range(clips))), tuple(map(str, range(subjects)))
    ratings = Ratings(clips=names[0], subjects=names[1], clip=clip, subject=subject, value=value[clip, subject])
    return ratings, quality, bias - bias.mean(), noise


@pytest.mark.parametrize(("case", "method"), RESULTS)
def test_the_numbers_are_those_of_sureal(case: str, method: str) -> None:
    found = recover(from_cells(GOLDEN[case]["ratings"]), method=method)  # type: ignore[arg-type]
    golden = GOLDEN[case]["results"][method]
    assert {"mos", "mos_error"} <= set(golden)
    for name, expected in golden.items():
        np.testing.assert_allclose(getattr(found, name), expected, rtol=0, atol=1e-7, err_msg=name)
    assert "rejected" not in golden or any(golden["rejected"])


def test_the_published_example_of_sureal_comes_out_to_nine_digits() -> None:
    example = json.loads((REFERENCES / "sureal_example.json").read_text())
    found = recover(
        from_cells([[[float(vote)] if vote != "n" else [] for vote in row] for row in example["votes"]]), method="p910"
    )
    ours = {"bias_i": found.bias, "inconsistency_i": found.inconsistency, "mos_j": found.mos, "sos_j": found.mos_error}
    for name, values in ours.items():
        np.testing.assert_allclose(values[: len(example[name])], example[name], rtol=0, atol=1e-9, err_msg=name)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), method=st.sampled_from(METHODS), shift=st.floats(-3, 3), stretch=st.floats(0.1, 20))
@example(seed=519, method="p910", shift=0.0, stretch=0.1)  # no answer
@example(seed=656, method="p910", shift=0.0, stretch=0.1)
@example(seed=749, method="bt500", shift=0.0, stretch=0.1)  # a rating lies on the limit of an outlier
def test_another_scale_of_the_ratings_gives_the_same_on_that_scale(
    seed: int, method: Any, shift: float, stretch: float
) -> None:
    ratings, *_ = simulated(seed=seed, clips=30, subjects=24, whole=True)
    other = Ratings(
        clips=ratings.clips,
        subjects=ratings.subjects,
        clip=ratings.clip,
        subject=ratings.subject,
        value=shift + stretch * ratings.value,
    )
    try:
        before = recover(ratings, method=method)
    except UsageError:  # p910 has no answer for a few of the seeds
        with pytest.raises(UsageError, match="no maximum"):
            recover(other, method=method)
        return
    after = recover(other, method=method)
    np.testing.assert_allclose(after.mos, shift + stretch * before.mos, atol=1e-4 * stretch)  # SUREAL's epsilon: p910
    np.testing.assert_array_equal(after.rejected, before.rejected)


def test_what_made_the_ratings_is_found_again_nearer_than_by_the_mean() -> None:
    ratings, quality, bias, noise = simulated(seed=1, clips=300, subjects=40, share=0.6)
    found, plain = recover(ratings, method="p910"), recover(ratings, method="mean")
    gaps = [one.mos - quality - np.mean(one.mos - quality) for one in (found, plain)]
    assert np.std(gaps[0]) < 0.85 * np.std(gaps[1])
    np.testing.assert_allclose(found.bias, bias, atol=0.3)
    np.testing.assert_allclose(found.inconsistency, noise, atol=0.15)
    assert np.mean(abs(gaps[0]) < 2 * found.mos_error) > 0.9


def test_clips_on_which_all_agree_make_nobody_an_outlier() -> None:
    rng = np.random.default_rng(0)
    cells = [[[3]] * 12 for _ in range(10)] + [[[int(v)] for v in rng.integers(2, 5, 12)] for _ in range(10)]
    assert not recover(from_cells(cells), method="bt500").rejected.any()


def test_one_rating_has_no_spread_and_no_error() -> None:
    found = recover(from_cells([[[3], [4]], [[2], []]]), method="mean")
    assert (found.mos[1], found.ratings[1]) == (2, 1)
    assert np.isnan([found.mos_std[1], found.mos_error[1]]).all()


@pytest.mark.parametrize("method", ["p913", "p910"])
def test_groups_that_share_no_subject_are_refused(method: Any) -> None:
    with pytest.raises(UsageError, match="2 groups without a common subject"):
        recover(from_cells([[[3], [4], []], [[2], [3], []], [[], [], [3]]]), method=method)


def test_a_result_that_one_subject_dictates_is_refused() -> None:
    ratings, *_ = simulated(seed=3, clips=20, subjects=6)
    keep = (ratings.subject != 5) | (ratings.clip == 7)
    with pytest.raises(UsageError, match=r"subject 5 \(1 ratings.*--min-ratings"):
        recover(ratings.select(keep), method="p910")


def table(path: Path, *rows: list[Any]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def test_every_shape_of_table_holds_the_same_ratings(tmp_path: Path) -> None:
    long = table(
        tmp_path / "long.csv",
        ["Worker", "video", "Rating", "seconds"],
        *(["ann", "a.mp4", 4, 9], ["bob", "a.mp4", 3.5, 8], ["bob", "b.mp4", 2, 7], ["ann", "b.mp4", "", 7]),
    )
    wide = table(tmp_path / "wide.csv", ["clip", "ann", "bob"], ["a.mp4", 4, "3.5"], ["b.mp4", "nan", 2])
    turned = table(tmp_path / "turned.csv", ["subject", "a.mp4", "b.mp4"], ["ann", 4, ""], ["bob", 3.5, 2])
    among = table(
        tmp_path / "among.csv", ["file", "mos", "user1", "user2"], ["a.mp4", 9, 4, "3.5"], ["b.mp4", 9, "", 2]
    )
    assert read_ratings(among).subjects == ("user1", "user2")  # mos is no subject
    assert sorted(read_ratings(among).value) == [2, 3.5, 4]
    for path in (long, wide, turned):
        read = read_ratings(path)
        named = zip(read.clip, read.subject, read.value, strict=True)
        assert {(read.clips[clip], read.subjects[subject], value) for clip, subject, value in named} == {
            ("a.mp4", "ann", 4),
            ("a.mp4", "bob", 3.5),
            ("b.mp4", "bob", 2),
        }
        assert read_ratings(path, min_ratings=2).subjects == ("bob",)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["clip", "subject", "rating"], ["a", "s", "good"]], r"row 1, rating = 'good' is no rating"),
        ([["clip", "who", "rating"], ["a", "s", 3]], r"has columns clip, who, rating. Give one of"),
        ([["clip", "s", "s"], ["a", 1, 2]], r"names s more than once"),
        ([["clip", "s", "t"], ["a", 1, 2], ["a", 2, 2]], r"clip a occurs more than once"),
        ([["clip", "s"], ["a", 1]], r"no matrix of ratings \(columns clip, s\)"),
        ([["clip", "subject", "rating"]], r"holds no ratings"),
        ([[]], r"holds no ratings, not even a header"),
    ],
)
def test_wrong_tables_say_what_is_wrong(rows: list[list[Any]], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read_ratings(table(tmp_path / "x.csv", *rows))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_command_writes_what_import_reads(suffix: str, tmp_path: Path) -> None:
    cells = GOLDEN["full"]["ratings"]
    rows = [[f"c{clip}.mp4", f"s{at}", cell[0]] for clip, row in enumerate(cells) for at, cell in enumerate(row)]
    source = table(tmp_path / "ratings.csv", ["clip", "subject", "rating"], *rows)
    out, manifest = tmp_path / f"mos.{suffix}", tmp_path / "m.parquet"
    command = ["data", "recover", str(source), "--out", str(out), "--method", "bt500"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "24 clips, 20 subjects, 480 ratings from 1 to 5" in done.output
    assert "2 subjects rejected: s0, s2" in done.output
    hint = next(line for line in done.output.splitlines() if line.startswith("to import: ")).split()[2:]
    hint[hint.index("NAME")] = "mine"
    command = ["data", "import", *hint, "--labels", str(out), "--out", str(manifest), "--no-check"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    first = read_manifest(manifest).table.to_pylist()[0]
    expected = recover(from_cells(cells), method="bt500")
    assert (first["clip_id"], first["mos"]) == ("mine/c0.mp4", pytest.approx(expected.mos[0]))
    assert first["mos_std"] == pytest.approx(expected.mos_std[0])
    subjects = tmp_path / f"mos.subjects.{suffix}"
    if suffix == "csv":
        with subjects.open(newline="") as file:
            assert [row["subject"] for row in csv.DictReader(file) if row["rejected"] == "true"] == ["s0", "s2"]
