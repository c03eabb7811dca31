"""Terms of an answer's form: tags and content by paper, length, repetition."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vqa.prompt import AnswerSyntax

Numbers = NDArray[np.float64]
Demand = Literal["tags", "numbers", "lines", "json", "score"]
FORMS: dict[Demand, tuple[AnswerSyntax, ...]] = {  # of prompts whose answers can meet the demand
    "tags": ("numbers", "json", "score"),
    "numbers": ("numbers",),
    "lines": ("numbers",),
    "json": ("json",),
    "score": ("score",),
}
_NUMBER = r"[-+]?\d+(?:\.\d+)?[ \t]*"


def demanded(texts: Sequence[Sequence[str]], demand: Demand, *, numbers: int) -> Numbers:
    """1 for an answer whose whole text has the demanded form, else 0.

    All demand `<think>...</think>`, blanks at most, then `<answer>...</answer>` and nothing else. Inside `<answer>`:
    `tags` anything (VisualQuality-R1, arXiv 2505.14460, and most others), `numbers` as many numbers as were asked for,
    one per line (PreResQ-R1's images, arXiv 2511.05393), `lines` the same with a line break behind the last one too
    (its videos), `json` one flat object, with each tag on a line of its own (Q-Insight, arXiv 2503.22679), `score`
    `Score: ` and a number of one digit and two decimals (Refine-IQA, arXiv 2508.03763).

    Args:
        texts: B groups of K answers.
        demand: one of the five.
        numbers: D, how many were asked for.

    Returns:
        float [B, K], 0 or 1.
    """
    end = "" if demand == "lines" else "?"
    inside = {
        "tags": r".*?",
        "numbers": rf"\s*(?:{_NUMBER}\n\s*){{{numbers - 1}}}{_NUMBER}(?:\n\s*){end}",
        "json": r"\n\{[^{}]*\}\n",
        "score": r"\s*Score: ?\d\.\d\d\s*",
    }["numbers" if demand == "lines" else demand]
    before = r"<think>\n.*?\n</think>\n" if demand == "json" else r"<think>.*?</think>\s*"
    form = re.compile(f"{before}<answer>{inside}</answer>", re.DOTALL)
    return np.array([[float(form.fullmatch(text) is not None) for text in group] for group in texts])


def parsed(values: Numbers) -> Numbers:
    """Format term without texts, as in plots: 1 for a parsed answer, else 0.

    Args:
        values: [B, K, D], NaN where unparsed.

    Returns:
        float [B, K], 0 or 1.
    """
    return np.isfinite(values).all(axis=2).astype(float)


def length_band(tokens: NDArray[np.int64], accuracy: Numbers, *, bonus: float = 0.2) -> Numbers:
    """Bonus for accurate answers of 320 to 512 tokens (VQ-Insight, arXiv 2506.18564).

    Args:
        tokens: int [B, K], length of each answer.
        accuracy: float [B, K], of which more than 0.1 is needed.
        bonus: paid where more than one answer of the group qualifies.

    Returns:
        float [B, K], 0 or `bonus`.
    """
    fits = (accuracy > 0.1) & (tokens >= 320) & (tokens <= 512)
    paid: Numbers = bonus * (fits & (fits.sum(axis=1, keepdims=True) > 1))
    return paid


def repetition(
    texts: Sequence[Sequence[str]], *, more_than: int = 5, each: float = 0.25, floor: float = -2.0
) -> Numbers:
    """Penalty for overused words and characters (Q-Hawkeye, arXiv 2601.22920).

    Every use of a word, and of a character, used over `more_than` times costs `each`. Floor and form follow the
    released code (`grpo_am.py`): it reads the inside of the first `<answer>`, else the whole text, without punctuation,
    and splits words at single blanks.

    Args:
        texts: B groups of K answers.
        more_than: uses that are free.
        each: penalty per use.
        floor: least value.

    Returns:
        float [B, K], `floor` to 0.
    """

    def one(text: str) -> float:
        found = _ANSWER.search(text)
        plain = _PUNCTUATION.sub("", (found[1] if found else text).strip())
        if len(plain) < more_than:  # a plain number: nothing in it can be used too often
            return 0.0
        uses = [count for things in (plain.split(" "), plain) for count in Counter(things).values()]
        return max(floor, -each * sum(count for count in uses if count > more_than))

    return np.array([[one(text) for text in group] for group in texts])


_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_PUNCTUATION = re.compile(r"[^\w\s]")
