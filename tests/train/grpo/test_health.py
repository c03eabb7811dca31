"""What stops a run that cannot learn, on the first look and later."""

import numpy as np
import pytest

from vqa.errors import ModelError
from vqa.train.grpo.health import Watch, complaints
from vqa.train.grpo.reward import Judged

NAN = float("nan")


def judged(scores: list[list[float]], *, total: list[list[float]] | None = None, texts: list[list[str]]) -> Judged:
    terms = {"total": np.array(total if total is not None else scores), "format": ~np.isnan(scores) * 1.0}
    return Judged(scores=np.array(scores), opinions=np.array([1.5, 4.5]), terms=terms, texts=texts)


DIFFERENT = [["a", "b"], ["c", "d"]]


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (judged([[NAN, NAN], [NAN, NAN]], texts=DIFFERENT), "no answer could be parsed"),
        (judged([[2.0, 2.0], [4.0, 4.0]], texts=[["a", "a"], ["b", "b"]]), "are all the same"),
        (judged([[2.0, 3.0], [4.0, 4.5]], total=[[1.0, 1.0], [2.0, 2.0]], texts=DIFFERENT), "earn all the same"),
        (judged([[3.0, 3.01], [3.0, 3.0]], texts=DIFFERENT), "every clip gets the same score"),
        (
            judged(
                [[NAN] * 12, [NAN] * 11 + [3.0]],
                texts=[[str(i) for i in range(12)]] * 2,
                total=[[0.0] * 12, [0.0] * 11 + [1.0]],
            ),
            "the format reward is stuck",
        ),
    ],
)
def test_a_batch_that_teaches_nothing_says_why(batch: Judged, words: str) -> None:
    assert words in "; ".join(complaints(batch))
    watch = Watch(patience=2)
    watch(batch)
    with pytest.raises(ModelError, match=words):
        watch(batch)


def test_a_good_batch_between_starts_the_count_anew() -> None:
    watch = Watch(patience=2)
    good = judged([[2.0, 3.0], [4.0, 4.5]], texts=DIFFERENT)
    assert not complaints(good)
    bad = judged([[NAN, NAN], [NAN, NAN]], texts=DIFFERENT)
    for batch in (bad, good, bad, good):
        watch(batch)


def test_the_first_look_has_no_patience() -> None:
    bad = judged([[NAN, NAN], [NAN, NAN]], texts=DIFFERENT)
    with pytest.raises(ModelError, match=r"from its first answers: no answer could be parsed .*an answer reads 'a'"):
        Watch(patience=20, check_first_batch=True)(bad, is_first=True)
    Watch(patience=20, check_first_batch=True)(bad)
    Watch(patience=20)(bad, is_first=True)
