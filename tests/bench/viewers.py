"""What 30, 60 or 120 judgements of viewers change, simulated from the single votes of avt-image-quality.

    python tests/bench/viewers.py FOLDER SCORES

FOLDER is that set's (scores.csv with user1 to user21), SCORES the --out folder of `vqa score` over its pictures. A
simulated viewer who rates gives the vote of one of the 21 people, drawn at random; one who compares two pictures gives
the order of one person's two votes, a tie where they are equal. What the 21 agree on (their mean) is the truth.

Opinions: 20 pictures are judged, comparisons as `vqa rate` chooses them; their opinions against the truth. Ratings are
plain means of a clip's votes, comparisons come by Bradley-Terry with six anchors. Calibration: 40 pictures are judged,
`vqa calibrate` fits the scores to these opinions, and mos, mos_low and mos_high of the pictures that nobody judged are
held against the truth; before, the score itself is.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqa.data.score_table import read_scores
from vqa.data.subjective.pairs import read_pairs
from vqa.data.subjective.ratings import read_ratings
from vqa.data.subjective.strengths import anchored, recover_strengths
from vqa.errors import UsageError
from vqa.evaluate.calibrate import calibrate
from vqa.evaluate.join import Pairing
from vqa.metrics import srcc
from vqa.rate.journal import Journal
from vqa.rate.stimuli import Stimulus
from vqa.rate.study import Study, StudyConfig

BUDGETS, SEEDS, ANCHORS = (30, 60, 120), 20, 6
Floats = NDArray[np.float64]


def main(folder: Path, scored: Path) -> None:
    """Print both tables as Markdown."""
    ratings = read_ratings(folder / "scores.csv")
    votes = np.full((len(ratings.clips), len(ratings.subjects)), np.nan)
    votes[ratings.clip, ratings.subject] = ratings.value
    table = read_scores(scored, ["uri", "score"]).to_pylist()
    by_name = {Path(row["uri"]).name: row["score"] for row in table}
    score = np.array([by_name[Path(name).name] for name in ratings.clips])
    truth = np.nanmean(votes, axis=1)
    raw = np.sqrt(np.mean((score - truth) ** 2))
    print(f"{len(score)} pictures; score against the truth: SRCC {srcc(score, truth):.3f}, RMSE {raw:.2f}\n")
    print("| judged | judgements | SRCC | RMSE | 95 % interval, width |\n| --- | --- | --- | --- | --- |")
    for what, judge in (("ratings", rated), ("pairs", compared)):
        for budget in BUDGETS:
            print(f"| {what} | {budget} | {' | '.join(opinions(votes, truth, judge, budget))} |", flush=True)
    print("\n| judged | judgements | RMSE before | RMSE after | interval, width | truth inside |")
    print("| --- | --- | --- | --- | --- | --- |")
    for what, judge in (("ratings", rated), ("pairs", compared)):
        for budget in BUDGETS:
            print(f"| {what} | {budget} | {' | '.join(calibrations(votes, truth, score, judge, budget))} |", flush=True)


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


def opinions(votes: Floats, truth: Floats, judge: Judge, budget: int, clips: int = 20) -> list[str]:
    """SRCC, RMSE and mean width of the opinions of 20 judged pictures, means over SEEDS draws."""
    rows = []
    for seed in range(SEEDS):
        chosen = np.random.default_rng(1000 + seed).choice(len(truth), clips, replace=False)
        try:
            found, width = judge(votes[chosen], truth[chosen], budget, seed)
        except UsageError:
            continue
        rows.append([srcc(found, truth[chosen]), np.sqrt(np.mean((found - truth[chosen]) ** 2)), np.mean(width)])
    return [f"{value:.2f}" for value in np.mean(rows, axis=0)] if len(rows) == SEEDS else ["not connected"] * 3


def calibrations(votes: Floats, truth: Floats, score: Floats, judge: Judge, budget: int, clips: int = 40) -> list[str]:
    """RMSE before and after, mean width of the interval and share of the truth inside, on pictures nobody judged."""
    rows, refused = [], ""
    for seed in range(SEEDS):
        chosen = np.random.default_rng(2000 + seed).choice(len(truth), clips, replace=False)
        others = np.setdiff1d(np.arange(len(truth)), chosen)
        try:
            found, _ = judge(votes[chosen], truth[chosen], budget, seed)
            judged = [
                Pairing(
                    clip_id=str(at),
                    uri=str(at),
                    dataset="",
                    label={},
                    mos=float(mos),
                    status="ok",
                    score=float(score[at]),
                )
                for at, mos in zip(chosen, found, strict=True)
                if np.isfinite(mos)
            ]
            fitted = calibrate(judged, seed=seed, origin={"scores": "", "labels": ""})
        except UsageError as error:
            refused = str(error)
            continue
        mos, low, high = fitted.mos(score[others])
        inside = (low <= truth[others]) & (truth[others] <= high)
        before, after = (np.sqrt(np.mean((one - truth[others]) ** 2)) for one in (score[others], mos))
        rows.append([before, after, np.mean(high - low), np.mean(inside)])
    if len(rows) < SEEDS / 2:
        print(f"{budget}: {SEEDS - len(rows)} of {SEEDS} draws refused: {refused}", file=sys.stderr)
        return ["refused"] * 4
    return [f"{value:.2f}" for value in np.mean(rows, axis=0)]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
