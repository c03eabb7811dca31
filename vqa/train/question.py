"""A clip as the trainer asks about it: loaded and encoded once for a batch, whatever the number of answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from vqa.model.encode import encode, padded
from vqa.prompt import messages
from vqa.train.grpo.dataset import Example
from vqa.train.grpo.packing import Asked, ask
from vqa.types import Views


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One clip of a batch."""

    chat: list[dict[str, Any]]
    pictures: list[Image.Image]  # only for those who encode themselves: vLLM, and trl's own path
    asked: Asked | None
    disordered: Asked | None = None  # the same question about the frames out of order

    @property
    def question(self) -> str:
        """The words behind the pictures."""
        words: str = self.chat[-1]["content"][-1]["text"]
        return words


def show(
    example: Example,
    model: Any,
    processor: Any,
    *,
    prompt: str,
    question: str | None = None,
    is_encoded: bool,
    keeps_pictures: bool,
    disorder: Callable[[Views], Views | None] | None = None,
) -> Shown:
    """Load the clip's views, once, and run the image processor over them, once; `question` in the prompt's place."""
    views = example.load()
    other = None if disorder is None else disorder(views)
    counts = {"global_count": len(views.global_pictures), "local_count": len(views.local_pictures)}
    return Shown(
        chat=messages(prompt, **counts, question=question),
        pictures=[Image.fromarray(padded(picture)) for picture in views.pictures] if keeps_pictures else [],
        asked=ask(model, encode(processor, views, prompt=prompt, question=question)) if is_encoded else None,
        disordered=None if other is None else ask(model, encode(processor, other, prompt=prompt, question=question)),
    )


def captioned(caption: str | None, processor: Any, *, question: str) -> Any:
    """The processor's tensors of the question with a caption in place of the pictures (CapPO; its words: NOT FOUND)."""
    content = [{"type": "text", "text": f"What the pictures show: {caption}\n"}, {"type": "text", "text": question}]
    chat = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    return processor(text=[text], return_tensors="pt", add_special_tokens=False)
