"""Who judges what next, and votes on disk: nothing lost, nothing twice, other clips refused."""

import csv
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.rate.conftest import Make
from vqa.data.subjective.pairs import read_pairs, refuse_parts
from vqa.data.subjective.ratings import read_ratings
from vqa.errors import UsageError
from vqa.rate.journal import count_hidden_repeats
from vqa.rate.study import RefusedVoteError, Study, Task


def judge(study: Study, subject: str, value: Any = 3) -> Task | None:
    """The subject's next judgement; `value` may be a function of the task."""
    task = study.next(subject)
    if task is not None:
        chosen = value(task) if callable(value) else value
        assert study.vote(asdict(task) | {"subject": subject, "value": chosen, "seconds": 1.5, "scale": 1})
    return task


def rows(study: Study) -> list[dict[str, str]]:
    with study.journal.out.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_subject_trains_rates_every_clip_once_and_some_again_unawares(make: Make) -> None:
    study = make(count=20, repeats=0.2)
    tasks = []
    while (task := judge(study, "ann")) is not None:
        tasks.append(task)
    assert [task.training for task in tasks] == [True] * 3 + [False] * 24
    assert len({task.first for task in tasks[:3]}) == 3
    fresh = [task.first for task in tasks if not task.training and not task.repeat]
    assert sorted(fresh) == list(range(20)) and fresh != sorted(fresh)
    again = [at for at, task in enumerate(tasks) if task.repeat]
    assert len(again) == 4
    for at in again:
        before = [task.first for task in tasks[3:at]]
        assert before.count(tasks[at].first) == 1 and tasks[at].first not in before[-4:]
    assert count_hidden_repeats(study.journal.votes) == {"ann": (4, 4)}
    read = read_ratings(study.journal.out)
    assert (len(read.clips), read.subjects, len(read.value)) == (20, ("ann",), 24)  # training left out
    other = [judge(study, "bob") for _ in range(23)]
    assert [task.first for task in other if task and not task.training][:20] != fresh  # an order of their own


def test_clips_with_the_fewest_votes_come_first(make: Make) -> None:
    study = make(count=12, per_subject=4, training=0, repeats=0)
    for subject in "abc":
        while judge(study, subject) is not None:
            pass
    assert set(Counter(row["clip"] for row in rows(study)).values()) == {1}


def test_pairs_connect_first_and_then_leave_known_winners_alone(make: Make) -> None:
    study = make(count=10, mode="pairs", per_subject=45, training=0, repeats=0)
    for _ in range(12):
        judge(study, "ann", lambda task: 1 if task.first > task.second else -1)
    refuse_parts(read_pairs(study.journal.out), source="x")
    gaps = []
    for _ in range(20):
        task = judge(study, "bob", lambda task: 1 if task.first > task.second else -1)
        assert task is not None and task.second is not None
        gaps.append(abs(task.first - task.second))
    assert np.mean(gaps) < 3.0  # of random pairs: 3.67
    mine = [frozenset((row["first"], row["second"])) for row in rows(study) if row["subject"] == "bob"]
    assert len(set(mine)) == len(mine)


def test_a_repeated_pair_changes_sides(make: Make) -> None:
    study = make(count=8, mode="pairs", per_subject=20, training=0, repeats=0.2)
    tasks = []
    while (task := judge(study, "ann", lambda task: 1 if task.first > task.second else -1)) is not None:
        tasks.append(task)
    seen = [(task.first, task.second) for task in tasks]
    again = [task for task in tasks if task.repeat]
    assert again and all((task.second, task.first) in seen for task in again)
    assert count_hidden_repeats(study.journal.votes) == {"ann": (len(again), len(again))}


def test_a_vote_sent_again_counts_once_and_one_ahead_is_refused(make: Make) -> None:
    study = make(training=0)
    task = study.next("ann")
    assert task is not None
    values = asdict(task) | {"subject": "ann", "value": 4, "seconds": 2.0, "scale": 1.0}
    assert study.vote(values) and not study.vote(values)
    assert len(rows(study)) == 1
    with pytest.raises(RefusedVoteError, match="vote 3 of ann, but 1 are recorded"):
        study.vote(values | {"number": 2})
    bad = [{"value": 6}, {"value": True}, {"first": 99}, {"first": -1}, {"subject": " "}, {"subject": "a\nb"}]
    for wrong in (*bad, {"seconds": float("nan")}, {"number": 1, "scale": "1"}):
        with pytest.raises(RefusedVoteError):
            study.vote(values | {"number": 1} | wrong)


def test_a_study_resumes_where_it_was_and_a_torn_line_is_dropped(make: Make) -> None:
    study = make()
    for _ in range(5):
        judge(study, "ann")
    token, journal = study.journal.token, study.journal.path
    assert journal.stat().st_mode & 0o077 == 0  # it holds the token
    with journal.open("ab") as file:
        file.write(b'{"subject": "ann", "numb')
    again = make()
    assert (len(again.journal.votes), again.journal.token) == (5, token)
    judge(again, "ann")
    assert len(make().journal.votes) == 6
    assert len(rows(again)) == 3


def test_votes_on_other_clips_are_refused(make: Make, tmp_path: Path) -> None:
    judge(make(), "ann")
    with pytest.raises(UsageError, match=r"holds votes on other clips; 1 differ: c6\.png"):
        make(count=7)
    with pytest.raises(UsageError, match="was begun with --mode acr"):
        make(mode="pairs")
    with pytest.raises(UsageError, match="was begun with --seed 0"):
        make(seed=1)
    (tmp_path / "mine.csv").write_text("clip,subject,rating\n")
    with pytest.raises(UsageError, match="exists, but not its journal"):
        make(out="mine.csv")
    with pytest.raises(UsageError, match="fewer than 2"):
        make(count=1, out="one.csv")
