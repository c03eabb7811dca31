"""Do three engines give the same clip the same answer, and what does `--deterministic` cost?

    python tests/bench/engines.py [--clips 64] [--vllm PYTHON]

Spans of the bundled clips, with the pictures that the embedded model's card asks for, answered greedily by
transformers in float32 and bfloat16, in batches of 8 and of 1 and deterministically; by `transformers serve` on
loopback, in float32 and as the weights are stored; and, with a Python in whose environment vLLM is installed, by vLLM
in a process and by `vllm serve`. The table counts answers that differ, letter by letter, from those of transformers in
float32 in batches of 8.
"""

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.meter import Meter
from tests.support.served import running
from vqa.config import build
from vqa.errors import ClipError
from vqa.model.card import find_card
from vqa.model.engines.config import EngineConfig
from vqa.model.resolve import EMBEDDED
from vqa.model.scorer import Scorer
from vqa.types import Clip, Score, Views
from vqa.views import ViewsConfig, look

CLIPS = sorted((EMBEDDED.parent / "clips").glob("*.mp4"))
HERE: dict[str, dict[str, Any]] = {
    "transformers, float32, batches of 8": {},
    "transformers, float32, batches of 1": {"batch_size": 1},
    "transformers, bfloat16, batches of 8": {"dtype": "bfloat16"},
    "transformers, bfloat16, batches of 1": {"dtype": "bfloat16", "batch_size": 1},
    "transformers, float32, deterministic": {"deterministic": True},
    "transformers, bfloat16, deterministic": {"dtype": "bfloat16", "deterministic": True},
}
ONE_CORE = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "0"}  # as transformers has here
Answers = dict[str, Any]  # texts, scores, expected scores, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--vllm", metavar="PYTHON", help="of an environment with vLLM")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep each engine's answers here, and use those kept")
    parser.add_argument("--in-vllm", nargs=2, metavar=("VIEWS", "ANSWERS"), help=argparse.SUPPRESS)
    parser.add_argument("--deterministic", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--parts", type=int, default=1, help=argparse.SUPPRESS)
    wish = parser.parse_args()
    if wish.in_vllm:
        in_vllm(*map(Path, wish.in_vllm), deterministic=wish.deterministic, parts=wish.parts)
        return
    with tempfile.TemporaryDirectory() as place:
        kept = Kept(wish.keep or Path(place), list(spans(wish.clips)))
        for name, more in HERE.items():
            kept.make(name, partial(answers, kept.views, **more))
        serve = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(EMBEDDED), "--device", "cpu"]
        for dtype in ("float32", "auto"):  # auto: float16, as the weights are stored
            command = [*serve, "--dtype", dtype]
            kept.make(f"transformers serve, {dtype}", partial(served, kept.views, command, Path(place) / "log"))
        if wish.vllm:
            ways = {"": [], ", deterministic": ["--deterministic"], ", tensor_parallel 2": ["--parts", "2"]}
            for name, flags in ways.items():
                kept.make(f"vllm, float32{name}", partial(start_vllm, kept.views, wish.vllm, Path(place), *flags))
            serve = [wish.vllm, "-m", "vllm.entrypoints.openai.api_server", "--model", str(EMBEDDED)]
            serve += ["--dtype", "float32", "--max-model-len", "4096", "--enforce-eager"]
            serve += ["--limit-mm-per-prompt", '{"image": 20, "video": 0}']
            kept.make("vllm serve", partial(served, kept.views, serve, Path(place) / "log"))
        report(kept.found, next(iter(HERE)))


class Kept:
    """Views, and answers of engines in files."""

    def __init__(self, folder: Path, views: list[Views]) -> None:
        self.folder, self.views = folder, views
        self.found: dict[str, Answers] = {}

    def make(self, name: str, ask: Callable[[], Answers]) -> None:
        path = self.folder / f"{name} {len(self.views)}.json"
        if not path.exists():
            path.write_text(json.dumps(ask()))
        self.found[name] = json.loads(path.read_text())


def start_vllm(views: list[Views], python: str, folder: Path, *more: str) -> Answers:
    (folder / "views").write_bytes(pickle.dumps(views))
    own = [python, __file__, "--in-vllm", str(folder / "views"), str(folder / "answers"), *more]
    cores = ONE_CORE | ({"VLLM_CPU_OMP_THREADS_BIND": "0|1"} if "--parts" in more else {})  # a core for each part
    subprocess.run(own, check=True, env=os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1"} | cores)
    return dict(json.loads((folder / "answers").read_text()))


def in_vllm(views: Path, out: Path, *, deterministic: bool, parts: int) -> None:
    """The answers of vLLM itself, in its own environment."""
    seen = pickle.loads(views.read_bytes())
    engine = EngineConfig(name="vllm", max_model_len=4096, compile=False, tensor_parallel=parts)
    out.write_text(json.dumps(answers(seen, engine=engine, deterministic=deterministic)))


def spans(count: int) -> Iterator[Views]:
    """Views of half seconds of the bundled clips."""
    settings = build(ViewsConfig, find_card("embedded")["views"], where="the card")
    for place in range(count):
        path, start = CLIPS[place % len(CLIPS)], 0.02 * (place // len(CLIPS))
        clip = Clip(clip_id=f"{path.name}#{place}", uri=str(path), start_seconds=start, end_seconds=start + 0.5)
        yield look(clip, settings, seed=place)


def served(views: list[Views], command: list[str], log: Path) -> Answers:
    with running(command, log, ONE_CORE) as url:
        engine = EngineConfig(name="endpoint", endpoints=(url,), served_model=str(EMBEDDED), concurrency=8)
        return answers(views, engine=engine)


def answers(views: Sequence[Views], **more: Any) -> Answers:
    """Greedy answers, and the seconds after a first batch: by the clock, and of all processes."""
    meter = Meter()
    meter.start()
    scorer = Scorer.load("embedded", k=1, readout="expected", cpu_threads=1, **more)
    scorer.try_score(views[:8])
    scores: list[Score | ClipError] = []
    cost = meter.cost_of(lambda: scores.extend(scorer.try_score(views)))
    scorer.close()
    failed = [str(one) for one in scores if not isinstance(one, Score)]
    if failed:
        raise SystemExit(failed[0])
    good = [one for one in scores if isinstance(one, Score)]
    written = [one.answers[0].values for one in good]
    return {
        "texts": [one.answers[0].text for one in good],
        "written": [None if values is None else sum(values) / len(values) for values in written],
        "scores": [one.score for one in good],
        "readouts": sorted({str(one.readout) for one in good}),
        "seconds": cost.clock_seconds,
        "cpu": cost.processor_seconds,
    }


def report(found: dict[str, Answers], reference: str) -> None:
    base = found[reference]
    count = len(base["texts"])
    print(f"{count} clips, greedy\n")
    heads = ("engine", "answers that differ", "written scores that differ, by at most", "readout",
             "expected scores differ by, mean and most", "clips/s", "processor seconds a clip")  # fmt: skip
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for name, one in found.items():
        texts = sum(a != b for a, b in zip(one["texts"], base["texts"], strict=True))
        gaps = [abs(a - b) for a, b in zip(one["written"], base["written"], strict=True) if None not in (a, b)]
        off = [abs(a - b) for a, b in zip(one["scores"], base["scores"], strict=True) if None not in (a, b)]
        expected = f"{sum(off) / len(off):.4f}, {max(off):.4f}" if one["readouts"] == ["expected"] else "-"
        print(f"| {name} | {texts} | {sum(gap > 0 for gap in gaps)}, {max(gaps):.2f} | {', '.join(one['readouts'])} | "
              f"{expected} | {count / one['seconds']:.2f} | {one['cpu'] / count:.2f} |")  # fmt: skip


if __name__ == "__main__":
    main()
