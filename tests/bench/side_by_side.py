"""All tiers and rivals side by side: `tests/bench/side_by_side.py configs/light/embedded.yaml --iqa-python PATH`.

On the same pictures, those of fold 0 of each set, which no row has learnt from.
SRCC with people's opinions, 95 % bootstrap intervals, of NIQE, BRISQUE, PIQE (PATH: the head of iqa/serve.py; on
the pixels that the student sees), sharpness, the stored height, what the embedded model writes, and the light tier by a
student that learnt all but the fold: as it is, by pixels alone, and of the pictures as clips (a slow pan). A line whose
pictures are fewer has no value for the others. Then pictures a second of each from pixels on, one thread each, one
after the other. Skips where opinions are absent.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.people import as_clips, baselines, ladders_of, left_out
from tests.bench.people_models import Model, Numbers, line
from tests.bench.rivals import ask, serving
from tests.support.people import PEOPLE
from vqa.config import load_config
from vqa.data.people import find_people_set, read_opinions
from vqa.light.config import DistillConfig
from vqa.light.material import Embeddings
from vqa.light.regression import LabelledSet


def main(config: DistillConfig, iqa_python: Path | None, model: str, every: int) -> None:
    """Print the table of each set, then the rates."""
    embeddings, asked = Embeddings(config, print), Model(model)
    torch.set_num_threads(1)
    server, names = serving(iqa_python)
    everything = []
    for wanted in config.opinions:
        people = find_people_set(wanted.people)
        opinions = read_opinions(people, config.folder)
        rows = embeddings.of_opinions(opinions, lambda _: None)
        labels = np.array([one.opinion for one in opinions])
        everything.append((people, opinions, LabelledSet(embeddings=rows, labels=labels, weight=wanted.weight)))
    ladder = ladders_of(config, embeddings, [one for _, _, one in everything])
    print(f"{'':58} {'SRCC':>6}  95 % interval   used")
    for people, opinions, whole in everything:
        in_fold = np.array([one.fold == people.test_fold for one in opinions])
        asked_of = np.flatnonzero(in_fold)[::every]
        is_test = np.isin(np.arange(len(opinions)), asked_of)
        test = [one for one, own in zip(opinions, is_test, strict=True) if own]
        found: dict[str, Sequence[float] | Numbers] = {}
        seconds = dict.fromkeys([*names, "student"], 0.0)
        said: dict[str, list[float]] = {name: [] for name in names}
        for one in test:
            seen = embeddings.seen(one.read())
            for name, answer in ask(server, seen[None]).items() if server is not None else ():
                value = answer["values"][0]
                said[name].append(float("nan") if value is None else -value)  # lower is better
                seconds[name] += answer["seconds"]
            started = time.perf_counter()
            embeddings.of_picture(seen)
            seconds["student"] += time.perf_counter() - started
        found |= said
        found["height"], found["sharpness"] = baselines(test)
        started = time.perf_counter()
        found[f"embedded model: {model}"] = asked.of_opinions(test)
        seconds["embedded model, with its look"] = time.perf_counter() - started
        others = [one for other, _, one in everything if other is not people]
        panned = as_clips(opinions, embeddings, config)
        by_all, by_pixels, as_clip = left_out(in_fold, opinions, whole, panned, [*others, *ladder], config)
        for name, scores in (("", by_all), (", by pixels alone", by_pixels), (", as clips", as_clip)):
            found[f"light tier{name}"] = scores[::every]
        for name, values in found.items():
            said_of = np.array(values)
            has = np.isfinite(said_of)
            what = f"{people.name}, fold {people.test_fold}, {name}"
            line(what, said_of[has], whole.labels[is_test][has], expected=int(in_fold.sum()))
        rates = ", ".join(f"{name} {len(test) / spent:.2f}" for name, spent in seconds.items())
        print(f"{people.name}, pictures/s on one thread: {rates}", flush=True)
    if server is not None:
        server.communicate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--iqa-python", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every N-th picture of the fold")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    if not PEOPLE.is_dir():
        print(f"{PEOPLE} is not here: nothing measured")
    else:
        settings = load_config(given.config, DistillConfig, [f"folder={PEOPLE}", *given.set])
        main(settings, given.iqa_python, given.model, given.every)
