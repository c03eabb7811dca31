"""Encode views as a model's inputs: chat template, pictures, tensors.

One clip at a time, so that its inputs cannot depend on its neighbours in a batch.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vqa.prompt import ChatTurn, Layout, messages
from vqa.types import Pixels, Views

if TYPE_CHECKING:
    from transformers import BatchFeature, ProcessorMixin

_LEAST_SIDE = 28  # pixels; a merged patch of Qwen2.5-VL, and enough for the others
_MOST_ASPECT = 100  # long side over short side; the Qwen processors refuse 200
# What a processor is told of a video's frames, whatever they are, as VQ-Insight's script leaves it to its default.
_FRAMES_PER_SECOND = 2.0
_PLAIN = Layout()


def encode(
    processor: "ProcessorMixin",
    views: Views,
    *,
    prompt: str,
    question: str | None = None,
    layout: Layout = _PLAIN,
) -> "BatchFeature":
    """Encode one clip with a prompt.

    Args:
        processor: of transformers, with a tokenizer, an image processor and a chat template.
        views: the clip's pictures, uint8 [height, width, 3] each: global ones first, then local ones.
        prompt: name of a prompt of vqa.prompt.
        question: text in place of the prompt's own question.
        layout: how the question is laid out; with `is_video` the global pictures are the frames of one video.

    Returns:
        The processor's tensors: input_ids [1, length], attention_mask [1, length], and the family's pictures.
    """
    chat = messages(prompt, layout, **views.counts, question=question)
    if not layout.is_video:
        return encode_chat(processor, chat, views.pictures)
    return encode_chat(processor, chat, views.local_pictures, videos=[views.global_pictures])


def encode_chat(
    processor: "ProcessorMixin",
    chat: Sequence[ChatTurn],
    pictures: Sequence[Pixels],
    *,
    videos: Sequence[Sequence[Pixels]] = (),
) -> "BatchFeature":
    """Encode a chat with its pictures and videos, as `encode` does.

    Pictures are uint8 [height, width, 3], a video is frames of one size; both come in the order of the chat.
    """
    text = render(processor, chat)
    shown: dict[str, Any] = {}
    if pictures:
        shown["images"] = [[Image.fromarray(padded(picture)) for picture in pictures]]
    if videos:
        from transformers.video_utils import VideoMetadata  # for those alone that show videos

        rate = _FRAMES_PER_SECOND
        shown["videos"] = [np.stack([padded(frame) for frame in frames]) for frames in videos]
        shown["video_metadata"] = [
            VideoMetadata(total_num_frames=len(frames), fps=rate, frames_indices=list(range(len(frames))))
            for frames in videos
        ]
        shown["do_sample_frames"] = False
    # The template has written the special tokens already.
    inputs: BatchFeature = processor(text=[text], **shown, return_tensors="pt", add_special_tokens=False)
    return inputs


def render(processor: "ProcessorMixin", chat: Sequence[ChatTurn]) -> str:
    """Write a chat as text in the model's own form, up to where its answer begins."""
    template: Callable[..., str] = processor.apply_chat_template  # its types know turns of text alone
    return template(chat, add_generation_prompt=True, tokenize=False)


def padded(picture: Pixels) -> Pixels:
    """Repeat a picture's border pixels right and below until a processor accepts it.

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
