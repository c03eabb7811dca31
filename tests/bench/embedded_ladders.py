"""Moving ladders of the carried student: `python tests/bench/embedded_ladders.py SOURCES --out runs [--workers N]`.

Draws contents of SOURCES/train, which `tests/bench/embedded_sources.py` fills, and makes what
configs/light/embedded.yaml names: runs/moving and runs/moving2 of common damage, runs/rare of rare. No file is in two,
none is in SOURCES/held-out/order. Resumes. Before 2026-11-30 contents were drawn by hand, and are not on record.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from vqa.data.synthetic.ladder import Damage, synthesise


class Wanted(NamedTuple):
    """A ladder: files of each kind from a place of their drawn order on, and what becomes of them."""

    photographs: slice
    moving: slice
    clips: int  # of a content
    seed: int
    damage: Damage


WANTED = {
    "moving": Wanted(slice(0, 110), slice(0, 25), 6, 11, "common"),
    "moving2": Wanted(slice(110, 210), slice(25, 65), 4, 12, "common"),
    "rare": Wanted(slice(210, 370), slice(65, 90), 4, 13, "rare"),
}


def main() -> None:
    """Say how many clips each ladder has."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", choices=list(WANTED), action="append")
    arguments = parser.parse_args()
    if arguments.sources is None:
        print("no sources: nothing made")
        return
    kept = {path.name for path in (arguments.sources / "held-out" / "order").iterdir()}
    for name in arguments.only or WANTED:
        wanted = WANTED[name]
        files = []
        for kind, place in (("photographs", wanted.photographs), ("moving", wanted.moving)):
            found = sorted(path for path in (arguments.sources / "train" / kind).iterdir() if path.name not in kept)
            files += [found[k] for k in np.random.default_rng(31).permutation(len(found))[place]]
        made = synthesise(
            files,
            out=arguments.out / name,
            clips_per_content=wanted.clips,
            seed=wanted.seed,
            workers=arguments.workers,
            split="train",
            damage=wanted.damage,
        )
        problems = [problem for *_, problem in made if problem]
        print(
            f"{name}: {len(list((arguments.out / name / 'labels').iterdir()))} clips", *problems, sep="\n  ", flush=True
        )


if __name__ == "__main__":
    main()
