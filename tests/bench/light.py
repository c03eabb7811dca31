"""Cost of the light tier beside the reasoner on the same clips: `python tests/bench/light.py [--rounds N]`.

10 s of H.264, two clips of 1920x1080 and two of 1280x720, one process. Seconds and processor seconds of each, medians
over rounds: the look (decode and views), with every frame at hand and with `snap: keyframes`, the student alone, the
embedded model alone; the light tier over the reasoner, with their looks and without. Then what the student computes,
the floor (its operations over the rate of a large matrix product here), and, computed, its share of a language model
with 7e9 parameters that reads PROMPT tokens and writes ANSWER.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
LOOK_LIGHT, LOOK_REASON, STUDENT, MODEL = "look, light", "look, reason", "student", "embedded model"
Spans = dict[str, list[float]]
PARAMETERS, PROMPT, ANSWER = 7e9, 1500, 300  # of a reasoner; a token costs two operations a parameter


def encoder_operations(wholes: tuple[int, int, int], crops: tuple[int, int, int]) -> float:
    """Of the encoder: two for each product, of so many pictures of a height and width."""
    network, found = EfficientNetLite0(), [0]

    def count(module: Any, _: object, output: torch.Tensor) -> None:
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


def write_clip(path: Path, source: str, height: int) -> Clip:
    """SECONDS of one of the bundled clips at 16:9, a second of it again and again."""
    size = (height * 16 // 9, height)
    frames = [frame.resize(size, Image.Resampling.BICUBIC) for frame in read_video(CLIPS / source, count=FPS)]
    pixels = np.stack([np.asarray(frames[k % len(frames)]) for k in range(SECONDS * FPS)])
    encode_video(pixels, path, codec="x264", quality=23)
    return Clip(clip_id=path.stem, uri=str(path))


def measure(clip: Clip, student: Student, scorer: Scorer, rounds: int) -> Spans:
    """Print a line for each step; processor seconds of each round."""
    light = ViewsConfig.model_validate(student.card.views)
    snapped = light.model_copy(update={"snap": "keyframes"})
    reason = resolve().views
    seen, shown = look(clip, light), look(clip, reason)
    tasks: dict[str, Callable[[], object]] = {
        LOOK_LIGHT: lambda: look(clip, light),
        "look, light, snap keyframes": lambda: look(clip, snapped),
        LOOK_REASON: lambda: look(clip, reason),
        STUDENT: lambda: student.score([seen]),
        "student, two threads": lambda: with_threads(2, lambda: student.score([seen])),
        MODEL: lambda: scorer.try_score([shown]),
    }
    clock, processor = defaultdict(list), defaultdict(list)
    for _ in range(rounds + 1):
        for name, task in tasks.items():
            began = time.perf_counter(), time.process_time()
            task()
            clock[name].append(time.perf_counter() - began[0])
            processor[name].append(time.process_time() - began[1])
    print(clip.clip_id)
    for name in tasks:
        spans = (statistics.median(one[name][1:]) for one in (clock, processor))
        least = min(processor[name][1:])
        print("{:30} {:7.3f} s  processor {:7.3f} s".format(name, *spans), f"(least {least:.3f} s)", flush=True)
    return {name: some[1:] for name, some in processor.items()}


def ratios(spans: Spans) -> tuple[float, float]:
    """Medians over the rounds of light over reason in processor time: models alone, and each with its look."""
    by_round = zip(*(spans[name] for name in (STUDENT, MODEL, LOOK_LIGHT, LOOK_REASON)), strict=True)
    found = [(student / model, (light + student) / (reason + model)) for student, model, light, reason in by_round]
    alone, whole = zip(*found, strict=True)
    return statistics.median(alone), statistics.median(whole)


def main(rounds: int) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        student, scorer = Student.load(), Scorer.load("embedded")
        torch.set_num_threads(1)
        found = []
        for height in (1080, 720):
            for source in ("big_buck_bunny.mp4", "big_buck_bunny_end.mp4"):
                clip = write_clip(Path(folder) / f"{Path(source).stem}-{height}.mp4", source, height)
                found.append(ratios(measure(clip, student, scorer, rounds)))
                print("student / embedded model, processor time: {:.2f}; each with its look: {:.2f}".format(*found[-1]))
        alone, whole = (statistics.median(some) for some in zip(*found, strict=True))
        print(f"median of {len(found)} clips: {alone:.2f} (goal <= 0.3); each with its look: {whole:.2f}")
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
