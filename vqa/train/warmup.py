"""Vision warm-up: the tower alone learns to see damage, before words come in.

Mean-pooled features of 112-pixel native crops regress the clip's opinion and name its distortions. A whole MLLM
trained from noise on text alone had learnt nothing after 600 steps; from a warmed tower it writes useful numbers
after 100.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision

from vqa.metrics import srcc
from vqa.train.ladder import NAMES, Crops
from vqa.train.log import Log
from vqa.types import Pixels

SIDE = 8  # patches along a 112-pixel crop


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


def patches(images: Any, crops: Pixels) -> Tensor:
    """float32 [B, 64, 1176]: what Qwen's image processor makes of uint8 crops [B, 112, 112, 3], without its copies."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (images.image_mean, images.image_std))
    values = (torch.from_numpy(crops).permute(0, 3, 1, 2) / 255 - mean) / std
    half, side = SIDE // 2, images.patch_size
    # Patches come in groups of 2x2, which the tower merges; each stands for two frames.
    parts = values.view(-1, 3, half, 2, side, half, 2, side).permute(0, 2, 5, 3, 6, 1, 4, 7)
    parts = parts.reshape(len(crops), SIDE**2, 3, 1, side**2).expand(-1, -1, -1, images.temporal_patch_size, -1)
    return parts.reshape(len(crops), SIDE**2, -1)


def pooled(visual: Any, images: Any, crops: Pixels) -> Tensor:
    """[B, width]: the tower's merged features of crops uint8 [B, 112, 112, 3], averaged.

    A crop is one attention window, so that a batch of them goes through attention at once; the tower's own forward does
    one window after the other and takes half as long again.
    """
    count = len(crops)
    hidden = visual.patch_embed(patches(images, crops).flatten(0, 1)).view(count, SIDE**2, -1)
    rows, columns = np.divmod(np.arange(SIDE**2), SIDE)
    order = np.lexsort((columns % 2, rows % 2, columns // 2, rows // 2))
    places = torch.from_numpy(np.stack([rows[order], columns[order]], axis=1))
    turn = visual.rotary_pos_emb(hidden[0].float(), places)
    for block in visual.blocks:
        query, key, value = (
            block.attn.qkv(block.norm1(hidden)).view(count, SIDE**2, 3, block.attn.num_heads, -1).unbind(2)
        )
        query, key, value = (part.transpose(1, 2) for part in (*apply_rotary_pos_emb_vision(query, key, *turn), value))
        seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        hidden = hidden + block.attn.proj(seen)
        hidden = hidden + block.mlp(block.norm2(hidden))
    merged: Tensor = visual.merger(hidden.flatten(0, 1))
    return merged.view(count, SIDE**2 // visual.spatial_merge_size**2, -1).float().mean(1)


@torch.no_grad()
def equalise(visual: Any, images: Any, crops: Pixels) -> None:
    """Scales each filter of the patch embedding to a mean square response of 1 over the crops.

    High frequencies are weak in natural pictures (1/f) and drowned by brightness otherwise. Filters that see nothing in
    stills (change in time) stay as they are.
    """
    weight = visual.patch_embed.proj.weight
    strength = visual.patch_embed(patches(images, crops).flatten(0, 1)).pow(2).mean(0).sqrt()
    weight.mul_(torch.where(strength > 1e-4, 1 / strength, 1.0)[:, None, None, None, None])


def turned_about(crop: Pixels, generator: np.random.Generator) -> Pixels:
    """The crop mirrored, transposed, with other channel order or as a negative: other content, the same damage."""
    turns, flips, swap = generator.random(3), generator.permutation(3), generator.random()
    if turns[0] < 0.5:
        crop = crop[:, ::-1]
    if turns[1] < 0.5:
        crop = crop[::-1]
    if turns[2] < 0.5:
        crop = crop.transpose(1, 0, 2)
    if swap < 0.5:
        crop = crop[:, :, flips]
    return 255 - crop if generator.random() < 0.3 else crop


def warm_up(
    model: Any,
    processor: Any,
    train: Crops,
    held_out: Crops,
    *,
    steps: int,
    batch: int,
    rate: float,
    precision: torch.dtype,
    seed: int,
    folder: Path,
    log: Log,
) -> None:
    """Trains `model.model.visual` in place; a checkpoint in `folder` every 250 steps, from which a stopped run goes
    on."""
    visual, images = model.model.visual, processor.image_processor
    torch.manual_seed(seed)
    head = Head(visual.config.out_hidden_size)
    parameters = [*visual.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    saved = folder / "warmup.pt"
    begin = 0
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        visual.load_state_dict(state["visual"])
        head.load_state_dict(state["head"])
        optimiser.load_state_dict(state["optimiser"])
        begin = state["step"]
    else:
        equalise(visual, images, draw(train, 256, np.random.default_rng(seed))[0])
    for step in range(begin, steps):
        # A step's draw hangs on its number alone: resuming changes nothing.
        crops, picks = draw(train, batch, np.random.default_rng((seed, step)))
        target = torch.from_numpy((train.opinions[picks] - 1) / 4)
        still = torch.from_numpy(train.is_still[picks]).float()
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, steps=steps, peak=rate)
        with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
            features = pooled(visual, images, crops)
        opinion, logits = head(features)
        errors = F.smooth_l1_loss(opinion, target, beta=0.2, reduction="none")
        names = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(train.shown[picks]))
        loss = 10 * (errors * still).sum() / still.sum().clamp(min=1) + names
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
        optimiser.step()
        log.add("loss", loss.item())
        if (step + 1) % 250 == 0 or step + 1 == steps:
            log.show(step + 1, steps, held_out_srcc=evaluate(visual, head, images, held_out))
            state = {"visual": visual.state_dict(), "head": head.state_dict(), "optimiser": optimiser.state_dict()}
            _save(state | {"step": step + 1}, saved)


def draw(crops: Crops, count: int, generator: np.random.Generator) -> tuple[Pixels, NDArray[np.int64]]:
    """uint8 [count, 112, 112, 3] of clips drawn at random, and which clips."""
    clips, squares = crops.pixels.shape[:2]
    picks, places = generator.integers(0, clips, count), generator.integers(0, squares, count)
    pixels = [turned_about(crops.pixels[clip, place], generator) for clip, place in zip(picks, places, strict=True)]
    return np.stack(pixels), picks


@torch.inference_mode()
def evaluate(visual: Any, head: Head, images: Any, crops: Crops, *, each: int = 16) -> float:
    """SRCC of the pooled regression, a clip's mean over about `each` of its crops."""
    step = -(-crops.pixels.shape[1] // each)
    guesses = [float(head(pooled(visual, images, squares[::step].copy()))[0].mean()) for squares in crops.pixels]
    return srcc(np.array(guesses), crops.opinions)


def _save(state: dict[str, Any], path: Path) -> None:
    draft = path.with_suffix(".tmp")
    torch.save(state, draft)
    draft.replace(path)
