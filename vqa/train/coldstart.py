"""Supervised cold start: the MLLM learns to write a short true reason and the numbers, from views of a ladder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqa.metrics import srcc
from vqa.model.encode import encode
from vqa.model.rollout import prefill, roll_out
from vqa.model.vocabulary import Vocabulary
from vqa.prompt import PresetName, dimensions, parse
from vqa.train.ladder import Lesson
from vqa.train.log import Log
from vqa.train.warmup import rate_at

ANSWER_WEIGHT = 3.0  # a token of the answer weighs this much more than one of the reason
IGNORED = -100


def collate(
    processor: Any, lessons: Sequence[Lesson], answers: Sequence[str], *, prompt: PresetName
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Model inputs of a batch padded on the right, labels [B, L] (-100 outside the answer) and weights [B, L]."""
    tokenizer = processor.tokenizer
    rows, kinds, labels, weights, pictures, grids = [], [], [], [], [], []
    for lesson, answer in zip(lessons, answers, strict=True):
        asked = encode(processor, lesson.views, prompt=prompt)
        text = answer + tokenizer.eos_token
        tokens = tokenizer(text, return_tensors="pt", add_special_tokens=False, return_offsets_mapping=True)
        said = tokens["input_ids"][0]
        before = asked["input_ids"][0]
        rows.append(torch.cat([before, said]))
        kinds.append(torch.cat([asked["mm_token_type_ids"][0], torch.zeros_like(said)]))
        labels.append(torch.cat([torch.full_like(before, IGNORED), said]))
        is_answer = tokens["offset_mapping"][0, :, 1] > text.index("<answer>")
        weights.append(torch.cat([torch.zeros(len(before)), 1 + (ANSWER_WEIGHT - 1) * is_answer]))
        pictures.append(asked["pixel_values"])
        grids.append(asked["image_grid_thw"])
    inputs = {
        "input_ids": nn.utils.rnn.pad_sequence(rows, padding_value=tokenizer.pad_token_id, batch_first=True),
        "mm_token_type_ids": nn.utils.rnn.pad_sequence(kinds, batch_first=True),
        "attention_mask": nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
        "pixel_values": torch.cat(pictures),
        "image_grid_thw": torch.cat(grids),
    }
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
    precision: torch.dtype,
    every: int,
    seed: int,
    folder: Path,
    log: Log,
) -> Path:
    """Trains in place and returns the folder of the checkpoint with the best SRCC times share read on `held_out`
    (choose there, report elsewhere).

    Every `every` steps the model is judged by the numbers it writes greedily, and saved; a stopped run goes on from
    there.
    """
    model.train()
    vision = {id(parameter) for parameter in model.model.visual.parameters()}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in vision]
    groups = [
        {"params": list(model.model.visual.parameters()), "peak": vision_rate},
        {"params": rest, "peak": rate},
    ]
    optimiser = torch.optim.AdamW(groups, lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    saved, best = folder / "coldstart.pt", folder / "best"
    begin, record = 0, -1.0
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        begin, record = state["step"], state["record"]
    for step in range(begin, steps):
        generator = np.random.default_rng((seed, 1, step))
        picks = [lessons[index] for index in generator.integers(0, len(lessons), batch)]
        inputs, labels, weights = collate(processor, picks, [one.answer(generator) for one in picks], prompt=prompt)
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
        log.add("loss", loss.item())
        if (step + 1) % every == 0 or step + 1 == steps:
            value, parsed = evaluate(model, processor, held_out, prompt=prompt)
            log.show(step + 1, steps, held_out_srcc=value, parsed=parsed)
            worth = value * parsed  # an answer that cannot be read ranks nothing
            if worth > record or not best.exists():  # NaN where nothing could be read yet
                record = worth if worth == worth else record
                model.save_pretrained(best)
                processor.save_pretrained(best)
            state = {
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": step + 1,
                "record": record,
            }
            draft = saved.with_suffix(".tmp")
            torch.save(state, draft)
            draft.replace(saved)
    return best


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
