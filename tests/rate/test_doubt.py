"""Scores of a model decide who judges what next, where votes leave it open: widest first, closest pairs first."""

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.rate.conftest import Make
from tests.rate.test_page import serving
from tests.rate.test_study import judge
from tests.support import clips
from vqa.data.score_table import ScoreRow, ScoreTable
from vqa.errors import UsageError
from vqa.media.storage.fingerprint import fingerprint
from vqa.rate.doubt import doubts, read_known
from vqa.rate.study import Study

Vqa = Callable[..., tuple[int, str, str]]


def scored(out: Path, rows: dict[str, tuple[float | None, float | None]], **rest: float) -> Path:
    """The folder of a run with (score, score_std) by digest of the content."""
    table = ScoreTable(out)
    table.add(
        [
            ScoreRow(
                clip_id=f"elsewhere/{name}",
                uri=name,
                fingerprint=name,
                score=score,
                score_std=std,
                run_key=name,
                **rest,
            )  # type: ignore[arg-type]
            for name, (score, std) in rows.items()
        ]
    )
    table.flush()
    return out


def with_scores(study: Study, out: Path) -> tuple[Study, list[str]]:
    """The study with the doubt of a run, and what the user is told."""
    said: list[str] = []
    mode = study.journal.mode
    study.doubt = doubts(read_known(out), study.stimuli, mode=mode, source=out, tell=said.append)
    return study, said


def test_raw_numbers_of_a_student_of_severity_stand_for_scores(tmp_path: Path) -> None:
    out = scored(tmp_path / "run", {"a": (None, 0.2)}, score_raw=2.5)
    assert read_known(out) == {"a": (2.5, 0.2)}


def test_of_clips_with_as_few_votes_the_widest_comes_first(make: Make, tmp_path: Path) -> None:
    widths = [0.2, 0.5, 0.1, 0.9, 0.3, 0.7]
    out = scored(tmp_path / "run", {f"{at}": (3.0, width) for at, width in enumerate(widths)})
    study, said = with_scores(make(training=0, repeats=0, per_subject=6), out)
    assert said == []
    ann = [task.first for _ in range(4) if (task := judge(study, "ann"))]
    assert ann == [3, 5, 1, 4]
    bob = [task.first for _ in range(6) if (task := judge(study, "bob"))]
    assert bob == [0, 2, 3, 5, 1, 4]  # the fewest votes come before the widest score


def test_widths_that_are_nearly_the_same_are_drawn_at_random(make: Make, tmp_path: Path) -> None:
    out = scored(tmp_path / "run", {f"{at}": (3.0, 1.0 if at < 3 else 0.95) for at in range(6)})
    study, _ = with_scores(make(training=0, repeats=0), out)
    firsts = {study.next(f"s{at}").first for at in range(60)}  # type: ignore[union-attr]
    assert firsts == set(range(6))


def test_of_pairs_that_tell_as_much_the_closest_scores_come_first(make: Make, tmp_path: Path) -> None:
    scores = [1.0, 1.3, 2.6, 3.0, 4.4, 4.5]
    out = scored(tmp_path / "run", {f"{at}": (score, 0.2) for at, score in enumerate(scores)})
    study, _ = with_scores(make(mode="pairs", training=0, repeats=0, per_subject=15), out)
    tasks = [judge(study, "ann", 0) for _ in range(3)]
    found = [frozenset((task.first, task.second)) for task in tasks if task]
    assert found == [frozenset({4, 5}), frozenset({0, 1}), frozenset({2, 3})]  # the second connects other clips
    plain = make(mode="pairs", training=0, repeats=0, out="plain.csv")
    others = {frozenset((task.first, task.second)) for at in range(40) if (task := plain.next(f"s{at}"))}
    assert len(others) > 5


def test_scores_are_close_by_their_widths_and_without_a_score_all_is_open(make: Make, tmp_path: Path) -> None:
    rows = {"0": (2.0, 0.3), "1": (3.0, 0.4), "2": (4.0, None), "3": (None, None), "gone": (3.0, 0.1)}
    run = scored(tmp_path / "run", rows)
    study, said = with_scores(make(count=5, mode="pairs"), run)
    assert study.doubt is not None
    np.testing.assert_allclose(study.doubt, study.doubt.T)
    assert study.doubt[0, 1] == pytest.approx(1 / (1 + 1 / 0.5))  # 1 apart, joint deviation hypot(0.3, 0.4)
    assert study.doubt[1, 2] == pytest.approx(1 / (1 + 1 / 0.4))
    assert (study.doubt[3] == 1).all() and (study.doubt[:, 4] == 1).all()
    assert said == [
        "--scores: 2 of 5 clips have no score, and come first of those with as few votes",
        "--scores: 1 scores of other clips are not used",
    ]
    ratings, _ = with_scores(make(count=5, out="acr.csv"), run)
    assert ratings.doubt is not None and ratings.doubt.tolist() == [0.3, 0.4, 0.0, np.inf, np.inf]


def test_without_any_width_the_distance_of_scores_decides_pairs_and_ratings_are_refused(
    make: Make, tmp_path: Path
) -> None:
    run = scored(tmp_path / "run", {"0": (2.0, 0.0), "1": (2.5, 0.0), "2": (4.0, None)})
    study, _ = with_scores(make(count=3, mode="pairs"), run)
    assert study.doubt is not None and study.doubt[0, 1] > study.doubt[1, 2] > study.doubt[0, 2] > 0
    with pytest.raises(UsageError, match=r"no score has a score_std above 0, .* --k 4 or --tier light"):
        with_scores(make(count=3, out="acr.csv"), run)


def test_runs_that_say_nothing_of_the_clips_are_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no scores; give the --out folder"):
        read_known(tmp_path)
    windows = scored(tmp_path / "windows", {"0": (3.0, 0.1)}, start_seconds=0.0, end_seconds=10.0)
    for run in (windows, scored(tmp_path / "failed", {"0": (None, None)})):
        with pytest.raises(UsageError, match=r"none of its 1 rows is the score of a whole clip\. .* --clip-seconds"):
            read_known(run)
    other = scored(tmp_path / "other", {"x": (3.0, 0.1)})
    with pytest.raises(UsageError, match=r"none of its 1 scores is of one of the 6 clips shown\. Give the --out"):
        with_scores(make(), other)


def test_the_command_takes_a_run_s_folder_and_refuses_another(tmp_path: Path, vqa: Vqa) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for at in range(5):
        clips.write_image(folder / f"{at}.png", number=at)
    widths = {fingerprint(str(folder / f"{at}.png")): (3.0, 2.0 if at == 3 else 0.1) for at in range(5)}
    run = scored(tmp_path / "run", widths)
    with serving(folder, tmp_path / "r.csv", "--training", "0", "--scores", str(run)) as (url, _):
        for who in "abcd":  # whoever comes is first shown the clip of the widest score
            with urllib.request.urlopen(f"{url}task?subject={who}", timeout=20) as answer:
                assert json.load(answer)["task"]["first"] == 3
    code, _, heard = vqa("rate", folder, "--out", tmp_path / "x.csv", "--port", 0, "--scores", tmp_path / "none")
    assert code == 2 and "holds no scores" in heard and not (tmp_path / "x.csv").exists()
