"""Shared prefill for the update: the K answers to a prompt in one row behind it.

    prompt without its last token | last token, answer 1 | last token, answer 2 | ...

An answer attends to the prompt and to itself, and its positions count from the end of the prompt, so its
log-probabilities and their gradients equal those of a row of its own, while the prompt and its pictures run once. The
last token of the prompt is repeated before each answer because the answer's first token is predicted from it.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from vqa.model import _compat
from vqa.train.types import Model

if TYPE_CHECKING:
    from transformers import BatchFeature

    from vqa.train.grpo.objective import Transform

_IGNORED = -100  # a label that is not scored
_PER_TOKEN = {"input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPrompt:
    """Prompt on the model's device: `inputs` (ids [1, P]), `positions` [..., 1, P].

    The leading dimensions of `positions` are those that the model family counts (Qwen: text, time, height, width).
    """

    inputs: "BatchFeature"
    positions: Tensor

    @property
    def ids(self) -> Tensor:
        """Tokens of the prompt, int64 [P]."""
        ids: Tensor = self.inputs["input_ids"][0]
        return ids


def encode_prompt(model: Model, inputs: "BatchFeature") -> EncodedPrompt:
    """Move a prompt's tensors to the model's device and count their positions."""
    inputs = inputs.to(model.device, dtype=model.dtype)
    return EncodedPrompt(inputs=inputs, positions=_compat.position_ids(model, inputs))


def collapse_repeats(ids: Sequence[int], token: int) -> list[int]:
    """The ids with each run of `token` replaced by one."""
    return [own for place, own in enumerate(ids) if own != token or place == 0 or ids[place - 1] != token]


def pack_answers(
    prompts: Sequence[EncodedPrompt],
    answers: Sequence[Sequence[Tensor]],
    *,
    is_eager: bool = False,
    dtype: torch.dtype,
) -> tuple[dict[str, Tensor], Tensor]:
    """Build one row per prompt that holds all its answers.

    Args:
        prompts: B encoded prompts.
        answers: for each prompt its answers, int64 [n] each.
        is_eager: whether attention adds its mask, in `dtype`, rather than taking a boolean one.
        dtype: of the model.

    Returns:
        The model's inputs, and labels [B, L], where those that are not -100 come in the order of the answers.
    """
    rows, labels, branches, places = [], [], [], []
    for prompt, group in zip(prompts, answers, strict=True):
        before, last = prompt.ids[:-1], prompt.ids[-1:]
        rows.append(torch.cat([before, *(part for answer in group for part in (last, answer))]))
        ignored = torch.full_like(before, _IGNORED), torch.full_like(last, _IGNORED)
        labels.append(torch.cat([ignored[0], *(part for answer in group for part in (ignored[1], answer))]))
        numbers = [torch.full((len(answer) + 1,), 1 + j, device=before.device) for j, answer in enumerate(group)]
        branches.append(torch.cat([torch.zeros_like(before), *numbers]))
        steps = [prompt.positions[..., -1:] + torch.arange(len(part), device=before.device) for part in numbers]
        places.append(torch.cat([prompt.positions[..., :-1], *steps], dim=-1))
    longest = max(map(len, rows))
    ids = pad_sequence(rows, batch_first=True, padding_value=int(prompts[0].ids[-1]))
    branch = pad_sequence(branches, batch_first=True, padding_value=-1)
    visible = (branch[:, :, None] == branch[:, None, :]) | (branch[:, None, :] == 0)
    mask = (visible & torch.ones_like(visible[0]).tril())[:, None]
    if is_eager:
        mask = torch.where(mask, torch.zeros((), dtype=dtype, device=ids.device), torch.finfo(dtype).min)
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": torch.cat([pad(place, (0, longest - place.shape[-1])) for place in places], dim=-2),
    }
    for name in set(prompts[0].inputs) - _PER_TOKEN:  # pictures and their sizes
        inputs[name] = torch.cat([prompt.inputs[name] for prompt in prompts])
    return inputs, pad_sequence(labels, batch_first=True, padding_value=_IGNORED)


def unpack_answers(values: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Unpack values [B, L - 1] by `labels` [B, L] to [answers, T], 0 outside `mask`."""
    scored = values[labels[:, 1:] != _IGNORED]
    return scored.new_zeros(mask.shape).masked_scatter(mask.bool(), scored)


def score_answers(
    model: Model,
    prompts: Sequence[EncodedPrompt],
    written: Tensor,
    mask: Tensor,
    *,
    attention: str,
    dtype: torch.dtype,
    rows: int | None = None,
    transform: "Transform | None" = None,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies [R, T] of answers, by trl's fused head.

    Logits of all tokens and words are never in memory: the head takes tiles of 4,096 tokens x 32,768 words, half a
    gigabyte in float32 for answers of any length. What grows is the attention's mask, a square of the row: (prompt +
    answers of `rows`)^2 bytes.

    Args:
        model: with trl's fused head (`add_fused_lm_head`), possibly wrapped.
        prompts: one per answer; the same object where answers share it.
        written: int64 [R, T], token ids.
        mask: [R, T], 1 for tokens of the answer.
        attention: implementation that the model runs with.
        dtype: of the model.
        rows: answers per forward pass; None for all.
        transform: changes the packed inputs in place.
    """
    logps, entropies = [], []
    for start in range(0, len(written), rows or len(written)):
        part = slice(start, start + (rows or len(written)))
        lengths = mask[part].sum(dim=1).tolist()
        answers = [tokens[:length] for tokens, length in zip(written[part], lengths, strict=True)]
        runs = find_runs([id(one) for one in prompts[part]])
        inputs, labels = pack_answers(
            [prompts[start + begin] for begin, _ in runs],
            [answers[begin:end] for begin, end in runs],
            is_eager=attention == "eager",
            dtype=dtype,
        )
        if transform is not None:
            transform(inputs)
        out = model(**inputs, labels=labels, fused_lm_head=True)
        logps.append(unpack_answers(out.log_probs, labels, mask[part]))
        # The reference model's head returns no entropies, and nothing uses them.
        entropies.append(logps[-1] if out.entropy is None else unpack_answers(out.entropy, labels, mask[part]))
    return torch.cat(logps), torch.cat(entropies)


def find_runs(keys: Sequence[int]) -> list[tuple[int, int]]:
    """Bounds [start, stop) of neighbouring rows with equal keys.

    A clip whose answers lie on two processes has a run on each.
    """
    bounds = [0, *(row for row in range(1, len(keys)) if keys[row] != keys[row - 1]), len(keys)]
    return list(itertools.pairwise(bounds))


def batch_runs(runs: Sequence[tuple[int, int]], *, rows: int) -> list[list[tuple[int, int]]]:
    """Batches of neighbouring runs of one length, of at most `rows` rows or one run."""
    batches: list[list[tuple[int, int]]] = []
    for start, stop in runs:
        last = batches[-1] if batches else []
        if last and last[0][1] - last[0][0] == stop - start and stop - last[0][0] <= rows:
            last.append((start, stop))
        else:
            batches.append([(start, stop)])
    return batches
