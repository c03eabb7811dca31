"""Score of a clip from its answers: as written, as expected, or as published."""

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vqa import prompt
from vqa.model.card import PublishedReading, Readout
from vqa.types import Answer, Score

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from vqa.model.rollout import Rollout
    from vqa.model.vocabulary import Vocabulary

Chances = NDArray[np.float64]  # [10], of the digits 0-9 at one place; sums to 1
DIGITS = frozenset("0123456789")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An answer as an engine gives it."""

    text: str
    is_finished: bool  # whether it came to an end
    # Of each ASCII digit of the text, in order (None: it counts as written); None where they are not known.
    chances: Sequence[Chances | None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An answer and the values that count: written or expected, on the model's scale."""

    answer: Answer
    values: tuple[float, ...] | None
    beside: tuple[float, ...] | None = None  # the expected ones, where those that count are read as published


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadoutForm:
    """What answers hold, as `AnswerForm` says, and which published reading applies."""

    dimensions: int
    scale: prompt.AnswerScale = prompt.OPINIONS
    keys: tuple[str, ...] = ()
    published: PublishedReading | None = None


def read_rollout(said: Said, *, form: ReadoutForm) -> Given:
    """One rollout, by its digits' chances where they are known, else as written.

    An answer that was cut off counts only if its `<answer>` block was closed: `3` could have become `3.9`.
    """
    text, chances = said.text, said.chances
    can_count = said.is_finished or prompt.is_closed(text)
    readings = prompt.locate_numbers(text, form.dimensions, scale=form.scale, keys=form.keys) if can_count else None
    written = None if readings is None else tuple(reading.value for reading in readings)
    expected = None
    if readings and chances is not None:
        place = np.cumsum([0, *(char in DIGITS for char in text)]).tolist()  # digits before each character
        parts = [(text[r.start : r.stop], chances[place[r.start] : place[r.stop]]) for r in readings]
        expected = tuple(expected_value(*part, scale=form.scale) for part in parts)
    reason = prompt.reason(text)
    if form.published:
        values = read_as_published(text, form.published, form.scale)
        return Given(answer=Answer(text=text, values=values, reason=reason), values=values, beside=expected)
    return Given(answer=Answer(text=text, values=written, reason=reason), values=expected or written)


def read_as_published(text: str, reading: PublishedReading, scale: prompt.AnswerScale) -> tuple[float] | None:
    """Number in an answer, read as released scripts do, whatever stands around it.

    It stands in the last closed answer block, for `whole_answer` in the first. Where the scripts would put in a number
    of their own (a random grade, 3.00), and outside the scale, it is None.
    """
    blocks = _BLOCK.findall(text)
    if not blocks:
        return None
    if reading == "whole_answer":
        numbers = [blocks[0].strip()] if _WHOLE.fullmatch(blocks[0].strip()) else []
    else:
        numbers = _NUMBER.findall(blocks[-1])[: 1 if reading == "first_number" else None]
    if not numbers:
        return None
    value = math.fsum(map(float, numbers)) / len(numbers)
    return (value,) if scale.low <= value <= scale.high else None


_BLOCK = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_WHOLE = re.compile(r"-?[0-9]+(?:\.[0-9]*)?")


def said(rollout: "Rollout", tokenizer: "PreTrainedTokenizerBase", vocabulary: "Vocabulary") -> Said:
    """Text of a rollout, with its digits' chances where their logits were kept."""
    text = str(tokenizer.decode(rollout.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    chances = None
    if rollout.digit_logits is not None:
        pieces = tokenizer.convert_ids_to_tokens(rollout.tokens)
        chances = chances_of(pieces, rollout.digit_logits.numpy(), vocabulary.digit_values)
    return Said(text=text, is_finished=rollout.is_finished, chances=chances)


def read_all(said: Sequence[Said], *, form: ReadoutForm, is_expected: bool) -> tuple[list[Given], Readout]:
    """Read a clip's answers, all in the same way, and say in which.

    Where the chances of one answer are not known, all are read as written.
    """
    if not all(one.chances is not None for one in said):
        said = [replace(one, chances=None) for one in said]
        is_expected = False
    given = [read_rollout(one, form=form) for one in said]
    return given, "published" if form.published else "expected" if is_expected else "answer"


def expected_value(
    written: str, chances: Sequence[Chances | None], *, scale: prompt.AnswerScale = prompt.OPINIONS
) -> float:
    """Expected number where the model wrote `written` (3.45), by its digits' chances.

    With the digit w at a place of the number, chances p (at the first place renormalised over those that can begin a
    number on the scale, 1-5 for 1 to 5), and R the expectation of what follows w (0 <= R < 1, in units of this place; 0
    where the number is the scale's end):

        E = p[w] (w + R) + sum over d > w of p[d] d + sum over d < w of p[d] (d + the largest that can follow)

    Another digit would have been followed by others than w was, which we did not see; taking the nearest end keeps to
    numbers next to the written one: a model torn between 3.95 and 4.05 writes 3.95, and E is about 3.97, where adding
    up the places' expectations one by one gives 4.45. (Simulated for normal beliefs about the score with a spread of
    0.15: root mean square error 0.013 against 0.124.)

    Numbers with more or fewer digits before the point than were written are left aside.

    Returns the value on the scale, rounded to 4 decimals: what lies below is the order in which sums were taken.
    """
    digits = [int(char) for char in written if char in DIGITS]
    whole = len(written.partition(".")[0])
    if whole > len(f"{scale.high:.0f}") or (whole > 1 and digits[0] == 0):
        return float(written)
    unit = 10.0 ** (whole - 1)  # of the first digit
    starts = np.arange(10) * unit
    can_begin = (starts + unit > scale.low) & (starts <= scale.high)
    known = [np.eye(10)[digit] if one is None else one for one, digit in zip(chances, digits, strict=True)]
    first = np.where(can_begin, known[0], 0.0)
    rest = 0.0
    if digits[0] * unit < scale.high:
        for place in range(len(digits) - 1, 0, -1):
            rest = _expected_digit(digits[place], known[place], rest, following=len(digits) - 1 - place) / 10
    value = unit * _expected_digit(digits[0], first / first.sum(), rest, following=len(digits) - 1)
    return round(min(max(value, scale.low), scale.high), 4)


def _expected_digit(written: int, chances: Chances, rest: float, *, following: int) -> float:
    digits = np.arange(10)
    largest_rest = 1 - 10.0**-following
    others = np.where(digits > written, digits, digits + largest_rest)
    return float(np.where(digits == written, written + rest, others) @ chances)


def chances_of(pieces: Sequence[str], logits: NDArray[np.float32], values: Sequence[int]) -> list[Chances | None]:
    """Chances of each ASCII digit written, in order; None for one sharing its token.

    `pieces`: what the vocabulary calls the tokens [n]. `logits`: [n, digit tokens], before temperature. `values`: the
    digit 0-9 of each digit token; chances of tokens of the same digit are added.
    """
    chances: list[Chances | None] = []
    columns = np.eye(10)[np.asarray(values)]
    for step, piece in enumerate(pieces):
        count = sum(char in DIGITS for char in piece)
        if count == 1:
            row = np.asarray(logits[step], dtype=np.float64)
            weights = np.exp(row - row.max()) @ columns
            chances.append(weights / weights.sum())
        else:
            chances += [None] * count
    return chances


def summarise(given: Sequence[Given], *, form: ReadoutForm, seconds: float) -> Score:
    """Score of a clip, 1-5: mean over readable answers of the mean of their numbers.

    `score_std` is the population spread of the answers' means. With two dimensions `score_global` and `score_local` are
    means over the answers that gave both. The reason is that of the answer nearest to the score. `score_raw` is the
    score on the model's own scale.
    """
    answers = tuple(one.answer for one in given)
    scale = form.scale
    parsed = [(math.fsum(one.values) / len(one.values), one) for one in given if one.values is not None]
    beside = [scale.opinion(math.fsum(one.beside) / len(one.beside)) for one in given if one.beside is not None]
    expected = statistics.fmean(beside) if beside else None
    if not parsed:
        nothing = dict.fromkeys(("score", "score_std", "score_global", "score_local"))
        reason = answers[0].reason if answers else ""
        return Score(**nothing, score_expected=expected, reason=reason, answers=answers, score_seconds=seconds)
    raw = statistics.fmean(mean for mean, _ in parsed)
    both = [one.values for _, one in parsed if form.dimensions == 2 and one.values is not None and len(one.values) == 2]
    nearest = min(parsed, key=lambda pair: abs(pair[0] - raw))[1]
    return Score(
        score=scale.opinion(raw),
        score_std=scale.spread(statistics.pstdev(mean for mean, _ in parsed)),
        score_global=scale.opinion(statistics.fmean(values[0] for values in both)) if both else None,
        score_local=scale.opinion(statistics.fmean(values[1] for values in both)) if both else None,
        score_raw=raw,
        score_expected=expected,
        reason=nearest.answer.reason,
        answers=answers,
        score_seconds=seconds,
    )
