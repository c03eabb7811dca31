"""Vision warm-up: the tower alone is trained to see damage, before any text.

Mean-pooled features of 112-pixel native crops regress the clip's opinion and name its distortions. A whole MLLM
trained from noise on text alone had learnt nothing after 600 steps; from a warmed tower it writes useful numbers
after 100.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ProcessorMixin

from vqa.errors import UsageError
from vqa.files import replacing
from vqa.metrics import srcc
from vqa.train import _compat
from vqa.train.clips.ladder import CLASSES
from vqa.train.context import StageContext
from vqa.train.recipe import Warmup
from vqa.train.scratch.crops import Crops, by_class
from vqa.train.scratch.model import filters
from vqa.train.types import Model, Tower
from vqa.types import Pixels

if TYPE_CHECKING:
    from transformers import Qwen2VLImageProcessor

SIDE = 8  # patches along a 112-pixel crop
HANDED = 1 + len(CLASSES)  # channels that `hand_over` fills: opinion, and a reading of each kind of damage
LOUDNESS = 3.0  # the opinion's channel spreads so much wider over clips than another did before it was made quiet
QUIET = 0.1  # the other channels, which were taught nothing, keep this share of themselves
SAMPLE = 256  # crops that filters, and clips that features are standardised by
EACH = 4  # crops of a clip in a batch, pooled as one: a single one says too little of its clip


class WarmupHead(nn.Module):
    """Head of the warm-up: opinion, damage and statistics; thrown away afterwards.

    Of pooled features [B, width]: opinion [B] (0-1), a logit for each kind of damage in CLASSES [B, 11] and the
    standardised statistics of the pixels [B, S] (see `statistics`).

    Opinion and kinds are read linearly, of features standardised by what they were at first, so that `hand_over` can
    write them into the tower as they are: of a tower whose head had a hidden layer a ridge regression reads less (SRCC
    0.828 on 75 contents never seen, the head itself 0.848).
    """

    middle: Tensor
    spread: Tensor

    def __init__(self, width: int, statistics: int) -> None:
        super().__init__()
        self.register_buffer("middle", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.statistics = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, statistics))
        self.readings = nn.Linear(width, HANDED)

    def standardise(self, pooled: Tensor) -> None:
        """Set middle and spread of the features by these, [N, width]."""
        self.middle.copy_(pooled.mean(0))
        self.spread.copy_(pooled.std(0).clamp(min=1e-3))

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Opinion, logits and statistics of pooled features, shaped as the class says."""
        readings = self.readings((pooled - self.middle) / self.spread)
        return readings[:, 0] + 0.5, readings[:, 1:], self.statistics(pooled)


def rate_at(step: int, *, steps: int, peak: float, warm: int = 50) -> float:
    """Learning rate: linear to `peak` in `warm` steps, half a cosine to a twentieth."""
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))))


def patches(images: "Qwen2VLImageProcessor", crops: Pixels, device: torch.device | None = None) -> Tensor:
    """Qwen's patches of uint8 crops [B, 112, 112, 3]: float32 [B, 64, 1176].

    As its image processor makes them, without its copies.
    """
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (images.image_mean, images.image_std))
    values = (torch.from_numpy(crops).to(device).permute(0, 3, 1, 2) / 255 - mean) / std
    half, side = SIDE // 2, images.patch_size
    # Patches come in groups of 2x2, which the tower merges; each stands for two frames.
    parts = values.view(-1, 3, half, 2, side, half, 2, side).permute(0, 2, 5, 3, 6, 1, 4, 7)
    parts = parts.reshape(len(crops), SIDE**2, 3, 1, side**2).expand(-1, -1, -1, images.temporal_patch_size, -1)
    return parts.reshape(len(crops), SIDE**2, -1)


@torch.no_grad()
def responses(visual: Tower, images: "Qwen2VLImageProcessor", crops: Pixels) -> Tensor:
    """Patch embedding of uint8 crops [B, 112, 112, 3]: float32 [B, 64, vision width].

    It is never trained.
    """
    found: Tensor = visual.patch_embed(patches(images, crops, visual.device).flatten(0, 1))
    return found.view(len(crops), SIDE**2, -1)


def pooled(visual: Tower, hidden: Tensor) -> Tensor:
    """Mean of the tower's merged features of each crop, from `responses`: [B, width].

    A crop is one attention window, so that a batch of them goes through attention at once; the tower's own forward does
    one window after the other and takes half as long again.
    """
    count = len(hidden)
    rows, columns = np.divmod(np.arange(SIDE**2), SIDE)
    order = np.lexsort((columns % 2, rows % 2, columns // 2, rows // 2))
    places = torch.from_numpy(np.stack([rows[order], columns[order]], axis=1)).to(hidden.device)
    turn = visual.rotary_pos_emb(hidden[0].float(), places)
    for block in visual.blocks:
        query, key, value = (
            block.attn.qkv(block.norm1(hidden)).view(count, SIDE**2, 3, block.attn.num_heads, -1).unbind(2)
        )
        query, key, value = (part.transpose(1, 2) for part in (*_compat.rotate_vision(query, key, *turn), value))
        seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        hidden = hidden + block.attn.proj(seen)
        hidden = hidden + block.mlp(block.norm2(hidden))
    merged: Tensor = visual.merger(hidden.flatten(0, 1))
    return merged.view(count, SIDE**2 // visual.spatial_merge_size**2, -1).float().mean(1)


@torch.no_grad()
def statistics(visual: Tower, found: Tensor) -> Tensor:
    """Statistics of the F filters' responses over a clip: float32 [B / 4, 4 F].

    From `responses` [B, 64, ...] to a clip's crops: log of mean, spread, median, 90th percentile.

    Natural scene statistics in the manner of BRISQUE (Mittal et al. 2012), of the filters' responses. Learning to tell
    them keeps the tower, which sees few contents, from learning those by heart: held-out SRCC 0.66 with, 0.59 without,
    after 600 and 500 steps.
    """
    count = filters(visual.config.hidden_size)
    sizes = found[..., :count].reshape(len(found) // EACH, -1, count).abs()
    mean, square = sizes.mean(1), sizes.pow(2).mean(1).sqrt()
    middle, high = sizes.quantile(torch.tensor([0.5, 0.9], device=sizes.device), dim=1)
    return torch.cat([mean + 1e-3, square / (mean + 1e-3) + 1e-3, middle + 1e-2, high + 1e-2], dim=1).log()


@torch.no_grad()
def equalise(visual: Tower, images: "Qwen2VLImageProcessor", crops: Pixels) -> None:
    """Scale each filter of the patch embedding to mean square response 1 on crops.

    High frequencies are weak in natural pictures (1/f) and drowned by brightness otherwise. Filters that see nothing in
    stills (change in time) stay as they are.
    """
    weight = visual.patch_embed.proj.weight
    strength = responses(visual, images, crops).pow(2).mean((0, 1)).sqrt()
    weight.mul_(torch.where(strength > 1e-4, 1 / strength, 1.0)[:, None, None, None, None])


def turned_about(crop: Pixels, generator: np.random.Generator) -> Pixels:
    """Crop mirrored, transposed or recoloured: other content, the same damage."""
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
    model: Model,
    processor: ProcessorMixin,
    train: Crops,
    held_out: Crops,
    *,
    settings: Warmup,
    seed: int,
    context: StageContext,
) -> None:
    """Train `model.model.visual` in place; resumes from checkpoints every 250 steps.

    Args:
        model: a Qwen2.5-VL.
        processor: of the model.
        train: crops to learn from.
        held_out: crops whose SRCC is logged.
        settings: of the stage.
        seed: of head and draws.
        context: of the stage.

    Raises:
        UsageError: for a batch size that is no multiple of 4.
    """
    steps, batch, rate = settings.max_steps, settings.per_device_train_batch_size, settings.learning_rate
    folder, log, precision = context.folder, context.log, context.precision
    if batch % EACH:
        raise UsageError(
            f"warm-up: per_device_train_batch_size is {batch}, but crops come in groups of {EACH} per clip. Give a "
            f"multiple of {EACH}."
        )
    visual, images = model.model.visual, processor.image_processor
    # A step of AdamW moves each of a filter's 1,176 weights by the rate, and brightness, which is the same in all
    # pixels, drowns what the filter was for: held-out SRCC after 300 steps 0.38 with, 0.59 without moving them.
    visual.patch_embed.requires_grad_(False)
    torch.manual_seed(seed)
    head = WarmupHead(visual.config.out_hidden_size, 4 * filters(visual.config.hidden_size)).to(visual.device)
    parameters = [one for one in (*visual.parameters(), *head.parameters()) if one.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    saved = folder / "warmup.pt"
    begin = 0
    if saved.exists():
        state = torch.load(saved, map_location="cpu", weights_only=True)
        visual.load_state_dict(state["visual"])
        head.load_state_dict(state["head"])
        optimiser.load_state_dict(state["optimiser"])
        begin = state["step"]
    else:
        equalise(visual, images, draw(train, SAMPLE, np.random.default_rng(seed), each=1)[0])
    found = responses(visual, images, draw(train, SAMPLE * EACH, np.random.default_rng(seed + 1), each=EACH)[0])
    sample = statistics(visual, found)
    middle, spread = sample.mean(0), sample.std(0) + 1e-3
    if not begin:
        with torch.no_grad():
            head.standardise(pooled(visual, found).view(-1, EACH, len(head.middle)).mean(1))
    kinds = torch.from_numpy(by_class(train.shown)).to(visual.device)
    for step in range(begin, steps):
        # A step's draw depends on its number alone, so that resuming changes nothing.
        crops, picks = draw(train, batch, np.random.default_rng((seed, step)), each=EACH)
        target = torch.from_numpy((train.opinions[picks] - 1) / 4).to(visual.device)
        found = responses(visual, images, crops)
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, steps=steps, peak=rate)
        with torch.autocast(visual.device.type, dtype=precision, enabled=precision != torch.float32):
            features = pooled(visual, found).view(len(picks), EACH, -1).mean(1)
        opinion, logits, told = head(features)
        seen = ((statistics(visual, found) - middle) / spread).clamp(-4, 4)
        errors = F.smooth_l1_loss(opinion, target, beta=0.2) + F.smooth_l1_loss(told, seen)
        names = F.binary_cross_entropy_with_logits(logits, kinds[picks])
        loss = 10 * errors + names
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
        optimiser.step()
        log.add("loss", loss.item())
        if (step + 1) % 250 == 0 or step + 1 == steps:
            log.write(step + 1, steps, held_out_srcc=pooled_srcc(visual, head, images, held_out))
            state = {"visual": visual.state_dict(), "head": head.state_dict(), "optimiser": optimiser.state_dict()}
            context.before_write()
            _save(state | {"step": step + 1}, saved)
    hand_over(visual, head, images, train)


@torch.no_grad()
def hand_over(
    visual: Tower, head: WarmupHead, images: "Qwen2VLImageProcessor", crops: Crops, *, each: int = 24
) -> None:
    """Write the head's readings, opinion and damage, into the tower's first channels.

    The last linear layer of its merger takes the head's weights in, scaled so that the readings spread over the clips
    as said above.

    A text model that has to find the opinion in all channels learns the few clips by heart instead: held-out SRCC of
    the numbers it wrote was 0.67 and falling after 200 steps, where a regression had 0.77. Beside the loud ones the
    others still misled it, so they are made quiet: where the mean of the opinion's channel had 0.904, the third edition
    wrote 0.886; with QUIET, and other lessons too, 0.898 (216 clips of 24 contents; no run differs in QUIET alone).
    """
    step = -(-crops.pixels.shape[1] // each)
    means = torch.stack([pooled(visual, responses(visual, images, own[::step].copy())).mean(0) for own in crops.pixels])
    weights = head.readings.weight / head.spread
    reach = (means @ weights.T).std(0).clamp(min=1e-3)
    loud = LOUDNESS * means.std(0).mean() / reach
    loud[1:] /= 2
    loud[1:][torch.from_numpy(by_class(crops.shown).sum(0) == 0)] = 0  # damage that no clip has
    readings = weights * loud[:, None]
    last = visual.merger.mlp[-1]
    bias, weight = readings @ (last.bias - means.mean(0)), readings @ last.weight
    last.bias *= QUIET
    last.weight *= QUIET
    last.bias[:HANDED], last.weight[:HANDED] = bias, weight


def draw(crops: Crops, count: int, generator: np.random.Generator, *, each: int) -> tuple[Pixels, NDArray[np.int64]]:
    """Draw crops, uint8 [count, 112, 112, 3], and their clips, int64 [count / each].

    `each` squares, turned about, of every clip drawn among those without damage in time.
    """
    squares = crops.pixels.shape[1]
    picks = generator.choice(np.flatnonzero(crops.is_still), count // each)
    places = generator.integers(0, squares, (len(picks), each))
    pairs = [(clip, place) for clip, own in zip(picks, places, strict=True) for place in own]
    return np.stack([turned_about(crops.pixels[pair], generator) for pair in pairs]), picks


@torch.inference_mode()
def pooled_srcc(
    visual: Tower, head: WarmupHead, images: "Qwen2VLImageProcessor", crops: Crops, *, each: int = 16
) -> float:
    """SRCC by about `each` pooled crops per clip, over clips without damage in time."""
    step = -(-crops.pixels.shape[1] // each)
    features = [pooled(visual, responses(visual, images, own[::step].copy())).mean(0) for own in crops.pixels]
    guesses = head(torch.stack(features))[0].cpu().numpy()
    return srcc(guesses[crops.is_still], crops.opinions[crops.is_still])


def _save(state: dict[str, object], path: Path) -> None:
    with replacing(path) as draft, draft.open("wb") as file:
        torch.save(state, file)
