"""What each step of RALI brings: `python tests/bench/rali.py configs/light/rali.yaml [--seeds 3] [--across]`.

Variants of the config are trained without folds 0 and k of each set and looked at on fold k, for k = 1 to 4; fold 0 is
never looked at. With --across also trained on one set and looked at on folds 1 to 4 of the other. SRCC with 95 %
bootstrap intervals of the mean over seeds; skips where the opinions are absent.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support.people import PEOPLE
from vqa.config import build, load_config, merge_values
from vqa.data.people import find_people_set, read_opinions
from vqa.light.basis import Basis
from vqa.light.config import DistillConfig
from vqa.light.distill import facts_of, fit_head
from vqa.light.material import Embeddings, gather
from vqa.light.rali import Reduced, fit_steps, joint_space, reduce
from vqa.light.reasons import encode_texts
from vqa.light.student import Line
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
    values = merge_values(config.model_dump(), changes)  # type: ignore[arg-type]
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


class Fits:
    """Heads by variant; what does not change between variants is computed once."""

    def __init__(self, config: DistillConfig, embeddings: Embeddings) -> None:
        """Embed everything."""
        within = {str(k): gather(without(config, [0, k]), embeddings, lambda _: None) for k in FOLDS}
        across = {
            one.people: gather(without(config, [0], only=one.people), embeddings, lambda _: None)
            for one in config.opinions
        }
        self._material = within | across
        self._reduced: dict[object, Reduced] = {}
        self._joint: dict[object, Numbers] = {}

    def head(self, config: DistillConfig, what: str) -> Line | Basis:
        """Fitted without a fold, or on one set alone."""
        material = self._material[what]
        if config.rali is None:
            return fit_head(config, material)
        lessons, facts, rali = material.lessons, facts_of(material.ladders), config.rali
        key = (what, rali.axes)
        if key not in self._reduced:
            self._reduced[key] = reduce(lessons, facts, rali.axes, config.regression)
        spoken = (*key, rali.align and rali.align.model_dump_json())
        if spoken not in self._joint:
            source = rali.align.texts if rali.align else None
            self._joint[spoken] = joint_space(
                self._reduced[key], lessons, facts, rali.align, lambda texts: encode_texts(texts, source)
            )
        return fit_steps(self._reduced[key], self._joint[spoken], lessons, facts, rali)


def main(config: DistillConfig, *, seeds: int, only: list[str], across: bool) -> None:
    """Print the table."""
    embeddings = Embeddings(config, print)
    tests = {}
    for wanted in config.opinions:
        people = find_people_set(wanted.people)
        opinions = [one for one in read_opinions(people, config.folder) if one.fold in FOLDS]
        rows = embeddings.of_opinions(opinions, lambda _: None)
        folds = np.array([one.fold for one in opinions])
        tests[people.name] = (rows, np.array([one.opinion for one in opinions]), folds)
    fits = Fits(config, embeddings)
    print(f"{'':30} {'tested on':38} {'SRCC':>6}  95 % interval    used        each seed", flush=True)
    for name, changes in VARIANTS.items():
        if only and name not in only:
            continue
        found: dict[tuple[str, str], list[Numbers]] = {}
        for seed in range(seeds if variant(config, changes, 0).rali else 1):
            settings = variant(config, changes, seed)
            heads = {fold: fits.head(settings, str(fold)) for fold in FOLDS}
            for one, (rows, _, folds) in tests.items():
                scores = np.zeros(len(rows))
                for fold, head in heads.items():
                    scores[folds == fold] = head.opinions(rows[folds == fold])
                found.setdefault((one, "folds 1 to 4"), []).append(scores)
                for other in tests if across else ():
                    if other != one:
                        scores = fits.head(settings, other).opinions(rows)
                        found.setdefault((one, f"trained on {other}"), []).append(scores)
        for (one, how), each in found.items():
            labels = tests[one][1]
            mean = np.mean(each, axis=0)
            low, high = interval(replicates(mean, labels, resamples=2000)["srcc"]) or (float("nan"),) * 2
            spread = " ".join(f"{srcc(scores, labels):.3f}" for scores in each)
            value = f"{srcc(mean, labels):6.3f}  {low:6.3f} to {high:.3f}  {len(mean):4} of {len(labels)}"
            print(f"{name:30} {f'{one}, {how}':38} {value}  {spread}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--across", action="store_true", help="also train on one set and test on the other")
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    if not PEOPLE.is_dir():
        print(f"{PEOPLE} is not here: nothing measured")
    else:
        main(
            load_config(given.config, DistillConfig, [f"folder={PEOPLE}", *given.set]),
            seeds=given.seeds,
            only=given.only,
            across=given.across,
        )
