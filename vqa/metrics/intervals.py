"""Bootstrap of rank and distance statistics, thousands of resamples in seconds.

A resample is how often each clip was drawn (counts [N]). No resample is sorted: the clips are, once, and the ranks
within each resample follow from running sums of counts in that order. So rank statistics are exact, with ties (a clip
drawn twice ties with itself) sharing ranks as on any data.

Above MOST_CLIPS clips, random parts of PART_CLIPS are drawn instead of clips: each statistic is computed once on each
part, and a resample is the mean over the parts drawn. Its spread is that of the statistic on all clips for statistics
that are smooth in the clips (the batch means of simulation; Politis, Romano, Wolf 1999, ch. 2), as these are.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import scipy  # its parts load when first used
from numpy.typing import ArrayLike, NDArray

from vqa.metrics.correlation import Numbers, krcc, pair, pairwise_accuracy, srcc

ResampleCounts = NDArray[np.int32]
MOST_CLIPS, PART_CLIPS = 50_000, 2_000


def replicates(
    scores: ArrayLike,
    opinions: ArrayLike,
    *,
    mapped: Mapping[str, ArrayLike] | None = None,
    spreads: ArrayLike | None = None,
    areas: Mapping[str, tuple[float, Numbers]] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Numbers]:
    """Statistics on bootstrap resamples of clips.

    The draws depend on N and `seed` alone, so the replicates of two models are paired.

    Args:
        scores: [N].
        opinions: [N].
        mapped: curves by name, each its values at the scores [N]. A curve is held: it is not fitted to each resample.
        spreads: [N] of each opinion, for the outlier ratio of the curve `logistic4`.
        areas: by name a value, 0 to 1, and each clip's influence on it [N]. They follow the tangent at the whole sample
            (Efron 1982, ch. 6) on the log odds, so that they stay within 0 and 1; an area over all pairs is too costly
            to compute on each resample.
        resamples: how many.
        seed: of the draws.

    Returns:
        [resamples] values each of srcc, krcc, pairwise_accuracy, plcc, rmse and mae; for each curve also plcc_NAME,
        rmse_NAME and mae_NAME; with spreads outlier_ratio; and the areas. NaN where a resample defines none.

    Raises:
        ValueError: for lists of different lengths.
    """
    x, y = pair(scores, opinions)
    areas = areas or {}
    if len(x) > MOST_CLIPS:
        return _by_parts(x, y, mapped or {}, spreads, areas, resamples=resamples, seed=seed)
    moments = _Moments(x, y, mapped or {}, spreads, {name: influence for name, (_, influence) in areas.items()})
    rank_x, rank_y = _Ranks(x), _Ranks(y)
    found: dict[str, list[Numbers]] = {}
    for counts in draws(len(x), resamples, seed):
        concordance = _concordance(rank_x.group, rank_y.group, counts)
        pairs = len(x) * (len(x) - 1) / 2
        free_x, free_y = pairs - rank_x.tied_pairs(counts), pairs - rank_y.tied_pairs(counts)
        for name, values in {
            "srcc": _spearman(rank_x, rank_y, counts),
            "krcc": _divide(concordance, np.sqrt(free_x * free_y)),
            "pairwise_accuracy": 0.5 + _divide(concordance, free_y) / 2,
            **{name: _moved(areas[name][0], v) if name in areas else v for name, v in moments(counts).items()},
        }.items():
            found.setdefault(name, []).append(values)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _by_parts(
    x: Numbers,
    y: Numbers,
    mapped: Mapping[str, ArrayLike],
    spreads: ArrayLike | None,
    areas: Mapping[str, tuple[float, Numbers]],
    *,
    resamples: int,
    seed: int,
) -> dict[str, Numbers]:
    """Replicates from random parts of the clips, centred on all clips' statistic."""
    generator = np.random.default_rng(seed)
    parts = np.array_split(generator.permutation(len(x)), len(x) // PART_CLIPS)
    whole = {name: np.asarray(values, dtype=np.float64) for name, values in mapped.items()}
    widths = None if spreads is None else np.asarray(spreads, dtype=np.float64)
    found: dict[str, list[float]] = {}
    for part in [np.arange(len(x)), *parts]:
        moments = _Moments(
            x[part],
            y[part],
            {name: values[part] for name, values in whole.items()},
            None if widths is None else widths[part],
            {name: influence[part] * (len(x) / len(part)) for name, (_, influence) in areas.items()},
        )
        own = {name: float(values[0]) for name, values in moments(np.ones((len(part), 1), np.int32)).items()}
        own |= {"srcc": srcc(x[part], y[part]), "krcc": krcc(x[part], y[part])}
        own["pairwise_accuracy"] = pairwise_accuracy(x[part], y[part])
        for name, value in own.items():
            found.setdefault(name, []).append(value)
    drawn = generator.integers(0, len(parts), (resamples, len(parts)))
    result: dict[str, Numbers] = {}
    for name, (value, *of_parts) in found.items():
        steps = np.asarray(of_parts) - np.mean(of_parts)
        moved = steps[drawn].mean(axis=1)
        result[name] = _moved(areas[name][0], moved) if name in areas else value + moved
    return result


def interval(values: Numbers, *, confidence: float = 0.95) -> tuple[float, float] | None:
    """Percentile interval of replicates.

    Args:
        values: [resamples].
        confidence: share of the replicates inside.

    Returns:
        Low and high; None where more than one in twenty replicates is not a number.
    """
    defined = values[np.isfinite(values)]
    if len(defined) < max(1.0, 0.95 * len(values)):
        return None
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def draws(size: int, resamples: int, seed: int) -> Iterator[ResampleCounts]:
    """Counts [size, b] of as many resamples b as fit in memory, `resamples` in all."""
    generator = np.random.default_rng(seed)
    width = int(np.clip(6_000_000 // max(size, 1), 16, 2000))
    for start in range(0, resamples, width):
        count = min(width, resamples - start)
        drawn = generator.integers(0, size, (size, count), dtype=np.int32).astype(np.int64)
        drawn *= count
        drawn += np.arange(count)
        yield np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(np.int32)


class _Ranks:
    """The order of one list of values; equal values are one group."""

    def __init__(self, values: Numbers) -> None:
        distinct, self.group = np.unique(values, return_inverse=True)
        self._order = np.argsort(self.group, kind="stable")
        self._starts = np.searchsorted(self.group[self._order], np.arange(len(distinct)))

    def _sizes(self, counts: ResampleCounts) -> ResampleCounts:
        if len(self._starts) == len(self.group):
            return np.asarray(counts[self._order])
        return np.asarray(np.add.reduceat(counts[self._order], self._starts, axis=0))

    def centred(self, counts: ResampleCounts) -> Numbers:
        """Twice the rank minus its mean, for each clip in each resample [N, b]."""
        sizes = self._sizes(counts)
        upto = np.cumsum(sizes, axis=0, dtype=np.int32)
        return np.asarray((2 * upto - sizes - len(self.group))[self.group].astype(np.float64))

    def tied_pairs(self, counts: ResampleCounts) -> Numbers:
        """Pairs of equal values in each resample [b]."""
        sizes = self._sizes(counts).astype(np.float64)
        return np.asarray((np.einsum("nb,nb->b", sizes, sizes) - sizes.sum(axis=0)) / 2)


def _spearman(rank_x: _Ranks, rank_y: _Ranks, counts: ResampleCounts) -> Numbers:
    parts = []
    for part in np.array_split(counts, max(1, counts.shape[1] // 250), axis=1):  # a few at once stay in the cache
        u, v = rank_x.centred(part), rank_y.centred(part)
        weighted = u * part
        across, xx = np.einsum("nb,nb->b", weighted, v), np.einsum("nb,nb->b", weighted, u)
        yy = np.einsum("nb,nb,nb->b", v, v, part)
        parts.append(_divide(across, np.sqrt(xx * yy)))
    return np.concatenate(parts)


def _concordance(group_x: NDArray[np.int64], group_y: NDArray[np.int64], counts: ResampleCounts) -> Numbers:
    """Pairs in the same order minus pairs in opposite order, in each resample [b].

    Clips are taken by x; a tree of partial sums (Fenwick 1994) over y, one for all resamples at once, tells how many
    clips before them lie below and above: N log N additions of rows instead of N^2.
    """
    levels, resamples = int(group_y.max()) + 1, counts.shape[1]
    tree = np.zeros((levels + 1, resamples), dtype=np.int32)
    seen, total = np.zeros(resamples, dtype=np.int32), np.zeros(resamples)
    order = np.argsort(group_x, kind="stable")
    edges = np.flatnonzero(np.diff(group_x[order], prepend=-1, append=-1))
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        clips = order[begin:end].tolist()
        for clip in clips:  # below minus above = 2 below + equal - seen = below + (below or equal) - seen
            level = int(group_y[clip])
            difference = -seen
            for index in (*_downwards(level), *_downwards(level + 1)):
                difference += tree[index]
            total += difference * counts[clip].astype(np.float64)
        for clip in clips:
            seen += counts[clip]
            index = int(group_y[clip]) + 1
            while index <= levels:
                tree[index] += counts[clip]
                index += index & -index
    return total


def _downwards(index: int) -> Iterator[int]:
    while index:
        yield index
        index &= index - 1


class _Moments:
    """Functions of weighted means, for all resamples by one matrix product."""

    def __init__(
        self,
        x: Numbers,
        y: Numbers,
        mapped: Mapping[str, ArrayLike],
        spreads: ArrayLike | None,
        influences: Mapping[str, Numbers],
    ) -> None:
        curves = {"": x} | {f"_{name}": np.asarray(values, dtype=np.float64) for name, values in mapped.items()}
        columns: dict[str, Numbers] = {}
        y_centred = y - y.mean()
        for name, values in curves.items():
            centred = values - values.mean()
            columns |= {f"x{name}": centred, f"xx{name}": centred**2, f"xy{name}": centred * y_centred}
            columns |= {f"squared{name}": (values - y) ** 2, f"absolute{name}": np.abs(values - y)}
        columns |= {"y": y_centred, "yy": y_centred**2}
        if spreads is not None and "_logistic4" in curves:
            off = np.abs(curves["_logistic4"] - y) > 2 * np.asarray(spreads, dtype=np.float64)
            columns["outlier_ratio"] = off.astype(np.float64)
        # Means as they are, of the outliers and of the steps along each influence.
        columns |= {name: influence * len(x) for name, influence in influences.items()}
        self._plain = [*(["outlier_ratio"] if "outlier_ratio" in columns else []), *influences]
        self._curves, self._names = list(curves), list(columns)
        self._columns = np.stack(list(columns.values()))

    def __call__(self, counts: ResampleCounts) -> dict[str, Numbers]:
        means = dict(zip(self._names, self._columns @ counts.astype(np.float64) / len(counts), strict=True))
        result = {name: means[name] for name in self._plain}
        variance_y = means["yy"] - means["y"] ** 2
        for name in self._curves:
            variance_x = means[f"xx{name}"] - means[f"x{name}"] ** 2
            covariance = means[f"xy{name}"] - means[f"x{name}"] * means["y"]
            result[f"plcc{name}"] = _divide(covariance, np.sqrt(np.maximum(variance_x * variance_y, 0)))
            result[f"rmse{name}"] = np.sqrt(means[f"squared{name}"])
            result[f"mae{name}"] = means[f"absolute{name}"]
        return result


def _moved(area: float, steps: Numbers) -> Numbers:
    """Area moved by small steps [b] along its log odds; 0, 1 and NaN stay."""
    if not 0 < area < 1:
        return np.full_like(steps, area)
    return np.asarray(scipy.special.expit(scipy.special.logit(area) + steps / (area * (1 - area))))


def _divide(above: Numbers, below: Numbers) -> Numbers:
    """Quotients; NaN where `below` is 0."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
