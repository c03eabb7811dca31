"""Small random Qwen2.5-VL: own tokenizer, vision tower started from cosines."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from tokenizers import AddedToken
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from vqa.train.types import Model, Tower

hf: Any = transformers

PATCH = 14
CONSTANT = 6.0  # see `_rectify`
# Qwen2.5-VL's own, in its order (huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct, tokenizer_config.json).
SPECIAL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer(texts: Iterable[str], *, vocabulary: int) -> PreTrainedTokenizerBase:
    """Byte-level BPE learnt from `texts`, set up as Qwen's, with its special tokens.

    Each digit is a token of its own.
    """
    empty = hf.Qwen2Tokenizer().backend_tokenizer
    alphabet = sorted(ByteLevel.alphabet())
    empty.train_from_iterator(texts, BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False))
    learnt = json.loads(empty.to_str())["model"]
    merges = [tuple(pair) for pair in learnt["merges"]]
    tokenizer: PreTrainedTokenizerBase = hf.Qwen2Tokenizer(
        vocab=learnt["vocab"], merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def make_processor(tokenizer: PreTrainedTokenizerBase, *, min_pixels: int, max_pixels: int) -> ProcessorMixin:
    """Qwen2.5-VL's processor around a tokenizer, for pictures between the two areas."""
    size = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
    processor: ProcessorMixin = hf.Qwen2_5_VLProcessor(
        tokenizer=tokenizer,
        image_processor=hf.Qwen2VLImageProcessor(size=size, patch_size=PATCH),
        video_processor=hf.Qwen2VLVideoProcessor(size=size, patch_size=PATCH),
        chat_template=CHAT_TEMPLATE,
    )
    return processor


def make_model(
    tokenizer: PreTrainedTokenizerBase,
    *,
    vision_width: int,
    vision_layers: int,
    text_width: int,
    text_layers: int,
    seed: int,
) -> Model:
    """Qwen2.5-VL of seeded random weights; patches embedded by `cosine_patches`."""
    torch.manual_seed(seed)
    heads = text_width // 64
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(token)
        for name, token in {
            "image": "<|image_pad|>",
            "video": "<|video_pad|>",
            "vision_start": "<|vision_start|>",
            "vision_end": "<|vision_end|>",
        }.items()
    }
    config = hf.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "hidden_size": text_width,
            "intermediate_size": text_width * 3,
            "num_hidden_layers": text_layers,
            "num_attention_heads": heads,
            "num_key_value_heads": max(1, heads // 2),
            "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "mrope_section": [8, 12, 12], "rope_theta": 10000.0},
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        },
        vision_config={
            "depth": vision_layers,
            "hidden_size": vision_width,
            "intermediate_size": round(vision_width * 2.75),
            "num_heads": vision_width // 48,
            "out_hidden_size": text_width,
            "fullatt_block_indexes": [vision_layers - 1],
        },
        tie_word_embeddings=True,
        **ids,
    )
    model = hf.Qwen2_5_VLForConditionalGeneration(config)
    weight = model.model.visual.patch_embed.proj.weight
    with torch.no_grad():
        # transformers' 0.02 is meant for widths of a thousand: at 192 the tower had learnt nothing after 400 steps.
        for part, gain in ((model.model.visual, 1.0), (model.model.language_model.layers, 0.5)):
            for matrix in (matrix for matrix in part.parameters() if matrix.ndim == 2):
                matrix.normal_(0, gain / matrix.shape[1] ** 0.5)
        weight.zero_()
        weight[: filters(vision_width)] = torch.from_numpy(cosine_patches(filters(vision_width)))
        _rectify(model.model.visual)
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    model.generation_config = hf.GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    return model


def _rectify(visual: Tower) -> None:
    """Start the first block as |x| and max(0, |x| - 1/2) of each filter's response x.

    How strong a frequency is, is a mean of |x|; the mean of x is nothing. The rest of the tower starts weak, so that
    its mean-pooled output is a good set of features before the first step: a ridge regression on it reaches an SRCC of
    0.6 against VMAF on held-out contents (0.5 with squares and strong random blocks). The channels behind the filters
    and their doubles hold a constant, so that RMSNorm leaves strengths comparable between patches.
    """
    first, *others = visual.blocks
    width, mlp = visual.config.hidden_size, first.mlp
    count = filters(width)
    first.attn.proj.weight.mul_(0.1)
    first.attn.proj.bias[2 * count :] = CONSTANT
    steep, norm = (
        4.0,
        CONSTANT * (1 - 2 * count / width) ** 0.5,
    )  # norm: the root mean square of an otherwise empty token
    both = torch.cat([torch.eye(count), -torch.eye(count)])
    units = 4 * count
    for matrix in (mlp.gate_proj.weight[:units], mlp.up_proj.weight[:units], mlp.down_proj.weight[:, :units]):
        matrix.zero_()
    for layer in (mlp.gate_proj, mlp.up_proj, mlp.down_proj):
        layer.bias.zero_()
    mlp.gate_proj.weight[:units, :count] = steep * norm * both.repeat(2, 1)
    mlp.gate_proj.bias[units // 2 : units] = -steep / 2
    mlp.up_proj.bias[:units] = 1.0
    mlp.down_proj.weight[:count, : units // 2] = both.T.abs() / steep
    mlp.down_proj.weight[count : 2 * count, units // 2 : units] = 2 * both.T.abs() / steep
    mlp.down_proj.weight[:, units:] *= 0.5
    for block in others:
        block.attn.proj.weight.mul_(0.5)
        block.mlp.down_proj.weight.mul_(0.5)


def filters(width: int) -> int:
    """Number of the tower's channels that start as filters of pixels."""
    return (width - width // 24) // 2


def cosine_patches(count: int) -> NDArray[np.float32]:
    """2-D cosine basis as filters, low to high: float32 [count, 3, 2, 14, 14].

    Damage to a picture lives in high frequencies. Most filters look at brightness, a quarter at colour (low
    frequencies). `equalise` then scales each to the same response.
    """
    grid = (np.arange(PATCH) + 0.5) * np.pi / PATCH
    waves = np.cos(np.arange(PATCH)[:, None] * grid)  # [frequency, place]
    waves *= np.array([np.sqrt((1 if frequency == 0 else 2) / PATCH) for frequency in range(PATCH)]).reshape(-1, 1)
    order = sorted(((u, v) for u in range(PATCH) for v in range(PATCH)), key=lambda uv: (uv[0] + uv[1], uv))
    colour = count // 4
    kinds = [(np.array([0.299, 0.587, 0.114]), _spread(order, count - colour))]
    kinds += [(np.array([-0.169, -0.331, 0.5]), order[: colour // 2])]
    kinds += [(np.array([0.5, -0.419, -0.081]), order[: colour - colour // 2])]
    planes = [tint[:, None, None] * np.outer(waves[u], waves[v]) for tint, places in kinds for u, v in places]
    both: NDArray[np.float32] = np.repeat(np.stack(planes)[:, :, None] / 2, 2, axis=2).astype(np.float32)
    return both  # frames of a temporal patch


def _spread(order: list[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    # All of the low half, then evenly to the highest: noise and ringing show at the far end.
    low = order[: count // 2]
    rest = order[count // 2 :]
    return low + [rest[index] for index in np.linspace(0, len(rest) - 1, count - len(low)).round().astype(int)]
