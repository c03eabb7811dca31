"""How well a model does on held-out clips, by the numbers of one greedy answer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from vqa.metrics import plcc, srcc
from vqa.model.card import Readout
from vqa.model.encode import encode, encode_chat
from vqa.model.readout import read_rollout
from vqa.model.rollout import prefill, roll_out
from vqa.prompt import PromptName, dimensions
from vqa.train.clips.dataset import TrainingClip
from vqa.train.modules import vocabulary_of


@torch.no_grad()
def judged(
    model: Any,
    processor: Any,
    samples: Sequence[TrainingClip],
    *,
    prompt: PromptName,
    readout: Readout,
    max_new_tokens: int,
    at_once: int = 16,
) -> dict[str, float]:
    """`srcc` and `plcc` of the mean number, read as scoring would read it, with opinions, and the share of answers
    `parsed`; NaN for none. Each process asks about its share of the samples, and all get the same figures."""
    vocabulary, state = vocabulary_of(model, processor), PartialState()
    known = [(sample, sample.opinion) for sample in samples if sample.opinion is not None]
    share = known[state.process_index :: state.num_processes]
    read: list[tuple[float, float]] = []
    for start in range(0, len(share), at_once):
        some = share[start : start + at_once]
        prompts = [prefill(model, question(processor, sample, prompt=prompt).to(model.device)) for sample, _ in some]
        answers = roll_out(
            model,
            prompts,
            k=1,
            vocabulary=vocabulary,
            max_new_tokens=max_new_tokens,
            keep_digits=readout == "expected" and vocabulary.has_digits,
        )
        for (_, opinion), (rollout,) in zip(some, answers, strict=True):
            given = read_rollout(rollout, processor.tokenizer, vocabulary, dimensions=dimensions(prompt))
            if given.values is not None:
                read.append((float(np.mean(given.values)), opinion))
    # Sorted, so that sums come out the same for any number of processes.
    read = sorted(gather_object(read) if state.num_processes > 1 else read)
    scores, opinions = [score for score, _ in read], [opinion for _, opinion in read]
    is_enough = len(read) > 1
    return {
        "srcc": srcc(scores, opinions) if is_enough else float("nan"),
        "plcc": plcc(scores, opinions) if is_enough else float("nan"),
        "parsed": len(read) / max(1, len(known)),
    }


def question(processor: Any, sample: TrainingClip, *, prompt: PromptName, words: str | None = None) -> Any:
    """The processor's tensors of what a sample shows and asks; `words` in place of the prompt's own."""
    views = sample.views()
    if sample.chat is not None:
        return encode_chat(processor, sample.chat(views), views.pictures)
    return encode(processor, views, prompt=prompt, question=words)
