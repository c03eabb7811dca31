"""What the embedded model's text model learns to say: the opinion that the tower holds.

The tower writes an opinion into two channels, off native crops and off the whole picture. A line of their means put
0.96 of photographs above their mild copies, where numbers of a text model that had learnt opinions themselves put 0.89,
with an error of 0.17 about the line (16 photographs, eleventh edition and one near it). So numbers to learn lie about
that line, which pictures and clips have each of their own: the tiles of a clip's mosaic are small, and tell less.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from tests.bench.embedded_material import FROZEN, Picture
from vqa.train.clips.dataset import TrainingClip
from vqa.train.types import Model, Tower
from vqa.types import Pixels, Views

Numbers = NDArray[np.float64]
# Share of the channel off native crops in the line, of pictures and of clips: chosen by 64 pictures of fold 1, 90 clips
# of 16 contents and 16 photographs with their copies.
OF_PICTURES, OF_CLIPS = 0.45, 0.9


@dataclass(frozen=True)
class Channels:
    """Means of the tower's opinions over a prompt's pictures: off each native crop [C], and off the whole."""

    native: Numbers
    whole: float

    def seen(self, crops: int) -> Numbers:
        """[2] where so many crops are shown."""
        return np.array([self.native[:crops].mean(), self.whole])


@torch.no_grad()
def channels_of(model: Model, processor: object, views: Views) -> Channels:
    """Read them off the tower's tokens, as the text model gets them."""
    visual: Tower = model.model.visual

    def means(pictures: Sequence[Pixels], channel: int) -> Numbers:
        given = processor.image_processor(images=list(pictures), return_tensors="pt")  # type: ignore[attr-defined]
        tokens = visual(given["pixel_values"], grid_thw=given["image_grid_thw"]).pooler_output
        counts = (given["image_grid_thw"].prod(1) // visual.spatial_merge_unit).tolist()
        return np.array([float(one[:, channel].mean()) for one in tokens.split(counts)])

    return Channels(means(views.local_pictures, 0), float(means(views.global_pictures, 1).mean()))


@dataclass(frozen=True)
class Reader:
    """Lines from channels to an opinion."""

    middle: Numbers  # [2], of the channels, and their deviation
    spread: Numbers
    of_pictures: Numbers  # [3]: of native crops, of the whole, and the rest
    of_clips: Numbers

    def opinion(self, channels: Numbers, *, is_clip: bool) -> float:
        """Of channels [2]."""
        *slopes, start = self.of_clips if is_clip else self.of_pictures
        return float(np.clip((channels - self.middle) / self.spread @ slopes + start, 1, 5))


def fit_reader(pictures: Sequence[Picture], channels: Sequence[Channels]) -> Reader:
    """Fit the lines to opinions; people's sets, variants, stills and clips count alike, freezes do not."""
    seen = np.array([one.seen(len(one.native)) for one in channels])
    middle, spread = seen.mean(0), seen.std(0)
    opinions = np.array([one.opinion for one in pictures])
    kinds = np.array([f"{one.people} {one.is_clip} {one.is_variant}" for one in pictures])
    counts = dict(zip(*np.unique(kinds, return_counts=True), strict=True))
    weights = np.array([counts[kind] ** -0.5 for kind in kinds]) * [one.kinds != FROZEN for one in pictures]
    is_clip = np.array([one.is_clip for one in pictures])

    def line(share: float, chosen: NDArray[np.bool_]) -> Numbers:
        mixed = (seen[chosen] - middle) / spread @ (share, 1 - share)
        rows = np.stack([mixed, np.ones(len(mixed))], 1) * weights[chosen, None]
        slope, start = np.linalg.lstsq(rows, opinions[chosen] * weights[chosen], rcond=None)[0]
        return np.array([share * slope, (1 - share) * slope, start])

    return Reader(middle, spread, line(OF_PICTURES, ~is_clip), line(OF_CLIPS, is_clip))


def lessons_of(pictures: Sequence[Picture], channels: Sequence[Channels], reader: Reader) -> list[TrainingClip]:
    """Each of people's pictures and each freeze twice, once with fewer crops; of the others a third so.

    A freeze keeps its opinion, which the tower cannot know.
    """
    found = []
    for k, (one, own) in enumerate(zip(pictures, channels, strict=True)):
        most = len(one.views.local_pictures)
        few = int(np.random.default_rng(k).integers(1, most + 1))
        for count in (most, few) if one.people or one.kinds == FROZEN else (most if k % 3 else few,):
            opinion = reader.opinion(own.seen(count), is_clip=one.is_clip)
            told = one if one.kinds == FROZEN else replace(one, opinion=opinion)
            found.append(lesson(told, replace(one.views, local_pictures=one.views.local_pictures[:count])))
    return found


def lesson(picture: Picture, views: Views) -> TrainingClip:
    """A picture's answers to learn, asked with these views."""
    return TrainingClip(
        clip_id=picture.name,
        dataset=picture.people or "ladder",
        opinion=picture.opinion,
        load=partial(_same, views),
        write_answer=picture.answer,
        distortions=picture.damage,
    )


def _same(views: Views) -> Views:
    return views
