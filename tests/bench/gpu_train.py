"""What does a step of GRPO take? Random weights of the sizes of Qwen2.5-VL 3B and 7B, against the plan of its memory.

    python tests/bench/gpu_train.py [--sizes 3B 7B] [--minutes 12]      on a GPU: 15 minutes
    python tests/bench/gpu_train.py --tiny                              anywhere: seconds

A step in bfloat16, all weights trained, gradient checkpointing, fused AdamW: rollouts of K answers to each of B clips,
and the update on them, by log-probabilities in tiles. In two ways: a clip's prompt and pictures once (shared), and once
for each answer, as trl does. For each: tokens/s of the rollouts and of the whole step, and the peak of each phase
beside what vqa/train/memory.py plans. Needs torch and transformers alone, no trl: the loss is GRPO's without KL.
What a card cannot hold or no time is left for is said to be left out. With --tiny the update takes far less than
planned: the plan counts tiles of 32,768 words, and its vocabulary is smaller.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.memory import measured
from tests.support.random_models import asked, name_of, policy_of, synchronize
from tests.support.samples import random_views
from vqa.model.encode import encode
from vqa.model.load import Policy
from vqa.model.rollout import Sampling, prefill, roll_out
from vqa.train.grpo.packing import EncodedPrompt, encode_prompt, pack_answers
from vqa.train.hardware import HardwareConfig
from vqa.train.memory import GB, TILE, MemoryPlan, Workload, plan_memory
from vqa.train.modules import model_shape

HARDWARE = HardwareConfig(master_weights=False)  # of a single card: 8 bytes a parameter


def main() -> None:
    """Measure each size in both ways, as long as there is time."""
    found = asked(__doc__, new=256, more=add_options)
    if found is None:
        return
    wish, device = found
    if wish.tiny:
        wish.clips, wish.k = 2, 3
    deadline = time.monotonic() + 60 * wish.minutes
    print(name_of(device))
    for size in wish.sizes:
        measure(size, device, clips=wish.clips, k=wish.k, new=wish.new, deadline=deadline)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that scoring's bench has not."""
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--k", type=int, default=6)


def measure(size: str, device: torch.device, *, clips: int, k: int, new: int, deadline: float) -> None:
    """Print a size's table."""
    policy = policy_of(size, device)
    model = policy.model
    model.requires_grad_(True).train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    generator = np.random.default_rng(0)
    side = 112 if size == "tiny" else 1008
    sides = [side] + [side // 2] * 3
    prompts = []
    for place in range(clips):
        pictures = [generator.integers(0, 256, (one, one, 3), dtype=np.uint8) for one in sides]
        inputs = encode(policy.processor, random_views(str(place), pictures), prompt="preresq_video")
        prompts.append(encode_prompt(model, inputs))
    shape, length, patches = model_shape(model), len(prompts[0].ids), len(prompts[0].inputs["pixel_values"])
    print(
        f"\n{size}: {shape.parameters / 1e9:.3g} G weights, {clips} clips x {k} answers of {new}, prompts of {length}\n"
    )
    print("| way | phase | seconds | tokens/s | peak GB | planned GB | ratio |\n|" + " --- |" * 7)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=device.type == "cuda")
    for name, is_shared in (("shared", True), ("apart", False)):
        if time.monotonic() > deadline:
            print(f"| {name} | no time left | | | | | |")
            continue
        work = Workload(
            prompts=1 if is_shared else k,  # a clip at a time
            answers=k,
            prompt_tokens=length,
            answer_tokens=new,
            patches=patches,
            is_packed=is_shared,
            recompute=True,
            passes=clips,
            rollout_rows=k,
            held_prompts=clips,
        )
        plan = plan_memory(shape, work, HARDWARE, is_gpu=device.type == "cuda")
        for warm in (True, False):  # moments, kernels and caches are there the second time
            try:
                rows = list(step(policy, optimizer, prompts, k=k, new=new, is_shared=is_shared))
            except torch.OutOfMemoryError:
                print(f"| {name} | out of memory; planned {plan.peak / GB:.1f} GB | | | | | |")
                optimizer.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()
                break
            if not warm:
                report(name, rows, plan, tokens=clips * k * new)


Phase = tuple[str, float, float]  # name, seconds, bytes at the peak


def report(name: str, rows: Sequence[Phase], plan: MemoryPlan, *, tokens: int) -> None:
    """Rows of the table, and the whole step."""
    planned = {phase: sum(items.values()) for phase, items in plan.phases.items()}
    planned["update"] = max(planned["forward"], planned["backward"])
    for phase, seconds, peak in rows:
        cells = f"{seconds:.3g} | {tokens / seconds:.0f} | {peak / GB:.3g} | {planned[phase] / GB:.3g}"
        print(f"| {name} | {phase} | {cells} | {peak / planned[phase]:.2f} |", flush=True)
    whole = sum(seconds for _, seconds, _ in rows)
    print(f"| {name} | whole step | {whole:.3g} | {tokens / whole:.0f} | | | |", flush=True)


def step(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    prompts: Sequence[EncodedPrompt],
    *,
    k: int,
    new: int,
    is_shared: bool,
) -> Iterator[Phase]:
    """Phases of one step: its rollouts, the forward and backward passes, the optimiser's step."""
    model, device, answers = policy.model, policy.model.device, list[list[Tensor]]()

    def rollouts() -> None:
        model.eval()
        for place, prompt in enumerate(prompts):
            begun = [prefill(model, prompt.inputs) for _ in range(1 if is_shared else k)]
            written = roll_out(
                model,
                begun,
                k=k if is_shared else 1,
                vocabulary=policy.vocabulary,
                max_new_tokens=new,
                seeds=range(place * k, place * k + k),
                sampling=Sampling(),
            )
            answers.append([torch.tensor(one.tokens, device=device) for group in written for one in group])
        model.train()

    def update() -> None:
        advantages = torch.linspace(-1, 1, k, device=device)
        for prompt, group in zip(prompts, answers, strict=True):
            packed = [prompt] if is_shared else [prompt] * k
            inputs, labels = pack_answers(packed, [group] if is_shared else [[one] for one in group], dtype=model.dtype)
            hidden = model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
            scored = labels[:, 1:] != -100
            logps = log_probabilities(hidden[scored], model.lm_head.weight, labels[:, 1:][scored])
            ratio = torch.exp(logps - logps.detach())
            (-(ratio * advantages.repeat_interleave(new)).mean() / len(prompts)).backward()

    def update_weights() -> None:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def held() -> int:
        kept: list[Tensor] = list(model.parameters())
        kept += [one.grad for one in kept if one.grad is not None]
        kept += [value for own in optimizer.state.values() for value in own.values() if isinstance(value, Tensor)]
        return sum(one.nbytes for one in kept)

    for name, work in (("rollouts", rollouts), ("update", update), ("step", update_weights)):
        with timed(work, device, held) as row:
            yield name, *row


@contextmanager
def timed(work: Callable[[], None], device: torch.device, held: Callable[[], int]) -> Iterator[tuple[float, float]]:
    """Seconds of a phase, and the most bytes that torch held in it; on a CPU by the profiler, whose time counts too."""
    before = torch.cuda.memory_allocated() if device.type == "cuda" else held()
    synchronize(device)
    started = time.perf_counter()
    with measured() as peak:
        work()
        synchronize(device)
    seconds = time.perf_counter() - started
    yield seconds, peak.bytes + before


def log_probabilities(hidden: Tensor, head: Tensor, tokens: Tensor) -> Tensor:
    """Of these tokens [N] by hidden states [N, width], in tiles of TILE[0] tokens that the backward pass makes anew."""

    def tile(rows: Tensor, words: Tensor) -> Tensor:
        logits = (rows @ head.T).float()
        return logits.gather(1, words[:, None])[:, 0] - logits.logsumexp(dim=1)

    size = max(1, TILE[0] * TILE[1] // (5 * head.shape[0]))  # trl's tile in bytes: its kernel keeps no float32 copies
    parts: list[Any] = [
        checkpoint(tile, hidden[start : start + size], tokens[start : start + size], use_reentrant=False)
        for start in range(0, len(tokens), size)
    ]
    return torch.cat(parts)


if __name__ == "__main__":
    main()
