"""Trained parts of a supervised stage, and LoRA (arXiv 2106.09685) by peft."""

import re

from torch import nn

from vqa.errors import UsageError
from vqa.imports import require
from vqa.train.modules import TOWERS, tower_of
from vqa.train.recipe import ColdStart
from vqa.train.types import Model


def mark_trained(model: nn.Module, settings: ColdStart) -> Model:
    """Put the model in training mode with its trained parts marked, and add LoRA where the settings have it.

    Raises:
        UsageError: without peft, or where no layer has one of `lora.target_modules`.
    """
    model.train().requires_grad_(settings.text == "train")
    tower_of(model).requires_grad_(settings.vision_learning_rate != 0)
    if settings.lora is None:
        return model
    require("train", "peft", doing="lora of a cold start")
    import peft

    names = "|".join(map(re.escape, settings.lora.target_modules))
    config = peft.LoraConfig(
        r=settings.lora.r,
        lora_alpha=settings.lora.lora_alpha,
        lora_dropout=settings.lora.lora_dropout,
        # The tower of Qwen2.5-VL has layers of the same names.
        target_modules=rf"(?!.*\b({'|'.join(TOWERS)})\b).*\.({names})",
        bias="none",
    )
    try:
        return peft.get_peft_model(model, config)
    except ValueError as error:
        raise UsageError(
            f"cold start: lora.target_modules {', '.join(settings.lora.target_modules)}: {error}"
        ) from error


def merge_lora(model: Model) -> Model:
    """The model with LoRA added into its weights; unchanged where it has none."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
