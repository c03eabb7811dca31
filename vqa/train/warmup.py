"""Vision warm-up: the tower alone learns to see damage, before words come in.

Mean-pooled features of 112-pixel native crops regress the clip's opinion and name its distortions. A whole MLLM
trained from noise on text alone had learnt nothing after 600 steps; from a warmed tower it writes useful numbers
after 100.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqa.metrics import srcc
from vqa.train.ladder import NAMES, Lesson
from vqa.train.log import Log
from vqa.types import Pixels

CROP = 112  # pixels; one attention window of Qwen2.5-VL's tower


class Head(nn.Module):
    """Pooled features [B, width] -> opinion [B] (0-1) and a logit for each distortion [B, 17]; thrown away
    afterwards."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.opinion = nn.Linear(width, 1)
        self.names = nn.Linear(width, len(NAMES))

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        pooled = self.norm(pooled)
        return self.opinion(pooled)[:, 0] + 0.5, self.names(pooled)


def rate_at(step: int, *, steps: int, peak: float, warm: int = 50) -> float:
    """Learning rate: linear to `peak` over `warm` steps, then a half cosine down to a twentieth of it."""
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))))


def pooled(visual: Any, images: Any, crops: Sequence[Pixels]) -> Tensor:
    """[B, width]: merged features of each crop, averaged."""
    inputs = images(images=list(crops), return_tensors="pt")
    grid = inputs["image_grid_thw"]
    merged = visual(inputs["pixel_values"], grid_thw=grid).pooler_output
    counts = (grid.prod(-1) // visual.spatial_merge_size**2).tolist()
    return torch.stack([part.mean(0) for part in torch.split(merged, counts)])


@torch.no_grad()
def equalise(visual: Any, images: Any, crops: Sequence[Pixels]) -> None:
    """Scales each filter of the patch embedding to a mean square response of 1 over the crops.

    High frequencies are weak in natural pictures (1/f) and drowned by brightness otherwise. Filters that see nothing in
    stills (change in time) stay as they are.
    """
    weight = visual.patch_embed.proj.weight
    response = visual.patch_embed(images(images=list(crops), return_tensors="pt")["pixel_values"])
    strength = response.pow(2).mean(0).sqrt()
    weight.mul_(torch.where(strength > 1e-4, 1 / strength, 1.0)[:, None, None, None, None])


def cut(picture: Pixels, generator: np.random.Generator) -> Pixels:
    """A 112-pixel square from anywhere in a picture, turned over sideways half of the time; smaller sides are
    repeated."""
    height, width, _ = picture.shape
    picture = np.pad(picture, ((0, max(0, CROP - height)), (0, max(0, CROP - width)), (0, 0)), mode="symmetric")
    y = int(generator.integers(0, max(0, height - CROP) + 1))
    x = int(generator.integers(0, max(0, width - CROP) + 1))
    crop = picture[y : y + CROP, x : x + CROP]
    return np.ascontiguousarray(crop[:, ::-1]) if generator.random() < 0.5 else crop


def warm_up(
    model: Any,
    processor: Any,
    lessons: Sequence[Lesson],
    held_out: Sequence[Lesson],
    *,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    folder: Path,
    log: Log,
) -> None:
    """Trains `model.model.visual` in place; a checkpoint in `folder` every 200 steps, from which a stopped run goes
    on."""
    visual, images = model.model.visual, processor.image_processor
    torch.manual_seed(seed)
    head = Head(visual.config.out_hidden_size)
    parameters = [*visual.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    saved = folder / "warmup.pt"
    begin = 0
    generator = np.random.default_rng(seed)
    picks = [lessons[index] for index in generator.integers(0, len(lessons), 256)]
    equalise(visual, images, [cut(one.views.local_pictures[0], generator) for one in picks])
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        visual.load_state_dict(state["visual"])
        head.load_state_dict(state["head"])
        optimiser.load_state_dict(state["optimiser"])
        begin = state["step"]
    names = list(NAMES)
    for step in range(begin, steps):
        generator = np.random.default_rng(
            (seed, step)
        )  # a step's draw hangs on its number alone: resuming changes nothing
        picks = [lessons[index] for index in generator.integers(0, len(lessons), batch)]
        crops = [
            cut(one.views.local_pictures[generator.integers(len(one.views.local_pictures))], generator) for one in picks
        ]
        target = torch.tensor([(one.opinion - 1) / 4 for one in picks])
        kinds = torch.tensor([[float(name in one.distortions) for name in names] for one in picks])
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, steps=steps, peak=rate)
        opinion, logits = head(pooled(visual, images, crops))
        loss = 10 * F.smooth_l1_loss(opinion, target, beta=0.2) + F.binary_cross_entropy_with_logits(logits, kinds)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
        optimiser.step()
        log.add("loss", loss.item())
        if (step + 1) % 200 == 0 or step + 1 == steps:
            log.show(step + 1, steps, held_out_srcc=evaluate(visual, head, images, held_out))
            state = {"visual": visual.state_dict(), "head": head.state_dict(), "optimiser": optimiser.state_dict()}
            _save(state | {"step": step + 1}, saved)


@torch.inference_mode()
def evaluate(visual: Any, head: Head, images: Any, lessons: Sequence[Lesson]) -> float:
    """SRCC of the pooled regression over all local pictures of each lesson (its middle 112-pixel square)."""
    guesses = []
    for lesson in lessons:
        crops = [_middle(picture) for picture in lesson.views.local_pictures]
        guesses.append(float(head(pooled(visual, images, crops))[0].mean()))
    return srcc(np.array(guesses), np.array([lesson.opinion for lesson in lessons]))


def _middle(picture: Pixels) -> Pixels:
    height, width, _ = picture.shape
    y, x = max(0, (height - CROP) // 2), max(0, (width - CROP) // 2)
    return picture[y : y + CROP, x : x + CROP]


def _save(state: dict[str, Any], path: Path) -> None:
    draft = path.with_suffix(".tmp")
    torch.save(state, draft)
    draft.replace(path)
