"""How close does scoring come to what the card can do? Random weights of the sizes of Qwen2.5-VL 3B and 7B.

    python tests/bench/gpu_score.py [--sizes 3B 7B] [--minutes 12] [--vllm]      on a GPU: 15 minutes
    python tests/bench/gpu_score.py --tiny                                       anywhere: seconds

First the ceilings, measured on the same device: a large matrix product (FLOP/s) and a large copy (bytes/s). Then, for
each size: the prefill of a prompt in tokens/s and as a share of the product's FLOP/s (two for each weight and token);
decode steps of 8, 48 and 192 rows in tokens/s and as a share of the copy's bytes/s (all weights once for each step);
clips/s of the whole engine with 1, 8 and 32 clips at once, with K=1 and K=6, with as many as the memory measured has
room for, with compiled steps, with `--deterministic`, and with a prefill for each of the K=6 answers; seconds of a
batch of 8 with one token each, its inputs copied beside the GPU's work and, as a stream of its own would not do, in its
way. `--vllm` asks vLLM for the same clips. What no time is left for is said to be left out.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.random_models import asked, name_of, policy_of, synchronize
from tests.support.samples import random_views
from vqa.model.card import GenerationConfig, ModelCard
from vqa.model.encode import encode
from vqa.model.engines.config import EngineConfig
from vqa.model.engines.protocol import Answered, ModelEngine, Question
from vqa.model.engines.transformers import TransformersEngine
from vqa.model.engines.vllm import VllmEngine
from vqa.model.load import Policy
from vqa.model.rollout import prefill, roll_out


def main() -> None:
    """Measure each size, as long as there is time."""
    found = asked(__doc__, new=128, more=lambda parser: parser.add_argument("--vllm", action="store_true"))
    if found is None:
        return
    wish, device = found
    deadline = time.monotonic() + 60 * wish.minutes
    flops, bytes_ = ceilings(device, side=512 if wish.tiny else 8192)
    print(f"{name_of(device)}: product {flops / 1e12:.3g} TFLOP/s, copy {bytes_ / 1e9:.4g} GB/s")
    for size in wish.sizes:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) if wish.vllm else None
            measure(size, device, flops, bytes_, deadline, new=wish.new, folder=place)


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
    table("transformers, compiled", policy, views[:8], 6, deadline, new=new, batch_size=8, compiled=True)
    table("transformers, deterministic", policy, views[:8], 6, deadline, new=new, deterministic=True)
    table("transformers, a prefill for each answer", policy, views[:8], 6, deadline, new=new, batch_size=8, apart=True)
    copies(policy, views, deadline)
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
    name: str,
    policy: Policy,
    views: list[Any],
    k: int,
    deadline: float,
    *,
    new: int,
    apart: bool = False,
    compiled: bool = False,
    **more: Any,
) -> None:
    """A row of the table, unless the time is up."""
    if time.monotonic() > deadline:
        print(f"| {name} | {k} | {more.get('batch_size', 1)} | no time left |")
        return
    more = {"token_budget": 2**30} | more
    generation = GenerationConfig(generation="sample", k=k, max_new_tokens=new, **more)
    engine = TransformersEngine(policy, card=ModelCard(source="random"), generation=generation, compiled=compiled)
    row(name, engine, views, k, 1 if generation.deterministic else generation.batch_size, apart=apart)


def copies(policy: Policy, views: list[Any], deadline: float, *, batch: int = 8) -> None:
    """Seconds of a batch of short answers, with inputs copied on a stream of their own and on that of the model."""
    if policy.device.type != "cuda" or time.monotonic() > deadline:
        print("\ncopies beside the work: not measured, as no GPU is here or no time is left")
        return
    generation = GenerationConfig(max_new_tokens=1, batch_size=batch, token_budget=2**30)
    engine = TransformersEngine(policy, card=ModelCard(source="random"), generation=generation)
    questions = [Question(name=one.clip.clip_id, views=one, words=None, k=1) for one in views]
    sender, took = engine._sender, {}
    for name, way in (("in the way of", None), ("beside", sender)):
        engine._sender = way
        took[name] = seconds(lambda: engine.ask(questions), policy.device) * batch / len(views)
    words = ", ".join(f"{1e3 * one:.4g} ms {name} the work" for name, one in took.items())
    print(f"\ninputs of a batch of {batch} copied: {words}")


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
