"""A step of `tests/bench/embedded_people.py`: the tower's opinions come in order along ladders.

The tower learns on for a few hundred steps, with the readings that were handed to the text model held where they are:
both opinions are read off their channels by a line that stays, and all other channels stay near what they were. Beside
opinions and differences along ladders, as before, a softplus ranks each original above its copies; half of the copies
are of tones and colours, whose order the tower knows least, some of them made as they are drawn. Crops damaged by every
kind of still that there is, and by kinds that are drawn, lose opinion off native crops as they lose VMAF.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.bench.embedded_clips import LIKE_PEOPLE, POINTS_PER_VMAF
from tests.bench.embedded_material import Picture
from tests.bench.embedded_tower import SEEN, drawn, pooled_of, sets_of
from vqa.data.synthetic.picture_ladder import PRISTINE
from vqa.train.scratch.crops import CROP
from vqa.train.scratch.warmup import pooled, rate_at, responses
from vqa.train.types import Model
from vqa.types import Pixels

TONES = {"brighten", "darken", "mean_shift", "less_contrast", "desaturate", "oversaturate", "underwater", "haze"}
TONES |= {"colour_shift"}
OF_SET, STILLS, CLIPS = 3, 4, 3  # pictures of each set of people's opinions, and contents, of a step
TONED = "toned"
MARGIN = 0.02  # of the opinion, whose range is 1: where the ranking bends
GROUPS, COPIES_OF_CROP = 6, 3  # crops of a step, and damaged copies of each
OF_CROPS = 15.0  # weight of what they lose


@dataclass(frozen=True, eq=False)
class Ladders:
    """What a step draws from."""

    sets: Sequence[Sequence[Picture]]
    stills: Sequence[Sequence[Picture]]  # of each content, the original first
    clips: Sequence[Sequence[Picture]]  # the best first
    crops: Sequence[Path] = ()  # of `gather_crops`

    def draw(self, generator: np.random.Generator) -> tuple[list[Picture], list[tuple[slice, bool]]]:
        """Pictures; of each content its place among them, and whether it is a still."""
        picks = [some[k] for some in self.sets for k in generator.choice(len(some), OF_SET, replace=False)]
        places = []
        for ladders, count in ((self.stills, STILLS), (self.clips, CLIPS)):
            for k in generator.choice(len(ladders), count, replace=False):
                first, *others = ladders[k]
                tones = [one for one in others if TONES.intersection(one.kinds)]
                halves = ((others, 2), (tones or others, 1)) if ladders is self.stills else ((others, 2),)
                chosen = [
                    some[j]
                    for some, most in halves
                    for j in generator.choice(len(some), min(most, len(some)), replace=False)
                ]
                chosen += [toned(first, generator)] * (ladders is self.stills)
                places.append((slice(len(picks), len(picks) + 1 + len(chosen)), ladders is self.stills))
                picks += [first, *chosen]
        return picks, places

    def draw_crops(self, generator: np.random.Generator) -> tuple[Pixels, Tensor]:
        """Windows [GROUPS * (1 + COPIES_OF_CROP), CROP, CROP, 3], clean ones first, and what copies have of VMAF."""
        with np.load(self.crops[int(generator.integers(len(self.crops)))], allow_pickle=False) as found:
            crops, vmaf = found["crops"], found["vmaf"]
        chosen = generator.choice(len(crops), GROUPS, replace=False)
        copies = generator.choice(vmaf.shape[1], COPIES_OF_CROP, replace=False)
        top, left = generator.integers(crops.shape[2] - CROP + 1, size=2)
        windows = crops[chosen][:, [0, *(1 + copies)], top : top + CROP, left : left + CROP]
        windows = windows[..., ::-1, :] if generator.random() < 0.5 else windows
        shape = (-1, CROP, CROP, 3)
        return np.ascontiguousarray(windows).reshape(shape), torch.from_numpy(vmaf[chosen][:, copies])


def toned(picture: Picture, generator: np.random.Generator) -> Picture:
    """A copy in other tones or colours, its windows drawn already: exposure, gamma, contrast, gains, a tint."""
    level = generator.uniform(0.1, 1)
    pixels = drawn(picture, generator).astype(np.float32) / np.float32(255)
    luma, up = np.array([0.299, 0.587, 0.114], np.float32), generator.choice((-1, 1))
    match int(generator.integers(8)):
        case 0 | 1:
            pixels = np.minimum(pixels**2.2 * np.float32(2 ** (up * (0.15 + 1.35 * level))), 1) ** np.float32(1 / 2.2)
        case 2:
            pixels = pixels ** np.float32(2 ** (up * (0.1 + 0.9 * level)))
        case 3 | 4:
            middle = pixels.mean() if up > 0 else np.float32(generator.uniform(0.1, 0.9))
            pixels = middle + (pixels - middle) * np.float32(0.95 - 0.45 * level)
        case 5 | 6:
            gains = generator.standard_normal(3)
            gains -= gains.mean()
            pixels = pixels * (1 + (0.05 + 0.35 * level) * gains / np.abs(gains).max()).astype(np.float32)
        case _:
            tint = generator.random(3)
            share = np.float32(0.05 + 0.35 * level)
            grey = (pixels @ luma)[..., None] * (tint / (tint @ luma)).astype(np.float32)
            pixels = (1 - share) * pixels + share * grey
    windows = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    opinion = max(1.0, picture.opinion - (0.1 + 0.6 * level))
    return replace(picture, windows=windows, opinion=opinion, kinds=(TONED,), level=level)


def _seen(picture: Picture, generator: np.random.Generator) -> Pixels:
    return picture.windows if picture.kinds == (TONED,) else drawn(picture, generator)


def ladders_of(pictures: Sequence[Picture], crops: Sequence[Path] = ()) -> Ladders:
    """Sort pictures by what they are to `put_in_order`; variants of people's are left out."""
    by_content: dict[str, list[Picture]] = {}
    for one in pictures:
        if one.content and not one.is_variant:
            by_content.setdefault(one.content, []).append(one)
    ladders = [sorted(some, key=lambda one: one.kinds != (PRISTINE,)) for some in by_content.values() if len(some) > 2]
    return Ladders(
        sets=sets_of(pictures),
        stills=[some for some in ladders if not some[0].is_clip],
        clips=[some for some in ladders if some[0].is_clip],
        crops=crops,
    )


def put_in_order(model: Model, processor: object, ladders: Ladders, *, max_steps: int) -> None:
    """Train the tower; what is left is a mean of the last steps' weights."""
    rate, visual, before = 2e-4, model.model.visual, copy.deepcopy(model).requires_grad_(False)
    visual.patch_embed.requires_grad_(False)
    parameters = [one for one in visual.parameters() if one.requires_grad]
    mean = AveragedModel(visual, multi_avg_fn=get_ema_multi_avg_fn(0.98))
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    lines = _lines(before, processor, ladders)
    first = [some[0] for some in ladders.sets for _ in range(OF_SET)]
    stills = [k for k, one in enumerate(first) if not one.is_clip and one.people != LIKE_PEOPLE]
    for step in range(max_steps):
        generator = np.random.default_rng((17, step))
        picks, places = ladders.draw(generator)
        windows = [_seen(one, generator) for one in picks]
        opinion = torch.tensor([(one.opinion - 1) / 4 - 0.5 for one in picks])
        found = pooled_of(model, processor, windows, SEEN[0])
        with torch.no_grad():
            was = pooled_of(before, processor, windows, SEEN[0])
        read, told = ([slope * one[k][:, k] + start for k, (slope, start) in enumerate(lines)] for one in (found, was))
        parts = [20 * functional.mse_loss(own[stills], other[stills]) for own, other in zip(read, told, strict=True)]
        for some in (slice(None), slice(len(ladders.sets) * OF_SET)):  # those of people twice
            parts += [10 * functional.smooth_l1_loss(one[some], opinion[some], beta=0.2) for one in read]
        for place, is_still in places:
            label = opinion[place]
            for one in read:
                gap = one[place][0] - one[place][1:]
                parts.append(5 / 4 * functional.smooth_l1_loss(gap, label[0] - label[1:], beta=0.1))
                parts.append(is_still * 0.25 / 8 * functional.softplus((MARGIN - gap) / MARGIN).mean())
        if ladders.crops:
            damaged, vmaf = ladders.draw_crops(generator)
            slope, start = lines[0]
            features = pooled(visual, responses(visual, processor.image_processor, damaged))  # type: ignore[attr-defined]
            lost = (slope * features[:, 0] + start).view(GROUPS, -1)
            lost = lost[:, :1] - lost[:, 1:]
            parts.append(OF_CROPS * functional.smooth_l1_loss(lost, POINTS_PER_VMAF * 100 / 4 * (1 - vmaf), beta=0.1))
        spread = was[0].std(0).clamp(min=1e-3)
        for one, other in zip(found, was, strict=True):
            parts.append(((one - other) / spread)[:, 2:].square().mean())
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, steps=max_steps, peak=rate, warm=20)
        optimiser.zero_grad()
        torch.stack(parts).sum().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
        optimiser.step()
        mean.update_parameters(visual)
    visual.load_state_dict(mean.module.state_dict())


@torch.no_grad()
def _lines(model: Model, processor: object, ladders: Ladders) -> list[list[float]]:
    """Slope and start of the opinion by the channel off native crops, and by that off the whole."""
    generator = np.random.default_rng(1)
    picks = [one for _ in range(8) for one in ladders.draw(generator)[0]]
    windows = [_seen(one, generator) for one in picks]
    parts = [pooled_of(model, processor, windows[k : k + 32], SEEN[0]) for k in range(0, len(picks), 32)]
    opinion = [(one.opinion - 1) / 4 - 0.5 for one in picks]
    return [np.polyfit(torch.cat([part[k][:, k] for part in parts]).numpy(), opinion, 1).tolist() for k in (0, 1)]
