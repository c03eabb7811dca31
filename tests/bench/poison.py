"""What clips cost that kill who works on them: a run with some of them against the same run without, turn about.

    python -m tests.bench.poison --clips 2000 --engine local

`decoder`: the process that decodes one dies, each time; `scorer`: the model process. Without `--model` the
embedded model is replaced by a digest of the pixels. From the processor time of all processes follows what one such
clip costs, and what of the throughput one in a thousand takes.
"""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support import clips, failing
from vqa.data.score_table import read_scores

FILES = 6
PR_SET_CHILD_SUBREAPER = 36  # of Linux: processes whose parent is gone come to this one
LOOK_SECONDS = 0.1  # between two looks at the processes: what one works after the last look at it is not counted


def main() -> None:
    """Prints a line for each run, then what a clip of each kind costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--every", type=int, default=1000, help="one in so many is poison")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    parser.add_argument("--model", action="store_true", help="the embedded model scores")
    given = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for n in range(FILES):
            clips.write_video(folder / f"{n}.mp4", frames=50, seed=n)
        lines = "".join(f"{n % FILES}.mp4,clip{n}\n" for n in range(given.clips))
        (folder / "list.csv").write_text("path,clip_id\n" + lines)
        (folder / "short.csv").write_text(f"path,clip_id\n0.mp4,clip{given.clips}\n")
        poison = [f"clip{n}" for n in range(given.every // 2, given.clips, given.every)]
        kinds = {"short": {}, "none": {}, "decoder": {"poison": poison}, "scorer": {"poison_scorer": poison}}
        used: dict[str, list[float]] = {kind: [] for kind in kinds}
        print(f"{given.clips} clips, {len(poison)} of them poison, --engine {given.engine}")
        for turn in range(given.repeat):
            for kind, faults in kinds.items():
                out = folder / f"{kind}{turn}"
                listed = folder / ("short.csv" if kind == "short" else "list.csv")
                faulty = failing.environment(folder / "marks", model=given.model, **faults)
                used[kind].append(run(listed, out, given.engine, faulty))
                facts = json.loads((out / "run.json").read_text(encoding="utf-8"))
                lost = read_scores(out, ["error_kind"]).column("error_kind").to_pylist().count("crashed")
                times = f"{facts['seconds']:8.1f} s by the clock {used[kind][-1]:8.1f} s of processors"
                print(f"{kind:8}{times}  {lost} lost", flush=True)
        middle = {kind: statistics.median(some) for kind, some in used.items()}
        each = (middle["none"] - middle["short"]) / (given.clips - 1)
        for kind in list(kinds)[2:]:
            cost = (middle[kind] - middle["none"]) / len(poison) + each
            share = (cost - each) / (cost + 999 * each)
            print(f"{kind}: {cost:.2f} s of processor time for one, {each:.3f} for another clip; one in a thousand "
                  f"takes {share:.1%} of the throughput (wanted < 2 %)")  # fmt: skip


def run(listed: Path, out: Path, engine: str, faults: dict[str, str]) -> float:
    """Processor seconds of a run and of all processes below it, of which Ray's are not waited for by their parents."""
    command = [sys.executable, "-m", "tests.support.failing", "score", str(listed), "--out", str(out)]
    command += ["--engine", engine, "--json", "--max-failed", "100%"]
    used: dict[tuple[int, float], float] = {}
    here = psutil.Process()
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | faults
    ) as ran:
        while some := here.children(recursive=True):
            for one in some:
                try:
                    times = one.cpu_times()
                    used[one.pid, one.create_time()] = times.user + times.system
                    if one.status() == psutil.STATUS_ZOMBIE:
                        one.wait(0) if one.pid != ran.pid else ran.poll()
                except (psutil.Error, ProcessLookupError):
                    continue  # it is gone
            time.sleep(LOOK_SECONDS)
    assert ran.returncode == 0
    return sum(used.values())


if __name__ == "__main__":
    main()
