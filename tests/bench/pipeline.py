"""Clips per second through Ray against the same stages in a plain loop, in one run: `python tests/bench/pipeline.py
[--clips N]`.

Both use the same clips, settings and cores. Ray's start-up (its own processes, the model in a worker) ends with the
first rows and is stated apart; the rate is that of the rows after them. The floor is the slower stage alone: with
two stages on two cores at once no long run can be faster than it. A short one can: looking works ahead while the model
loads. So the ratio takes the lower of rate and floor.
"""

import argparse
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import torch

from jobs.driver import _spread, prepare
from jobs.pipeline import _blocks, ray_session, stream
from jobs.plan import Work
from jobs.record import Job, Request
from jobs.stages import SampleStage, ScoreStage
from vqa.data.demo import make_demo


def plain_loop(job: Job, work: list[Work], batch: int) -> tuple[float, float]:
    """Seconds spent in looking and in scoring, one after another, the stages loaded before."""
    spread = _spread(job, {"CPU": 2.0})
    sampler, scorer = SampleStage(**spread["sample"]), ScoreStage(**spread["score"])
    torch.set_num_threads(1)  # as in a worker
    warm = [sample for block in _blocks(work[:1]) for sample in sampler(block)]
    scorer(pa.concat_tables(warm))
    started = time.perf_counter()
    samples = [sample for block in _blocks(work) for sample in sampler(block)]
    between = time.perf_counter()
    for place in range(0, len(samples), batch):
        scorer(pa.concat_tables(samples[place : place + batch]))
    ended = time.perf_counter()
    sampler.close()
    return between - started, ended - between


def through_ray(job: Job, work: list[Work]) -> tuple[float, float]:
    """(seconds until the first rows, clips per second from there on)."""
    started = time.perf_counter()
    with ray_session(None) as resources:
        first, early, rows = 0.0, 0, 0
        for table in stream(work, **_spread(job, resources)):
            if not first:
                first, early = time.perf_counter(), table.num_rows
            rows += table.num_rows
        ended = time.perf_counter()
    return first - started, (rows - early) / (ended - first)


def main(count: int) -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        sources = [path for path in make_demo(Path(folder) / "demo") if path.stem not in ("cut_off", "not_a_video")]
        clips = Path(folder) / "clips"
        clips.mkdir()
        for number in range(count):
            source = sources[number % len(sources)]
            (clips / f"{number:04d}{source.suffix}").symlink_to(source)
        job = prepare(Request(sources=(str(clips),), out=Path(folder) / "out"))
        work = [Work(clip=clip) for clip in job.listing.clips]
        look, score = plain_loop(job, work, job.config.generation.batch_size)
        start_up, rate = through_ray(job, work)
    plain = count / (look + score)
    print(f"{count} clips, 640x360 and 1280x720, embedded model")
    print(f"plain loop        {plain:6.2f} clips/s  (looking {look:.1f} s, scoring {score:.1f} s)")
    print(f"through Ray       {rate:6.2f} clips/s  once running; start-up {start_up:.1f} s")
    floor = count / max(look, score)
    print(f"floor, two cores  {floor:6.2f} clips/s  (the slower stage alone)")
    print(f"Ray / plain       {min(rate, floor) / plain:6.2f}        wanted >= 0.9")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=90)
    main(parser.parse_args().clips)
