"""Prompts of the recipes, and the parser of answers that all parts share.

An answer holds D numbers on 1-5 (D=2 for video: global, local):

    <think>The frames flicker, the crops are sharp.</think><answer>
    2.85
    3.90
    </answer>

A list of numbers is PreResQ-R1's idea (arXiv 2511.05393), one number VisualQuality-R1's (arXiv 2505.14460), JSON
Q-Insight's (arXiv 2503.22679); the wording is our own.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypedDict

from vqa.errors import UsageError

LOWEST, HIGHEST = 1.0, 5.0
PromptName = Literal["preresq_video", "preresq_image", "visualquality_r1", "q_insight", "refine_iqa"]  # keys of PROMPTS
AnswerSyntax = Literal[
    "numbers", "json", "score"
]  # of the inside of <answer>: one number per line, JSON, `Score: 3.20`
PictureLabels = Literal["none", "vision_ids", "named", "named_vision_ids"]

THINK = "Think in <think> </think>, then answer in <answer> </answer>"
LINES = "Each tag stands on a line of its own."  # of the JSON forms, as Q-Insight's format reward has it
_SOURCE = "All pictures come from one video or image. How good does it look?"


class ChatTurn(TypedDict):
    """A turn of a chat as Hugging Face templates take it: role, texts and pictures."""

    role: str
    content: list[dict[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A question: numbers asked for, words, and names of pictures (global, local).

    `form` is what it wants inside `<answer>`; answers to learn from are written in it (`answer_text`).
    """

    dimensions: int
    question: str
    is_global_local: bool = False
    form: AnswerSyntax = "numbers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Layout of a question: labels of pictures, what comes first, a system turn."""

    labels: PictureLabels = "named"  # vision_ids: `Picture 1: `, as add_vision_id of the Qwen templates writes it
    text_first: bool = False
    is_video: bool = False  # the global pictures are the frames of one video
    system: str | None = None


@dataclass(frozen=True, slots=True)
class AnswerScale:
    """The numbers that an answer may hold, both ends included."""

    low: float = LOWEST
    high: float = HIGHEST

    def opinion(self, raw: float) -> float:
        """The number on the opinion scale 1-5, by a straight line; 1-5 stays to the bit."""
        return LOWEST + self.spread(raw - self.low) if self != OPINIONS else raw

    def spread(self, raw: float) -> float:
        """A difference of numbers as one on the opinion scale."""
        return raw * (HIGHEST - LOWEST) / (self.high - self.low) if self != OPINIONS else raw


OPINIONS = AnswerScale()
GRADES = ("bad", "poor", "fair", "good", "excellent")  # of 1 to 5 (ITU-R BT.500, ITU-T P.910)


def grade_of(opinion: float) -> str:
    """Grade word nearest to an opinion on 1-5; a half goes up."""
    return GRADES[min(len(GRADES) - 1, int(opinion - 0.5))]


_PLAIN = Layout()


PROMPTS: dict[str, Prompt] = {
    "preresq_video": Prompt(
        dimensions=2,
        question="How good does this video look? Compare the frames of the global picture over time, then study the "
        "detail in the local pictures. Give two scores from 1 (bad) to 5 (excellent) with two decimals: global, then "
        f"local. {THINK}, one number per line.",
        is_global_local=True,
    ),
    "preresq_image": Prompt(
        dimensions=5,
        question=f"{_SOURCE} Give five scores from 1 (bad) to 5 (excellent) with two decimals, in this order: "
        f"saturation, granularity, sharpness, foreground, background. {THINK}, one number per line.",
    ),
    "visualquality_r1": Prompt(
        dimensions=1,
        question=f"{_SOURCE} Give one score for the overall quality, from 1 (very poor) to 5 (excellent), with two "
        f"decimals. {THINK}, which holds the number alone.",
    ),
    "q_insight": Prompt(
        dimensions=1,
        question=f"{_SOURCE} Rate the overall quality from 1 (very poor) to 5 (excellent), with two decimals. "
        f'{THINK}, which holds JSON alone: {{"rating": <the number>}}. {LINES}',
        form="json",
    ),
    "refine_iqa": Prompt(
        dimensions=1,
        question=f"{_SOURCE} Give one score for the overall quality, from 1 (very poor) to 5 (excellent), with two "
        f"decimals. {THINK}, which holds `Score: ` and the number alone.",
        form="score",
    ),
}


def dimensions(preset: str) -> int:
    """How many numbers the prompt asks for. Raises UsageError for an unknown name."""
    return _prompt(preset).dimensions


def messages(
    preset: str,
    layout: Layout = _PLAIN,
    /,
    *,
    global_count: int,
    local_count: int,
    repeats: int | None = None,
    question: str | None = None,
) -> list[ChatTurn]:
    """Chat messages as Hugging Face chat templates take them.

    Args:
        preset: a name in PROMPTS.
        layout: labels, order, system turn.
        global_count: global pictures, which come first.
        local_count: local pictures.
        repeats: of the global frames, how many repeat the one before, told behind the global pictures; None: not told.
        question: words in place of the prompt's own.

    Returns:
        A user turn with an image entry for each picture of `Views.pictures`, in their order (with `layout.is_video` one
        video entry for the global ones), after a system turn where the layout has one.

    Raises:
        UsageError: for an unknown prompt, and without a picture.
    """
    chosen = _prompt(preset)
    if global_count < 0 or local_count < 0 or global_count + local_count == 0:
        raise UsageError(
            f"prompt: {global_count} global and {local_count} local pictures; at least one picture is needed"
        )
    kinds = ["image"] * (global_count + local_count)
    if layout.is_video and global_count:
        kinds = ["video"] + ["image"] * local_count
    named = _labels(len(kinds) - local_count, local_count, is_global_local=chosen.is_global_local)
    content: list[dict[str, str]] = []
    for place, kind in enumerate(kinds):
        label = named[place] * layout.labels.startswith("named")
        if layout.labels.endswith("vision_ids"):
            label += f"{kind.replace('image', 'picture').capitalize()} {kinds[: place + 1].count(kind)}: "
        content += [{"type": "text", "text": label}] * bool(label) + [{"type": kind}]
        if repeats is not None and place + 1 == len(kinds) - local_count:
            shown = "these pictures" if kind == "image" and global_count > 1 else "its frames"
            told = f"{repeats} of {shown} repeat the one before." if repeats else f"{shown.capitalize()} differ."
            content.append({"type": "text", "text": told})
    words = {"type": "text", "text": question or chosen.question}
    content = [words, *content] if layout.text_first else [*content, words]
    system: ChatTurn = {"role": "system", "content": [{"type": "text", "text": layout.system or ""}]}
    return [system] * (layout.system is not None) + [{"role": "user", "content": content}]


def answer_text(reason: str, values: Sequence[float], form: AnswerSyntax = "numbers") -> str:
    """An answer in the asked form, to learn from.

    Args:
        reason: the inside of `<think>`.
        values: on 1-5, written with two decimals; one for the forms `json` and `score`.
        form: of the prompt.
    """
    numbers = "\n".join(f"{value:.2f}" for value in values)
    if form == "json":
        return json_answer(reason, f'{{"rating": {numbers}}}')
    label = "Score: " if form == "score" else ""
    return f"<think>{reason.strip()}</think><answer>\n{label}{numbers}\n</answer>"


def json_answer(reason: str, named: str) -> str:
    """An answer of JSON `named`, each tag on a line (Q-Insight, arXiv 2503.22679)."""
    return f"<think>\n{reason.strip()}\n</think>\n<answer>\n{named}\n</answer>"


@dataclass(frozen=True, slots=True)
class Reading:
    """A number on the scale, parsed from the characters [start, stop) of an answer."""

    value: float
    start: int
    stop: int


def parse(
    text: str, dimensions: int, *, scale: AnswerScale = OPINIONS, keys: tuple[str, ...] = ()
) -> tuple[float, ...] | None:
    """Parse an answer's numbers.

    Args:
        text: of the answer.
        dimensions: how many numbers were asked for.
        scale: of the numbers, 1-5 unless the model was taught another.
        keys: names of the numbers, in order, where the model was taught to name them.

    Returns:
        `dimensions` numbers on the scale, or one where the model gave only an overall one; None where the text is no
        answer.
    """
    readings = locate_numbers(text, dimensions, scale=scale, keys=keys)
    return None if readings is None else tuple(reading.value for reading in readings)


def locate_numbers(
    text: str, dimensions: int, *, scale: AnswerScale = OPINIONS, keys: tuple[str, ...] = ()
) -> tuple[Reading, ...] | None:
    """Parse an answer's numbers with their places; never raises, None in doubt.

    The text that counts is the last `<answer>` block, which must be closed; without one, all that follows the
    reasoning; tags are read in any case. It must hold nothing but numbers in ASCII digits, separated by lines, blanks
    or `, `, and these dialects of public checkpoints: names before the numbers (`global: 3.4`, `The overall score is
    3.4`), JSON (`{"rating": 3.4}`), `3.4/5`, `4 out of 5`, TeX's box, `3.4分`, a grade word in brackets after it,
    Markdown fences and stars; a confidence beside a number that has a name. Named numbers are put in order (global,
    local). One number that names no part is an answer for any `dimensions`, except where several `keys` are due: the
    score as such. A number outside the scale is no answer.

    Args:
        text: of the answer.
        dimensions: how many numbers were asked for.
        scale: as `parse`.
        keys: as `parse`.

    Returns:
        As `parse`, with places.
    """
    text = _TAG.sub(lambda tag: tag.group().lower(), text)
    tail_start = text.rfind(_CLOSETHINK) + len(_CLOSETHINK) if _CLOSETHINK in text else 0
    is_thinking = text.find(_OPENTHINK, tail_start) >= 0
    opened = text.rfind(_OPEN_ANSWER, tail_start)
    if opened >= 0:
        start = opened + len(_OPEN_ANSWER)
        stop = text.find(_CLOSE_ANSWER, start)
        # Inside unfinished reasoning a block may be a quotation; as the very last thing it is the answer.
        if stop < 0 or (is_thinking and text[stop + len(_CLOSE_ANSWER) :].strip()):
            return None
    elif is_thinking:
        return None
    else:
        start, stop = tail_start, len(text)
    if stop - start > _LONGEST_ANSWER:
        return None
    return _read(text, start, stop, dimensions, scale, keys)


def is_closed(text: str) -> bool:
    """Whether the last `<answer>` block is closed, so that the answer is complete."""
    text = _TAG.sub(lambda tag: tag.group().lower(), text)
    opened = text.rfind(_OPEN_ANSWER)
    return opened >= 0 and _CLOSE_ANSWER in text[opened:]


def reason(text: str) -> str:
    """The reasoning, trimmed: inside `<think>`, or before the answer; may be empty."""
    text = _TAG.sub(lambda tag: tag.group().lower(), text)
    start = text.find(_OPENTHINK)
    start = 0 if start < 0 else start + len(_OPENTHINK)
    stop = text.rfind(_CLOSETHINK)
    if stop < start:
        stop = text.rfind(_OPEN_ANSWER)
    return text[start : stop if stop >= start else len(text)].strip()


def words(text: str) -> str | None:
    """A description's words: after the reasoning, else the reasoning; None without."""
    found = (_TAG.sub("", part).strip() for part in (_THOUGHT.sub("", text), reason(text)))
    return next((part for part in found if any(char.isalpha() for char in part)), None)


_THOUGHT = re.compile(r"^.*</think>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?(?:think|answer)>", re.IGNORECASE)
_OPENTHINK, _CLOSETHINK = "<think>", "</think>"
_OPEN_ANSWER, _CLOSE_ANSWER = "<answer>", "</answer>"
_LONGEST_ANSWER = 400  # characters; five named numbers take a quarter of it

# Names a number may carry. Closed on purpose: `severity: 4` or `confidence: 5` is not a quality score.
_PARTS = {
    2: ("global", "local"),
    5: ("saturation", "granularity", "sharpness", "foreground", "background"),
}
_PART_WORDS = frozenset(name for names in _PARTS.values() for name in names)
_WORDS = ("the", "final", "overall", "video", "image", "quality", "rating", "score", "answer", "mos")


@cache
def _item(high: float, keys: tuple[str, ...]) -> re.Pattern[str]:
    """Pattern of a number with its names; `4 out of 5` where 5 is the scale's end."""
    words = "|".join((*map(re.escape, keys), *sorted(_PART_WORDS), *_WORDS))
    return re.compile(
        rf"(?:(?P<name>(?:{words})(?:[ _](?:{words}))*)\s*(?::|=|\bis\b)\s*)?"
        rf"(?P<number>[0-9]{{1,4}}(?:\.[0-9]{{1,12}})?)(?:\s*(?:/|out\s+of)\s*{high:g}(?:\.0{{1,2}})?)?"
        r"(?:\.(?![^\S\n]*[0-9]))?(?![0-9.])",  # `3. 5` may be one number or two
        re.IGNORECASE | re.ASCII,
    )


_GAP = re.compile(r"(?:\s*[,;](?![0-9])\s*|\s+)(?=\S)|\s*$")
# What stands around a number without changing it: TeX's box and dollars, a unit, BT.500's grade in brackets.
_ORNAMENT = re.compile(
    r"\\boxed(?=\{)|(?<![0-9])\$|\$(?![0-9])|(?<=[0-9])\s*分(?![0-9])|(?<=[0-9])\s*(?:stars?|points?)\b(?![ \t]*[a-z])"
    r"|(?<=[0-9])\s*\((?:" + "|".join(GRADES) + r")\)",
    re.IGNORECASE,
)
_CONFIDENCE = re.compile(
    r"[,;]?\s*\bconfidence\s*[:=]\s*[0-9]{1,3}(?:\.[0-9]{1,6})?(?:\s*(?:%|/\s*5))?(?!\.?[0-9/])(?:\s*[,;](?=\s*[a-z]))?",
    re.IGNORECASE | re.ASCII,
)
# Not between two digits: `3*4` is no list of scores.
_WRAPPING = re.compile(r"```(?:json)?|(?<![0-9])[*\"'{}\[\]`]|[*\"'{}\[\]`](?![0-9])")


def _read(
    text: str, start: int, stop: int, dimensions: int, scale: AnswerScale, keys: tuple[str, ...]
) -> tuple[Reading, ...] | None:
    # Blanks in place of wrapping, not nothing: the places in the text stay the same.
    body = _ORNAMENT.sub(lambda found: " " * len(found.group()), text[start:stop])
    body, others = _CONFIDENCE.subn(lambda found: " " * len(found.group()), body)
    body = _WRAPPING.sub(lambda found: " " * len(found.group()), body)
    pattern, part_words = _item(scale.high, keys), frozenset(key.lower() for key in keys) or _PART_WORDS
    place = len(body) - len(body.lstrip())
    readings: list[Reading] = []
    names: list[str | None] = []
    while place < len(body):
        item = pattern.match(body, place)
        gap = item and _GAP.match(body, item.end())
        if not item or not gap or len(readings) == dimensions:
            return None
        value = float(item["number"])
        if others and not item["name"]:
            return None  # beside a number of something else, only one that is named is the score
        if not scale.low <= value <= scale.high:
            return None
        readings.append(Reading(value, start + item.start("number"), start + item.end("number")))
        name = (item["name"] or "").lower()
        parts = part_words.intersection((name, *re.split(r"[ _]", name)))
        if len(parts) > 1:
            return None
        names.append(next(iter(parts), None))
        place = gap.end()
    return _in_order(readings, names, dimensions, tuple(key.lower() for key in keys))


def _in_order(
    readings: list[Reading], names: list[str | None], dimensions: int, keys: tuple[str, ...]
) -> tuple[Reading, ...] | None:
    """Named numbers by name, others as they come; None for a wrong count or name."""
    if len(readings) == 1 and names == [None] and len(keys) < 2:
        return tuple(readings)
    if len(readings) != dimensions:
        return None
    if names == [None] * dimensions and not keys:
        return tuple(readings)
    expected = keys or _PARTS.get(dimensions, ("global",))
    if sorted(name or "" for name in names) != sorted(expected):
        return None
    return tuple(readings[names.index(name)] for name in expected)


def _prompt(name: str) -> Prompt:
    if name not in PROMPTS:
        raise UsageError(f"prompt {name!r} is not known. Known are: {', '.join(PROMPTS)}.")
    return PROMPTS[name]


def _labels(global_count: int, local_count: int, *, is_global_local: bool) -> list[str]:
    total = global_count + local_count
    if not is_global_local:
        return [f"Picture {i + 1}:" for i in range(total)]
    many = global_count > 1
    whole = [f"Global picture {i + 1}:" if many else "Global multiframe picture:" for i in range(global_count)]
    return whole + [f"Local single frame picture {i + 1}:" for i in range(local_count)]
