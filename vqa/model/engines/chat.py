"""What goes to a chat server and comes from it: pictures as data URLs, choices as text with the chances of digits."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image
from pydantic import BaseModel

from vqa.model.card import ModelCard
from vqa.model.encode import padded
from vqa.model.readout import Chances, Said
from vqa.prompt import messages
from vqa.types import Pixels, Views

Fields = dict[str, Any]  # of a JSON object

MOST_TOKENS = 2**24  # that a server may count for one request
# Chance that digits beyond the listed tokens may hold; an expected value is then off by 0.04 at most.
MOST_UNSEEN = 0.01
_DIGITS = frozenset("0123456789")


class _Top(BaseModel):
    token: str
    logprob: float


class _Token(_Top):
    top_logprobs: list[_Top] = []


class _Logprobs(BaseModel):
    content: list[_Token] | None = None


class _Message(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class Choice(BaseModel):
    """One answer of a completion."""

    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class Completion(BaseModel):
    """What is read of a chat completion; everything else in it is left aside."""

    choices: list[Choice]
    usage: object = None  # servers disagree on it, and no answer is worth less for that

    def tokens(self, kind: str) -> int | None:
        """Of the prompt or of all choices ("completion"), as the server counts them."""
        number = self.usage.get(f"{kind}_tokens") if isinstance(self.usage, dict) else None
        return number if type(number) is int and 0 <= number <= MOST_TOKENS else None


def chat_of(card: ModelCard, views: Views, words: str | None) -> list[Fields]:
    """The chat with pictures in the places that the prompt gives them."""
    chat = messages(card.prompt, card.layout, **views.counts, question=words or card.question)
    pictures = iter(views.pictures)
    return [
        {
            "role": turn["role"],
            "content": [
                image_part(_reduced(padded(next(pictures)), card.max_pixels)) if part["type"] == "image" else dict(part)
                for part in turn["content"]
            ],
        }
        for turn in chat
    ]


def _reduced(picture: Pixels, most: int | None) -> Pixels:
    """The picture within the card's largest area, which the server's processor may not know.

    One below the smallest area is left to the server: enlarged twice, it was answered otherwise.
    """
    height, width, _ = picture.shape
    if most is None or height * width <= most:
        return picture
    scale = (most / (height * width)) ** 0.5
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def image_part(picture: Pixels) -> Fields:
    """A picture as PNG in a data URL: the server sees the very pixels."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def said_in(choice: Choice) -> Said:
    """A choice as text; reasoning that the server has taken out of it is put back."""
    text, message = choice.message.content or "", choice.message
    if reasoning := message.reasoning_content or message.reasoning:
        text = f"<think>{reasoning}</think>{text}"
    is_finished = choice.finish_reason in ("stop", "eos_token", "stop_sequence")
    return Said(text=text, is_finished=is_finished, chances=_chances(choice, text))


def _chances(choice: Choice, text: str) -> list[Chances | None] | None:
    """The chances of each digit of the text; None where the server lists too few for those of the answer."""
    tokens = (choice.logprobs and choice.logprobs.content) or []
    wanted = [char for char in text if char in _DIGITS]
    answer = sum(char in _DIGITS for char in text[: max(0, text.rfind("<answer>"))])  # digits before it may be unknown
    chances: list[Chances | None] = []
    written: list[str] = []
    for token in tokens:
        digits = [char for char in token.token if char in _DIGITS]
        written += digits
        if len(digits) != 1:
            chances += [None] * len(digits)
            continue
        known = _digit_chances(token)
        if known is None and len(written) > answer:
            return None
        chances.append(known)
    return chances if tokens and written == wanted else None


def _digit_chances(token: _Token) -> Chances | None:
    """Chances of the digits 0-9 among the tokens listed for one place; None where others may hold too much."""
    if not token.top_logprobs:
        return None
    listed = {one.token: float(np.exp(one.logprob)) for one in [*token.top_logprobs, token]}
    weights = np.zeros(10)
    for word, chance in listed.items():
        if len(digit := word.strip()) == 1 and digit in _DIGITS:
            weights[int(digit)] += chance
    unseen = int((weights == 0).sum()) * min(float(np.exp(one.logprob)) for one in token.top_logprobs)
    total = float(weights.sum())
    if not total or not np.isfinite(total) or unseen > MOST_UNSEEN * (total + unseen):
        return None
    return weights / total
