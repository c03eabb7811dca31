"""Sizes of a recipe's model without its weights: by config, name or warm-up."""

import functools
import re
from pathlib import Path
from typing import Any

import torch
import transformers

from vqa.errors import UsageError
from vqa.model.card import settle
from vqa.model.resolve import EMBEDDED
from vqa.prompt import PROMPTS
from vqa.train.memory import ModelShape
from vqa.train.modules import model_shape
from vqa.train.recipe import Recipe
from vqa.train.scratch.model import make_model, make_tokenizer

hf: Any = transformers
# Sizes of Qwen2.5-VL as their folders' config.json has them, for those that are not on this machine.
QWEN2_5_VL = {
    "3b": {"width": 2048, "inner": 11008, "layers": 36, "heads": 16, "kept": 2, "words": 151936, "tower": 3420},
    "7b": {"width": 3584, "inner": 18944, "layers": 28, "heads": 28, "kept": 4, "words": 152064, "tower": 3420},
    "32b": {"width": 5120, "inner": 27648, "layers": 64, "heads": 40, "kept": 8, "words": 152064, "tower": 3456},
    "72b": {"width": 8192, "inner": 29568, "layers": 80, "heads": 64, "kept": 8, "words": 152064, "tower": 3456},
}


def shape_of(recipe: Recipe) -> tuple[ModelShape, str]:
    """Sizes of the recipe's model, and in words where they are from.

    Raises:
        UsageError: for a folder without a model, and a model whose config is not on this machine and not known.
    """
    if recipe.model is not None:
        return _scratch_shape(recipe), "made from sizes"
    source = settle(str(recipe.start), {})[0].source
    place = str(EMBEDDED) if source == "embedded" else source
    try:
        return _config_shape(hf.AutoConfig.from_pretrained(place, local_files_only=True)), "by its config"
    except (OSError, ValueError) as error:  # how transformers reports a model that is not here, or not such a model
        if Path(place).is_dir():
            raise UsageError(
                f"start {source}: no config.json in it of a model that takes pictures and writes text. Give the folder "
                "that save_pretrained wrote."
            ) from error
    for name in dict.fromkeys([source, settle(recipe.card_name, {})[0].source]):
        size = re.search(r"qwen2\.5-vl-(\d+b)(?![a-z0-9])", name.lower())
        if size and size[1] in QWEN2_5_VL:
            return published_shape(size[1]), f"as Qwen2.5-VL-{size[1].upper()}; the config of {source} is not here"
    raise UsageError(
        f"start {source}: its config is not on this machine, and neither it nor card {recipe.card_name} is a "
        "Qwen2.5-VL of known size. Give --set start=FOLDER, a folder with its config.json; weights are not read."
    )


@functools.cache
def published_shape(size: str) -> ModelShape:
    """Sizes of Qwen2.5-VL by its name: 3b, 7b, 32b or 72b."""
    own = QWEN2_5_VL[size]
    is_tied = size == "3b"
    text = {
        "vocab_size": own["words"],
        "hidden_size": own["width"],
        "intermediate_size": own["inner"],
        "num_hidden_layers": own["layers"],
        "num_attention_heads": own["heads"],
        "num_key_value_heads": own["kept"],
        "tie_word_embeddings": is_tied,
    }
    tower = {"depth": 32, "hidden_size": 1280, "intermediate_size": own["tower"], "num_heads": 16}
    vision = tower | {"out_hidden_size": own["width"]}
    return _config_shape(hf.Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=is_tied))


def _config_shape(config: Any) -> ModelShape:
    with torch.device("meta"):
        return model_shape(hf.AutoModelForImageTextToText.from_config(config))


def _scratch_shape(recipe: Recipe) -> ModelShape:
    assert recipe.model is not None
    tokenizer = make_tokenizer([prompt.question for prompt in PROMPTS.values()], vocabulary=300)
    shape = model_shape(make_model(tokenizer, **recipe.model.model_dump(exclude={"vocabulary"}), seed=0))
    more = max(0, recipe.model.vocabulary - 300)
    sizes = {name: getattr(shape, name) for name in ModelShape.__dataclass_fields__}
    sizes |= {"parameters": shape.parameters + more * shape.width, "vocabulary": shape.vocabulary + more}
    return ModelShape(**sizes)
