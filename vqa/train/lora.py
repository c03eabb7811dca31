"""Trained parts of a stage, and LoRA (arXiv 2106.09685) by peft."""

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from vqa.errors import UsageError
from vqa.imports import require
from vqa.train.hardware import Lora
from vqa.train.modules import tower_of
from vqa.train.types import Model

if TYPE_CHECKING:
    from peft import LoraConfig


def mark_trained(model: nn.Module, *, text: bool = True, tower: bool = True) -> None:
    """Mark text model and vision tower as trained or frozen; set training mode."""
    model.train().requires_grad_(text)
    tower_of(model).requires_grad_(tower)


def lora_config(model: nn.Module, settings: Lora, *, tower: bool) -> "LoraConfig":
    """Configuration of peft that names in full the layers which get additions.

    A tower may have layers of the text model's names.

    Args:
        model: without additions.
        settings: of the recipe's hardware.
        tower: whether all linear layers of the vision tower get them too.

    Raises:
        UsageError: without peft, or where no layer of the text model has one of `target_modules`.
    """
    require("train", "peft", doing="hardware.lora")
    import peft

    of_tower = {id(part) for part in tower_of(model).modules()}
    linear = {name: id(part) in of_tower for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    own = {name: name.rpartition(".")[2] for name, is_towers in linear.items() if not is_towers}
    wanted = [name for name, short in own.items() if short in settings.target_modules]
    if not wanted:
        names = sorted(set(own.values()))
        raise UsageError(
            f"hardware.lora.target_modules: no layer of the text model is called {', '.join(settings.target_modules)}. "
            f"There are {', '.join(names)}."
        )
    return peft.LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=wanted + [name for name, is_towers in linear.items() if is_towers and tower],
        bias="none",
    )


def add_lora(model: nn.Module, settings: Lora, *, tower: bool) -> Model:
    """The model with additions, which alone are trained; as `lora_config`."""
    config = lora_config(model, settings, tower=tower)
    import peft

    return peft.get_peft_model(model, config)


def is_lora(model: Model) -> bool:
    """Whether the model has additions."""
    return hasattr(model, "merge_and_unload")


def merge_lora(model: Model, additions: Path | None = None) -> Model:
    """Model with its additions, or those of a folder, merged; unchanged without any."""
    if additions is not None:
        import peft

        model = peft.PeftModel.from_pretrained(model, additions)
    return model.merge_and_unload() if is_lora(model) else model
