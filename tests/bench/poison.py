"""What clips cost that kill who works on them: a run with one in a thousand against the same run without.

    python -m tests.bench.poison --clips 2000 --engine local

`decoder`: the process that decodes one dies, each time; `scorer` (Ray only): the model process. The model is
replaced by a digest of the pixels.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support import clips, failing
from vqa.data.score_table import read_scores

FILES = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--every", type=int, default=1000, help="one in so many is poison")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for n in range(FILES):
            clips.write_video(folder / f"{n}.mp4", frames=50, seed=n)
        lines = "".join(f"{n % FILES}.mp4,clip{n}\n" for n in range(given.clips))
        (folder / "list.csv").write_text("path,clip_id\n" + lines)
        poison = [f"clip{n}" for n in range(given.every // 2, given.clips, given.every)]
        kinds = {"none": {}, "decoder": {"poison": poison}, "scorer": {"poison_scorer": poison}}
        for turn in range(given.repeat):
            for kind, faults in kinds.items():
                if kind == "scorer" and given.engine == "local":
                    continue  # there the model is in the driver, whose death is the run's
                out = folder / f"{kind}{turn}"
                command = [sys.executable, "-m", "tests.support.failing", "score", str(folder / "list.csv")]
                command += ["--out", str(out), "--engine", given.engine, "--json", "--max-failed", "100%"]
                variables = os.environ | failing.environment(folder / "marks", **faults)
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                said = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                run = json.loads(said.stdout)
                lost = read_scores(out, ["error_kind"]).column("error_kind").to_pylist().count("crashed")
                speed = f"{run['clips_per_second']:8.2f} clips/s {run['seconds']:8.1f} s"
                print(f"{kind:8}{speed} {used:8.1f} s of processor time  {lost} lost", flush=True)


if __name__ == "__main__":
    main()
