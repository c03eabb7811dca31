"""Questions and answers as tensors, for supervised training."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_outputs import BaseModelOutputWithPooling

from vqa.prompt import PromptName
from vqa.train.clips.dataset import TrainingClip
from vqa.train.scratch.warmup import HANDED
from vqa.train.validation import question

hf_output: Any = BaseModelOutputWithPooling  # a picture's features come one by one, which its types do not say
IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedClip:
    """One look at a clip as the model takes it."""

    sample: TrainingClip
    inputs: dict[str, Tensor]  # of the processor; without the pixels where there are features
    features: tuple[Tensor, ...] = ()  # [tokens, width] of each picture, from a frozen tower

    @property
    def grids(self) -> Tensor:
        """int64 [pictures, 3]: patches of each picture in time, height and width (Qwen's families)."""
        return self.inputs["image_grid_thw"]


def encode_clip(processor: Any, sample: TrainingClip, *, prompt: PromptName) -> EncodedClip:
    """The look with its pixels."""
    return EncodedClip(sample=sample, inputs=dict(question(processor, sample, prompt=prompt)))


@torch.no_grad()
def cache_features(
    model: Any, processor: Any, samples: Sequence[TrainingClip], *, prompt: PromptName
) -> list[list[EncodedClip]]:
    """The looks by clip, with what the tower says of their pictures in place of the pixels. For Qwen's families."""
    model.eval()
    by_clip: dict[str, list[EncodedClip]] = defaultdict(list)
    for sample in samples:
        asked = encode_clip(processor, sample, prompt=prompt)
        pixels, grids = (part.to(model.device) for part in (asked.inputs.pop("pixel_values"), asked.grids))
        seen = model.model.get_image_features(pixels, grids, return_dict=True).pooler_output
        features = tuple(part.cpu() for part in seen)
        by_clip[sample.clip_id].append(EncodedClip(sample=sample, inputs=asked.inputs, features=features))
    return list(by_clip.values())


def shuffle_pictures(looks: Sequence[EncodedClip], generator: np.random.Generator) -> EncodedClip:
    """One of a clip's looks with its local pictures (all but the first) drawn from all of them, in any order.

    Only pictures of the same size change places, so that the prompt stays as it is.
    """
    one = looks[int(generator.integers(len(looks)))]
    pool = [
        part
        for look in looks
        for part, grid in zip(look.features[1:], look.grids[1:], strict=True)
        if torch.equal(grid, one.grids[-1])
    ]
    features = list(one.features)
    places = [i for i in range(1, len(features)) if torch.equal(one.grids[i], one.grids[-1])]
    for place, pick in zip(places, generator.permutation(len(pool)), strict=False):
        features[place] = pool[pick]
    return EncodedClip(sample=one.sample, inputs=one.inputs, features=tuple(features))


def channel_spread(looks: Sequence[EncodedClip]) -> Tensor:
    """float32 [width]: how far each channel of the pooled local pictures spreads over looks; 0 for what the warm-up
    handed over (see `vqa.train.scratch.warmup.hand_over`)."""
    means = torch.stack([torch.cat(one.features[1:] or one.features).float().mean(0) for one in looks])
    spread = means.std(0)
    spread[:HANDED] = 0
    return spread


def add_noise(asked: EncodedClip, spread: Tensor, generator: np.random.Generator) -> EncodedClip:
    """The look with its channels shifted by Gaussians of `spread` [width], alike in all its pictures: a clip cannot be
    known by them again."""
    shift = spread * torch.from_numpy(generator.standard_normal(len(spread), dtype=np.float32))
    features = tuple(part + shift.to(part.dtype) for part in asked.features)
    return EncodedClip(sample=asked.sample, inputs=asked.inputs, features=features)


def collate(processor: Any, batch: Sequence[tuple[EncodedClip, str]], *, answer_weight: float) -> dict[str, Any]:
    """Model inputs of a batch padded on the right, with `labels` [B, L] (-100 outside the answers), `weights` [B, L],
    and how many last `columns` hold all answers and the token before each."""
    tokenizer = processor.tokenizer
    labels, weights, said = [], [], []
    for asked, answer in batch:
        text = answer + tokenizer.eos_token
        tokens = tokenizer(text, return_tensors="pt", add_special_tokens=False, return_offsets_mapping=True)
        said.append(tokens["input_ids"][0])
        before = asked.inputs["input_ids"][0]
        labels.append(torch.cat([torch.full_like(before, IGNORED), said[-1]]))
        found = text.find("<answer>")
        is_answer = tokens["offset_mapping"][0, :, 1] > (found if found >= 0 else len(text))
        weights.append(torch.cat([torch.zeros(len(before)), 1 + (answer_weight - 1) * is_answer]))
    inputs: dict[str, Any] = {}
    for name, first in batch[0][0].inputs.items():
        if first.shape[:2] != batch[0][0].inputs["input_ids"].shape:  # of pictures, not of tokens
            inputs[name] = torch.cat([asked.inputs[name] for asked, _ in batch])
            continue
        fill = {"input_ids": tokenizer.pad_token_id}.get(name, 0)
        ends = [own if name == "input_ids" else torch.full_like(own, name == "attention_mask") for own in said]
        rows = [torch.cat([asked.inputs[name][0], end]) for (asked, _), end in zip(batch, ends, strict=True)]
        inputs[name] = pad_sequence(rows, padding_value=fill, batch_first=True)
    if batch[0][0].features:
        parts = tuple(part for asked, _ in batch for part in asked.features)
        inputs["mm_encoder_outputs"] = {"image": hf_output(pooler_output=parts)}
    shortest = min(asked.inputs["input_ids"].shape[1] for asked, _ in batch)
    return inputs | {
        "labels": pad_sequence(labels, padding_value=IGNORED, batch_first=True),
        "weights": pad_sequence(weights, batch_first=True),
        "columns": inputs["input_ids"].shape[1] - shortest + 1,
    }
