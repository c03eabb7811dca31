"""Calls into transformers that it does not document, each with its reason; tests/contracts holds a test of each."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def position_ids(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Positions of a prompt's tokens as `generate` counts them, [..., 1, length].

    Families count differently (Qwen: text, time, height, width), and only this method of transformers knows how. It is
    the entry point of https://github.com/huggingface/transformers/pull/43734; after the prompt each token adds one.
    """
    others = {name: value for name, value in inputs.items() if name != "input_ids"}
    positions: Tensor = model._prepare_position_ids_for_generation(inputs["input_ids"], others)
    return positions


def attention_of(model: "PreTrainedModel") -> str:
    """Name of the attention implementation that the model runs with, such as `sdpa` or `eager`.

    There is a public setter (`set_attn_implementation`) and no public getter; transformers' own tests read this
    attribute too (https://github.com/huggingface/transformers/pull/32383).
    """
    return str(model.config._attn_implementation)
