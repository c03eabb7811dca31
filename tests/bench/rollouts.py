"""How much K answers from one prefill save, and what batching does to answers in bfloat16.

    python tests/bench/rollouts.py [--repeats 9] [--k 6] [--new 24] [--hidden 192] [--layers 4]
        [--threads 1] [--device cpu]

A random Qwen2.5-VL (2 M parameters by default) and a prompt of about 1,000 tokens. All ways run in turn, in one
process; the figures are medians. The floor is the same work without choosing tokens: one prefill and then bare steps of
K rows. Random weights leave many near-ties, so a trained model should change fewer answers in bfloat16 than shown here.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.references.make_checkpoints import make
from tests.support.samples import random_views
from vqa.model.card import ModelCard
from vqa.model.encode import encode
from vqa.model.load import Policy, load_model
from vqa.model.rollout import Sampling, prefill, roll_out

WANTED = {"K over 1": ("<=", 2.0), "generate over ours": (">=", 3.0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {
        "repeats": 9,
        "k": 6,
        "new": 24,
        "hidden": 192,
        "layers": 4,
        "clips": 64,
        "threads": 1,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    wish = parser.parse_args()
    torch.set_num_threads(wish.threads)  # more would wait for each other where the machine is shared
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make("qwen2_5_vl", Path(folder), hidden=wish.hidden, layers=wish.layers)
        policies = {
            dtype: load_model(
                ModelCard(source=str(checkpoint), dtype=dtype, device_map=wish.device, max_pixels=392 * 392)
            )
            for dtype in ("float32", "bfloat16")
        }
    speed(policies["float32"], k=wish.k, new=wish.new, repeats=wish.repeats)
    for dtype, policy in policies.items():
        mismatch(policy, dtype, k=wish.k, new=wish.new, clips=wish.clips)


def speed(policy: Policy, *, k: int, new: int, repeats: int) -> None:
    model, words = policy.model, policy.vocabulary
    # Nobody may end early: every way writes exactly `new` tokens.
    words = replace(words, ends=(), banned=tuple(sorted({*words.banned, *words.ends})))
    rng = np.random.default_rng(0)
    views = random_views("bench", [rng.integers(0, 256, (392, 392, 3), dtype=np.uint8)] * 4)
    inputs = encode(policy.processor, views, prompt="preresq_video")
    length, parameters = inputs["input_ids"].shape[1], sum(weight.numel() for weight in model.parameters())
    print(f"{parameters / 1e6:.1f} M parameters, {length} prompt tokens, {new} new, {model.device}, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}")  # fmt: skip

    def ours(count: int, *, sample: bool) -> list[list[int]]:
        seeds = list(range(count)) if sample else None
        answers = roll_out(model, [prefill(model, inputs)], k=count, vocabulary=words, max_new_tokens=new,
                           seeds=seeds, sampling=Sampling())  # fmt: skip
        return [answer.tokens for answer in answers[0]]

    def plain(count: int, *, sample: bool) -> list[list[int]]:
        moved = inputs.to(model.device, dtype=model.dtype)
        with torch.inference_mode():
            # transformers mixes generate in where nn.Module's __getattr__ hides it from mypy
            out = model.generate(  # type: ignore[operator]
                **moved,
                do_sample=sample,
                num_return_sequences=count,
                suppress_tokens=list(words.banned),
                max_new_tokens=new,
                min_new_tokens=new,
            )
        return [row[length:].tolist() for row in out]

    def look() -> None:
        prefill(model, inputs)

    def floor() -> None:
        with torch.inference_mode():
            prompt = prefill(model, inputs)
            cache, positions = prompt.cache, prompt.positions.repeat_interleave(k, dim=-2)
            cache.batch_repeat_interleave(k)
            token = torch.zeros(k, 1, dtype=torch.long, device=model.device)
            for _ in range(new - 1):
                positions = positions + 1
                model(input_ids=token, position_ids=positions, past_key_values=cache, use_cache=True)

    assert ours(1, sample=False) == plain(1, sample=False), "greedy tokens differ from generate"
    ways: dict[str, Callable[[], Any]] = {
        "prefill alone": look,
        "K=1": lambda: ours(1, sample=True),
        f"K={k}": lambda: ours(k, sample=True),
        f"K={k}, floor": floor,
        f"generate, num_return_sequences={k}": lambda: plain(k, sample=True),
        "generate, 1": lambda: plain(1, sample=True),
    }
    seconds = in_turn(ways, repeats=repeats, device=model.device)
    for name, value in seconds.items():
        print(f"  {name:36s} {1000 * value:8.1f} ms")
    one, many, least, library = (seconds[name] for name in list(ways)[1:5])
    for name, ratio in {"K over 1": many / one, "generate over ours": library / many}.items():
        sign, wanted = WANTED[name]
        good = ratio <= wanted if sign == "<=" else ratio >= wanted
        print(f"  {name:36s} {ratio:8.2f} x   wanted {sign} {wanted:g}: {'yes' if good else 'NO'}")
    print(f"  {'K over its floor':36s} {many / least:8.2f} x")


def in_turn(ways: dict[str, Callable[[], Any]], *, repeats: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each way, run in turn so that a slow moment of the machine meets all."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat:  # the first round warms up
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in taken.items()}


def mismatch(policy: Policy, dtype: str, *, k: int, new: int, clips: int) -> None:
    """How many answers change when a clip is answered among seven others instead of alone."""
    model = policy.model
    inputs = [encode(policy.processor, random_views(f"clip {i}", seed=i), prompt="preresq_video") for i in range(clips)]

    def answers(batch: int, *, sample: bool) -> list[list[int]]:
        written: list[list[int]] = []
        for start in range(0, clips, batch):
            prompts = [prefill(model, one) for one in inputs[start : start + batch]]
            seeds = [1000 * clip + rollout for clip in range(start, start + len(prompts)) for rollout in range(k)]
            of_clips = roll_out(model, prompts, k=k, vocabulary=policy.vocabulary, max_new_tokens=new,
                                seeds=seeds if sample else None)  # fmt: skip
            written += [one.tokens for clip in of_clips for one in clip]
        return written

    for sample in (False, True):
        alone, together = answers(1, sample=sample), answers(8, sample=sample)
        changed = sum(a != b for a, b in zip(alone, together, strict=True))
        tokens = sum(len(a) for a in alone)
        rate = f"one token in {tokens / changed:,.0f}" if changed else f"none of {tokens:,} tokens"
        name = "sampled" if sample else "greedy"
        print(f"{dtype}, {name}: {changed} of {len(alone)} answers ({rate}) differ between batches of 1 and 8")


if __name__ == "__main__":
    main()
