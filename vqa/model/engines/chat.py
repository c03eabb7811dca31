"""Requests to a chat server, with pictures as data URLs, and its choices as text."""

import base64
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from pydantic import BaseModel

from vqa.model.card import GenerationConfig, ModelCard
from vqa.model.encode import padded
from vqa.model.readout import DIGITS, Chances, Said
from vqa.prompt import messages
from vqa.types import Pixels, Views

Fields = dict[str, Any]  # of a JSON object

MOST_TOKENS = 2**24  # that a server may count for one request
# Chance that digits beyond the listed tokens may hold; an expected value is then off by 0.04 at most.
MOST_UNSEEN = 0.01


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
    """What is read of a chat completion; all else in it is ignored."""

    choices: list[Choice]
    usage: object = None  # servers disagree on it, and no answer is worth less for that

    def tokens(self, kind: str) -> int | None:
        """Tokens of the prompt or of all choices ("completion"), as the server counts."""
        number = self.usage.get(f"{kind}_tokens") if isinstance(self.usage, dict) else None
        return number if type(number) is int and 0 <= number <= MOST_TOKENS else None


@dataclass(frozen=True, kw_only=True)
class OptionalFields:
    """The optional fields that a server takes."""

    extras: Fields  # of sampling, beyond OpenAI's
    top_logprobs: int  # 0: none
    has_n: bool  # several answers to one request


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
    """Picture within the card's largest area, which the server may not know.

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


def body_of(
    takes: OptionalFields | None, generation: GenerationConfig, model: str, chat: Sequence[Fields], seeds: Sequence[int]
) -> Fields:
    """Request for answers to a chat, one per seed where the server gives several.

    `takes` None: only what OpenAI's interface has.
    """
    body: Fields = {
        "model": model,
        "messages": chat,
        "max_tokens": generation.max_new_tokens,
        "temperature": generation.temperature if generation.is_sampled else 0.0,
        "top_p": generation.top_p if generation.is_sampled else 1.0,
        "stream": False,
    }
    if generation.is_sampled:
        body["seed"] = seeds[0] >> 32  # 31 bits: what every server can hold
    if takes is None:
        return body
    if takes.top_logprobs:
        body |= {"logprobs": True, "top_logprobs": takes.top_logprobs}
    if takes.has_n and len(seeds) > 1:
        body["n"] = len(seeds)
    return body | takes.extras


def optional_fields(generation: GenerationConfig) -> Iterator[OptionalFields]:
    """Optional fields that servers may take, fullest first.

    20 alternatives of a token are the most that vLLM and OpenAI list.
    """
    top_k, penalty = generation.top_k if generation.is_sampled else None, generation.repetition_penalty
    # Said even where they change nothing: a server may else take those of the model's folder.
    ours = {"top_k": top_k or -1, "repetition_penalty": penalty}
    whole = {
        "do_sample": generation.is_sampled,
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "top_k": top_k or 0,
        "repetition_penalty": penalty,
    }
    extras: list[Fields] = [ours, {"generation_config": json.dumps(whole)}]  # the second for `transformers serve`
    if top_k is None and penalty == 1:
        extras.append({})
    for one in extras:
        for top_logprobs in (20, 5, 0) if generation.readout != "answer" else (0,):
            for has_n in (True, False) if generation.k > 1 else (False,):
                yield OptionalFields(extras=one, top_logprobs=top_logprobs, has_n=has_n)


def said_in(choice: Choice) -> Said:
    """A choice as text; reasoning that the server has taken out of it is put back."""
    text, message = choice.message.content or "", choice.message
    if reasoning := message.reasoning_content or message.reasoning:
        text = f"<think>{reasoning}</think>{text}"
    is_finished = choice.finish_reason in ("stop", "eos_token", "stop_sequence")
    return Said(text=text, is_finished=is_finished, chances=_chances(choice, text))


def _chances(choice: Choice, text: str) -> list[Chances | None] | None:
    """Chances of each digit of the text; None where the answer's are not all known."""
    tokens = (choice.logprobs and choice.logprobs.content) or []
    wanted = [char for char in text if char in DIGITS]
    answer = sum(char in DIGITS for char in text[: max(0, text.rfind("<answer>"))])  # digits before it may be unknown
    chances: list[Chances | None] = []
    written: list[str] = []
    for token in tokens:
        digits = [char for char in token.token if char in DIGITS]
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
    """Chances of the digits listed at one place; None where others may hold too much."""
    if not token.top_logprobs:
        return None
    listed = {one.token: float(np.exp(one.logprob)) for one in [*token.top_logprobs, token]}
    weights = np.zeros(10)
    for word, chance in listed.items():
        if len(digit := word.strip()) == 1 and digit in DIGITS:
            weights[int(digit)] += chance
    unseen = int((weights == 0).sum()) * min(float(np.exp(one.logprob)) for one in token.top_logprobs)
    total = float(weights.sum())
    if not total or not np.isfinite(total) or unseen > MOST_UNSEEN * (total + unseen):
        return None
    return weights / total
