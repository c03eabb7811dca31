"""Milliseconds of one reward call, B = 64 clips x K = 12 answers, for each preset: `python tests/bench/rewards.py`.

With every part of the context given, so that no term is skipped. The median and the best of 50 calls; wanted < 5 ms.
"""

import statistics
import time

import numpy as np

from vqa.prompt import PROMPTS
from vqa.rewards import REWARD_PRESETS, compute


def main() -> None:
    """Print one line a preset."""
    generator = np.random.default_rng(0)
    for preset in REWARD_PRESETS:
        numbers = PROMPTS[preset].dimensions if preset in PROMPTS else 1
        values = generator.uniform(1, 5, (64, 12, numbers)).round(2)
        values[generator.random((64, 12)) < 0.05] = np.nan
        chances = generator.random((64, 12))
        context = {
            "perturbed": values[:, :6],
            "tokens": generator.integers(200, 600, (64, 12)),
            "texts": [["<think>sharp, no noise</think><answer>\n3.21\n</answer>"] * 12] * 64,
            "think": chances,
            "no_think": chances[::-1],
            "reason_scores": values.mean(axis=2),
        }
        opinions = generator.uniform(1, 5, 64)
        times = []
        for _ in range(50):
            started = time.perf_counter()
            compute(preset, values, opinions, ["one"] * 64, **context)
            times.append((time.perf_counter() - started) * 1e3)
        print(f"{preset:18s} median {statistics.median(times):5.2f} ms   best {min(times):5.2f} ms")


if __name__ == "__main__":
    main()
