"""Clips per second of both engines against the same stages in a plain loop, in one run: `python
tests/bench/pipeline.py [--clips N] [--pairs P]`.

Same clips, settings and cores, turn about. For each engine a short run and a long one are measured and subtracted: what
is left is the rate once running, whatever is decoded ahead while the model loads; the short run is the start-up, stated
apart. Beside the clock stands the processor time of all processes (driver, Ray's own, workers, decoders), which tells
the price of Ray on a busy machine too: the plain loop works on one thing at a time, Ray on as many as there are cores.
"""

import argparse
import gc
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from jobs.engine import Executor
from jobs.local_executor import LocalExecutor
from jobs.ray_executor import RayExecutor
from jobs.request import ScoreInputs, ScoreRequest, inputs_of, stages_of
from jobs.resume import Work
from jobs.stages import Sample
from tests.bench.meter import Cost, Meter
from tests.support.demo import demo_clips, linked

SHORT = 8  # clips of the run that stands for the start-up


class PlainLoop:
    """The two stages one after another in this process, batch by batch, loaded before."""

    def __init__(self, inputs: ScoreInputs) -> None:
        self._sampler, self._scorer = stages_of(inputs)
        for stage in (self._sampler, self._scorer):
            stage.setup()

    def __call__(self, work: Sequence[Work]) -> None:
        waiting: list[Any] = []
        for number, item in enumerate(work, start=1):
            waiting += self._sampler.process([item])
            if len(waiting) >= self._scorer.batch_size or number == len(work):
                list(self._scorer.process(waiting))
                waiting.clear()

    def close(self) -> None:
        self._sampler.close()


def through(executor: Executor, work: Sequence[Work]) -> None:
    """A run of the pipeline, without the table on disk."""
    rows = sum(map(len, executor.stream(work)))
    if rows != len(work):
        raise RuntimeError(f"{rows} rows of {len(work)} clips")
    gc.collect()  # the actors end with the stream


def pixels(work: Sequence[Work], inputs: ScoreInputs, rounds: int) -> None:
    """Prints what the views of a clip weigh, and what it takes to send them from stage to stage, as they are and as
    Views unpickled by the first stage (as it was)."""
    sampler, _ = stages_of(inputs)
    sampler.setup()
    samples = [one for one in sampler.process(work) if isinstance(one, Sample)]
    sampler.close()
    seconds = {"bytes": 0.0, "Views": 0.0}
    for name in list(seconds) * rounds:
        started = time.perf_counter()
        for sample in samples:
            sent = sample if name == "bytes" else (sample.row, sample.load())
            arrived = pickle.loads(pickle.dumps(sent, protocol=5))
            if name == "bytes":
                arrived.load()
        seconds[name] += (time.perf_counter() - started) / rounds / len(samples)
    size = sum(len(sample.views) for sample in samples) / len(samples)
    each = ", ".join(f"as {name} {1e3 * value:.2f} ms" for name, value in seconds.items())
    print(f"views of a clip: {size / 2**20:.2f} MiB; from the child's answer to the model's pixels {each}")


def main(count: int, pairs: int) -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        sources = demo_clips(Path(folder) / "demo")
        clips = linked(Path(folder) / "clips", sources, SHORT + count)
        inputs = inputs_of(ScoreRequest(sources=(str(clips),), out=Path(folder) / "out"))
        work = [Work(clip=clip) for clip in inputs.clips]
        pixels(work[: len(sources)], inputs, rounds=20)
        meter = Meter()
        meter.start()
        loop = PlainLoop(inputs)
        loop(work[:1])
        ratios: dict[str, list[Cost]] = {"local": [], "Ray": []}
        print(f"{count} clips, 1280x720, embedded model; clips/s by the clock, processor seconds a clip")
        started = time.perf_counter()
        with LocalExecutor(stages_of(inputs)) as here, RayExecutor(stages_of(inputs)) as ray:
            print(f"Ray itself starts in {time.perf_counter() - started:.1f} s")
            through(here, work[:1])
            for _ in range(pairs):
                plain = meter.cost_of(lambda: loop(work[SHORT:]))
                show("plain loop", plain, count)
                for name, executor in (("local", here), ("Ray", ray)):
                    short = meter.cost_of(partial(through, executor, work[:SHORT]))
                    long = meter.cost_of(partial(through, executor, work))
                    cost = Cost(*(a - b for a, b in zip(long, short, strict=True)))
                    ratios[name].append(Cost(*(a / b for a, b in zip(plain, cost, strict=True))))
                    show(name, cost, count)
                    print(f"{'start-up':<12} {short.clock_seconds:6.1f} s, with the first {SHORT} clips", flush=True)
        loop.close()
        for name, some in ratios.items():
            clock, processor = (statistics.median(values) for values in zip(*some, strict=True))
            print(f"{name} / plain by the clock {clock:.2f} (wanted >= 0.9), by processor time {processor:.2f}")


def show(name: str, cost: Cost, count: int) -> None:
    """Prints one line."""
    rate, price = count / cost.clock_seconds, cost.processor_seconds / count
    print(f"{name:<12} {rate:6.2f} clips/s  {price:6.3f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    main(arguments.clips, arguments.pairs)
