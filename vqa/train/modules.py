"""Parts of an MLLM: vision tower, parameter groups, vocabulary; and its sizes."""

from typing import TYPE_CHECKING

from torch import nn

from vqa.errors import ModelError
from vqa.model.vocabulary import Vocabulary
from vqa.train.memory import ModelShape
from vqa.train.types import Model

if TYPE_CHECKING:
    from transformers import ProcessorMixin

TOWERS = ("visual", "vision_tower", "vision_model")  # its name in the families


def tower_of(model: nn.Module) -> nn.Module:
    """The vision tower, with the projector where the family keeps it inside.

    Raises:
        ModelError: where no module has one of the names in TOWERS.
    """
    for name, part in model.named_modules():
        if name.rpartition(".")[2] in TOWERS:
            return part  # type: ignore[no-any-return]  # torch leaves it untyped
    raise ModelError(
        f"{type(model).__name__}: no vision tower called {', '.join(TOWERS)}, so its learning rate cannot be set. "
        "Leave out vision_learning_rate."
    )


def parameter_groups(model: nn.Module, *, rate: float, vision_rate: float | None) -> list[dict[str, object]]:
    """Groups of trained parameters: the tower at `vision_rate`, the rest at `rate`.

    A `vision_rate` of None is `rate`.
    """
    own = {id(one) for one in tower_of(model).parameters()}
    trained = [one for one in model.parameters() if one.requires_grad]
    rates = {False: rate, True: rate if vision_rate is None else vision_rate}
    groups = [
        {"params": [one for one in trained if (id(one) in own) == is_tower], "lr": rate}
        for is_tower, rate in rates.items()
    ]
    return [group for group in groups if group["params"]]


def vocabulary_of(model: Model, processor: "ProcessorMixin") -> Vocabulary:
    """Tokens that the model may write; ModelError where none ends an answer."""
    size = model.get_output_embeddings().weight.shape[0]
    return Vocabulary.of(processor.tokenizer, model.config, size=size, ends=model.generation_config.eos_token_id)


def model_shape(model: Model) -> ModelShape:
    """Sizes of a model, which may be on the meta device."""
    text, vision = model.config.get_text_config(), getattr(model.config, "vision_config", None)
    tower = tower_of(model)
    own = {id(part) for part in tower.modules()}
    blocks = [part for part in model.modules() if isinstance(part, nn.ModuleList) and id(part) not in own]
    block = max(blocks, key=len)[0]
    linear = {
        name.rpartition(".")[2]: (part.in_features, part.out_features)
        for name, part in block.named_modules()
        if isinstance(part, nn.Linear)
    }
    head_width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return ModelShape(
        parameters=sum(one.numel() for one in model.parameters()),
        tower=sum(one.numel() for one in tower.parameters()),
        vocabulary=text.vocab_size,
        is_tied=bool(model.config.tie_word_embeddings),
        width=text.hidden_size,
        inner=text.intermediate_size,
        layers=text.num_hidden_layers,
        key_value=text.num_key_value_heads * head_width,
        tower_width=getattr(vision, "hidden_size", 0),
        tower_inner=getattr(vision, "intermediate_size", 0),
        tower_layers=int(getattr(vision, "depth", 0) or getattr(vision, "num_hidden_layers", 0)),
        linear=linear,
    )
