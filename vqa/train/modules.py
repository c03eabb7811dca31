"""The parts of an MLLM, which of them are trained, and what is added to them."""

import re
from typing import Any

from torch import nn

from vqa.errors import ModelError, UsageError
from vqa.imports import require
from vqa.model.vocabulary import Vocabulary
from vqa.train.recipe_stages import ColdStart

TOWERS = ("visual", "vision_tower", "vision_model")  # what families call it


def tower_of(model: Any) -> nn.Module:
    """The vision tower, projector included where the family keeps it inside. Raises ModelError where none is known."""
    for name, part in model.named_modules():
        if name.rpartition(".")[2] in TOWERS:
            return part  # type: ignore[no-any-return]  # the model is untyped
    raise ModelError(f"{type(model).__name__}: no vision tower called {', '.join(TOWERS)}; its rate cannot be set")


def parts_by_rate(model: Any, *, rate: float, vision_rate: float | None) -> list[dict[str, Any]]:
    """What of the model is trained, for an optimiser: the tower at its own rate (None: the same) and the rest."""
    own = {id(one) for one in tower_of(model).parameters()}
    trained = [one for one in model.parameters() if one.requires_grad]
    rates = {False: rate, True: rate if vision_rate is None else vision_rate}
    groups = [
        {"params": [one for one in trained if (id(one) in own) == is_tower], "lr": rate}
        for is_tower, rate in rates.items()
    ]
    return [group for group in groups if group["params"]]


def vocabulary_of(model: Any, processor: Any) -> Vocabulary:
    """What the model may write. Raises ModelError where nothing ends an answer."""
    size = model.get_output_embeddings().weight.shape[0]
    return Vocabulary.of(processor.tokenizer, model.config, size=size, ends=model.generation_config.eos_token_id)


def ready(model: Any, settings: ColdStart) -> Any:
    """The model in training mode with its trained parts marked, and LoRA put on where asked."""
    model.train().requires_grad_(settings.text == "train")
    tower_of(model).requires_grad_(settings.vision_rate != 0)
    if settings.lora is None:
        return model
    require("train", "peft", doing="lora of a cold start")
    import peft

    names = "|".join(map(re.escape, settings.lora.targets))
    config = peft.LoraConfig(
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        # The tower of Qwen2.5-VL has layers of the same names.
        target_modules=rf"(?!.*\b({'|'.join(TOWERS)})\b).*\.({names})",
        bias="none",
    )
    try:
        return peft.get_peft_model(model, config)
    except ValueError as error:
        raise UsageError(f"cold start: lora.targets {', '.join(settings.lora.targets)}: {error}") from error


def merged(model: Any) -> Any:
    """The model with plain weights, LoRA added into them; whole files again."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
