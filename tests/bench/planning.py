"""Plans against real runs of the same clips, turn about: `python -m tests.bench.planning [--clips N] [--pairs P]`.

Both are commands of their own, so that a run's start-up is in its time as a plan has it. Mixes of clips: `even`, copies
of the demo's, alike; `uneven`, every fourth of them four times as long and decoded whole by intra frames; `damaged`,
every third one no video. On a busy machine the ratio moves with its load; the median of the pairs is what counts
(wanted within 25 % of 1).
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.demo import demo_clips

MIXES = ("even", "uneven", "damaged")
WANTED = 0.25


def command(*words: object) -> dict[str, float]:
    """What a command says with --json."""
    done = subprocess.run(
        [sys.executable, "-m", "vqa.cli", *map(str, words), "--json"], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def fill(folder: Path, sources: list[Path], count: int, mix: str) -> None:
    """Links to the sources, and what the mix has beside them."""
    folder.mkdir()
    long = folder.parent / "long.mp4"
    if mix == "uneven" and not long.exists():
        _repeat(sources[0], long, times=4)
    for number in range(count):
        source = sources[number % len(sources)]
        if mix == "uneven" and number % 4 == 0:
            source = long
        path = folder / f"{number:04d}{source.suffix}"
        if mix == "damaged" and number % 3 == 0:
            path.write_bytes(b"no video" * 1000)
        else:
            path.symlink_to(source)


def _repeat(source: Path, target: Path, *, times: int) -> None:
    """A longer clip of the same pictures, each an intra frame, twice as wide."""
    import imageio_ffmpeg

    inputs = ["-stream_loop", f"{times - 1}", "-i", f"{source}"]
    output = ["-vf", "scale=2*iw:-2", "-c:v", "libx264", "-preset", "ultrafast", "-g", "1", "-an", f"{target}"]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *inputs, *output], check=True)


def pairs_of(clips: Path, count: int, pairs: int, tier: str) -> float:
    """Prints a line for each pair; the median of planned over measured time."""
    ratios = []
    for _ in range(pairs):
        planned = command("plan", clips, "--probe", max(1, count // 2), "--tier", tier)
        out = clips.parent / "out"
        options = ("--engine", "local", "--tier", tier, "--max-failed", "100%", "--fresh")
        run = command("score", clips, "--out", out, *options)
        shutil.rmtree(out)
        ratios.append(planned["seconds"] / run["seconds"])
        spread = f"{planned['low_seconds']:.1f} to {planned['high_seconds']:.1f}"
        limit = planned["limit"]
        print(f"planned {planned['seconds']:.1f} s ({spread}), {limit} limits; ran {run['seconds']:.1f} s", flush=True)
    return statistics.median(ratios)


def main(count: int, pairs: int, tier: str) -> None:
    """Prints the medians of all mixes."""
    with tempfile.TemporaryDirectory() as folder:
        sources = demo_clips(Path(folder) / "demo")
        for mix in MIXES:
            clips = Path(folder) / mix
            fill(clips, sources, count, mix)
            found = pairs_of(clips, count, pairs, tier)
            print(f"{mix}: planned / ran {found:.2f} (wanted within {WANTED:.0%} of 1)", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--tier", choices=("light", "reason"), default="reason")
    arguments = parser.parse_args()
    main(arguments.clips, arguments.pairs, arguments.tier)
