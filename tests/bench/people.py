"""How far the light tier agrees with people: `python tests/bench/people.py configs/light/embedded.yaml [--contents N]`.

Students are trained as the config says, without what they are tested on: held-out folds of each set (sources of AVT,
pictures of PCUID), the other set alone, ladders of held-out photographs and, by --clips, a held-out folder of `vqa data
synth`, whose labels are VMAF's. Each picture is looked at as a clip, too: a slow pan over it. Settings were chosen on
folds 1 to 4; fold 0 is shown by itself. SRCC with 95 % bootstrap intervals beside baselines: height, sharpness and, by
--iqa-python (how to make it: the head of iqa/serve.py), NIQE, BRISQUE and PIQE on the pixels that the student sees,
with pictures a second of each on one thread. --baselines prints these alone, and sharpness and file size of --clips;
--model NAME what a model writes: of the test folds, of --clips, of the held-out photographs and their copies (light:
the student that vqa carries; not of the folds, which it learnt). --only opinions, clips or order: this of the three
alone. unseen.py makes --clips of damage that nothing learnt of. Skips where opinions are absent.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.people_models import Model, Numbers, clip_baselines, clips_by_model, ladder_lines, line, orders, pan
from tests.bench.rivals import ask, serving
from tests.support.people import PEOPLE
from vqa.config import load_config
from vqa.data.people import Opinion, PeopleSet, find_people_set, read_opinions
from vqa.data.synthetic.ladder import Label
from vqa.errors import ClipError
from vqa.light.card import EMBEDDED_STUDENT
from vqa.light.cascade import Width, folds_of
from vqa.light.config import DistillConfig
from vqa.light.distill import fit_enlargement, joined
from vqa.light.embedding import SIZE, embed, from_usual
from vqa.light.material import Embeddings, enlargement_of, ladders, moving
from vqa.light.regression import LabelledSet, fit_regressor
from vqa.types import Clip, Pixels

TIMED = 10  # every so-many-th picture is embedded anew, on one thread as the rivals


def baselines(opinions: Sequence[Opinion]) -> tuple[Numbers, Numbers]:
    """Height of the stored picture, and sharpness (log variance of the Laplacian) of the picture as seen."""
    heights, sharpness = [], []
    for one in opinions:
        with Image.open(one.path) as image:
            heights.append(float(image.height))
        grey = Image.fromarray(one.read()).convert("L")
        grey.thumbnail((1280, 1280), Image.Resampling.BICUBIC)
        sharpness.append(float(np.log(ndimage.laplace(np.asarray(grey, dtype=np.float32)).var() + 1e-6)))
    return np.array(heights), np.array(sharpness)


def rivals(
    name: str,
    opinions: Sequence[Opinion],
    embeddings: Embeddings,
    server: subprocess.Popen[bytes],
    names: Sequence[str],
    every: int,
) -> None:
    """Lines of what needs no training, on the pixels that the student sees."""
    values: dict[str, list[float]] = {one: [] for one in names}
    seconds = dict.fromkeys([*names, "student"], 0.0)
    for k, one in enumerate(opinions[::every]):
        seen = embeddings.seen(one.read())
        for judge, said in ask(server, seen[None]).items():
            values[judge].append(float("nan") if said["values"][0] is None else said["values"][0])
            seconds[judge] += said["seconds"]
        if k % TIMED == 0:
            started = time.perf_counter()
            embeddings.of_picture(seen)
            seconds["student"] += time.perf_counter() - started
    for judge in names:
        found = -np.array(values[judge])  # lower is better
        has = np.isfinite(found)
        labels = np.array([one.opinion for one in opinions[::every]])[has]
        line(f"{name}, {judge}", found[has], labels, expected=len(opinions))
    looked = len(opinions[::every])
    rates = {one: looked / seconds[one] for one in names} | {
        "student": len(range(0, looked, TIMED)) / seconds["student"]
    }
    print(
        f"{name}, pictures/s on one thread: {', '.join(f'{one} {rate:.2f}' for one, rate in rates.items())}", flush=True
    )


def by_model(
    config: DistillConfig, held_out: Path, *, contents: int, model: str, clips: Path | None, only: str | None
) -> None:
    """Print what a model says of the test folds, of clips, and of photographs and their copies."""
    asked = Model(model)
    if only in (None, "opinions") and model != "light":
        for wanted in config.opinions:
            people = find_people_set(wanted.people)
            test = [one for one in read_opinions(people, config.folder) if one.fold == people.test_fold]
            opinions = np.array([one.opinion for one in test])
            for how, scores in (("", asked.of_opinions(test)), (" as clips", asked.of_pans(test))):
                has = np.isfinite(scores)
                what = f"{people.name}{how}, fold {people.test_fold}, what {model} writes"
                line(what, scores[has], opinions[has], expected=len(test))
    if only in (None, "clips") and clips:
        clips_by_model(clips, asked)
    if only in (None, "order"):
        orders(asked.of_pictures, held_out, contents, model)


def as_clips(opinions: Sequence[Opinion], embeddings: Embeddings, config: DistillConfig) -> Numbers:
    """Embeddings of a slow pan over each of a set's pictures, of which nothing is lost: [N, SIZE]."""
    found = []
    for one in opinions:
        frames = pan(embeddings.seen(one.read()), config.keyframes)
        seen = embed(embeddings.network, frames, config.embedding).astype(np.float64)
        found.append(seen if embeddings.usual is None else from_usual(seen, embeddings.usual))
    return np.stack(found)


def left_out(
    is_test: NDArray[np.bool_],
    opinions: Sequence[Opinion],
    whole: LabelledSet,
    panned: Numbers,
    others: Sequence[LabelledSet],
    config: DistillConfig,
) -> tuple[Numbers, Numbers, Numbers]:
    """Scores of a set's test pictures by a student that learnt the rest and other sets.

    Those by pixels alone, too, and those of the pictures as clips.
    """
    rest = LabelledSet(embeddings=whole.embeddings[~is_test], labels=whole.labels[~is_test], weight=whole.weight)
    sets = [rest, *others]
    regressor = fit_regressor(sets, config.regression)
    pixels, clips = regressor.along(whole.embeddings[is_test]), regressor.along(panned[is_test])
    kept = [one for one, test in zip(opinions, is_test, strict=True) if not test]
    seen = [enlargement_of(one) for one in kept], [one.group for one in kept]
    enlarged = fit_enlargement(sets, 0, regressor, *seen, config=config.regression)
    if not enlarged:
        return pixels, pixels, clips
    times = [enlargement_of(one) for one, test in zip(opinions, is_test, strict=True) if test]
    return enlarged.placed(pixels, times), pixels, clips


def ladders_of(config: DistillConfig, embeddings: Embeddings, of_people: Sequence[LabelledSet]) -> list[LabelledSet]:
    """What students learn beside opinions: ladders of stills, as one set, and moving ones."""
    learned = ladders(config.ladders, embeddings, lambda _: None) if config.ladders else []
    found = [joined([one.pictures for one in learned], config.regression)] if learned else []
    embeddings.settle([one.embeddings for one in (*of_people, *found)])
    return found + ([moving(config.moving, embeddings, lambda _: None)] if config.moving else [])


def main(
    config: DistillConfig,
    held_out: Path,
    *,
    contents: int,
    iqa_python: Path | None,
    every: int,
    baselines_only: bool,
    model: str | None,
    clips: Path | None,
    only: str | None,
) -> None:
    """Print the table."""
    if model:
        by_model(config, held_out, contents=contents, model=model, clips=clips, only=only)
        return
    if baselines_only and only == "clips" and clips:
        clip_baselines(clips)
        return
    embeddings = Embeddings(config.model_copy(update={"tuned": None}) if baselines_only else config, print)
    server, names = serving(iqa_python)
    print(f"{'':58} {'SRCC':>6}  95 % interval   used")
    found: list[tuple[PeopleSet, list[Opinion], LabelledSet]] = []
    for wanted in config.opinions:
        people = find_people_set(wanted.people)
        opinions = read_opinions(people, config.folder)
        labels = np.array([one.opinion for one in opinions])
        for name, values in zip(("height", "sharpness"), baselines(opinions), strict=True):
            line(f"{people.name}, {name} alone", values, labels, expected=people.expected)
        if server is not None:
            rivals(people.name, opinions, embeddings, server, names, every)
        if baselines_only:
            continue
        rows = embeddings.of_opinions(opinions, lambda _: None)
        found.append((people, opinions, LabelledSet(embeddings=rows, labels=labels, weight=wanted.weight)))
    if server is not None:
        server.communicate()
    if baselines_only:
        if clips:
            clip_baselines(clips)
        return
    ladder = ladders_of(config, embeddings, [one for _, _, one in found])

    def predicted(sets: Sequence[LabelledSet], rows: Numbers) -> Numbers:
        return fit_regressor([*sets, *ladder], config.regression).along(rows)

    goals = {"avt-image-quality": (">= 0.95", ">= 0.78"), "pcuid": (">= 0.92", ">= 0.82")}
    for people, opinions, whole in found:
        others = [one for other, _, one in found if other is not people]
        folds = np.array([one.fold for one in opinions])
        panned = as_clips(opinions, embeddings, config)
        scores, pixels, moved = (np.zeros(len(folds)) for _ in range(3))
        for fold in np.unique(folds):
            at = folds == fold
            scores[at], pixels[at], moved[at] = left_out(at, opinions, whole, panned, [*others, *ladder], config)
        test = folds == people.test_fold
        within, across = goals.get(people.name, ("", ""))
        unseen = predicted(others, np.concatenate([whole.embeddings, panned]))
        told = [(", five folds", scores, within), (" as clips, five folds", moved, "")]
        if (scores != pixels).any():
            told.append((", five folds, by pixels alone", pixels, ""))
        told.append((", trained without it", unseen[: len(folds)], across))
        told.append((" as clips, trained without it", unseen[len(folds) :], ""))
        for what, values, goal in told:
            line(f"{people.name}{what}", values, whole.labels, expected=people.expected, goal=goal)
            alone, labels = values[test], whole.labels[test]
            line(f"{people.name}{what}, fold {people.test_fold} alone", alone, labels, expected=int(test.sum()))

    people, opinions, whole = found[0]
    if (width := Width.load(EMBEDDED_STUDENT, size=SIZE)) is not None and people.name == "avt-image-quality":
        errors, widths = width.of_left_out(whole, folds_of([one.group for one in opinions]))
        line("embedded student, width and error on AVT, left out", widths, errors, expected=people.expected)
        tenth, order = max(1, len(errors) // 10), np.argsort(-widths)
        parts = {"widest tenth": order[:tenth], "narrowest tenth": order[-tenth:], "all": order}
        print(f"mean error: {', '.join(f'{name} {errors[part].mean():.3f}' for name, part in parts.items())}")

    regressor = fit_regressor([*(one for _, _, one in found), *ladder], config.regression)

    def along(pictures: Sequence[Pixels]) -> Numbers:
        return regressor.along(np.stack([embeddings.of_picture(one) for one in pictures]))

    def of_clips(folder: Path, rows: Sequence[Label]) -> Numbers:
        found = np.full(len(rows), np.nan)
        for k, row in enumerate(rows):
            try:
                seen = embeddings.of_clip(Clip(clip_id=row["clip_id"], uri=str(folder / row["uri"])))
            except ClipError as error:
                print(f"left out: {error}")
            else:
                found[k] = regressor.along(seen[None])[0]
        return found

    if clips:
        ladder_lines(clips, partial(of_clips, clips), "students")
    orders(along, held_out, contents, "students")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--contents", type=int, default=100, help="held-out photographs, at most")
    parser.add_argument("--held-out", type=Path, default=Path("runs/sources/held-out/photographs"))
    parser.add_argument("--iqa-python", type=Path)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="NIQE, BRISQUE, PIQE: of every N-th picture")
    parser.add_argument("--baselines", action="store_true", help="alone, without any training")
    parser.add_argument("--model", help="a card's name or a folder: what it writes of the test folds, alone")
    parser.add_argument("--only", choices=["opinions", "clips", "order"], help="of --model or --baselines")
    parser.add_argument("--clips", type=Path, help="a folder of `vqa data synth`, of contents that nothing learns from")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    if not PEOPLE.is_dir():
        print(f"{PEOPLE} is not here: nothing measured")
    else:
        settings = load_config(given.config, DistillConfig, [f"folder={PEOPLE}", *given.set])
        torch.set_num_threads(1 if given.iqa_python else torch.get_num_threads())
        main(
            settings,
            given.held_out,
            contents=given.contents,
            iqa_python=given.iqa_python,
            every=given.every,
            baselines_only=given.baselines,
            model=given.model,
            clips=given.clips,
            only=given.only,
        )
