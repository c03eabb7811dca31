"""What stops a run that cannot learn, on the first look and later."""

import numpy as np
import pytest

from vqa.errors import ModelError, UsageError
from vqa.train.grpo.health import LearningCheck, complaints
from vqa.train.grpo.reward import RewardBatch

NAN = float("nan")


def scored(scores: list[list[float]], *, total: list[list[float]] | None = None, texts: list[list[str]]) -> RewardBatch:
    terms = {"total": np.array(total if total is not None else scores), "format": ~np.isnan(scores) * 1.0}
    return RewardBatch(scores=np.array(scores), opinions=np.array([1.5, 4.5]), terms=terms, texts=texts)


DIFFERENT = [["a", "b"], ["c", "d"]]


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (scored([[NAN, NAN], [NAN, NAN]], texts=DIFFERENT), "no answer could be parsed"),
        (scored([[2.0, 2.0], [4.0, 4.0]], texts=[["a", "a"], ["b", "b"]]), "are all the same"),
        (scored([[2.0, 3.0], [4.0, 4.5]], total=[[1.0, 1.0], [2.0, 2.0]], texts=DIFFERENT), "earn all the same"),
        (scored([[3.0, 3.01], [3.0, 3.0]], texts=DIFFERENT), "every clip gets the same score"),
        (
            scored(
                [[NAN] * 12, [NAN] * 11 + [3.0]],
                texts=[[str(i) for i in range(12)]] * 2,
                total=[[0.0] * 12, [0.0] * 11 + [1.0]],
            ),
            "fewer than 5% of the answers could be parsed",
        ),
    ],
)
def test_a_batch_that_teaches_nothing_says_why(batch: RewardBatch, words: str) -> None:
    assert words in "; ".join(complaints(batch))
    watch = LearningCheck(patience=2)
    watch(batch)
    with pytest.raises(ModelError, match=words):
        watch(batch)


def test_a_good_batch_between_starts_the_count_anew() -> None:
    watch = LearningCheck(patience=2)
    good = scored([[2.0, 3.0], [4.0, 4.5]], texts=DIFFERENT)
    assert not complaints(good)
    bad = scored([[NAN, NAN], [NAN, NAN]], texts=DIFFERENT)
    for batch in (bad, good, bad, good):
        watch(batch)


def test_the_first_look_has_no_patience() -> None:
    bad = scored([[NAN, NAN], [NAN, NAN]], texts=DIFFERENT)
    with pytest.raises(ModelError, match=r"from its first answers: no answer could be parsed .*An answer reads 'a'"):
        LearningCheck(patience=20, check_first_batch=True)(bad, is_first=True)
    LearningCheck(patience=20, check_first_batch=True)(bad)
    LearningCheck(patience=20)(bad, is_first=True)


def test_reasoning_without_a_grade_word_stops_the_first_batch() -> None:
    """Q-Ponder's consistency is with the last such word."""
    batch = scored([[3.0, 2.0]], texts=[["a", "b"]], total=[[1.0, 0.5]])
    batch.terms["consistency"] = np.zeros((1, 2))
    check = LearningCheck(patience=9)
    check(batch)  # later batches may lack them
    with pytest.raises(UsageError, match=r"no reasoning holds a grade word \(bad, .*allow_silent: \[consistency\]"):
        check(batch, is_first=True)
    LearningCheck(patience=9, allow_silent=("consistency",))(batch, is_first=True)
