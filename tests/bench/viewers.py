"""What 30, 60 or 120 judgements of viewers change, simulated from the single votes of avt-image-quality.

    python tests/bench/viewers.py FOLDER SCORES... [--fold 0]

FOLDER is that set's (scores.csv with user1 to user21), SCORES the --out folders of `vqa score` over its pictures, each
with --set 'views.shown_size=[2160, 2160]'. A simulated viewer who rates gives the vote of one of the 21 people, drawn
at random; one who compares two pictures gives the order of one person's two votes, a tie where they are equal. What the
21 agree on (their mean) is the truth.

Opinions: 20 pictures are judged, comparisons as `vqa rate` chooses them; their opinions against the truth. Ratings are
plain means of a clip's votes, comparisons come by Bradley-Terry with six anchors. Calibration: 40 pictures are judged
(24 by 30 judgements), `vqa calibrate` fits the scores to these opinions, and mos, mos_low and mos_high (which hold 0.9
of opinions) of the pictures that nobody judged are held against the truth. Before, these are the score itself and score
-+ 1.645 score_std, within 1 to 5: score_std taken as a normal deviation, as the light tier makes it (half of an
interval of 68 %); that of a single answer, or of answers to one question, is no error to expect. --fold keeps to
pictures of one fold of configs/people, such as the test fold, of which a model may have learnt nothing.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqa.data.people import find_people_set, read_opinions
from vqa.data.score_table import read_scores
from vqa.data.subjective.pairs import read_pairs
from vqa.data.subjective.ratings import read_ratings
from vqa.data.subjective.strengths import anchored, recover_strengths
from vqa.errors import UsageError
from vqa.evaluate.calibrate import calibrate
from vqa.evaluate.join import Pairing
from vqa.metrics import srcc
from vqa.metrics.intervals import interval, replicates
from vqa.rate.journal import Journal
from vqa.rate.stimuli import Stimulus
from vqa.rate.study import Study, StudyConfig

BUDGETS, SEEDS, ANCHORS = (30, 60, 120), 20, 6
OPINIONS, CALIBRATED = 20, {30: 24, 60: 40, 120: 40}  # pictures that are judged
NORMAL = 1.645  # deviations on each side of 0.9
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """A run's scores of the pictures [E], and the ends of their intervals of 0.9."""

    name: str
    score: Floats
    low: Floats
    high: Floats


def main(folder: Path, runs: Sequence[Path], fold: int | None) -> None:
    """Print the tables as Markdown."""
    people = find_people_set("avt-image-quality")
    kept = {one.path.name for one in read_opinions(people, folder.parent) if fold is None or one.fold == fold}
    ratings = read_ratings(folder / "scores.csv")
    votes = np.full((len(ratings.clips), len(ratings.subjects)), np.nan)
    votes[ratings.clip, ratings.subject] = ratings.value
    names = [Path(name).name for name in ratings.clips]
    used = [at for at, name in enumerate(names) if name in kept]
    votes, names = votes[used], [names[at] for at in used]
    truth = np.nanmean(votes, axis=1)
    print(f"{len(names)} of {people.expected} pictures{'' if fold is None else f' (fold {fold})'}, {SEEDS} draws\n")
    scored = [read_run(run, names) for run in runs]
    print("| scores | SRCC with the truth | n |\n| --- | --- | --- |")
    for one in scored:
        low, high = interval(replicates(one.score, truth, resamples=2000)["srcc"]) or (np.nan, np.nan)
        print(f"| {one.name} | {srcc(one.score, truth):.3f} ({low:.3f} to {high:.3f}) | {len(truth)} |")
    if fold is None:
        print("\n| judged | judgements | SRCC | RMSE | 95 % interval, width | draws |\n|" + " --- |" * 6)
        for what, judge in JUDGES.items():
            for budget in BUDGETS:
                print(f"| {what} | {budget} | {' | '.join(opinions(votes, truth, judge, budget))} |", flush=True)
    print("\n| scores | judged | judgements | RMSE before | RMSE after | width before | width after", end=" ")
    print("| truth inside before | after | draws |\n|" + " --- |" * 10)
    cells = {
        (what, budget): judged(votes, truth, judge, budget) for what, judge in JUDGES.items() for budget in BUDGETS
    }
    for one in scored:
        for (what, budget), found in cells.items():
            print(f"| {one.name} | {what} | {budget} | {' | '.join(calibrations(truth, one, found))} |", flush=True)


def read_run(run: Path, names: Sequence[str]) -> Scores:
    """Scores of the named pictures. Raises KeyError for one without."""
    rows = read_scores(run, ["uri", "score", "score_std"]).to_pylist()
    by_name = {Path(row["uri"]).name: (row["score"], row["score_std"]) for row in rows if row["score"] is not None}
    score, width = np.array([by_name[name] for name in names], float).T
    low, high = (np.clip(score + side * NORMAL * width, 1, 5) for side in (-1, 1))
    return Scores(name=run.name, score=score, low=low, high=high)


Judge = Callable[[Floats, Floats, int, int], tuple[Floats, Floats]]


def rated(votes: Floats, truth: Floats, budget: int, seed: int) -> tuple[Floats, Floats]:
    """Means of votes [E], NaN for a clip without, and the widths of their 95 % intervals by the pooled spread."""
    random = np.random.default_rng(seed)
    order = np.concatenate([random.permutation(len(votes)) for _ in range(-(-budget // len(votes)))])[:budget]
    given: list[list[float]] = [[] for _ in votes]
    for clip in order:
        given[clip].append(float(random.choice(votes[clip][~np.isnan(votes[clip])])))
    spread = np.sqrt(np.mean([np.nanvar(one, ddof=1) for one in votes]))
    counts = np.array([len(one) for one in given], float)
    mean = np.array([np.mean(one) if one else np.nan for one in given])
    return mean, 2 * 1.96 * spread / np.sqrt(np.where(counts > 0, counts, np.nan))


def compared(votes: Floats, truth: Floats, budget: int, seed: int) -> tuple[Floats, Floats]:
    """Opinions [E] of pairs chosen as by `vqa rate`, and the widths of their intervals. UsageError: not connected."""
    random = np.random.default_rng(seed)
    names = [str(at) for at in range(len(votes))]
    stimuli = [Stimulus(clip_id=one, fingerprint=one, path=Path(one), kind="image", width=1, height=1) for one in names]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "pairs.csv"
        with Journal(out, mode="pairs", seed=seed, clips=dict.fromkeys(names, "")) as journal:
            study = Study(stimuli, journal, StudyConfig(training=0, repeats=0, seed=seed, per_subject=budget))
            for _ in range(budget):
                task = study.next("viewer")
                assert task is not None and task.second is not None
                both = votes[[task.first, task.second]]
                one, other = both[:, random.choice(np.flatnonzero(~np.isnan(both).any(0)))]
                study.vote(
                    asdict(task) | {"subject": "viewer", "value": int(np.sign(one - other)), "seconds": 0, "scale": 1}
                )
        pairs = read_pairs(out)
    if len(pairs.clips) < len(names):
        raise UsageError(f"{len(names) - len(pairs.clips)} clips without a comparison")
    order = np.argsort(truth)[np.linspace(0, len(truth) - 1, ANCHORS).round().astype(int)]
    known = {names[at]: float(truth[at]) for at in order}
    found = anchored(pairs, recover_strengths(pairs, method="bradley-terry", resamples=100), known, source="anchors")
    at = [pairs.clips.index(one) for one in names]
    width = np.nan_to_num(found.high, nan=5.0) - np.nan_to_num(found.low, nan=1.0)
    return found.value[at], width[at]


JUDGES: dict[str, Judge] = {"ratings": rated, "pairs": compared}


def spread(values: Sequence[float] | Floats) -> str:
    """Mean, and the middle 95 % of draws."""
    low, high = np.quantile(values, (0.025, 0.975))
    return f"{np.mean(values):.2f} ({low:.2f} to {high:.2f})"


def opinions(votes: Floats, truth: Floats, judge: Judge, budget: int) -> list[str]:
    """SRCC, RMSE and mean width of the opinions of judged pictures, over the draws that connect them."""
    rows = []
    for seed in range(SEEDS):
        chosen = np.random.default_rng(1000 + seed).choice(len(truth), OPINIONS, replace=False)
        try:
            found, width = judge(votes[chosen], truth[chosen], budget, seed)
        except UsageError:
            continue
        rows.append([srcc(found, truth[chosen]), np.sqrt(np.mean((found - truth[chosen]) ** 2)), np.mean(width)])
    cells = [spread(column) for column in np.transpose(rows)] if rows else ["not connected"] * 3
    return [*cells, f"{len(rows)} of {SEEDS}"]


def judged(votes: Floats, truth: Floats, judge: Judge, budget: int) -> list[tuple[int, NDArray[np.intp], Floats]]:
    """Seed, pictures and their opinions of each draw that gives some."""
    rows = []
    for seed in range(SEEDS):
        chosen = np.random.default_rng(2000 + seed).choice(len(truth), CALIBRATED[budget], replace=False)
        try:
            rows.append((seed, chosen, judge(votes[chosen], truth[chosen], budget, seed)[0]))
        except UsageError:
            continue
    return rows


def calibrations(truth: Floats, scores: Scores, draws: Sequence[tuple[int, NDArray[np.intp], Floats]]) -> list[str]:
    """RMSE, mean width and share of the truth inside, before and after, of pictures that nobody judged."""
    rows = []
    for seed, chosen, found in draws:
        others = np.setdiff1d(np.arange(len(truth)), chosen)
        pairings = [
            Pairing(
                clip_id=str(at),
                uri=str(at),
                dataset="",
                label={},
                mos=float(mos),
                status="ok",
                score=float(scores.score[at]),
            )
            for at, mos in zip(chosen, found, strict=True)
            if np.isfinite(mos)
        ]
        try:
            fitted = calibrate(pairings, seed=seed, origin={"scores": "", "labels": ""})
        except UsageError:
            continue
        before, after = (
            (scores.score[others], scores.low[others], scores.high[others]),
            fitted.mos(scores.score[others]),
        )
        errors = [np.sqrt(np.mean((one[0] - truth[others]) ** 2)) for one in (before, after)]
        widths = [np.mean(high - low) for _, low, high in (before, after)]
        inside = [np.mean((low <= truth[others]) & (truth[others] <= high)) for _, low, high in (before, after)]
        rows.append([*errors, *widths, *inside])
    if len(rows) < SEEDS / 2:
        return [*["refused"] * 6, f"{len(rows)} of {SEEDS}"]
    means, columns = np.mean(rows, axis=0), np.transpose(rows)
    cells = [f"{means[0]:.2f}", spread(columns[1]), f"{means[2]:.2f}", spread(columns[3]), f"{means[4]:.2f}"]
    return [*cells, f"{means[5]:.2f}", f"{len(rows)} of {SEEDS}"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What judgements of viewers change.")
    parser.add_argument("folder", type=Path, help="avt-image-quality")
    parser.add_argument("scores", type=Path, nargs="+", help="--out folders of `vqa score` over its pictures")
    parser.add_argument("--fold", type=int, help="pictures of this fold alone")
    given = parser.parse_args()
    main(given.folder, given.scores, given.fold)
