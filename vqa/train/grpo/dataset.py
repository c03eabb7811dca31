"""Training examples of GRPO: trl's table, its order, and the clips of a batch."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import datasets
import numpy as np
from PIL import Image
from torch.utils.data import Sampler

from vqa.errors import UsageError
from vqa.model.encode import encode, padded
from vqa.prompt import HIGHEST, LOWEST, messages
from vqa.train.clips.degradation import NONE, Damage
from vqa.train.grpo.packing import EncodedPrompt, encode_prompt
from vqa.train.types import Chat, Model
from vqa.types import Views

if TYPE_CHECKING:
    from transformers import ProcessorMixin


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """A clip to learn from: its opinion on 1-5, and how to load its views.

    `load` is called once for each batch that holds the clip, never at set-up: it reads a prepared cache. `caption` is
    for objectives that need what the pictures show in words. Where `damage` is given, the question and the reward are
    about it, and the opinion is NaN.
    """

    clip_id: str
    dataset: str
    opinion: float
    load: Callable[[], Views]
    caption: str | None = None
    damage: Damage = NONE


def as_dataset(examples: Sequence[Example]) -> datasets.Dataset:
    """Build trl's table; the trainer fills its column `prompt` when it loads a clip.

    Raises:
        UsageError: for opinions not on 1-5, or all the same within a data set: nothing could be learned.
    """
    by_set: dict[str, set[float]] = defaultdict(set)
    for one in (one for one in examples if one.damage == NONE):
        if not LOWEST <= one.opinion <= HIGHEST:
            raise UsageError(
                f"clip {one.clip_id}: the opinion {one.opinion} is not on {LOWEST:g}-{HIGHEST:g}. Import it again."
            )
        by_set[one.dataset].add(one.opinion)
    for name, opinions in by_set.items():
        if len(opinions) < 2:
            raise UsageError(f"data set {name!r}: all opinions are {opinions.pop():g}. Add clips of other quality.")
    columns: dict[str, list[object]] = {
        "place": list(range(len(examples))),
        "prompt": [[{"role": "user", "content": one.clip_id}] for one in examples],
        "clip_id": [one.clip_id for one in examples],
        "dataset": [one.dataset for one in examples],
        "opinion": [one.opinion for one in examples],
        "damage": [list(one.damage) for one in examples],
    }
    return datasets.Dataset.from_dict(columns)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchClip:
    """A clip of a batch, loaded and encoded once for all its answers."""

    example: Example
    chat: Chat
    pictures: list[Image.Image]  # only for vLLM and trl's own path, which encode them
    prompt: EncodedPrompt | None
    second: EncodedPrompt | None = None  # of the second pass that some rewards need: other frames, or another question
    second_pictures: list[Image.Image] = field(default_factory=list)  # only for vLLM

    @property
    def question(self) -> str:
        """The text behind the pictures."""
        return self.chat[-1]["content"][-1]["text"]


def load_clip(
    example: Example,
    model: Model,
    processor: "ProcessorMixin",
    *,
    prompt: str,
    question: str | None = None,
    is_encoded: bool,
    keeps_pictures: bool,
    second: Callable[[Views], tuple[Views, str | None] | None] | None = None,
) -> BatchClip:
    """Load a clip's views once and encode them once.

    Args:
        example: the clip.
        model: whose positions and device count.
        processor: of the model.
        prompt: a name of vqa.prompt.PROMPTS.
        question: in place of the prompt's.
        is_encoded: whether to encode the views for the model.
        keeps_pictures: whether to keep them for whoever encodes them again.
        second: gives views and question of a second prompt; None where the reward needs none.
    """
    views = example.load()
    other = None if second is None else second(views)

    def encoded(its: Views, asked: str | None) -> EncodedPrompt:
        return encode_prompt(model, encode(processor, its, prompt=prompt, question=asked))

    def kept(its: Views | None) -> list[Image.Image]:
        return [Image.fromarray(padded(picture)) for picture in its.pictures] if its and keeps_pictures else []

    return BatchClip(
        example=example,
        chat=messages(prompt, **views.counts, question=question),
        pictures=kept(views),
        prompt=encoded(views, question) if is_encoded else None,
        second=None if other is None else encoded(other[0], other[1] or question),
        second_pictures=kept(other and other[0]),
    )


class OneSetSampler(Sampler[int]):
    """Order of rows as trl wants it, with every batch from one data set.

    Each clip comes `k` times in a row and each batch `repeats` times. Within an epoch each data set is shuffled and cut
    into batches of `clips` (the remainder waits for another epoch's order), and the batches of all sets are shuffled.
    The order depends on seed and epoch only. Raises UsageError for a data set smaller than a batch.
    """

    def __init__(self, names: Sequence[str], *, clips: int, k: int, repeats: int, seed: int) -> None:
        self._places: dict[str, list[int]] = defaultdict(list)
        for place, name in enumerate(names):
            self._places[name].append(place)
        for name, places in self._places.items():
            if len(places) < clips:
                raise UsageError(
                    f"data set {name!r} has {len(places)} clips, a batch {clips}. Add clips, or remove the set."
                )
        self._clips, self._k, self._repeats, self._seed, self._epoch = clips, k, repeats, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration; accelerate calls it on resuming."""
        self._epoch = epoch

    def __len__(self) -> int:
        batches = sum(len(places) // self._clips for places in self._places.values())
        return batches * self._clips * self._k * self._repeats

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self._seed, self._epoch))
        self._epoch += 1
        batches = []
        for name in sorted(self._places):
            places = generator.permutation(self._places[name]).tolist()
            batches += [places[i : i + self._clips] for i in range(0, len(places) - self._clips + 1, self._clips)]
        for index in generator.permutation(len(batches)):
            for _ in range(self._repeats):
                yield from (place for place in batches[index] for _ in range(self._k))
