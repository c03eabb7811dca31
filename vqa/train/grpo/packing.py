"""K answers behind one prompt in one row, for the update: the prompt and its pictures run once, whatever K is.

    prompt without its last token | last token, answer 1 | last token, answer 2 | ...

An answer sees the prompt and itself, and counts its positions from the end of the prompt, so its log-probabilities and
their gradients are those of a row of its own. The last token of the prompt stands before each answer because it is what
the answer's first token is read from.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

_NOTHING = -100  # a label that is not scored
_OF_TOKENS = {"input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question as the model takes it."""

    inputs: Any  # the processor's tensors of one clip; ids [1, P]
    positions: Tensor  # [..., 1, P]: as many as the family counts (Qwen: text, time, height, width)

    @property
    def ids(self) -> Tensor:
        """Tokens of the prompt, [P]."""
        ids: Tensor = self.inputs["input_ids"][0]
        return ids


def once(ids: Sequence[int], token: int) -> list[int]:
    """The ids with each run of `token` as one."""
    return [own for place, own in enumerate(ids) if own != token or place == 0 or ids[place - 1] != token]


def ask(model: Any, inputs: Any) -> Asked:
    """The question on the model's device, with its positions; `inputs` are the processor's."""
    inputs = inputs.to(model.device, dtype=model.dtype)
    counted = {name: value for name, value in inputs.items() if name != "input_ids"}
    return Asked(inputs=inputs, positions=model._prepare_position_ids_for_generation(inputs["input_ids"], counted))


def pack(
    asked: Sequence[Asked], answers: Sequence[Sequence[Tensor]], *, is_eager: bool = False, dtype: torch.dtype
) -> tuple[dict[str, Tensor], Tensor]:
    """The model's inputs and the labels [B, L] for B questions with the answers [n] of each.

    Labels that are not -100 come in the order of the answers. `is_eager`: attention that adds its mask, in `dtype`.
    """
    rows, labels, branches, places = [], [], [], []
    for question, group in zip(asked, answers, strict=True):
        before, last = question.ids[:-1], question.ids[-1:]
        rows.append(torch.cat([before, *(part for answer in group for part in (last, answer))]))
        nothing = torch.full_like(before, _NOTHING), torch.full_like(last, _NOTHING)
        labels.append(torch.cat([nothing[0], *(part for answer in group for part in (nothing[1], answer))]))
        numbers = [torch.full((len(answer) + 1,), 1 + j, device=before.device) for j, answer in enumerate(group)]
        branches.append(torch.cat([torch.zeros_like(before), *numbers]))
        steps = [question.positions[..., -1:] + torch.arange(len(part), device=before.device) for part in numbers]
        places.append(torch.cat([question.positions[..., :-1], *steps], dim=-1))
    longest = max(map(len, rows))
    ids = pad_sequence(rows, batch_first=True, padding_value=int(asked[0].ids[-1]))
    branch = pad_sequence(branches, batch_first=True, padding_value=-1)
    seen = (branch[:, :, None] == branch[:, None, :]) | (branch[:, None, :] == 0)
    mask = (seen & torch.ones_like(seen[0]).tril())[:, None]
    if is_eager:
        mask = torch.where(mask, torch.zeros((), dtype=dtype, device=ids.device), torch.finfo(dtype).min)
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": torch.cat([pad(place, (0, longest - place.shape[-1])) for place in places], dim=-2),
    }
    for name in set(asked[0].inputs) - _OF_TOKENS:  # pictures, and what the family says of them
        inputs[name] = torch.cat([question.inputs[name] for question in asked])
    return inputs, pad_sequence(labels, batch_first=True, padding_value=_NOTHING)


def unpack(values: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """What was scored [B, L - 1] beside `labels` [B, L], as rows of answers: [answers, T], 0 where `mask` is 0."""
    scored = values[labels[:, 1:] != _NOTHING]
    return scored.new_zeros(mask.shape).masked_scatter(mask.bool(), scored)


def runs(places: Sequence[int]) -> list[tuple[int, int]]:
    """Rows [start, stop) that ask the same, one after another; a clip's first ones may be on the process before."""
    bounds = [0, *(row for row in range(1, len(places)) if places[row] != places[row - 1]), len(places)]
    return list(itertools.pairwise(bounds))


def batches(runs: Sequence[tuple[int, int]], *, rows: int) -> list[list[tuple[int, int]]]:
    """Neighbouring runs of the same length, together at most `rows` rows (but always one run)."""
    batches: list[list[tuple[int, int]]] = []
    for start, stop in runs:
        last = batches[-1] if batches else []
        if last and last[0][1] - last[0][0] == stop - start and stop - last[0][0] <= rows:
            last.append((start, stop))
        else:
            batches.append([(start, stop)])
    return batches
