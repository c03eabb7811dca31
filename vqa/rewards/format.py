"""Terms of an answer's form and length: read by the one parser, in the asked length, without repetition."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def parsed(values: Numbers) -> Numbers:
    """1 where all D numbers were read by `vqa.prompt.parse`, else 0: values [B, K, D] -> [B, K].

    The papers' own patterns differ a little from each other; here what is read is what is paid.
    """
    return np.isfinite(values).all(axis=2).astype(float)


def length_band(tokens: NDArray[np.int64], accuracy: Numbers, *, bonus: float = 0.2) -> Numbers:
    """`bonus` where accuracy > 0.1 and 320 <= tokens <= 512, if more than one answer of the group is so: [B, K].

    VQ-Insight (arXiv 2506.18564).
    """
    fits = (accuracy > 0.1) & (tokens >= 320) & (tokens <= 512)
    paid: Numbers = bonus * (fits & (fits.sum(axis=1, keepdims=True) > 1))
    return paid


def repetition(
    texts: Sequence[Sequence[str]], *, more_than: int = 5, each: float = 0.25, floor: float = -2.0
) -> Numbers:
    """`-each` for every use of a word, and of a character, used over `more_than` times in the answer: [B, K], <= 0.

    Q-Hawkeye (arXiv 2601.22920); the floor from methods.md, the rest read in the released `grpo_am.py`: the inside of
    the first `<answer>`, else the whole text, without punctuation; words split at single blanks.
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
