"""What each step of RALI brings: `python tests/bench/rali.py configs/light/rali.yaml [--seeds 3] [--only NAME]`.

Variants of the config are trained without folds 0 and k of each set and looked at on fold k, for k = 1 to 4; fold 0 is
never looked at. Also trained on one set and looked at on folds 1 to 4 of the other. SRCC with 95 % bootstrap intervals
of the mean over seeds; skips where the opinions are absent.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support.people import PEOPLE
from vqa.config import build, load, merge
from vqa.data.people import find_people_set, read_opinions
from vqa.light.distill import DistillConfig, Embeddings, fit_head, gather
from vqa.metrics.correlation import srcc
from vqa.metrics.intervals import interval, replicates

Numbers = NDArray[np.float64]
FOLDS = (1, 2, 3, 4)
OFF: dict[str, object] = {"pairs": 0.0, "order": 0.0, "gaps": 0.0}
VARIANTS: dict[str, object] = {
    "one direction, by regression": {"rali": None},
    "all steps": {},
    "no alignment": {"rali": {"align": None}},
    "no PCA": {"rali": {"basis": {"components": None}}},
    "no buckets": {"rali": {"basis": {"buckets": 1}}},
    "no tuning": {"rali": {"tuning": None}},
    "tuning by opinions alone": {"rali": {"tuning": OFF}},
    "no comparisons": {"rali": {"tuning": {"pairs": 0.0}}},
    "comparisons by Thurstone": {"rali": {"tuning": {"pairs_method": "thurstone"}}},
    "no ladders in tuning": {"rali": {"tuning": {"order": 0.0, "gaps": 0.0}}},
    "no pairs of pairs": {"rali": {"tuning": {"gaps": 0.0}}},
}


def variant(config: DistillConfig, changes: object, seed: int) -> DistillConfig:
    """The config with a variant's changes and a seed for all that is drawn."""
    values = merge(config.model_dump(), changes)  # type: ignore[arg-type]
    if values["rali"]:
        for part in ("align", "basis", "tuning"):
            if values["rali"][part]:
                values["rali"][part]["seed"] = seed
    return build(DistillConfig, values, where="variant")


def without(config: DistillConfig, folds: list[int], *, only: str | None = None) -> DistillConfig:
    """The config without folds, of all sets or of one."""
    left = [
        one.model_copy(update={"without_folds": folds}) for one in config.opinions if only is None or one.people == only
    ]
    return config.model_copy(update={"opinions": left})


def main(config: DistillConfig, *, seeds: int, only: list[str]) -> None:
    """Print the table."""
    embeddings = Embeddings(config)
    tests = {}
    for wanted in config.opinions:
        people = find_people_set(wanted.people)
        opinions = [one for one in read_opinions(people, config.folder) if one.fold in FOLDS]
        rows = embeddings.of_opinions(opinions, lambda _: None)
        tests[people.name] = (
            rows,
            np.array([one.opinion for one in opinions]),
            np.array([one.fold for one in opinions]),
        )
    within = {fold: gather(without(config, [0, fold]), embeddings, lambda _: None) for fold in FOLDS}
    across = {name: gather(without(config, [0], only=name), embeddings, lambda _: None) for name in tests}
    print(f"{'':30} {'tested on':36} {'SRCC':>6}  95 % interval   used  seeds", flush=True)
    for name, changes in VARIANTS.items():
        if only and name not in only:
            continue
        started = time.perf_counter()
        found: dict[str, list[Numbers]] = {}
        runs = range(seeds if variant(config, changes, 0).rali else 1)
        for seed in runs:
            settings = variant(config, changes, seed)
            for one, (rows, _, folds) in tests.items():
                scores = np.zeros(len(rows))
                for fold in FOLDS:
                    head = _head(settings, within[fold], (name, seed, fold))
                    scores[folds == fold] = head.opinions(rows[folds == fold])
                found.setdefault(f"{one}, folds 1 to 4", []).append(scores)
                for other, material in across.items():
                    if other != one:
                        head = _head(settings, material, (name, seed, other))
                        found.setdefault(f"{one}, trained on {other}", []).append(head.opinions(rows))
        for what, each in found.items():
            opinions = tests[what.split(",")[0]][1]
            mean = np.mean(each, axis=0)
            low, high = interval(replicates(mean, opinions, resamples=2000)["srcc"]) or (float("nan"),) * 2
            spread = " ".join(f"{srcc(one, opinions):.3f}" for one in each)
            print(
                f"{name:30} {what:36} {srcc(mean, opinions):6.3f}  {low:6.3f} to {high:.3f}  {len(mean):4} of "
                f"{len(opinions)}  {spread}",
                flush=True,
            )
        print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)


_heads: dict[object, object] = {}


def _head(settings, material, key):  # type: ignore[no-untyped-def]
    """Each head is fitted once; both sets are tested on it."""
    if key not in _heads:
        _heads[key] = fit_head(settings, material)
    return _heads[key]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    if not PEOPLE.is_dir():
        print(f"{PEOPLE} is not here: nothing measured")
    else:
        main(load(given.config, DistillConfig, [f"folder={PEOPLE}", *given.set]), seeds=given.seeds, only=given.only)
