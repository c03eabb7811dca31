"""Plans against real runs of the same clips, turn about: `python tests/bench/planning.py [--clips N] [--pairs P]`.

Both are commands of their own, so that a run's start-up is in its time as a plan has it. On a busy machine the ratio
moves with its load; the median of the pairs is what counts (wanted within 25 % of 1).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from vqa.data.synthetic.demo import make_demo


def command(*words: object) -> dict[str, float]:
    """What a command says with --json."""
    done = subprocess.run(
        [sys.executable, "-m", "vqa.cli", *map(str, words), "--json"], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def main(count: int, pairs: int, tier: str) -> None:
    """Prints a line for each pair and the median."""
    with tempfile.TemporaryDirectory() as folder:
        sources = [path for path in make_demo(Path(folder) / "demo") if path.stem not in ("cut_off", "not_a_video")]
        clips = Path(folder) / "clips"
        clips.mkdir()
        for number in range(count):
            source = sources[number % len(sources)]
            (clips / f"{number:04d}{source.suffix}").symlink_to(source)
        ratios = []
        for pair in range(pairs):
            planned = command("plan", clips, "--probe", count // 2, "--tier", tier)
            run = command("score", clips, "--out", Path(folder) / f"out{pair}", "--engine", "local", "--tier", tier)
            ratios.append(planned["seconds"] / run["seconds"])
            spread = f"{planned['low_seconds']:.1f} to {planned['high_seconds']:.1f}"
            print(
                f"planned {planned['seconds']:.1f} s ({spread}), {planned['limit']} limits; ran {run['seconds']:.1f} s"
            )
        print(f"planned / ran: {statistics.median(ratios):.2f} (wanted within 25 % of 1)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--tier", choices=("light", "reason"), default="reason")
    arguments = parser.parse_args()
    main(arguments.clips, arguments.pairs, arguments.tier)
