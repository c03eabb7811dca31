"""Seconds from command to table for one bundled clip, and where they go: `python tests/bench/startup.py [--runs N]`.

First the parts, each run in a fresh process: imports, load, look (decoding in the guarded child), prefill, generate,
write. Imports and load are the floor: no engine can be faster. Then whole commands, turn about: `vqa score` by either
engine, `vqa show`, `vqa export`, `vqa --help`. Medians; beside the clock stands the processor time of a process and its
children, which tells more than the clock on a busy machine.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CLIP = Path(__file__).parents[2] / "vqa" / "assets" / "clips" / "big_buck_bunny.mp4"
FLOOR = ("import torch", "import transformers", "load")
PARTS = (*FLOOR, "look", "prefill", "generate", "write")

Cost = tuple[float, float]  # seconds by the clock, seconds of processor


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5, help="runs of each, after one that is not counted")
    parser.add_argument("--parts", action="store_true", help="only the parts, in this process, as JSON")
    arguments = parser.parse_args()
    if arguments.parts:
        print(json.dumps(parts()))
        return
    costs: dict[str, list[Cost]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.runs + 1):
            for name, cost in _one_run(Path(folder)):
                if number:
                    costs.setdefault(name, []).append(cost)
    medians = {name: _median(found) for name, found in costs.items()}
    floor = tuple(sum(medians[name][i] for name in FLOOR) for i in (0, 1))
    rows = [(name, medians[name]) for name in PARTS]
    rows.insert(len(FLOOR), ("floor: imports and load", (floor[0], floor[1])))
    rows += [item for item in medians.items() if item[0] not in PARTS]
    print(f"median of {arguments.runs}, {len(os.sched_getaffinity(0))} cores, Python {sys.version.split()[0]}")
    print(f"{'':28} {'clock':>7} {'cpu':>7} {'of floor':>9}")
    for name, (clock, processor) in rows:
        print(f"{name:28} {clock:7.2f} {processor:7.2f} {clock / floor[0]:9.2f}")


def _one_run(folder: Path) -> Iterator[tuple[str, Cost]]:
    done = subprocess.run([sys.executable, __file__, "--parts"], capture_output=True, text=True, check=True)
    yield from ((name, tuple(cost)) for name, cost in json.loads(done.stdout.splitlines()[-1]).items())
    for engine in ("local", "ray"):
        out = folder / engine
        shutil.rmtree(out, ignore_errors=True)
        yield _command("score", CLIP, "--out", out, "--engine", engine, named=f"vqa score --engine {engine}")
    yield _command("show", folder / "local", named="vqa show")
    yield _command("export", folder / "local", "--csv", "-", named="vqa export")
    yield _command("--help", named="vqa --help")


def _command(*arguments: object, named: str) -> tuple[str, Cost]:
    program = [sys.executable, "-m", "vqa.cli", *map(str, arguments)]
    before, began = _children(), time.perf_counter()
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{named} ended with {done.returncode}: {done.stderr}")
    return named, (time.perf_counter() - began, _children() - before)


def _children() -> float:
    """Processor seconds of all children that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _median(costs: Sequence[Cost]) -> Cost:
    return statistics.median(cost[0] for cost in costs), statistics.median(cost[1] for cost in costs)


def parts() -> dict[str, Cost]:
    """The parts of scoring one clip, in this process, which must be fresh."""
    costs: dict[str, Cost] = {}

    @contextmanager
    def part(name: str) -> Iterator[None]:
        clock, processor = time.perf_counter(), time.process_time()
        yield
        costs[name] = (time.perf_counter() - clock, time.process_time() - processor)

    from vqa.imports import uncollected

    with uncollected():
        with part("import torch"):
            import torch  # noqa: F401
        with part("import transformers"):  # and ours; its models are imported while one is loaded
            from vqa.config import build
            from vqa.media.sandbox import Guard
            from vqa.media.storage.fingerprint import fingerprint
            from vqa.model.card import settle
            from vqa.model.engines import transformers as module
            from vqa.model.engines.config import EngineConfig, start
            from vqa.model.scorer import Scorer
            from vqa.types import Clip, Views
            from vqa.views import ViewsConfig, look, view_seed
    with part("load"):  # as a job's worker does
        card, generation = settle("embedded", {})
        engine = start(EngineConfig(), card, generation, alone=True)
        scorer = Scorer(engine, card=card, generation=generation)
    with part("look"), Guard(deadline_seconds=120.0, memory_bytes=4 * 2**30, preload=["vqa.views"]) as guard:
        clip = Clip(clip_id=CLIP.name, uri=str(CLIP))
        config = build(ViewsConfig, scorer.card.views, where="embedded")
        views: Views = guard.run(look, clip, config, seed=view_seed(guard.run(fingerprint, clip.uri), clip))

    # timed where the engine looks them up: it imports both, and exports neither
    prefill, roll_out = module.prefill, module.roll_out  # type: ignore[attr-defined]

    def timed_prefill(*arguments: Any) -> Any:
        with part("prefill"):
            return prefill(*arguments)

    def timed_roll_out(*arguments: Any, **options: Any) -> Any:
        with part("generate"):
            return roll_out(*arguments, **options)

    module.prefill, module.roll_out = timed_prefill, timed_roll_out  # type: ignore[attr-defined, assignment]
    (score,) = scorer.score([views])
    with part("write"), tempfile.TemporaryDirectory() as folder:
        from vqa.data.score_table import ScoreRow, ScoreTable
        from vqa.imports import arrow_without_pandas

        arrow_without_pandas()
        table = ScoreTable(Path(folder))
        table.add([ScoreRow(clip_id=clip.clip_id, uri=clip.uri, status="ok", score=score.score, run_key="0")])
        table.flush()
    return costs


if __name__ == "__main__":
    main()
