"""How the embedded model's tower learns to read opinions, of what tests/bench/embedded_material.py gathers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.bench.embedded_material import NATIVE, WHOLE, Picture
from vqa.data.synthetic.picture_ladder import PRISTINE
from vqa.train.clips.ladder import CLASSES
from vqa.train.scratch.warmup import LOUDNESS, QUIET, pooled, rate_at, responses
from vqa.train.types import Model, Tower
from vqa.types import Pixels

AXES = 32  # of the student's embeddings, which the tower also learns to tell
# Pictures a step: of each set; contents of stills, of people's with variants and of clips, and their copies.
OF_SET, OF_LADDERS = 3, ((2, 3), (2, 3), (4, 2))
SEEN = (4, 2)  # windows of each: native crops, and of the whole


class Readings(nn.Module):
    """Pooled windows [B, width] -> opinion (0-1, without 0.5) and kinds of damage off native crops [B, 12] and off the
    whole [B, 12], and the student's embedding [B, AXES]."""

    middle: Tensor
    spread: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("middle", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.native, self.whole = (nn.Linear(width, 1 + len(CLASSES)) for _ in range(2))
        self.embedding = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, AXES))
        for one in (self.native, self.whole):
            nn.init.zeros_(one.weight)
            nn.init.zeros_(one.bias)

    def forward(self, natives: Tensor, wholes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        native, whole = ((one - self.middle) / self.spread for one in (natives, wholes))
        return self.native(native), self.whole(whole), self.embedding(torch.cat([natives, wholes], 1))


def pooled_of(model: Model, processor: object, windows: Sequence[Pixels], natives: int) -> tuple[Tensor, Tensor]:
    """[B, width] twice: means of the tower's features over each picture's native windows, and over the others."""
    visual: Tower = model.model.visual
    found = pooled(visual, responses(visual, processor.image_processor, np.concatenate(windows)))  # type: ignore[attr-defined]
    found = found.view(len(windows), len(windows[0]), -1)
    return found[:, :natives].mean(1), found[:, natives:].mean(1)


def drawn(picture: Picture, generator: np.random.Generator) -> Pixels:
    """SEEN windows of a picture, mirrored as may be."""
    native = generator.choice(NATIVE, SEEN[0], replace=False)
    whole = NATIVE + generator.choice(WHOLE, SEEN[1], replace=False)
    windows = picture.windows[np.concatenate([native, whole])]
    across, down = generator.random(2)
    windows = windows[:, :, ::-1] if across < 0.5 else windows
    return windows[:, ::-1] if down < 0.25 else windows


@dataclass(frozen=True, eq=False)
class Lesson:
    """Labels of B pictures."""

    opinion: Tensor  # [B] 0-1, without 0.5
    kinds: Tensor  # [B, 11]
    known: Tensor  # [B] 1 where `kinds` says all
    embedding: Tensor  # [B, AXES]
    embedded: Tensor  # [B] 1 where there is one
    contents: tuple[slice, ...]  # of ladders; the first of each is the original


def loss_of(read: tuple[Tensor, Tensor, Tensor], lesson: Lesson) -> Tensor:
    """Opinions, differences of an original and its copies, kinds of damage, the student's embedding."""
    native, whole, told = read
    opinions = (native[:, 0], whole[:, 0], (native[:, 0] + whole[:, 0]) / 2)
    opinion = sum(functional.smooth_l1_loss(one, lesson.opinion, beta=0.2) for one in opinions)
    order = sum(
        functional.smooth_l1_loss(one[:1] - one[1:], label[:1] - label[1:], beta=0.1)
        for place in lesson.contents
        for one, label in ((own[place], lesson.opinion[place]) for own in opinions[:2])
    )
    named = partial(functional.binary_cross_entropy_with_logits, target=lesson.kinds, reduction="none")
    kinds = ((named(native[:, 1:]) + 2 * named(whole[:, 1:])).mean(1) * lesson.known).mean()
    embedding = functional.smooth_l1_loss(told, lesson.embedding, reduction="none").mean(1) * lesson.embedded
    shares = max(1, len(lesson.contents) // 2)
    return 10 * opinion + 5 * order / shares + kinds + 2 * embedding.sum() / lesson.embedded.sum()


def sets_of(pictures: Sequence[Picture]) -> list[list[Picture]]:
    """Each set of people's pictures, and the pans over them."""
    of_people = sorted({(one.people, one.is_clip) for one in pictures if one.people})
    return [[one for one in pictures if (one.people, one.is_clip) == who] for who in of_people]


class Lessons:
    """Draws of a step's pictures, and their labels."""

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self.pictures = pictures
        self.sets = sets_of(pictures)
        by_content: dict[str, list[Picture]] = {}
        for one in pictures:
            if one.content:
                by_content.setdefault(one.content, []).append(one)
        ladders = [sorted(some, key=lambda one: one.kinds != (PRISTINE,)) for some in by_content.values()]
        kinds = {some[0].content: (some[0].is_variant, some[0].is_clip) for some in ladders}
        self.ladders = [
            [some for some in ladders if kinds[some[0].content] == kind]
            for kind in ((False, False), (True, False), (False, True))
        ]
        rows = np.stack([one.embedding for one in pictures if one.embedding is not None])
        self.middle, self.spread = rows.mean(0), rows.std(0) + 1e-6
        rows = (rows - self.middle) / self.spread
        self.axes = np.linalg.svd(rows[::3], full_matrices=False)[2][:AXES].T
        self.axes /= (rows @ self.axes).std(0)

    def draw(self, generator: np.random.Generator) -> tuple[list[Picture], Lesson]:
        """Pictures of every set, and originals with some of their copies."""
        picks = [some[k] for some in self.sets for k in generator.choice(len(some), OF_SET, replace=False)]
        places = []
        for ladders, (count, copies) in zip(self.ladders, OF_LADDERS, strict=True):
            for ladder in generator.choice(len(ladders), min(count, len(ladders)), replace=False):
                first, *others = ladders[ladder]
                chosen = generator.choice(len(others), min(copies, len(others)), replace=False)
                places.append(slice(len(picks), len(picks) + 1 + len(chosen)))
                picks += [first, *(others[k] for k in chosen)]
        told = np.stack([self._axes_of(one) for one in picks]).clip(-4, 4)
        return picks, Lesson(
            opinion=torch.tensor([(one.opinion - 1) / 4 - 0.5 for one in picks]),
            kinds=torch.from_numpy(np.stack([one.shown for one in picks])),
            known=torch.tensor([float(one.is_known) for one in picks]),
            embedding=torch.from_numpy(told).float(),
            embedded=torch.tensor([float(one.embedding is not None) for one in picks]),
            contents=tuple(places),
        )

    def _axes_of(self, picture: Picture) -> NDArray[np.float64]:
        if picture.embedding is None:
            return np.zeros(AXES)
        found: NDArray[np.float64] = (picture.embedding - self.middle) / self.spread @ self.axes
        return found


def teach_tower(
    model: Model, processor: object, pictures: Sequence[Picture], folder: Path, *, max_steps: int, rate: float
) -> Readings:
    """Train the tower and its readings, saved every 150 steps; what is left is a mean of the last steps' weights."""
    visual: Tower = model.model.visual
    visual.patch_embed.requires_grad_(False)
    last = visual.merger.mlp[-1]
    with torch.no_grad():
        last.bias[2 + len(CLASSES) :] /= QUIET  # as before an earlier edition's were handed over
        last.weight[2 + len(CLASSES) :] /= QUIET
    torch.manual_seed(0)
    head = Readings(visual.config.out_hidden_size)
    taught = nn.ModuleList([visual, head])
    mean = AveragedModel(taught, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    parameters = [one for one in taught.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    lessons = Lessons(pictures)
    saved, begin = folder / "tower.pt", 0
    if saved.exists():
        state = torch.load(saved, map_location="cpu", weights_only=True)
        taught.load_state_dict(state["taught"])
        mean.load_state_dict(state["mean"])
        optimiser.load_state_dict(state["optimiser"])
        begin = state["step"]
    else:
        generator = np.random.default_rng(5)
        some = generator.choice(len(pictures), 64, replace=False)
        with torch.no_grad():
            first = torch.cat(pooled_of(model, processor, [drawn(pictures[k], generator) for k in some], SEEN[0]))
            head.middle.copy_(first.mean(0))
            head.spread.copy_(first.std(0).clamp(min=1e-3))
    for step in range(begin, max_steps):
        generator = np.random.default_rng((7, step))
        picks, lesson = lessons.draw(generator)
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, steps=max_steps, peak=rate)
        natives, wholes = pooled_of(model, processor, [drawn(one, generator) for one in picks], SEEN[0])
        loss = loss_of(head(natives, wholes), lesson)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
        optimiser.step()
        mean.update_parameters(taught)
        if (step + 1) % 150 == 0 or step + 1 == max_steps:
            print(f"tower: step {step + 1} of {max_steps}, loss {loss.item():.3f}", flush=True)
            state = {"taught": taught.state_dict(), "mean": mean.state_dict(), "optimiser": optimiser.state_dict()}
            torch.save(state | {"step": step + 1}, saved.with_suffix(".tmp"))
            saved.with_suffix(".tmp").replace(saved)
    taught.load_state_dict(mean.module.state_dict())
    return head


@torch.no_grad()
def hand_over(model: Model, processor: object, head: Readings, pictures: Sequence[Picture]) -> None:
    """Write the readings into the tower's first channels (see `vqa.train.scratch.warmup.hand_over`): the opinion off
    native crops, the opinion off the whole, then the kinds of damage, by the mean of both readings."""
    kinds = (head.native.weight[1:] + head.whole.weight[1:]) / 2
    weights = torch.cat([head.native.weight[:1], head.whole.weight[:1], kinds]) / head.spread
    natives, wholes = (
        torch.cat(part)
        for part in zip(*(pooled_of(model, processor, [one.windows], NATIVE) for one in pictures), strict=True)
    )
    both = (natives + wholes) / 2
    read_off = [natives, wholes, *[both] * len(kinds)]
    reach = torch.stack([(one @ weight).std() for one, weight in zip(read_off, weights, strict=True)]).clamp(min=1e-3)
    loud = LOUDNESS * both.std(0).mean() / reach
    loud[2:] /= 2
    loud[2:][torch.from_numpy(np.sum([one.shown for one in pictures], axis=0) == 0)] = 0
    readings = weights * loud[:, None]
    last = model.model.visual.merger.mlp[-1]
    bias = torch.stack([one @ (last.bias - off.mean(0)) for one, off in zip(readings, read_off, strict=True)])
    weight = readings @ last.weight
    last.bias *= QUIET
    last.weight *= QUIET
    last.bias[: len(bias)], last.weight[: len(bias)] = bias, weight
