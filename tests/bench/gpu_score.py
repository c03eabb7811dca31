"""How close does scoring come to what the card can do? Random weights of the sizes of Qwen2.5-VL 3B and 7B.

    python tests/bench/gpu_score.py [--sizes 3B 7B] [--minutes 12] [--vllm]      on a GPU: 15 minutes
    python tests/bench/gpu_score.py --tiny                                       anywhere: seconds

First the ceilings, measured on the same device: a large matrix product (FLOP/s) and a large copy (bytes/s). Then, for
each size: the prefill of a prompt in tokens/s and as a share of the product's FLOP/s (two for each weight and token);
decode steps of 8, 48 and 192 rows in tokens/s and as a share of the copy's bytes/s (all weights once for each step);
clips/s of the whole engine with 1, 8 and 32 clips at once, with K=1 and K=6, with as many as the memory measured has
room for, with `--deterministic`, and with a prefill for each of the K=6 answers. `--vllm`
asks vLLM for the same clips. What no time is left for is said to be left out.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.references.make_checkpoints import parts
from tests.support.samples import random_views
from vqa.model.card import GenerationConfig, ModelCard
from vqa.model.encode import encode
from vqa.model.engines.config import EngineConfig
from vqa.model.engines.protocol import Answered, ModelEngine, Question
from vqa.model.engines.transformers import TransformersEngine
from vqa.model.engines.vllm import VllmEngine
from vqa.model.load import Policy
from vqa.model.resolve import Location
from vqa.model.rollout import prefill, roll_out
from vqa.model.vocabulary import Vocabulary

SIZES: dict[str, dict[str, Any]] = {  # text towers of Qwen2.5-VL (config.json of the published checkpoints)
    "3B": {"hidden": 2048, "layers": 36, "heads": 16, "kv_heads": 2, "intermediate": 11008, "tied": True},
    "7B": {"hidden": 3584, "layers": 28, "heads": 28, "kv_heads": 4, "intermediate": 18944, "tied": False},
    "tiny": {"hidden": 64, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate": 128, "tied": True},
}
VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
WORDS = 151_936


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["3B", "7B"])
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--new", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--vllm", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    wish = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not wish.tiny:
        print("no GPU here: nothing measured; --tiny runs anywhere")
        return
    if wish.tiny:
        torch.set_num_threads(1)  # more would wait for each other
    deadline = time.monotonic() + 60 * wish.minutes
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    flops, bytes_ = ceilings(device, side=512 if wish.tiny else 8192)
    print(
        f"{name}, torch {torch.__version__}, bfloat16: product {flops / 1e12:.3g} TFLOP/s, copy {bytes_ / 1e9:.4g} GB/s"
    )
    for size in ["tiny"] if wish.tiny else wish.sizes:
        with tempfile.TemporaryDirectory() as folder:
            measure(size, device, flops, bytes_, deadline, new=16 if wish.tiny else wish.new,
                    folder=Path(folder) if wish.vllm else None)  # fmt: skip


def ceilings(device: torch.device, *, side: int) -> tuple[float, float]:
    """FLOP/s of a square product and bytes/s, read and written, of a copy."""
    a = torch.randn(side, side, device=device).bfloat16()
    product = seconds(lambda: a @ a, device)
    big = torch.empty(side * side * 4, dtype=torch.bfloat16, device=device)
    other = torch.empty_like(big)
    copy = seconds(lambda: other.copy_(big), device)
    return 2 * side**3 / product, 2 * big.nbytes / copy


def seconds(work: Callable[[], object], device: torch.device, *, repeats: int = 5) -> float:
    """Of one run: the median of a few, after one to warm up."""
    times = []
    for _ in range(repeats + 1):
        synchronize(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:]))


def synchronize(device: torch.device) -> None:
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


def measure(
    size: str, device: torch.device, flops: float, bytes_: float, deadline: float, *, new: int, folder: Path | None
) -> None:
    policy = policy_of(size, device)
    model = policy.model
    weights = sum(one.numel() for one in model.parameters())
    rng = np.random.default_rng(0)
    side = 56 if size == "tiny" else 448
    sides = [(side, side)] + [(side // 2, side // 2)] * 3 + [(side, side)] * 2
    pictures = [rng.integers(0, 256, (*one, 3), dtype=np.uint8) for one in sides]
    views = [random_views(f"{place}", pictures) for place in range(32)]
    inputs = encode(policy.processor, views[0], prompt="preresq_video")
    length = inputs["input_ids"].shape[1]
    print(f"\n{size}: {weights / 1e9:.3g} G weights, prompt of {length} tokens, answers of {new}, {policy.device}\n")
    took = seconds(lambda: prefill(model, inputs), device)
    print(f"prefill: {length / took:.0f} tokens/s, {2 * weights * length / took / flops:.0%} of the product's FLOP/s")
    for rows in (8, 48, 192):

        def steps(count: int, rows: int = rows) -> float:
            prompt = prefill(model, inputs)
            synchronize(device)
            started = time.perf_counter()
            roll_out(model, [prompt], k=rows, vocabulary=policy.vocabulary, max_new_tokens=count)
            synchronize(device)
            return time.perf_counter() - started

        steps(2)
        step = (steps(new) - steps(2)) / (new - 2)
        print(
            f"decode, {rows} rows: {rows / step:.0f} tokens/s, {2 * weights / step / bytes_:.0%} of the copy's bytes/s"
        )
    print("\n| engine | K | clips at once | clips/s |\n| --- | --- | --- | --- |")
    for k in (1, 6):
        for batch in (1, 8) if size == "tiny" else (1, 8, 32):
            clips = views[: max(8, batch)]
            table("transformers", policy, clips, k, deadline, new=new, batch_size=batch)
    most = 8 if size == "tiny" else 32
    table("transformers, room measured", policy, views, 6, deadline, new=new, batch_size=most, token_budget=None)
    table("transformers, deterministic", policy, views[:8], 6, deadline, new=new, deterministic=True)
    table("transformers, a prefill for each answer", policy, views[:8], 6, deadline, new=new, batch_size=8, apart=True)
    if folder:
        model.save_pretrained(folder)
        policy.processor.save_pretrained(folder)
        del policy, model
        torch.cuda.empty_cache()
        card = ModelCard(source=str(folder), dtype="bfloat16")
        generation = GenerationConfig(generation="sample", k=6, max_new_tokens=new)
        engine = VllmEngine(EngineConfig(name="vllm", max_model_len=4096), card=card, generation=generation)
        row("vllm (answers may end early)", engine, views, 6, 32)


def table(
    name: str, policy: Policy, views: list[Any], k: int, deadline: float, *, new: int, apart: bool = False, **more: Any
) -> None:
    """A row of the table, unless the time is up."""
    if time.monotonic() > deadline:
        print(f"| {name} | {k} | {more.get('batch_size', 1)} | no time left |")
        return
    more = {"token_budget": 2**30} | more
    generation = GenerationConfig(generation="sample", k=k, max_new_tokens=new, **more)
    engine = TransformersEngine(policy, card=ModelCard(source="random"), generation=generation)
    row(name, engine, views, k, 1 if generation.deterministic else generation.batch_size, apart=apart)


def row(name: str, engine: ModelEngine, views: list[Any], k: int, batch: int, *, apart: bool = False) -> None:
    each, copies = (1, k) if apart else (k, 1)
    questions = [Question(name=one.clip.clip_id, views=one, words=None, k=each) for one in views for _ in range(copies)]
    engine.ask(questions[:2])
    started = time.perf_counter()
    answered = engine.ask(questions)
    took = time.perf_counter() - started
    failed = [str(one) for one in answered if not isinstance(one, Answered)]
    print(f"| {name} | {k} | {batch} | {failed[0] if failed else f'{len(views) / took:.3g}'} |", flush=True)


if __name__ == "__main__":
    main()
