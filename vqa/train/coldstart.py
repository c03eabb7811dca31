"""Supervised cold start: the MLLM learns to write a short true reason and the numbers, from views of a ladder.

Where the tower is frozen each look goes through it once, and a step is one of the text model alone.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import BaseModelOutputWithPooling

from vqa.metrics import srcc
from vqa.model.encode import encode
from vqa.model.rollout import prefill, roll_out
from vqa.model.vocabulary import Vocabulary
from vqa.prompt import PresetName, dimensions, parse
from vqa.train.ladder import Lesson
from vqa.train.log import Log
from vqa.train.warmup import rate_at

hf_output: Any = BaseModelOutputWithPooling  # a picture's features come one by one, which its types do not say
ANSWER_WEIGHT = 3.0  # a token of the answer weighs this much more than one of the reason
IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """One look at a clip as the model takes it."""

    lesson: Lesson
    tokens: Tensor  # int64 [L]: prompt
    kinds: Tensor  # int64 [L]: 1 where a picture is
    grids: Tensor  # int64 [pictures, 3]
    pixels: Tensor | None  # [patches, ...], or None where there are features
    features: tuple[Tensor, ...] = ()  # [tokens, width] of each picture, from a frozen tower


def ask(processor: Any, lesson: Lesson, *, prompt: PresetName) -> Asked:
    """The look with its pixels."""
    asked = encode(processor, lesson.views, prompt=prompt)
    return Asked(
        lesson=lesson,
        tokens=asked["input_ids"][0],
        kinds=asked["mm_token_type_ids"][0],
        grids=asked["image_grid_thw"],
        pixels=asked["pixel_values"],
    )


@torch.no_grad()
def through_tower(model: Any, processor: Any, lesson: Lesson, *, prompt: PresetName) -> Asked:
    """The look with the features of its pictures in place of their pixels."""
    asked = ask(processor, lesson, prompt=prompt)
    seen = model.model.get_image_features(asked.pixels, asked.grids, return_dict=True).pooler_output
    return Asked(lesson=lesson, tokens=asked.tokens, kinds=asked.kinds, grids=asked.grids, pixels=None, features=seen)


def shuffled(looks: Sequence[Asked], generator: np.random.Generator) -> Asked:
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
    return Asked(
        lesson=one.lesson, tokens=one.tokens, kinds=one.kinds, grids=one.grids, pixels=None, features=tuple(features)
    )


def collate(processor: Any, batch: Sequence[Asked], answers: Sequence[str]) -> tuple[dict[str, Any], Tensor, Tensor]:
    """Model inputs of a batch padded on the right, labels [B, L] (-100 outside the answer) and weights [B, L]."""
    tokenizer = processor.tokenizer
    rows, kinds, labels, weights = [], [], [], []
    for asked, answer in zip(batch, answers, strict=True):
        text = answer + tokenizer.eos_token
        tokens = tokenizer(text, return_tensors="pt", add_special_tokens=False, return_offsets_mapping=True)
        said = tokens["input_ids"][0]
        rows.append(torch.cat([asked.tokens, said]))
        kinds.append(torch.cat([asked.kinds, torch.zeros_like(said)]))
        labels.append(torch.cat([torch.full_like(asked.tokens, IGNORED), said]))
        is_answer = tokens["offset_mapping"][0, :, 1] > text.index("<answer>")
        weights.append(torch.cat([torch.zeros(len(asked.tokens)), 1 + (ANSWER_WEIGHT - 1) * is_answer]))
    inputs: dict[str, Any] = {
        "input_ids": nn.utils.rnn.pad_sequence(rows, padding_value=tokenizer.pad_token_id, batch_first=True),
        "mm_token_type_ids": nn.utils.rnn.pad_sequence(kinds, batch_first=True),
        "attention_mask": nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
        "image_grid_thw": torch.cat([asked.grids for asked in batch]),
    }
    pixels = [asked.pixels for asked in batch if asked.pixels is not None]
    if pixels:
        inputs["pixel_values"] = torch.cat(pixels)
    else:
        features = tuple(part for asked in batch for part in asked.features)
        inputs["mm_encoder_outputs"] = {"image": hf_output(pooler_output=features)}
    return (
        inputs,
        nn.utils.rnn.pad_sequence(labels, padding_value=IGNORED, batch_first=True),
        nn.utils.rnn.pad_sequence(weights, batch_first=True),
    )


def cold_start(
    model: Any,
    processor: Any,
    lessons: Sequence[Lesson],
    held_out: Sequence[Lesson],
    *,
    prompt: PresetName,
    steps: int,
    batch: int,
    rate: float,
    vision_rate: float,
    average: float,
    precision: torch.dtype,
    every: int,
    seed: int,
    folder: Path,
    log: Log,
) -> Path:
    """Trains in place and returns the folder of the checkpoint with the best SRCC times share read on `held_out`
    (choose there, report elsewhere).

    What is judged and kept is a running mean of the weights (a step leaves 1 - `average` of itself in it): the numbers
    of single steps rank 0.05 better or worse than those 40 steps before. Every `every` steps it is judged by the
    numbers it writes greedily, and saved; a stopped run goes on from there. `vision_rate` 0 freezes the tower.
    """
    draw = _looks(model, processor, lessons, prompt=prompt, is_frozen=vision_rate == 0)
    model.train()
    vision = {id(parameter) for parameter in model.model.visual.parameters()}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in vision]
    groups = [{"params": rest, "peak": rate}]
    model.model.visual.requires_grad_(vision_rate > 0)
    if vision_rate > 0:
        groups.append({"params": list(model.model.visual.parameters()), "peak": vision_rate})
    mean = copy.deepcopy(model)
    optimiser = torch.optim.AdamW(groups, lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    saved, best = folder / "coldstart.pt", folder / "best"
    begin, record = 0, -1.0
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        mean.load_state_dict(state["mean"])
        optimiser.load_state_dict(state["optimiser"])
        begin, record = state["step"], state["record"]
    for step in range(begin, steps):
        generator = np.random.default_rng((seed, 1, step))
        picks = [draw(generator) for _ in range(batch)]
        inputs, labels, weights = collate(processor, picks, [one.lesson.answer(generator) for one in picks])
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, steps=steps, peak=group["peak"], warm=20)
        # Only the answer's columns go through the head: with right padding they are the last ones of each row.
        wanted = labels[:, 1:] != IGNORED
        with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
            hidden = model.model(**inputs).last_hidden_state[:, :-1]
            logits = model.lm_head(hidden[wanted])
        losses = F.cross_entropy(logits.float(), labels[:, 1:][wanted], reduction="none")
        weight = weights[:, 1:][wanted]
        loss = (losses * weight).sum() / weight.sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
        optimiser.step()
        weight_of_new = max(1 - average, 9 / (10 + step))  # the first steps are soon forgotten
        with torch.no_grad():
            for old, new in zip(mean.parameters(), model.parameters(), strict=True):
                old.lerp_(new, weight_of_new)
        log.add("loss", loss.item())
        if (step + 1) % every == 0 or step + 1 == steps:
            value, parsed = evaluate(mean, processor, held_out, prompt=prompt)
            log.show(step + 1, steps, held_out_srcc=value, parsed=parsed)
            worth = value * parsed  # an answer that cannot be read ranks nothing
            if worth > record or not best.exists():  # NaN where nothing could be read yet
                record = worth if worth == worth else record
                mean.save_pretrained(best)
                processor.save_pretrained(best)
            state = {
                "model": model.state_dict(),
                "mean": mean.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": step + 1,
                "record": record,
            }
            draft = saved.with_suffix(".tmp")
            torch.save(state, draft)
            draft.replace(saved)
    return best


def _looks(
    model: Any, processor: Any, lessons: Sequence[Lesson], *, prompt: PresetName, is_frozen: bool
) -> Callable[[np.random.Generator], Asked]:
    """What draws a look at a clip."""
    if not is_frozen:
        return lambda generator: ask(processor, lessons[int(generator.integers(len(lessons)))], prompt=prompt)
    model.eval()
    by_clip: dict[str, list[Asked]] = defaultdict(list)
    for lesson in lessons:
        by_clip[lesson.views.clip.clip_id].append(through_tower(model, processor, lesson, prompt=prompt))
    clips = list(by_clip.values())
    return lambda generator: shuffled(clips[int(generator.integers(len(clips)))], generator)


def evaluate(model: Any, processor: Any, lessons: Sequence[Lesson], *, prompt: PresetName) -> tuple[float, float]:
    """(SRCC of the mean written number, share of answers that could be read), greedy."""
    model.eval()
    size = model.get_output_embeddings().weight.shape[0]
    vocabulary = Vocabulary.of(processor.tokenizer, model.config, size=size, ends=model.generation_config.eos_token_id)
    scores, opinions = [], []
    for start in range(0, len(lessons), 16):
        some = lessons[start : start + 16]
        prompts = [prefill(model, encode(processor, lesson.views, prompt=prompt)) for lesson in some]
        rollouts = roll_out(model, prompts, k=1, vocabulary=vocabulary, max_new_tokens=96)
        for lesson, (rollout,) in zip(some, rollouts, strict=True):
            values = parse(processor.tokenizer.decode(rollout.tokens), dimensions(prompt))
            if values is not None:
                scores.append(float(np.mean(values)))
                opinions.append(lesson.opinion)
    model.train()
    return srcc(scores, opinions) if scores else float("nan"), len(scores) / len(lessons)
