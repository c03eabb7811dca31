"""Recovery of mean opinion scores (MOS) from raw ratings, by four methods.

    mean   mean of a clip's ratings
    bt500  rejection of subjects who are outliers on both sides, then the mean (ITU-R BT.500-13, Annex 2, 2.3.1)
    p913   subtraction of each subject's bias, then bt500 (ITU-T P.913, 12.4)
    p910   maximum likelihood of the model rating = quality + bias of the subject + noise of the subject, by alternating
           projection (ITU-T P.910, Annex E; Li, Bampis, Krasula, Janowski, Katsavounidis, arXiv 2004.02067)

The formulas are those of SUREAL 0.9 (Netflix), with these differences: a subject's share of outliers refers to the
clips that the subject rated, not to all; on clips whose ratings are all equal nobody is an outlier; ratings without a
solution are refused (see `recover`). As in SUREAL, bt500 uses the population standard deviation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow.csv import write_csv
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from vqa.data.cells import defused
from vqa.data.subjective.ratings import Ratings
from vqa.errors import UsageError, first_few
from vqa.files import replacing

Method = Literal["mean", "bt500", "p913", "p910"]
Floats = NDArray[np.float64]

MAX_ROUNDS, SETTLED, EPSILON = 1000, 1e-8, 1e-8  # as in SUREAL
_NO_NOISE = 1e-3  # share of the ratings' spread: a subject closer to the result than that determines it
_AGREED = 1e-12  # variance of a clip's ratings below which all are equal
_TIE = 1e-9  # relative: values this close to a limit lie on it, whatever the scale of the ratings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recovered:
    """Opinions of E clips on the ratings' scale, facts of S subjects; NaN: undefined."""

    mos: Floats  # [E]
    mos_std: Floats  # [E] sample standard deviation of the ratings that count, bias subtracted
    mos_error: Floats  # [E] standard error of mos
    ratings: NDArray[np.int64]  # [E] number of ratings that count
    bias: Floats  # [S] mean of the subject's ratings minus the opinions
    inconsistency: Floats  # [S] standard deviation of the residuals
    rated: NDArray[np.int64]  # [S] number of ratings by the subject
    rejected: NDArray[np.bool_]  # [S]


def recover(ratings: Ratings, *, method: Method) -> Recovered:
    """Recover mean opinion scores from ratings.

    Args:
        ratings: N ratings of E clips by S subjects.
        method: One of the methods of this module.

    Raises:
        UsageError: If biases cannot be compared (p913, p910: groups of clips that share no subject), or the likelihood
            has no maximum (p910: a subject with a single rating, or one far more consistent than the others where
            ratings are few, is estimated as free of noise and determines the result, as in SUREAL), or the projection
            does not converge within 1000 rounds.
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
    """Notes for the user: clips, subjects, ratings, rejected subjects, how to import."""
    low, high = ratings.value.min(), ratings.value.max()
    rejected = [name for name, is_so in zip(ratings.subjects, found.rejected, strict=True) if is_so]
    lost = int(np.isnan(found.mos).sum())
    lines = [f"{len(ratings.clips)} clips, {len(ratings.subjects)} subjects, {len(ratings.value)} ratings"]
    lines[0] += f" from {low:g} to {high:g}"
    lines += [f"{len(rejected)} subjects rejected: {first_few(rejected)}"] if rejected else []
    lines += [f"{lost} clips without an opinion: all their subjects were rejected"] if lost else []
    # With the bias subtracted, an opinion can lie slightly outside the range of the ratings.
    low = min(low, np.floor(np.nanmin(found.mos) * 100) / 100)
    high = max(high, np.ceil(np.nanmax(found.mos) * 100) / 100)
    return [*lines, f"to import: hf-videofolder --dataset NAME --scale {low:g},{high:g}"]


def write_recovered(out: Path, ratings: Ratings, found: Recovered) -> Path:
    """Write opinions as `vqa data import hf-videofolder` reads them, and subjects.

    Args:
        out: Path of the opinions; its suffix (.csv or .parquet) sets the format. Both files are written atomically.
        ratings: The ratings, for the names of clips and subjects.
        found: The result of `recover`.

    Returns:
        The path of the subjects, `NAME.subjects.SUFFIX`.

    Raises:
        UsageError: If `out` has another suffix.
    """
    names = ("mos", "mos_std", "mos_error", "ratings")
    write_columns(out, {"file_name": ratings.clips, **{name: getattr(found, name) for name in names}})
    names = ("rated", "bias", "inconsistency", "rejected")
    beside = out.with_name(f"{out.stem}.subjects{out.suffix}")
    write_columns(beside, {"subject": ratings.subjects, **{name: getattr(found, name) for name in names}})
    return beside


def write_columns(path: Path, columns: Mapping[str, Sequence[str] | NDArray[np.generic]]) -> None:
    """Write columns to .csv or .parquet atomically, NaN as null. Raises UsageError."""
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise UsageError(f"--out {path} has another suffix. Give a .csv or .parquet file.")
    table = pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})  # NaN: null
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        if path.suffix.lower() == ".csv":
            for at, field in enumerate(table.schema):
                if field.type == pa.string():
                    table = table.set_column(at, field, pa.array(map(defused, table.column(at).to_pylist())))
            write_csv(table, draft)
        else:
            pq.write_table(table, draft)


def _alternate(ratings: Ratings, bias: Floats) -> tuple[Floats, Floats]:
    """Most likely quality [E] and bias [S] (mean 0), by alternating projection."""
    clip, subject, value = ratings.clip, ratings.subject, ratings.value
    clips, subjects = len(ratings.clips), len(ratings.subjects)
    mos = _mean(clip, value, clips)
    for _ in range(MAX_ROUNDS):
        before = mos
        noise = _spread(subject, _residual(ratings, mos, bias), subjects)
        least = int(np.argmin(noise))
        if noise[least] < _NO_NOISE * value.std():
            raise UsageError(
                f"p910: the likelihood has no maximum, since subject {ratings.subjects[least]} "
                f"({np.bincount(subject)[least]} ratings) alone determines the result. Leave out subjects with few "
                "ratings by --min-ratings, or use --method p913."
            )
        weight = 1 / (noise[subject] ** 2 + EPSILON)
        mos = np.bincount(clip, weight * (value - bias[subject]), clips) / np.bincount(clip, weight, clips)
        bias = _of_subjects(ratings, _residual(ratings, mos))
        if abs(mos - before).max() < SETTLED:
            break
    else:
        raise UsageError(f"p910: not converged after {MAX_ROUNDS} rounds. Use --method p913.")
    return mos + bias.mean(), bias - bias.mean()


def _outliers(ratings: Ratings, value: Floats) -> NDArray[np.bool_]:
    """Subjects [S] to reject by BT.500-13: over 5 % outliers, on both sides alike."""
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
    return rejected if not rejected.all() else np.zeros(subjects, bool)  # rejecting all would leave nothing


def _refuse_islands(ratings: Ratings, method: str) -> None:
    """Raise UsageError if the clips fall into groups without a common subject."""
    clips, subjects = len(ratings.clips), len(ratings.subjects)
    ends = (ratings.clip, clips + ratings.subject)
    graph = coo_array((np.ones(len(ratings.value)), ends), shape=(clips + subjects,) * 2)
    groups, _ = connected_components(graph, directed=False)
    if groups > 1:
        raise UsageError(
            f"{method}: the clips fall into {groups} groups without a common subject, so that biases "
            "cannot be compared. "
            "Recover each group on its own, or use --method mean or bt500."
        )


def _residual(ratings: Ratings, mos: Floats, bias: Floats | None = None) -> Floats:
    """Rating minus opinion (and bias) [N]."""
    left = ratings.value - mos[ratings.clip]
    return left if bias is None else left - bias[ratings.subject]


def _of_subjects(ratings: Ratings, left: Floats) -> Floats:
    """Mean residual per subject [S]; clips without an opinion do not count."""
    known = ~np.isnan(left)
    return _mean(ratings.subject[known], left[known], len(ratings.subjects))


def _spread(group: NDArray[np.intp], left: Floats, size: int) -> Floats:
    """Population standard deviation of the residuals per group [size]."""
    known = ~np.isnan(left)
    group, left = group[known], left[known]
    return np.sqrt(_mean(group, (left - _mean(group, left, size)[group]) ** 2, size))


def _mean(group: NDArray[np.intp], values: Floats, size: int) -> Floats:
    return _over(np.bincount(group, values, size), np.bincount(group, minlength=size))


def _over(numerator: NDArray[np.generic], denominator: NDArray[np.generic]) -> Floats:
    """The quotient, NaN where the denominator is 0 or less."""
    result = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)  # type: ignore[operator]
    return result
