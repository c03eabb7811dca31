"""From answers to a score: means, spreads, expectations worked out by hand, and None where nothing was read."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqa.model.readout import Given, ReadoutForm, Said, chances_of, expected_value, read_all, read_rollout, summarise
from vqa.types import Score


def chances(**of: float) -> np.ndarray:
    """`chances(d3=0.5, d4=0.5)`: chances of the digits 0-9."""
    return np.array([of.get(f"d{digit}", 0.0) for digit in range(10)])


def test_a_certain_number_is_expected_as_written() -> None:
    for written in ("3.45", "1", "5.00", "4.9", "2.125"):
        certain = [np.eye(10)[int(char)] for char in written if char != "."]
        assert expected_value(written, certain) == float(written)
        assert expected_value(written, [None] * len(certain)) == float(written)


def test_a_lone_digit_is_the_mean_of_the_admissible_ones() -> None:
    # 0 and 9 are no answers: their chances are left out, the rest counts as 1.
    assert expected_value("3", [chances(d0=0.2, d2=0.2, d3=0.4, d9=0.2)]) == pytest.approx(
        (2 * 0.2 + 3 * 0.4) / 0.6, abs=1e-4
    )


def test_decimals_by_hand() -> None:
    first, second = chances(d3=0.9, d4=0.1), chances(d1=0.2, d4=0.5, d6=0.3)
    tenths = 0.5 * 4 + 0.3 * 6 + 0.2 * 1  # nothing follows, so a lesser digit is itself
    assert expected_value("3.4", [first, second]) == pytest.approx(0.9 * (3 + tenths / 10) + 0.1 * 4, abs=1e-4)
    # With one more place a lesser digit may be followed by 9 at most.
    third = chances(d5=1.0)
    tenths = 0.5 * 4.5 + 0.3 * 6 + 0.2 * 1.9
    assert expected_value("3.45", [first, second, third]) == pytest.approx(0.9 * (3 + tenths / 10) + 0.1 * 4, abs=1e-4)


def test_beliefs_on_both_sides_of_a_whole_number_stay_beside_it() -> None:
    below = expected_value("3.95", [chances(d3=0.55, d4=0.45), chances(d9=1), chances(d5=1)])
    above = expected_value("4.05", [chances(d3=0.45, d4=0.55), chances(d0=1), chances(d5=1)])
    assert 3.95 <= below < above <= 4.05


def test_after_a_five_in_front_nothing_follows() -> None:
    assert expected_value("5.00", [chances(d5=1.0), chances(d0=0.5, d9=0.5), chances(d0=1)]) == 5.0


def test_more_than_one_digit_in_front_is_taken_as_written() -> None:
    assert expected_value("03.4", [chances(d0=1), chances(d3=0.5, d4=0.5), chances(d4=1)]) == 3.4


@given(st.integers(100, 500), st.integers(0, 2**32 - 1))
def test_what_is_expected_lies_on_the_scale(hundredths: int, seed: int) -> None:
    written = f"{hundredths / 100:.2f}"
    rng = np.random.default_rng(seed)
    beliefs = [0.9 * rng.dirichlet(np.ones(10) * 0.3) + 0.1 * np.eye(10)[int(char)] for char in written if char != "."]
    assert 1 <= expected_value(written, beliefs) <= 5


def test_chances_belong_to_the_digits_of_the_text_in_order() -> None:
    values = [3, 4, 4]  # two tokens write a 4
    logits = np.log([[0.5, 0.25, 0.25], [1, 1, 1], [0.1, 0.1, 0.8], [1, 1, 1]])
    got = chances_of(["3", "Ġx", "Ġ4", "12"], logits, values)
    assert len(got) == 4
    assert got[0] == pytest.approx(chances(d3=0.5, d4=0.5))
    assert got[1] == pytest.approx(chances(d3=0.1, d4=0.9))
    assert got[2:] == [None, None]


def test_expected_values_are_read_at_the_number_and_not_at_other_digits() -> None:
    text = "<think>2 faults in 16 frames</think><answer>\n4.0\n3.5\n</answer>"
    noise = chances(d1=0.5, d5=0.5)
    beliefs = [noise, noise, noise, chances(d3=0.5, d4=0.5), chances(d0=1), chances(d3=1), chances(d5=1)]
    one = read_rollout(Said(text=text, is_finished=True, chances=beliefs), form=ReadoutForm(dimensions=2))
    assert one.answer.values == (4.0, 3.5)
    assert one.values == pytest.approx((0.5 * 3.9 + 0.5 * 4, 3.5))


def test_answers_of_a_clip_are_read_in_one_way() -> None:
    known = Said(text="4", is_finished=True, chances=[chances(d3=0.5, d4=0.5)])
    unknown = Said(text="4", is_finished=True)
    (one,), how = read_all([known], form=ReadoutForm(dimensions=1), is_expected=True)
    assert (one.values, how) == ((3.5,), "expected")
    both, how = read_all([known, unknown], form=ReadoutForm(dimensions=1), is_expected=True)
    assert ([given.values for given in both], how) == ([(4.0,), (4.0,)], "answer")


def one_number(text: str, *, is_finished: bool) -> Given:
    return read_rollout(Said(text=text, is_finished=is_finished), form=ReadoutForm(dimensions=1))


def test_a_text_cut_off_counts_only_with_its_block_closed() -> None:
    assert one_number("3", is_finished=False).values is None
    assert one_number("3", is_finished=True).values == (3.0,)
    assert one_number("<answer>3</answer> and", is_finished=False).values == (3.0,)


def scored(*texts: str, dimensions: int = 2) -> Score:
    given = [read_rollout(Said(text=text, is_finished=True), form=ReadoutForm(dimensions=dimensions)) for text in texts]
    return summarise(given, form=ReadoutForm(dimensions=dimensions), seconds=1.5)


def test_the_score_is_the_mean_over_answers_of_the_mean_over_numbers() -> None:
    score = scored("<think>a</think><answer>3\n2</answer>", "<think>b</think><answer>4\n5</answer>", "no idea")
    assert score.score == pytest.approx((2.5 + 4.5) / 2)
    assert score.score_std == pytest.approx(1.0)
    assert (score.score_global, score.score_local) == (3.5, 3.5)
    assert (score.answers_parsed, len(score.answers)) == (2, 3)
    assert score.score_seconds == 1.5


def test_the_reason_is_that_of_the_answer_nearest_to_the_score() -> None:
    texts = [f"<think>{n}</think><answer>{n}</answer>" for n in (1, 3, 5, 4)]
    assert scored(*texts, dimensions=1).reason == "3"


def test_one_overall_number_gives_a_score_but_no_parts() -> None:
    score = scored("<answer>3.5</answer>")
    assert (score.score, score.score_std, score.score_global, score.score_local) == (3.5, 0.0, None, None)


def test_parts_belong_to_two_dimensions_only() -> None:
    assert scored("<answer>3</answer>", dimensions=1).score_global is None
    five = scored("<answer>1 2 3 4 5</answer>", dimensions=5)
    assert (five.score, five.score_global, five.score_local) == (3.0, None, None)


def test_nothing_read_is_no_score() -> None:
    score = scored("<think>dark</think>", "7")
    assert (score.score, score.score_std, score.score_global, score.score_local) == (None, None, None, None)
    assert score.answers_parsed == 0
    assert score.reason == "dark"
    assert not any(isinstance(value, float) and math.isnan(value) for value in (score.score_seconds,))
