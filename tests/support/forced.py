"""A real model made to say what a test wants: its classes, cache and tokens, with logits that leave no other choice."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from vqa.model.load import Policy

Choose = Callable[[Mapping[str, Any]], str]


@contextmanager
def saying(policy: Policy, choose: Choose) -> Iterator[list[str]]:
    """While the block runs, each prompt is answered with what `choose` makes of its inputs; yields the prompts' texts.

    For one prompt at a time (`batch_size=1`), any k.
    """
    tokenizer = policy.processor.tokenizer
    plan: list[int] = []
    prompts: list[str] = []

    def force(_module: Any, _arguments: Any, named: dict[str, Any], output: Any) -> Any:
        if named["input_ids"].shape[1] > 1:
            prompts.append(tokenizer.decode(named["input_ids"][0]))
            plan[:] = [*tokenizer.encode(choose(named)), policy.vocabulary.ends[0]]
        output.logits = torch.full_like(output.logits, -30.0)
        output.logits[..., plan.pop(0)] = 30.0
        return output

    hook = policy.model.register_forward_hook(force, with_kwargs=True)
    try:
        yield prompts
    finally:
        hook.remove()
