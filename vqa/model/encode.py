"""Encode views as a model's inputs: chat template, pictures, tensors.

One clip at a time, so that its inputs cannot depend on its neighbours in a batch.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vqa.prompt import ChatTurn, messages
from vqa.types import Pixels, Views

if TYPE_CHECKING:
    from transformers import BatchFeature, ProcessorMixin

_LEAST_SIDE = 28  # pixels; a merged patch of Qwen2.5-VL, and enough for the others
_MOST_ASPECT = 100  # long side over short side; the Qwen processors refuse 200


def encode(processor: "ProcessorMixin", views: Views, *, prompt: str, question: str | None = None) -> "BatchFeature":
    """Encode one clip with a prompt.

    Args:
        processor: of transformers, with a tokenizer, an image processor and a chat template.
        views: the clip's pictures, uint8 [height, width, 3] each: global ones first, then local ones.
        prompt: name of a prompt of vqa.prompt.
        question: text in place of the prompt's own question.

    Returns:
        The processor's tensors: input_ids [1, length], attention_mask [1, length], and the family's pictures.
    """
    counts = {"global_count": len(views.global_pictures), "local_count": len(views.local_pictures)}
    return encode_chat(processor, messages(prompt, **counts, question=question), views.pictures)


def encode_chat(processor: "ProcessorMixin", chat: Sequence[ChatTurn], pictures: Sequence[Pixels]) -> "BatchFeature":
    """Encode a chat that shows these pictures, uint8 [height, width, 3], in their order; returns as `encode`."""
    text = render(processor, chat)
    images = [Image.fromarray(padded(picture)) for picture in pictures]
    # The template has written the special tokens already.
    inputs: BatchFeature = processor(text=[text], images=[images], return_tensors="pt", add_special_tokens=False)
    return inputs


def render(processor: "ProcessorMixin", chat: Sequence[ChatTurn]) -> str:
    """Write a chat as text, in the form of the model's family, up to where its answer begins."""
    template: Callable[..., str] = processor.apply_chat_template  # its types know turns of text alone
    return template(chat, add_generation_prompt=True, tokenize=False)


def padded(picture: Pixels) -> Pixels:
    """Repeat a picture's border pixels to the right and below until a processor accepts it.

    Enlarging would look like blur.

    Args:
        picture: uint8 [height, width, 3].

    Returns:
        The picture, at least 28 pixels high and wide, with an aspect of at most 100.
    """
    height, width, _ = picture.shape
    least = max(_LEAST_SIDE, -(-max(height, width) // _MOST_ASPECT))
    down, right = max(0, least - height), max(0, least - width)
    return np.pad(picture, ((0, down), (0, right), (0, 0)), mode="edge") if down or right else picture
