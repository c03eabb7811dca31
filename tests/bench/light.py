"""Cost of the light tier beside the reasoner on the same clip: `python tests/bench/light.py [--rounds N]`.

10 s of 1920x1080 H.264, one process. Seconds and processor seconds, medians over rounds: the look (decode and
views), with every frame at hand and with `snap: keyframes`, the student alone, the embedded model alone. Then what the
student computes, the floor (its operations over the rate of a large matrix product here), and, computed, its share of a
language model with 7e9 parameters that reads PROMPT tokens and writes ANSWER.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from jobs.config import resolve
from vqa import Scorer
from vqa.data.synthetic.demo import CLIPS
from vqa.data.synthetic.encoding import encode_video
from vqa.data.synthetic.sources import read_video
from vqa.light.card import EMBEDDED_STUDENT
from vqa.light.embedding import SIZE
from vqa.light.encoder import EfficientNetLite0
from vqa.light.student import Student
from vqa.types import Clip
from vqa.views import ViewsConfig, look

SECONDS, FPS = 10, 24
PARAMETERS, PROMPT, ANSWER = 7e9, 1500, 300  # of a reasoner; a token costs two operations a parameter


def encoder_operations(wholes: tuple[int, int, int], crops: tuple[int, int, int]) -> float:
    """Of the encoder: two for each product, of so many pictures of a height and width."""
    network, found = EfficientNetLite0(), [0]

    def count(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        found[0] += 2 * output.numel() * module.convolution.weight[0].numel()

    for module in network.modules():
        if hasattr(module, "convolution"):
            module.register_forward_hook(count)
    with torch.inference_mode():
        for number, height, width in (wholes, crops):
            network(torch.zeros(number, 3, height, width))
    return float(found[0])


def matrix_rate() -> float:
    """Operations a second of a matrix product, the best of some."""
    matrix = torch.randn(1024, 1024)
    best = 0.0
    for _ in range(10):
        started = time.process_time()
        matrix @ matrix
        best = max(best, 2 * 1024**3 / (time.process_time() - started))
    return best


def with_threads(count: int, task: Callable[[], object]) -> None:
    """Run it with so many threads of torch, and go back to one."""
    torch.set_num_threads(count)
    task()
    torch.set_num_threads(1)


def main(rounds: int) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        frames = [
            frame.resize((1920, 1080), Image.Resampling.BICUBIC)
            for frame in read_video(CLIPS / "big_buck_bunny.mp4", count=24)
        ]
        encode_video(
            np.stack([np.asarray(frames[k % 24]) for k in range(SECONDS * FPS)]), path, codec="x264", quality=23
        )
        del frames
        clip, student, scorer = Clip(clip_id="clip", uri=str(path)), Student.load(), Scorer.load("embedded")
        torch.set_num_threads(1)
        light = ViewsConfig.model_validate(student.card.views)
        snapped = light.model_copy(update={"snap": "keyframes"})
        reason = resolve().views
        seen, shown = look(clip, light), look(clip, reason)
        tasks: dict[str, Callable[[], object]] = {
            "look, light": lambda: look(clip, light),
            "look, light, snap keyframes": lambda: look(clip, snapped),
            "look, reason": lambda: look(clip, reason),
            "student": lambda: student.score([seen]),
            "student, two threads": lambda: with_threads(2, lambda: student.score([seen])),
            "embedded model": lambda: scorer.try_score([shown]),
        }
        clock, processor = defaultdict(list), defaultdict(list)
        for _ in range(rounds + 1):
            for name, task in tasks.items():
                began = time.perf_counter(), time.process_time()
                task()
                clock[name].append(time.perf_counter() - began[0])
                processor[name].append(time.process_time() - began[1])
        for name in tasks:
            spans = (statistics.median(one[name][1:]) for one in (clock, processor))
            least = min(processor[name][1:])
            print("{:30} {:7.3f} s  processor {:7.3f} s".format(name, *spans), f"(least {least:.3f} s)", flush=True)
        ratio = [a / b for a, b in zip(processor["student"][1:], processor["embedded model"][1:], strict=True)]
        print(f"student / embedded model, processor time: {statistics.median(ratio):.2f} (goal <= 0.3)")
    operations, rate = encoder_operations((2, 168, 299), (4, 192, 192)), matrix_rate()
    print(f"encoder: {operations / 1e9:.2f} G operations a clip; {rate / 1e9:.0f} G/s; floor {operations / rate:.3f} s")
    weights = sum(file.stat().st_size for file in EMBEDDED_STUDENT.iterdir())
    whole = 2 * PARAMETERS * (PROMPT + ANSWER)
    print(f"student: {weights / 1e6:.1f} MB (goal <= 20), embedding of {SIZE}")
    print(
        f"of 7e9 parameters (goal <= 1 %): {operations / whole:.3%} of operations, "
        f"{weights / (2 * PARAMETERS):.3%} of bytes"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    main(parser.parse_args().rounds)
