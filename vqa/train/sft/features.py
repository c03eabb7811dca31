"""Tensors of questions and answers, and cached features of a frozen tower."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import ProcessorMixin
from transformers.modeling_outputs import BaseModelOutputWithPooling

from vqa.prompt import PromptName
from vqa.train.clips.dataset import TrainingClip
from vqa.train.clips.ladder import rarity_weights
from vqa.train.types import Batch, Model
from vqa.train.validation import encode_question

IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedClip:
    """One view of a clip as the model takes it."""

    clip: TrainingClip
    inputs: dict[str, Tensor]  # of the processor; without the pixels where there are features
    features: tuple[Tensor, ...] = ()  # [tokens, width] of each picture, from a frozen tower

    @property
    def grids(self) -> Tensor:
        """Patches of each picture in time, height, width (Qwen): int64 [pictures, 3]."""
        return self.inputs["image_grid_thw"]


def encode_clip(processor: ProcessorMixin, clip: TrainingClip, *, prompt: PromptName) -> EncodedClip:
    """The clip's question with its pixels."""
    return EncodedClip(clip=clip, inputs=dict(encode_question(processor, clip, prompt=prompt)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureCache:
    """Encoded views of N clips whose pictures went through the frozen tower already."""

    by_clip: list[list[EncodedClip]]  # N
    noise: Tensor | None = None  # [width]: standard deviation of the shift of each channel per draw
    weights: NDArray[np.float64] | None = None  # [N], summing to 1; None: all clips alike

    def draw(self, generator: np.random.Generator) -> EncodedClip:
        """Draw a clip, its local pictures permuted and, with noise, its channels shifted."""
        views = self.by_clip[int(generator.choice(len(self.by_clip), p=self.weights))]
        encoded = shuffle_pictures(views, generator)
        return encoded if self.noise is None else add_channel_noise(encoded, self.noise, generator)


@torch.no_grad()
def cache_features(
    model: Model,
    processor: ProcessorMixin,
    clips: Sequence[TrainingClip],
    *,
    prompt: PromptName,
    noise: float = 0.0,
    handed: int = 0,
    rare_oversampling: float = 1.0,
) -> FeatureCache:
    """Run the tower over all clips, once; for Qwen's families.

    Args:
        model: on its device.
        processor: of the model.
        clips: views of the same clip share its id.
        prompt: the question.
        noise: standard deviation of the shift per channel, as a share of the channel's spread; 0 for none.
        handed: first channels that are not shifted, see `vqa.train.scratch.warmup.hand_over`.
        rare_oversampling: how much more often clips of rare damage are drawn, at most.
    """
    model.eval()
    by_clip: dict[str, list[EncodedClip]] = defaultdict(list)
    for clip in clips:
        encoded = encode_clip(processor, clip, prompt=prompt)
        pixels, grids = (part.to(model.device) for part in (encoded.inputs.pop("pixel_values"), encoded.grids))
        seen = model.model.get_image_features(pixels, grids, return_dict=True).pooler_output
        features = tuple(part.cpu() for part in seen)
        by_clip[clip.clip_id].append(EncodedClip(clip=clip, inputs=encoded.inputs, features=features))
    views = list(by_clip.values())
    weights = None
    if rare_oversampling > 1:
        weights = rarity_weights([some[0].clip.distortions for some in views], most=rare_oversampling)
    spread = noise * channel_spread([one for some in views for one in some], handed=handed) if noise else None
    return FeatureCache(by_clip=views, noise=spread, weights=weights)


def shuffle_pictures(views: Sequence[EncodedClip], generator: np.random.Generator) -> EncodedClip:
    """One of a clip's views, its local pictures (all but the first) drawn from all.

    In any order; only pictures of the same size change places, so that the prompt's tokens stay the same.
    """
    one = views[int(generator.integers(len(views)))]
    pool = [
        part
        for view in views
        for part, grid in zip(view.features[1:], view.grids[1:], strict=True)
        if torch.equal(grid, one.grids[-1])
    ]
    features = list(one.features)
    places = [i for i in range(1, len(features)) if torch.equal(one.grids[i], one.grids[-1])]
    for place, pick in zip(places, generator.permutation(len(pool)), strict=False):
        features[place] = pool[pick]
    return EncodedClip(clip=one.clip, inputs=one.inputs, features=tuple(features))


def channel_spread(views: Sequence[EncodedClip], *, handed: int) -> Tensor:
    """Standard deviation over views of the pooled local pictures, float32 [width].

    0 in the first `handed` channels, which a warm-up filled (see `vqa.train.scratch.warmup.hand_over`).
    """
    means = torch.stack([torch.cat(one.features[1:] or one.features).float().mean(0) for one in views])
    spread = means.std(0)
    spread[:handed] = 0
    return spread


def add_channel_noise(encoded: EncodedClip, spread: Tensor, generator: np.random.Generator) -> EncodedClip:
    """Shift the channels by Gaussians of `spread` [width], alike in all pictures.

    No clip can be memorised then.
    """
    shift = spread * torch.from_numpy(generator.standard_normal(len(spread), dtype=np.float32))
    features = tuple(part + shift.to(part.dtype) for part in encoded.features)
    return EncodedClip(clip=encoded.clip, inputs=encoded.inputs, features=features)


def collate(processor: ProcessorMixin, batch: Sequence[tuple[EncodedClip, str]], *, answer_weight: float) -> Batch:
    """A batch of B questions with their answers, padded on the right.

    Returns:
        The model's inputs, `labels` int64 [B, L] (-100 outside the answers), `weights` float32 [B, L] of their tokens
        (`answer_weight` from `<answer>` on, 1 before), and `columns`, how many of the last L hold all answers and the
        token before each.
    """
    tokenizer = processor.tokenizer
    labels, weights, answers = [], [], []
    for encoded, answer in batch:
        text = answer + tokenizer.eos_token
        tokens = tokenizer(text, return_tensors="pt", add_special_tokens=False, return_offsets_mapping=True)
        answers.append(tokens["input_ids"][0])
        before = encoded.inputs["input_ids"][0]
        labels.append(torch.cat([torch.full_like(before, IGNORED), answers[-1]]))
        found = text.find("<answer>")
        is_answer = tokens["offset_mapping"][0, :, 1] > (found if found >= 0 else len(text))
        weights.append(torch.cat([torch.zeros(len(before)), 1 + (answer_weight - 1) * is_answer]))
    inputs: Batch = {}
    for name, first in batch[0][0].inputs.items():
        if first.shape[:2] != batch[0][0].inputs["input_ids"].shape:  # of pictures, not of tokens
            inputs[name] = torch.cat([encoded.inputs[name] for encoded, _ in batch])
            continue
        fill = {"input_ids": tokenizer.pad_token_id}.get(name, 0)
        ends = [own if name == "input_ids" else torch.full_like(own, name == "attention_mask") for own in answers]
        rows = [torch.cat([encoded.inputs[name][0], end]) for (encoded, _), end in zip(batch, ends, strict=True)]
        inputs[name] = pad_sequence(rows, padding_value=fill, batch_first=True)
    if batch[0][0].features:
        parts = tuple(part for encoded, _ in batch for part in encoded.features)
        inputs["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=parts)}  # type: ignore[arg-type]  # a tensor each
    shortest = min(encoded.inputs["input_ids"].shape[1] for encoded, _ in batch)
    return inputs | {
        "labels": pad_sequence(labels, padding_value=IGNORED, batch_first=True),
        "weights": pad_sequence(weights, batch_first=True),
        "columns": inputs["input_ids"].shape[1] - shortest + 1,
    }
