"""Views to what a model takes: chat template, pictures, tensors. One clip at a time, so neighbours cannot matter."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from vqa.prompt import messages
from vqa.types import Pixels, Views

_LEAST_SIDE = 28  # pixels; a merged patch of Qwen2.5-VL, and enough for the others
_MOST_ASPECT = 100  # the Qwen processors refuse 200


def encode(processor: Any, views: Views, *, prompt: str, question: str | None = None) -> Any:
    """The processor's tensors for one clip: input_ids [1, length], attention_mask, and the family's pictures."""
    counts = {"global_count": len(views.global_pictures), "local_count": len(views.local_pictures)}
    return encode_chat(processor, messages(prompt, **counts, question=question), views.pictures)


def encode_chat(processor: Any, chat: Sequence[dict[str, Any]], pictures: Sequence[Pixels]) -> Any:
    """The same for any chat that shows these pictures, in their order."""
    text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    images = [Image.fromarray(padded(picture)) for picture in pictures]
    # The template has written the special tokens already.
    return processor(text=[text], images=[images], return_tensors="pt", add_special_tokens=False)


def padded(picture: Pixels) -> Pixels:
    """The picture with its border pixels repeated to the right and below until a processor accepts it.

    At least 28 pixels a side, aspect at most 100; nothing is enlarged, which would look like blur.
    """
    height, width, _ = picture.shape
    least = max(_LEAST_SIDE, -(-max(height, width) // _MOST_ASPECT))
    down, right = max(0, least - height), max(0, least - width)
    return np.pad(picture, ((0, down), (0, right), (0, 0)), mode="edge") if down or right else picture
