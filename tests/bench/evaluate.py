"""Evaluation's figures: `python tests/bench/evaluate.py [--clips 7186] [--resamples 10000]`.

Seconds for all bootstrap intervals of one data set (wanted: under 10 for 7,186 clips and 10,000 resamples), beside the
plain way (each resample written out and measured by scipy; a few are timed), and for `vqa evaluate` whole.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats

from vqa.evaluate.evaluation import EvaluationConfig, evaluate, write_evaluation
from vqa.evaluate.statistics import StatisticsConfig
from vqa.metrics.fits import fit_logistic4, fit_logistic5
from vqa.metrics.intervals import draws, replicates

PLAIN = 20  # resamples that are written out


def main(clips: int, resamples: int) -> None:
    """Prints processor seconds (what a quiet machine would take) and seconds by the clock."""
    rng = np.random.default_rng(0)
    y = np.round(rng.normal(3, 0.6, clips), 3)
    x = np.round(y + rng.normal(0, 0.4, clips), 2)
    curves = {"logistic4": fit_logistic4(x, y), "logistic5": fit_logistic5(x, y)}
    mapped = {name: fit(x) for name, fit in curves.items() if fit is not None}

    began, worked = time.perf_counter(), time.process_time()
    replicates(x, y, mapped=mapped, resamples=resamples)
    ours, clock = time.process_time() - worked, time.perf_counter() - began

    counts = np.concatenate(list(draws(clips, PLAIN, 0)), axis=1)
    worked = time.process_time()
    for number in range(PLAIN):
        again = np.repeat(np.arange(clips), counts[:, number])
        for statistic in (stats.spearmanr, stats.pearsonr, stats.kendalltau):
            statistic(x[again], y[again])
    plain = (time.process_time() - worked) / PLAIN * resamples
    print(f"{clips} clips, {resamples} resamples, srcc krcc pairwise_accuracy plcc rmse mae, two curves:")
    print(f"  ours {ours:.1f} s of processor, {clock:.1f} s by the clock")
    print(f"  scipy on each resample, srcc plcc krcc alone: {plain:.0f} s of processor ({plain / ours:.0f}x)")

    with tempfile.TemporaryDirectory() as folder:
        names = [f"clip{at}.mp4" for at in range(clips)]
        for name, column, values in (("scores", "score", x), ("labels", "mos", y)):
            pq.write_table(pa.table({"uri": names, column: values}), Path(folder) / f"{name}.parquet")
        config = EvaluationConfig(
            scores=Path(folder) / "scores.parquet",
            labels=Path(folder) / "labels.parquet",
            statistics=StatisticsConfig(resamples=resamples),
        )
        began, worked = time.perf_counter(), time.process_time()
        write_evaluation(evaluate(config), Path(folder) / "out")
        ours, clock = time.process_time() - worked, time.perf_counter() - began
    print(f"  vqa evaluate, start-up and page apart: {ours:.1f} s of processor, {clock:.1f} s by the clock")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=7186)
    parser.add_argument("--resamples", type=int, default=10_000)
    main(**vars(parser.parse_args()))
