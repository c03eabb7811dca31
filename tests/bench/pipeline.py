"""Clips per second through Ray against the same stages in a plain loop, in one run: `python tests/bench/pipeline.py
[--clips N] [--pairs P]`.

Same clips, settings and cores, turn about. Through Ray a short run and a long one are measured and subtracted: what is
left is the rate once running, whatever is looked at ahead while the model loads; the short run is the start-up, stated
apart. Beside the clock stands the processor time of all processes (driver, Ray's own, workers, decoders), which tells
the price of Ray on a busy machine too: the plain loop works on one thing at a time, Ray on as many as there are cores.
"""

import argparse
import contextlib
import gc
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
import pyarrow as pa
import torch

from jobs.ray_executor import _blocks, ray_session, stream
from jobs.resume import Work
from jobs.run_record import Job, Request
from jobs.scoring import _pools, prepare
from vqa.data.synthetic.demo import make_demo

SHORT = 8  # clips of the run that stands for the start-up


class Cost(NamedTuple):
    """What something took, by the clock and by all processes together."""

    clock_seconds: float
    processor_seconds: float


class Meter(threading.Thread):
    """Processor seconds of this process and all it started: looked up twice a second, as one that is gone tells
    nobody."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._seconds: dict[psutil.Process, float] = {}

    def run(self) -> None:
        while True:
            self.read()
            time.sleep(0.5)

    def read(self) -> float:
        """So far."""
        me = psutil.Process()
        for process in {me, *me.children(recursive=True), *self._seconds}:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._seconds[process] = sum(process.cpu_times()[:2])
        return sum(self._seconds.values())

    def cost_of(self, task: Callable[[], object]) -> Cost:
        """Runs it once."""
        clock, processor = time.perf_counter(), self.read()
        task()
        return Cost(time.perf_counter() - clock, self.read() - processor)


class PlainLoop:
    """The two stages one after another in this process, batch by batch, loaded before."""

    def __init__(self, job: Job) -> None:
        self._sampler, self._scorer = (pool.stage(**pool.arguments) for pool in _pools(job, {"CPU": 2.0}))
        self._batch = job.config.generation.batch_size
        torch.set_num_threads(1)  # as in a worker; more get into each other's way with so small a model

    def __call__(self, work: Sequence[Work]) -> None:
        waiting: list[pa.Table] = []
        for number, item in enumerate(work, start=1):
            waiting += [sample for block in _blocks([item]) for sample in self._sampler(block)]
            if len(waiting) >= self._batch or number == len(work):
                self._scorer(pa.concat_tables(waiting))
                waiting.clear()

    def close(self) -> None:
        self._sampler.close()


def through_ray(job: Job, work: Sequence[Work], resources: dict[str, float]) -> None:
    """A run of the pipeline, without the table on disk."""
    rows = sum(table.num_rows for table in stream(work, _pools(job, resources)))
    if rows != len(work):
        raise RuntimeError(f"{rows} rows of {len(work)} clips")
    gc.collect()  # the actors end with the stream


def main(count: int, pairs: int) -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        sources = [path for path in make_demo(Path(folder) / "demo") if path.stem not in ("cut_off", "not_a_video")]
        clips = Path(folder) / "clips"
        clips.mkdir()
        for number in range(SHORT + count):
            source = sources[number % len(sources)]
            (clips / f"{number:04d}{source.suffix}").symlink_to(source)
        job = prepare(Request(sources=(str(clips),), out=Path(folder) / "out"))
        work = [Work(clip=clip) for clip in job.listing.clips]
        meter = Meter()
        meter.start()
        loop = PlainLoop(job)
        loop(work[:1])
        clock_ratios, processor_ratios = [], []
        print(f"{count} clips, 640x360 and 1280x720, embedded model; clips/s by the clock, processor seconds a clip")
        started = time.perf_counter()
        with ray_session(None) as resources:
            print(f"Ray itself starts in {time.perf_counter() - started:.1f} s")
            for _ in range(pairs):
                plain = meter.cost_of(lambda: loop(work[SHORT:]))
                short = meter.cost_of(lambda: through_ray(job, work[:SHORT], resources))
                long = meter.cost_of(lambda: through_ray(job, work, resources))
                ray = Cost(*(a - b for a, b in zip(long, short, strict=True)))
                clock_ratios.append(plain.clock_seconds / ray.clock_seconds)
                processor_ratios.append(plain.processor_seconds / ray.processor_seconds)
                for name, cost in (("plain loop", plain), ("through Ray", ray)):
                    rate, price = count / cost.clock_seconds, cost.processor_seconds / count
                    print(f"{name:<12} {rate:6.2f} clips/s  {price:6.3f} s")
                print(f"{'start-up':<12} {short.clock_seconds:6.1f} s, with the first {SHORT} clips", flush=True)
        loop.close()
        print(f"Ray / plain by the clock       {statistics.median(clock_ratios):6.2f}   wanted >= 0.9")
        print(f"Ray / plain by processor time  {statistics.median(processor_ratios):6.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    main(arguments.clips, arguments.pairs)
