"""Correlation of scores with opinions on held-out clips, a greedy answer each."""

from collections.abc import Sequence

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import BatchFeature, ProcessorMixin

from vqa.metrics import plcc, srcc
from vqa.model.card import Readout
from vqa.model.encode import encode, encode_chat
from vqa.model.readout import ReadoutForm, read_rollout, said
from vqa.model.rollout import prefill, roll_out
from vqa.prompt import PromptName, dimensions
from vqa.train.clips.dataset import TrainingClip
from vqa.train.modules import vocabulary_of
from vqa.train.types import Model


def validate(
    model: Model,
    processor: ProcessorMixin,
    clips: Sequence[TrainingClip],
    *,
    prompt: PromptName,
    readout: Readout,
    max_new_tokens: int,
    batch_size: int = 16,
) -> dict[str, float]:
    """Score held-out clips as `vqa score` would, and compare with their opinions.

    Each process answers for its share of the clips, and all get the same figures.

    Args:
        model: in eval mode, with all its weights on this process.
        processor: of the model.
        clips: those without an opinion are skipped.
        prompt: the question.
        readout: of the numbers, as in scoring.
        max_new_tokens: of an answer.
        batch_size: clips per batch.

    Returns:
        `srcc` and `plcc` of the mean number with the opinion, NaN for fewer than two parsed answers, and `parsed`, the
        share of answers that could be parsed.
    """
    state = PartialState()
    known = [(clip, clip.opinion) for clip in clips if clip.opinion is not None]
    share = known[state.process_index :: state.num_processes]
    scored = score_clips(
        model,
        processor,
        [clip for clip, _ in share],
        prompt=prompt,
        readout=readout,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )
    read = [(score, opinion) for score, (_, opinion) in zip(scored, share, strict=True) if score is not None]
    # Sorted, so that sums come out the same for any number of processes.
    read = sorted(gather_object(read) if state.num_processes > 1 else read)
    scores, opinions = [score for score, _ in read], [opinion for _, opinion in read]
    is_enough = len(read) > 1
    return {
        "srcc": srcc(scores, opinions) if is_enough else float("nan"),
        "plcc": plcc(scores, opinions) if is_enough else float("nan"),
        "parsed": len(read) / max(1, len(known)),
    }


@torch.no_grad()
def score_clips(
    model: Model,
    processor: ProcessorMixin,
    clips: Sequence[TrainingClip],
    *,
    prompt: PromptName,
    readout: Readout,
    max_new_tokens: int,
    batch_size: int = 16,
) -> list[float | None]:
    """Mean number of a greedy answer per clip, None where unparsed; as `validate`."""
    vocabulary = vocabulary_of(model, processor)
    read: list[float | None] = []
    for start in range(0, len(clips), batch_size):
        some = clips[start : start + batch_size]
        questions = [encode_question(processor, clip, prompt=prompt).to(model.device) for clip in some]
        answers = roll_out(
            model,
            [prefill(model, one) for one in questions],
            k=1,
            vocabulary=vocabulary,
            max_new_tokens=max_new_tokens,
            keep_digits=readout == "expected" and vocabulary.has_digits,
        )
        for (rollout,) in answers:
            one = said(rollout, processor.tokenizer, vocabulary)
            given = read_rollout(one, form=ReadoutForm(dimensions=dimensions(prompt)))
            read.append(None if given.values is None else float(np.mean(given.values)))
    return read


def encode_question(
    processor: ProcessorMixin, clip: TrainingClip, *, prompt: PromptName, question: str | None = None
) -> BatchFeature:
    """Tensors of a clip's views and question; `question` replaces the prompt's words.

    Raises:
        ValueError: for a `question` beside a clip with a chat, which is its question already.
    """
    if clip.chat is not None and question is not None:
        raise ValueError(f"clip {clip.clip_id}: asked {question!r} beside its own chat. Give one of them.")
    views = clip.views()
    if clip.chat is not None:
        inputs: BatchFeature = encode_chat(processor, clip.chat(views), views.pictures)
    else:
        inputs = encode(processor, views, prompt=prompt, question=question)
    return inputs
