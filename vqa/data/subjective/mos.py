"""Raw ratings to opinions: the plain mean, and three ways to allow for subjects who rate high, low or at random.

    mean  the average of a clip's ratings
    bt500 subjects who are outliers on both sides are rejected, then the average (ITU-R BT.500-13, Annex 2, 2.3.1)
    p913  each subject's bias is taken off, then as bt500 (ITU-T P.913, 12.4)
    p910  maximum likelihood of rating = quality + subject's bias + noise of the subject's inconsistency, by alternating
          projection (ITU-T P.910, Annex E; Li, Bampis, Krasula, Janowski, Katsavounidis, arXiv 2004.02067)

Formulas are those of SUREAL 0.9 (Netflix), with these differences: a subject's share of outliers is of the clips that
the subject rated, not of all; clips on which all agree count nobody as an outlier; what has no answer is refused
(`recover`). As there, the outliers of bt500 are told by the population's standard deviation.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow.csv import write_csv
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from vqa.data.public.layouts import few
from vqa.data.subjective.ratings import Ratings
from vqa.errors import UsageError
from vqa.files import replacing

Method = Literal["mean", "bt500", "p913", "p910"]
Floats = NDArray[np.float64]

MAX_ROUNDS, SETTLED, EPSILON = 1000, 1e-8, 1e-8  # as SUREAL
_NO_NOISE = 1e-3  # of the ratings' spread: a subject who follows the result closer than that has made it
_AGREED = 1e-12  # variance of a clip's ratings below which all are one number
_TIE = 1e-9  # relative: what lies on a limit but for rounding lies on it, on any scale of the ratings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recovered:
    """Opinions of E clips on the scale of the ratings, and what is thought of S subjects. NaN: cannot be told."""

    mos: Floats  # [E]
    mos_std: Floats  # [E] spread of the ratings that count, bias taken off; sample standard deviation
    mos_error: Floats  # [E] standard error of mos
    ratings: NDArray[np.int64]  # [E] how many count
    bias: Floats  # [S] how much higher than the opinion the subject rates
    inconsistency: Floats  # [S] standard deviation of what is left
    rated: NDArray[np.int64]  # [S] how many ratings the subject gave
    rejected: NDArray[np.bool_]  # [S]


def recover(ratings: Ratings, *, method: Method) -> Recovered:
    """Opinions by one of the methods above.

    Raises UsageError where biases cannot be compared (p913, p910: groups of clips that share no subject), or no best
    answer exists (p910: a subject with a single rating, or one far steadier than others where ratings are few, comes
    out as free of noise and so as the result, as it does in SUREAL; or no end after 1000 rounds).
    """
    count = len(ratings.clips), len(ratings.subjects)
    rejected = np.zeros(count[1], bool)
    bias = np.zeros(count[1])
    if method in ("p913", "p910"):
        _refuse_islands(ratings, method)
        bias = _of_subjects(ratings, _residual(ratings, _mean(ratings.clip, ratings.value, count[0])))
    if method == "p910":
        mos, bias = _alternate(ratings, bias)
    unbiased = ratings.value - bias[ratings.subject]
    if method in ("bt500", "p913"):
        rejected = _outliers(ratings, unbiased)
    keep = ~rejected[ratings.subject]
    clip, unbiased = ratings.clip[keep], unbiased[keep]
    n = np.bincount(clip, minlength=count[0])
    centre = _mean(clip, unbiased, count[0])
    mos_std = np.sqrt(_over(np.bincount(clip, (unbiased - centre[clip]) ** 2, count[0]), n - 1))
    mos_error = _over(mos_std, np.sqrt(n))
    if method == "p910":
        noise = _spread(ratings.clip, _residual(ratings, mos, bias), count[0])
        mos_error = np.where(n > 1, _over(noise, np.sqrt(n)), np.nan)
    else:
        mos = centre
    if method in ("mean", "bt500"):  # for information
        bias = _of_subjects(ratings, _residual(ratings, mos))
    return Recovered(
        mos=mos,
        mos_std=mos_std,
        mos_error=mos_error,
        ratings=n,
        bias=bias,
        inconsistency=_spread(ratings.subject, _residual(ratings, mos, bias), count[1]),
        rated=np.bincount(ratings.subject, minlength=count[1]),
        rejected=rejected,
    )


def summary(ratings: Ratings, found: Recovered) -> list[str]:
    """What a person should know of it, a line each."""
    low, high = ratings.value.min(), ratings.value.max()
    rejected = [name for name, is_so in zip(ratings.subjects, found.rejected, strict=True) if is_so]
    lost = int(np.isnan(found.mos).sum())
    lines = [f"{len(ratings.clips)} clips, {len(ratings.subjects)} subjects, {len(ratings.value)} ratings"]
    lines[0] += f" from {low:g} to {high:g}"
    lines += [f"{len(rejected)} subjects rejected: {few(rejected)}"] if rejected else []
    lines += [f"{lost} clips without an opinion: only rejected subjects rated them"] if lost else []
    # Without its subjects' bias an opinion can lie a little outside the ratings.
    low = min(low, np.floor(np.nanmin(found.mos) * 100) / 100)
    high = max(high, np.ceil(np.nanmax(found.mos) * 100) / 100)
    return [*lines, f"to import: hf-videofolder --dataset NAME --scale {low:g},{high:g}"]


def write_recovered(out: Path, ratings: Ratings, found: Recovered) -> Path:
    """The opinions as a table that `vqa data import hf-videofolder` reads, the subjects as another beside it.

    The suffix (.csv or .parquet) says which format, atomically; returns the path of the subjects, `NAME.subjects...`.
    Raises UsageError for another suffix.
    """
    if out.suffix.lower() not in (".csv", ".parquet"):
        raise UsageError(f"--out {out}: wanted a .csv or .parquet file")
    names = ("mos", "mos_std", "mos_error", "ratings")
    _write(out, {"file_name": ratings.clips, **{name: getattr(found, name) for name in names}})
    names = ("rated", "bias", "inconsistency", "rejected")
    beside = out.with_name(f"{out.stem}.subjects{out.suffix}")
    _write(beside, {"subject": ratings.subjects, **{name: getattr(found, name) for name in names}})
    return beside


def _write(path: Path, columns: dict[str, Any]) -> None:
    table = pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})  # NaN: null
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        if path.suffix.lower() == ".csv":
            write_csv(table, draft)
        else:
            pq.write_table(table, draft)


def _alternate(ratings: Ratings, bias: Floats) -> tuple[Floats, Floats]:
    """Quality [E] and bias [S] that explain the ratings best; biases have mean 0."""
    clip, subject, value = ratings.clip, ratings.subject, ratings.value
    clips, subjects = len(ratings.clips), len(ratings.subjects)
    mos = _mean(clip, value, clips)
    for _ in range(MAX_ROUNDS):
        before = mos
        noise = _spread(subject, _residual(ratings, mos, bias), subjects)
        least = int(np.argmin(noise))
        if noise[least] < _NO_NOISE * value.std():
            raise UsageError(
                f"p910: where subject {ratings.subjects[least]} rated ({np.bincount(subject)[least]} ratings), the "
                "result becomes what this one said: the likelihood has no maximum; leave subjects with few ratings out "
                "by --fewest, or take --method p913"
            )
        weight = 1 / (noise[subject] ** 2 + EPSILON)
        mos = np.bincount(clip, weight * (value - bias[subject]), clips) / np.bincount(clip, weight, clips)
        bias = _of_subjects(ratings, _residual(ratings, mos))
        if abs(mos - before).max() < SETTLED:
            break
    else:
        raise UsageError(f"p910: no end after {MAX_ROUNDS} rounds; take --method p913")
    return mos + bias.mean(), bias - bias.mean()


def _outliers(ratings: Ratings, value: Floats) -> NDArray[np.bool_]:
    """Subjects [S] far from the others in more than 5 % of their ratings, about as often above as below."""
    clip, clips, subjects = ratings.clip, len(ratings.clips), len(ratings.subjects)
    off = value - _mean(clip, value, clips)[clip]
    second, fourth = _mean(clip, off**2, clips), _mean(clip, off**4, clips)
    kurtosis = _over(fourth, second**2)
    normal = (kurtosis >= 2 * (1 - _TIE)) & (kurtosis <= 4 * (1 + _TIE))
    limit = np.where(normal, 2, np.sqrt(20)) * np.sqrt(second) * (1 - _TIE)
    has_spread = second[clip] > _AGREED
    above, below = (
        np.bincount(ratings.subject[far & has_spread], minlength=subjects)
        for far in (off >= limit[clip], off <= -limit[clip])
    )
    rated = np.bincount(ratings.subject, minlength=subjects)
    rejected = (_over(above + below, rated) > 0.05) & (_over(abs(above - below), above + below) < 0.3)
    return rejected if not rejected.all() else np.zeros(subjects, bool)  # all would leave nothing


def _refuse_islands(ratings: Ratings, method: str) -> None:
    """Raises UsageError where clips fall into groups that no subject joins."""
    clips, subjects = len(ratings.clips), len(ratings.subjects)
    ends = (ratings.clip, clips + ratings.subject)
    graph = coo_array((np.ones(len(ratings.value)), ends), shape=(clips + subjects,) * 2)
    groups, _ = connected_components(graph, directed=False)
    if groups > 1:
        raise UsageError(
            f"{method}: the clips fall into {groups} groups that no subject joins, so that biases cannot be compared "
            "across them; recover each group on its own, or take --method mean or bt500"
        )


def _residual(ratings: Ratings, mos: Floats, bias: Floats | None = None) -> Floats:
    """What is left of each rating [N]."""
    left = ratings.value - mos[ratings.clip]
    return left if bias is None else left - bias[ratings.subject]


def _of_subjects(ratings: Ratings, left: Floats) -> Floats:
    """Mean of what is left, by subject [S]; clips without an opinion do not count."""
    known = ~np.isnan(left)
    return _mean(ratings.subject[known], left[known], len(ratings.subjects))


def _spread(group: NDArray[np.intp], left: Floats, size: int) -> Floats:
    """Population standard deviation within each group [size]."""
    known = ~np.isnan(left)
    group, left = group[known], left[known]
    return np.sqrt(_mean(group, (left - _mean(group, left, size)[group]) ** 2, size))


def _mean(group: NDArray[np.intp], values: Floats, size: int) -> Floats:
    return _over(np.bincount(group, values, size), np.bincount(group, minlength=size))


def _over(numerator: NDArray[np.generic], denominator: NDArray[np.generic]) -> Floats:
    """The quotient; NaN where the denominator is not above 0."""
    result = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)  # type: ignore[operator]
    return result
