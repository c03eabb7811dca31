"""Random weights of the sizes of Qwen2.5-VL 3B and 7B, and the command line of the benches that run them."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import transformers

from tests.references.make_checkpoints import parts
from vqa.model.load import Policy
from vqa.model.resolve import Location
from vqa.model.vocabulary import Vocabulary

SIZES: dict[str, dict[str, Any]] = {  # text towers of Qwen2.5-VL (config.json of the published checkpoints)
    "3B": {"hidden": 2048, "layers": 36, "heads": 16, "kv_heads": 2, "intermediate": 11008, "tied": True},
    "7B": {"hidden": 3584, "layers": 28, "heads": 28, "kv_heads": 4, "intermediate": 18944, "tied": False},
    "tiny": {"hidden": 64, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate": 128, "tied": True},
}
VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
WORDS = 151_936


def asked(
    doc: str | None, *, new: int, more: Callable[[argparse.ArgumentParser], object]
) -> tuple[argparse.Namespace, torch.device] | None:
    """What a bench is asked for, and the device; None, after a word on it, without a GPU and without --tiny.

    Args:
        doc: What the bench does.
        new: Tokens of an answer, by default.
        more: Adds the bench's own options.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=("3B", "7B"), default=["3B", "7B"])
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--new", type=int, default=new, help="tokens of an answer")
    parser.add_argument("--tiny", action="store_true", help="a small model, on any machine")
    more(parser)
    wish = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wish.tiny:
        torch.set_num_threads(1)  # more would wait for each other
        wish.sizes, wish.new = ["tiny"], 16
    elif device.type == "cpu":
        print("no GPU here: nothing measured; --tiny runs anywhere")
        return None
    return wish, device


def name_of(device: torch.device) -> str:
    """The device and what runs on it, in words."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    return f"{name}, torch {torch.__version__}, bfloat16"


def synchronize(device: torch.device) -> None:
    """Wait for what a GPU is at."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def policy_of(size: str, device: torch.device) -> Policy:
    """A model with random weights, made on the device."""
    shape = SIZES[size]
    config, processor, tokenizer, _ = parts("qwen2_5_vl", hidden=64, layers=2)
    text = config.text_config
    text.hidden_size, text.num_hidden_layers = shape["hidden"], shape["layers"]
    text.layer_types = ["full_attention"] * shape["layers"]
    text.num_attention_heads, text.num_key_value_heads = shape["heads"], shape["kv_heads"]
    text.intermediate_size = shape["intermediate"]
    config.tie_word_embeddings = text.tie_word_embeddings = shape["tied"]
    config.vision_config.out_hidden_size = shape["hidden"]
    if size != "tiny":
        text.vocab_size = WORDS
        text.rope_parameters = text.rope_parameters | {"mrope_section": [16, 24, 24], "rope_theta": 1e6}
        for name, value in VISION.items():
            setattr(config.vision_config, name, value)
        config.vision_config.fullatt_block_indexes = [7, 15, 23, 31]
    processor.image_processor.size = type(processor.image_processor.size)(shortest_edge=56**2, longest_edge=1003520)
    with torch.device(device):
        model = transformers.AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    words = Vocabulary.of(tokenizer, config, size=text.vocab_size, ends=tokenizer.convert_tokens_to_ids("<|im_end|>"))
    # No answer may end early: each has its full length.
    words = replace(words, ends=(), banned=tuple(sorted({*words.banned, *words.ends})))
    location = Location(f"random {size}", "", "none")
    return Policy(location=location, model=model.eval().requires_grad_(False), processor=processor, vocabulary=words)
