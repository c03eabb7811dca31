"""How far the light tier agrees with people: `python tests/bench/people.py configs/light/embedded.yaml [--contents N]`.

Students are trained as the config says, without what they are tested on: held-out folds of each set (sources of AVT,
pictures of PCUID), the other set alone, ladders of held-out photographs and, by --clips, a held-out folder of `vqa data
synth`, whose labels are VMAF's. Settings were chosen on folds 1 to 4; fold 0 is shown by itself. SRCC with 95 %
bootstrap intervals beside baselines: height, sharpness and, by --iqa-python (how to make it: the head of iqa/serve.py),
NIQE, BRISQUE and PIQE on the pixels that the student sees, with pictures a second of each on one thread. --baselines
prints these alone, --model NAME what a model writes of the test folds and of the held-out photographs alone (light: of
the photographs, by the student that vqa carries). Skips where opinions are absent.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.rivals import ask, serving
from tests.support.people import PEOPLE
from vqa import Scorer
from vqa.config import load_config
from vqa.data.people import Opinion, PeopleSet, find_people_set, read_opinions
from vqa.data.synthetic.degradations import degrade
from vqa.data.synthetic.distortions import DISTORTIONS
from vqa.data.synthetic.ladder import read_ladder
from vqa.data.synthetic.picture_ladder import LadderConfig, find_pictures, steps
from vqa.errors import ClipError
from vqa.light.card import EMBEDDED_STUDENT
from vqa.light.cascade import Width, folds_of
from vqa.light.config import DistillConfig
from vqa.light.distill import fit_enlargement, joined
from vqa.light.embedding import SIZE
from vqa.light.material import Embeddings, clips_of, enlargement_of, ladders, moving
from vqa.light.regression import LabelledSet, fit_regressor
from vqa.light.student import Student
from vqa.metrics.correlation import srcc
from vqa.metrics.intervals import interval, replicates
from vqa.model.card import settle
from vqa.types import Clip, Pixels
from vqa.views import ViewsConfig, look

Numbers = NDArray[np.float64]
CLIPS = ("scaling", "defocus", "motion_blur", "noise", "exposure", "contrast", "colour_cast", "banding")  # unseen code
PICTURES = ("jpeg", "jpeg2000", "webp", "x264", "x265", "haze")
TIMED = 10  # every so-many-th picture is embedded anew, on one thread as the rivals
SEVERITIES = {"mild": (0.3, 2), "severe": (0.8, 4)}  # of CLIPS, and level of PICTURES


def line(
    what: str,
    scores: Numbers,
    opinions: Numbers,
    *,
    expected: int,
    goal: str = "",
    groups: NDArray[np.int64] | None = None,
) -> None:
    """One of the table; the interval is over groups, where there are any."""
    if groups is None:
        values = replicates(scores, opinions, resamples=2000)["srcc"]
    else:
        rows = [np.flatnonzero(groups == one) for one in np.unique(groups)]
        draws = np.random.default_rng(0).integers(len(rows), size=(2000, len(rows)))
        drawn = (np.concatenate([rows[k] for k in draw]) for draw in draws.tolist())
        values = np.array([srcc(scores[some], opinions[some]) for some in drawn])
    found = interval(values) or (float("nan"),) * 2
    value = f"{srcc(scores, opinions):6.3f}  {found[0]:6.3f} to {found[1]:.3f}"
    print(f"{what:58} {value}  {len(scores):4} of {expected}  {goal}", flush=True)


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


def written(name: str, opinions: Sequence[Opinion], model: str, *, expected: int) -> None:
    """Line of the scores that a model writes, asked as `vqa score` does."""
    card = settle(model, {})[0]
    views = ViewsConfig.model_validate(card.views | {"shown_size": opinions[0].shown_size})
    scorer = Scorer.load(model)
    shown = [look(Clip(clip_id=one.path.stem, uri=str(one.path)), views) for one in opinions]
    scores = np.array([np.nan if isinstance(one, ClipError) else one.score or np.nan for one in scorer.score(shown)])
    has = np.isfinite(scores)
    line(
        f"{name}, what {model} writes", scores[has], np.array([one.opinion for one in opinions])[has], expected=expected
    )


def judged_by(model: str, folder: Path) -> Callable[[Sequence[Pixels]], Numbers]:
    """What a model, or the carried student, says of pictures; nan where nothing."""
    scorer = Student.load() if model == "light" else Scorer.load(model)
    views = ViewsConfig.model_validate(scorer.card.views if isinstance(scorer, Student) else settle(model, {})[0].views)

    def judge(pictures: Sequence[Pixels]) -> Numbers:
        shown = []
        for k, picture in enumerate(pictures):
            path = folder / f"{k}.png"
            Image.fromarray(picture).save(path, compress_level=1)
            shown.append(look(Clip(clip_id=path.stem, uri=str(path)), views))
        found = scorer.score(shown)
        return np.array([np.nan if isinstance(one, ClipError) else one.score or np.nan for one in found])

    return judge


def orders(judge: Callable[[Sequence[Pixels]], Numbers], held_out: Path, contents: int, who: str) -> None:
    """Lines of how often a pristine photograph is judged above its copies; what has no score is no right order."""
    sources = find_pictures([held_out], most=contents) if held_out.is_dir() else []
    if not sources:
        return
    right: dict[str, list[bool]] = {severity: [] for severity in SEVERITIES}
    for source in sources:
        pristine = next(steps(source, LadderConfig())).pixels
        made = list(copies(pristine))
        best, *others = judge([pristine, *(copy for _, copy in made)]).tolist()
        for (severity, _), value in zip(made, others, strict=True):
            right[severity].append(value < best)
    by_content = np.array([own for pairs in right.values() for own in pairs]).reshape(len(SEVERITIES), len(sources), -1)
    draws = np.random.default_rng(0).integers(len(sources), size=(2000, len(sources)))
    for pairs, (severity, goal) in zip(by_content, (("mild", ">= 0.90"), ("severe", ">= 0.97")), strict=True):
        low, high = np.quantile(pairs.mean(1)[draws].mean(1), (0.025, 0.975))
        what = f"order of pristine and {severity} copy, {who}, {len(sources)} contents"
        value = f"{pairs.mean():6.3f}  {low:6.3f} to {high:.3f}"
        print(f"{what:58} {value}  {pairs.size:4} of {pairs.size}  {goal}", flush=True)


def copies(pristine: Pixels) -> Iterator[tuple[str, Pixels]]:
    """Each distorted copy and how severe it is."""
    for severity, (share, level) in SEVERITIES.items():
        for name in CLIPS:
            yield severity, DISTORTIONS[name](pristine[None], share, np.random.default_rng(1))[0]
        for name in PICTURES:
            yield severity, degrade(pristine, name, level, np.random.default_rng(1))


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
) -> None:
    """Print the table."""
    if model:
        for wanted in config.opinions:
            people = find_people_set(wanted.people)
            test = [one for one in read_opinions(people, config.folder) if one.fold == people.test_fold]
            if model != "light":
                written(f"{people.name}, fold {people.test_fold}", test, model, expected=len(test))
        with tempfile.TemporaryDirectory() as folder:
            orders(judged_by(model, Path(folder)), held_out, contents, model)
        return
    embeddings = Embeddings(config)
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
        return
    learned = ladders(config.ladders, embeddings, lambda _: None) if config.ladders else []
    ladder = [joined([one.pictures for one in learned], config.regression)] if learned else []
    ladder += [moving(config.moving, embeddings, lambda _: None)] if config.moving else []

    def predicted(sets: Sequence[LabelledSet], rows: Numbers) -> Numbers:
        return fit_regressor([*sets, *ladder], config.regression).along(rows)

    goals = {"avt-image-quality": (">= 0.95", ">= 0.78"), "pcuid": (">= 0.92", ">= 0.82")}
    for people, opinions, whole in found:
        others = [one for other, _, one in found if other is not people]
        folds = np.array([one.fold for one in opinions])
        times = [enlargement_of(one) for one in opinions]
        groups = [one.group for one in opinions]
        scores, pixels = np.zeros(len(folds)), np.zeros(len(folds))
        for fold in np.unique(folds):
            is_test = folds == fold
            rest = LabelledSet(
                embeddings=whole.embeddings[~is_test], labels=whole.labels[~is_test], weight=whole.weight
            )
            sets = [rest, *others, *ladder]
            regressor = fit_regressor(sets, config.regression)
            pixels[is_test] = scores[is_test] = regressor.along(whole.embeddings[is_test])
            kept, left = (np.flatnonzero(some).tolist() for some in (~is_test, is_test))
            seen = [times[k] for k in kept], [groups[k] for k in kept]
            if enlarged := fit_enlargement(sets, 0, regressor, *seen, config=config.regression):
                scores[is_test] = enlarged.placed(pixels[is_test], [times[k] for k in left])
        test = folds == people.test_fold
        within, across = goals.get(people.name, ("", ""))
        line(f"{people.name}, five folds", scores, whole.labels, expected=people.expected, goal=within)
        line(
            f"{people.name}, fold {people.test_fold} alone", scores[test], whole.labels[test], expected=int(test.sum())
        )
        if (scores != pixels).any():
            line(f"{people.name}, five folds, by pixels alone", pixels, whole.labels, expected=people.expected)
            line(
                f"{people.name}, fold {people.test_fold} alone, by pixels alone",
                pixels[test],
                whole.labels[test],
                expected=int(test.sum()),
            )
        unseen = predicted(others, whole.embeddings)
        line(f"{people.name}, trained without it", unseen, whole.labels, expected=people.expected, goal=across)
        line(
            f"{people.name}, the same, fold {people.test_fold} alone",
            unseen[test],
            whole.labels[test],
            expected=int(test.sum()),
        )

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

    if clips:
        tested = clips_of([clips], embeddings, print)
        of = len(read_ladder(clips))
        scores = regressor.along(tested.embeddings)
        line("VMAF of held-out clips", scores, tested.labels, expected=of, goal=">= 0.75", groups=tested.groups)
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
        )
