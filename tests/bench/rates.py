"""Three ratios of the pipeline, each with its floor: `python -m tests.bench.rates [--clips N] [--pairs P] [--wide N]`.

Of two decoding workers and a model, against the slower of its two stages alone, and against what the cores could do of
both; decoding by two workers against one; and against a plain script of the kind
that R1 projects publish: decord and transformers' `generate` with K answers, clip after clip, all cores to torch, the
same model, clips, sampling and sizes of pictures; no child process, no batches, no prefill shared, no readout.
All ways run turn about in one process, the model loaded before. Of each a short run and a long one are subtracted, so
that start-up is in none. Beside the clock stands the processor time of all processes, which other work on the machine
changes less. Medians of the pairs. With `--wide N` the model is of the embedded one's kind with N times its widths and
layers and random weights, so that it is the model that takes the time, as with those that people run.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import decord
import numpy as np
import torch
import transformers
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from jobs.local_executor import LocalExecutor
from jobs.request import ScoreInputs, ScoreRequest, inputs_of, stages_of
from jobs.resume import Work
from jobs.stages import Sample, ScoreStage
from tests.bench.meter import Cost, Meter
from tests.bench.pipeline import through
from tests.support.demo import demo_clips, linked
from vqa import machine
from vqa.config import configs_folder, read_yaml
from vqa.model.encode import encode_chat
from vqa.model.load import load_model
from vqa.model.resolve import EMBEDDED
from vqa.prompt import messages

SHORT = 9  # clips of the run that is subtracted: one by itself, which is first, and a whole batch
FLOORS = {"slower stage / pipeline": 0.92, "one decoder / two": 1.8, "plain script / pipeline": 5.0}
Way = Callable[[Sequence[Work]], object]


class PlainScript:
    """decord and `generate`, clip by clip; `at_once`: K answers by one call, else a call for each."""

    def __init__(self, scorer: ScoreStage, *, at_once: bool) -> None:
        self._policy, self._card, self._generation = load_model(scorer.card), scorer.card, scorer.generation
        self._at_once = at_once

    def __call__(self, work: Sequence[Work]) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(machine.cores())
        for item in work:
            self._answer(item.clip.uri.removeprefix("file://"))
        torch.set_num_threads(threads)

    def _answer(self, path: str) -> list[str]:
        views, generation = self._card.views, self._generation
        reader = decord.VideoReader(path)
        frames = reader.get_batch(np.linspace(0, len(reader) - 1, 16).astype(int)).asnumpy()
        side, crop = int(views["global_pixels"]) // 4, int(views["crop_pixels"])
        small = [np.asarray(Image.fromarray(one).resize((side, side))) for one in frames]
        mosaic = np.concatenate([np.concatenate(small[row : row + 4], axis=1) for row in range(0, 16, 4)])
        crops = [one[:crop, :crop] for one in frames[: int(views["local_pictures"])]]
        chat = messages(self._card.prompt, self._card.layout, global_count=1, local_count=len(crops))
        inputs: Any = encode_chat(self._policy.processor, chat, [mosaic, *crops]).to(self._policy.device)
        each = generation.k if self._at_once else 1
        texts: list[str] = []
        generate: Any = self._policy.model.generate  # its types do not hold
        with torch.inference_mode():
            while len(texts) < generation.k:
                told: Any = generate(
                    **inputs,
                    do_sample=True,
                    temperature=generation.temperature,
                    num_return_sequences=each,
                    max_new_tokens=generation.max_new_tokens,
                )
                new = told[:, inputs["input_ids"].shape[1] :]
                texts += self._policy.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        return texts


def decoding(inputs: ScoreInputs, workers: int) -> Way:
    """The first stage alone, by so many workers."""
    stage = replace(stages_of(inputs)[0], workers=workers)
    return lambda work: through(LocalExecutor([stage]), work)


def scoring(scorer: ScoreStage, inputs: ScoreInputs, work: Sequence[Work]) -> Way:
    """The second stage alone, on clips that are decoded."""
    sampler, _ = stages_of(inputs)
    sampler.setup()
    samples = [one for one in sampler.process(work) if isinstance(one, Sample)]
    sampler.close()
    size = scorer.batch_size
    return lambda some: [
        list(scorer.process(samples[at : min(at + size, len(some))])) for at in range(0, len(some), size)
    ]


def widened(times: int, folder: Path) -> str:
    """A card of a model with random weights, like the embedded one but so many times as wide and deep."""
    card = read_yaml(configs_folder() / "models/embedded.yaml")
    config = transformers.AutoConfig.from_pretrained(EMBEDDED)
    text, vision = config.text_config, config.vision_config
    text.layer_types = text.layer_types * times
    for part, names in (
        (text, ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers")),
        (vision, ("hidden_size", "intermediate_size", "num_heads", "depth", "out_hidden_size")),
    ):
        for name in names:
            setattr(part, name, getattr(part, name) * times)
    shutil.copytree(EMBEDDED, folder / "wide", ignore=shutil.ignore_patterns("*.safetensors"))
    torch.manual_seed(0)
    transformers.AutoModelForImageTextToText.from_config(config).save_pretrained(folder / "wide")
    path = folder / "wide.yaml"
    # All cores, as the script has them: a decoder beside such a model has hardly anything to do.
    path.write_text(json.dumps(card | {"source": str(folder / "wide"), "cpu_threads": machine.cores()}))
    return str(path)


def main(count: int, pairs: int, k: int, wide: int) -> None:
    """Prints what each way takes for a clip, and the ratios."""
    with tempfile.TemporaryDirectory() as folder:
        clips = linked(Path(folder) / "clips", demo_clips(Path(folder) / "demo"), SHORT + count)
        model = widened(wide, Path(folder)) if wide > 1 else None
        inputs = inputs_of(ScoreRequest(sources=(str(clips),), out=Path(folder) / "out", k=k, model=model))
        work = [Work(clip=clip) for clip in inputs.clips]
        meter = Meter()
        meter.start()
        sampler, scorer = stages_of(inputs)
        sampler = replace(sampler, workers=2)
        assert isinstance(scorer, ScoreStage)
        scorer.setup()
        found: dict[str, list[Cost]] = {}
        with LocalExecutor([sampler, stages_of(inputs)[1]]) as pipeline:
            ways: dict[str, Way] = {
                "decoding, one worker": decoding(inputs, 1),
                "decoding, two workers": decoding(inputs, 2),
                "scoring": scoring(scorer, inputs, work),
                "pipeline": lambda some: through(pipeline, some),
                "plain script, K answers at once": PlainScript(scorer, at_once=True),
                "plain script, a call for each answer": PlainScript(scorer, at_once=False),
            }
            for way in ways.values():
                way(work[:1])
            which = f"random model, {wide} times the embedded one's sizes" if wide > 1 else "embedded model"
            print(f"{count} clips, 1280x720, {which}, K={k}, {machine.cores()} cores; seconds for a clip")
            for _ in range(pairs):
                for name, way in ways.items():
                    first = 1 if isinstance(way, PlainScript) else SHORT  # a script takes clip after clip
                    short = meter.cost_of(partial(way, work[:first]))
                    long = meter.cost_of(partial(way, work[: first + count]))
                    cost = Cost(*((a - b) / count for a, b in zip(long, short, strict=True)))
                    found.setdefault(name, []).append(cost)
                    print(f"{name:<37}{cost.clock_seconds:.3f} by the clock, {cost.processor_seconds:.3f} of cores",
                          flush=True)  # fmt: skip
        report(found)


def report(found: dict[str, list[Cost]]) -> None:
    """Prints the ratios by the clock with their floors, and by processor time where one tells something."""

    def ratio(above: str, below: str, kind: int) -> float:
        return statistics.median(a[kind] / b[kind] for a, b in zip(found[above], found[below], strict=True))

    clocks = {
        "slower stage / pipeline": max(ratio("decoding, two workers", "pipeline", 0), ratio("scoring", "pipeline", 0)),
        "one decoder / two": ratio("decoding, one worker", "decoding, two workers", 0),
        "plain script / pipeline": ratio("plain script, K answers at once", "pipeline", 0),
    }
    for name, value in clocks.items():
        print(f"{name}: {value:.2f} by the clock (floor {FLOORS[name]})")
    apart = "plain script, a call for each answer"
    print(f"the same with a call for each answer: {ratio(apart, 'pipeline', 0):.2f}")
    both = [a[1] + b[1] for a, b in zip(found["decoding, two workers"], found["scoring"], strict=True)]
    cores = statistics.median(a / machine.cores() / b[0] for a, b in zip(both, found["pipeline"], strict=True))
    print(f"what the cores could do of both stages / pipeline: {cores:.2f}")
    print("by processor time:")
    own = statistics.median(a / b[1] for a, b in zip(both, found["pipeline"], strict=True))
    print(f"both stages / pipeline {own:.2f}")
    print(f"one decoder / two {ratio('decoding, one worker', 'decoding, two workers', 1):.2f}")
    print(f"plain script / pipeline {ratio('plain script, K answers at once', 'pipeline', 1):.2f}, "
          f"a call for each {ratio(apart, 'pipeline', 1):.2f}")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--wide", type=int, default=1)
    arguments = parser.parse_args()
    main(arguments.clips, arguments.pairs, arguments.k, arguments.wide)
