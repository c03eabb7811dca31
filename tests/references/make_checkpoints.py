"""Small checkpoints of real classes with real processors: `python tests/references/make_checkpoints.py DIR`, offline.

`make` gives random weights (about 0.2 M parameters), spread so that the logits differ clearly. `make_chain` gives a
Qwen2.5-VL whose next token depends on the last one alone, with probabilities that we choose: what it should score can
be worked out by hand. The chat templates are those of the published families, shortened to what one user turn needs.
"""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import transformers as hf
from tokenizers import AddedToken
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

Family = Literal["qwen2_5_vl", "qwen3_vl", "qwen3_5", "internvl", "smolvlm"]
FAMILIES: tuple[Family, ...] = get_args(Family)

TEXTS = (
    "The frames are sharp and the motion is smooth, but the noise in dark parts is visible and blur grows over time.",
    "<think>Compression blocks, banding, flicker.</think><answer>\n3.40\n2.85\n</answer> global local quality picture",
    "How good does this video look? Compare the frames of the global picture over time, then study the detail.",
)
_QWEN_TOKENS = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
]
_INTERN_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"]
_SMOL_TOKENS = [
    *("<|endoftext|>", "<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>"),
    *("<video>", *(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5))),
]

_QWEN_TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% elif c['type'] == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_INTERN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "<IMG_CONTEXT>\n{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SMOL_TEMPLATE = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}: {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def make(family: Family, folder: Path | str, *, seed: int = 0, hidden: int = 64, layers: int = 2) -> Path:
    """Write a checkpoint of the family with random weights; returns its folder."""
    torch.manual_seed(seed)
    config, processor, tokenizer, end = _PARTS[family](hidden, layers)
    model = hf.AutoModelForImageTextToText.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim >= 2 and "patch_embed" not in name and "position_embedding" not in name:
                weight.normal_(0, 1.5 / math.sqrt(weight.shape[-1]))
        # Words far apart and a head that shouts: argmax and samples then hang on what was seen, not on ties.
        model.get_input_embeddings().weight.normal_(0, 1)
        model.get_output_embeddings().weight.normal_(0, 4 / math.sqrt(hidden))
    return _save(model, processor, tokenizer, folder, end=end)


def make_chain(folder: Path | str, follows: Mapping[str, Mapping[str, float]], *, start: str = "\n") -> Path:
    """Write a Qwen2.5-VL that writes one character after another: after `a` comes `b` with chance `follows[a][b]`.

    "" as a follower ends the answer. `start` is what the prompt ends with ("\\n" in Qwen's template), so
    `follows[start]` begins the answer.
    """
    torch.manual_seed(0)
    size = len(_tokenizer(_QWEN_TOKENS, end="<|im_end|>", merges=False))
    config, processor, tokenizer, end = _qwen2_5(size + (-size % 32), 1, merges=False)
    model = hf.AutoModelForImageTextToText.from_config(config).eval()
    words = config.text_config.hidden_size
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "language_model" in name and ("o_proj" in name or "down_proj" in name):
                weight.zero_()  # what the last token is, is all that reaches the head
        model.get_input_embeddings().weight.copy_(torch.eye(words)[:size] * 8)  # far above the norm's epsilon
        head = torch.full((size, words), -40.0)
        ids = {
            char: tokenizer.encode(char)[0] for char in {*follows, *(b for row in follows.values() for b in row)} - {""}
        }
        ids[""] = tokenizer.convert_tokens_to_ids(end[0])
        for char, row in follows.items():
            for follower, chance in row.items():
                head[ids[follower], ids[char]] = math.log(chance) if chance else -40.0
        model.get_output_embeddings().weight.copy_(head / math.sqrt(words))  # the norm gives sqrt(words) at the word
    return _save(model, processor, tokenizer, folder, end=end)


def _save(model: Any, processor: Any, tokenizer: Any, folder: Path | str, *, end: list[str]) -> Path:
    folder = Path(folder)
    model.generation_config = hf.GenerationConfig(
        eos_token_id=[tokenizer.convert_tokens_to_ids(token) for token in end], pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _tokenizer(special: list[str], *, end: str, merges: bool = True, **names: str) -> Any:
    """A byte-level BPE as Qwen sets it up (each digit a token), trained on a few lines, or without any merges."""
    empty = hf.Qwen2Tokenizer().backend_tokenizer
    trainer = BpeTrainer(
        vocab_size=340 if merges else 256, initial_alphabet=sorted(ByteLevel.alphabet()), show_progress=False
    )
    empty.train_from_iterator(TEXTS, trainer)
    learnt = json.loads(empty.to_str())["model"]
    tokenizer = hf.Qwen2Tokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(pair) for pair in learnt["merges"]],
        eos_token=end,
        pad_token="<|endoftext|>",
        extra_special_tokens=names,
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def _qwen_images(kind: Any, *, patch: int) -> dict[str, Any]:
    size = {"shortest_edge": 4 * (2 * patch) ** 2, "longest_edge": 64 * (2 * patch) ** 2}
    return {
        "image_processor": hf.Qwen2VLImageProcessor(size=size, patch_size=patch),
        "video_processor": kind(size=size, patch_size=patch),
    }


def _text(vocab: int, hidden: int, layers: int, **more: Any) -> dict[str, Any]:
    heads = max(1, hidden // 16)
    return {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 2),
        "max_position_embeddings": 8192,
        "bos_token_id": None,
        "eos_token_id": None,
        **more,
    }


def _qwen2_5(hidden: int, layers: int, *, merges: bool = True) -> tuple[Any, Any, Any, list[str]]:
    tokenizer = _tokenizer(_QWEN_TOKENS, end="<|im_end|>", merges=merges)
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    config = hf.Qwen2_5_VLConfig(
        text_config=_text(len(tokenizer), hidden, layers, rope_parameters=rope),
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": hidden,
            "fullatt_block_indexes": [1],
        },
        **_ids(tokenizer, "image", "video", "vision_start", "vision_end"),
    )
    images = _qwen_images(hf.Qwen2VLVideoProcessor, patch=14)
    processor = hf.Qwen2_5_VLProcessor(tokenizer=tokenizer, chat_template=_QWEN_TEMPLATE, **images)
    return config, processor, tokenizer, ["<|im_end|>", "<|endoftext|>"]


def _qwen3(hidden: int, layers: int) -> tuple[Any, Any, Any, list[str]]:
    tokenizer = _tokenizer(_QWEN_TOKENS, end="<|im_end|>")
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True, "rope_theta": 10000.0}
    config = hf.Qwen3VLConfig(
        text_config=_text(len(tokenizer), hidden, layers, head_dim=16, rope_parameters=rope),
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": hidden,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
            "patch_size": 16,
        },
        **_ids(tokenizer, "image", "video", "vision_start", "vision_end"),
    )
    images = _qwen_images(hf.Qwen3VLVideoProcessor, patch=16)
    processor = hf.Qwen3VLProcessor(tokenizer=tokenizer, chat_template=_QWEN_TEMPLATE, **images)
    return config, processor, tokenizer, ["<|im_end|>", "<|endoftext|>"]


def _qwen3_5(hidden: int, layers: int) -> tuple[Any, Any, Any, list[str]]:
    """Every other layer keeps a recurrent state instead of keys and values."""
    _, processor, tokenizer, end = _qwen3(hidden, layers)
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True, "rope_theta": 10000.0}
    linear = {f"linear_{name}_head_dim": 16 for name in ("key", "value")}
    linear |= {f"linear_num_{name}_heads": 2 for name in ("key", "value")}
    config = hf.Qwen3_5Config(
        text_config=_text(
            *(len(tokenizer), hidden, layers),
            head_dim=16,
            rope_parameters=rope | {"partial_rotary_factor": 1.0},
            layer_types=["linear_attention" if layer % 2 == 0 else "full_attention" for layer in range(layers)],
            **linear,
        ),
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": hidden,
            "num_position_embeddings": 64,
            "patch_size": 16,
        },
        **_ids(tokenizer, "image", "video", "vision_start", "vision_end"),
    )
    return config, processor, tokenizer, end


def _ids(tokenizer: Any, *names: str) -> dict[str, int]:
    words = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    return {f"{n}_token_id": tokenizer.convert_tokens_to_ids(words.get(n, f"<|{n}|>")) for n in names}


def _internvl(hidden: int, layers: int) -> tuple[Any, Any, Any, list[str]]:
    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = _tokenizer(_INTERN_TOKENS, end="<|im_end|>", **names)
    side, patch = 56, 14
    config = hf.InternVLConfig(
        text_config=_text(len(tokenizer), hidden, layers) | {"model_type": "qwen2"},
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": [side, side],
            "patch_size": [patch, patch],
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=(side // patch // 2) ** 2,
        tie_word_embeddings=False,
    )
    size = {"height": side, "width": side}
    processor = hf.InternVLProcessor(
        image_processor=hf.GotOcr2ImageProcessor(size=size, crop_to_patches=True, max_patches=4),
        video_processor=hf.InternVLVideoProcessor(size=size),
        tokenizer=tokenizer,
        image_seq_length=config.image_seq_length,
        chat_template=_INTERN_TEMPLATE,
    )
    return config, processor, tokenizer, ["<|im_end|>"]


def _smolvlm(hidden: int, layers: int) -> tuple[Any, Any, Any, list[str]]:
    tokenizer = _tokenizer(_SMOL_TOKENS, end="<end_of_utterance>")
    side, patch, factor = 56, 14, 2
    config = hf.SmolVLMConfig(
        text_config=_text(len(tokenizer), hidden, layers) | {"model_type": "llama"},
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": side,
            "patch_size": patch,
        },
        scale_factor=factor,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    sides = {"size": {"longest_edge": 2 * side}, "max_image_size": {"longest_edge": side}}
    sampling = {"max_frames": 8, "fps": 1, "video_size": {"longest_edge": side}}
    processor = hf.SmolVLMProcessor(
        image_processor=hf.SmolVLMImageProcessor(**sides),
        video_processor=hf.SmolVLMVideoProcessor(**sides, video_sampling=sampling),
        tokenizer=tokenizer,
        image_seq_len=(side // patch // factor) ** 2,
        chat_template=_SMOL_TEMPLATE,
    )
    return config, processor, tokenizer, ["<end_of_utterance>"]


_PARTS = {"qwen2_5_vl": _qwen2_5, "qwen3_vl": _qwen3, "qwen3_5": _qwen3_5, "internvl": _internvl, "smolvlm": _smolvlm}


def parts(family: Family, *, hidden: int = 64, layers: int = 2) -> tuple[Any, Any, Any, list[str]]:
    """Config, processor, tokenizer and ends of a family's checkpoint."""
    return _PARTS[family](hidden, layers)


if __name__ == "__main__":
    for name in FAMILIES:
        print(make(name, Path(sys.argv[1]) / name))
