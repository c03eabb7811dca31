"""Clips to learn from, as trl takes them, and the order in which they come: one data set a batch."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
from torch.utils.data import Sampler

from vqa.errors import UsageError
from vqa.prompt import HIGHEST, LOWEST
from vqa.train.clips.degradation import NONE, Damage
from vqa.types import Views


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """One clip to learn from: what people said of it on 1-5, and how to get what the model sees of it.

    `load` is called once for each batch that holds the clip, never at set-up: it reads a prepared cache. `caption` is
    only for CapPO's hooks: what the pictures show, in words. Where `damage` is given, that is asked for and paid, and
    the opinion is NaN.
    """

    clip_id: str
    dataset: str
    opinion: float
    load: Callable[[], Views]
    caption: str | None = None
    damage: Damage = NONE


def as_dataset(examples: Sequence[Example]) -> datasets.Dataset:
    """A table of trl's column (prompt, which the trainer fills when it loads the clip) and ours.

    Raises UsageError for opinions off the scale, or all the same within each data set: nothing could be learned.
    """
    by_set: dict[str, set[float]] = defaultdict(set)
    for one in (one for one in examples if one.damage == NONE):
        if not LOWEST <= one.opinion <= HIGHEST:
            raise UsageError(f"clip {one.clip_id}: the opinion {one.opinion} is not on {LOWEST:g}-{HIGHEST:g}")
        by_set[one.dataset].add(one.opinion)
    for name, opinions in by_set.items():
        if len(opinions) < 2:
            raise UsageError(f"data set {name!r}: all opinions are {opinions.pop():g}; give clips of different quality")
    columns: dict[str, list[Any]] = {
        "place": list(range(len(examples))),
        "prompt": [[{"role": "user", "content": one.clip_id}] for one in examples],
        "clip_id": [one.clip_id for one in examples],
        "dataset": [one.dataset for one in examples],
        "opinion": [one.opinion for one in examples],
        "damage": [list(one.damage) for one in examples],
    }
    return datasets.Dataset.from_dict(columns)


class OneSetSampler(Sampler[int]):
    """trl's order of rows (each clip `k` times in a row, each batch `repeats` times), every batch from one data set.

    Within an epoch each data set is shuffled, cut into batches of `clips` (a rest is left for another epoch's order),
    and the batches of all sets are shuffled. The order depends on seed and epoch only. Raises UsageError for a data
    set smaller than a batch.
    """

    def __init__(self, names: Sequence[str], *, clips: int, k: int, repeats: int, seed: int) -> None:
        self._places: dict[str, list[int]] = defaultdict(list)
        for place, name in enumerate(names):
            self._places[name].append(place)
        for name, places in self._places.items():
            if len(places) < clips:
                raise UsageError(
                    f"data set {name!r} has {len(places)} clips, a batch {clips}; add clips or leave it out"
                )
        self._clips, self._k, self._repeats, self._seed, self._epoch = clips, k, repeats, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """As torch's distributed sampler has it; accelerate calls it."""
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
