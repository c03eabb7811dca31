"""A student's head: kernel ridge regression on several sets at once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from vqa.light.config import RegressionConfig
from vqa.light.embedding import SIZE, SIZES, group_sizes

Matrix = NDArray[np.float64]
_SPANNED = 2000  # rows that the axes of the radial part are taken from, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSet:
    """Embeddings with labels on a scale of their own, higher is better."""

    embeddings: Matrix  # [N, D]
    labels: Matrix  # [N]
    weight: float = 1.0
    groups: NDArray[np.int64] | None = None  # [N]; None: all are one
    apart: float = 1.0  # share of a group's mean that is taken out; 1: labels are compared within a group alone
    part: float = 1.0  # share of the function's variance, beforehand, that labels are about; 1: all of it


@dataclass(frozen=True, slots=True, kw_only=True)
class RadialPart:
    """Gaussian radial basis functions around the rows that were learnt from.

    As a student's file holds them: axes and centres in float16, the rest but the sharpness in float32.
    """

    centre: Matrix  # [D]
    scale: Matrix  # [D]
    axes: NDArray[np.float32]  # [D, A]
    centres: Matrix  # [N, A]
    coefficients: Matrix  # [N]
    sharpness: float  # of a function: exp(-sharpness * squared distance)

    def along(self, embeddings: Matrix) -> Matrix:
        """Sum of the functions at embeddings [M, D], [M]."""
        places = ((embeddings - self.centre) * self.scale).astype(np.float32) @ self.axes
        squares = _squares(places.astype(np.float64), self.centres)
        return np.asarray(np.exp(-self.sharpness * squares) @ self.coefficients)


@dataclass(frozen=True, slots=True, kw_only=True)
class Regressor:
    """A function of embeddings: a direction, and a radial part where it bends."""

    weights: Matrix  # [D]
    bias: float
    radial: RadialPart | None = None

    def along(self, embeddings: Matrix) -> Matrix:
        """Places of embeddings [N, D] on the scale that the sets share, [N]."""
        # of more than 10,000 numbers BLAS would make threads, which then wait for more at a core's cost
        places: Matrix = np.einsum("nd,d->n", embeddings, self.weights) + self.bias
        return places if self.radial is None else places + self.radial.along(embeddings)


def fit_regressor(sets: Sequence[LabelledSet], config: RegressionConfig) -> Regressor:
    """Fit one function to sets that do not share a scale.

    Kernel ridge regression (Hastie, Tibshirani, Friedman 2009, section 5.8) with a linear and a Gaussian kernel, added.
    Each set has its own offset and, from the second on, its own gain: after each round the labels of a set are put on
    the common scale by the regression of what was predicted on them. The first set's labels, standardised, are the
    scale. Groups have offsets of their own, free where `apart` is 1 (fixed effects), else drawn to the set's (random
    effects, by quasi-demeaning: Wooldridge 2010, chapter 10). Labels of a set with `part` below 1, such as VMAF, which
    compares with an original, are about a part of the function alone and leave the rest to the others: between sets
    the kernel counts as the smaller of their parts (a kernel for several tasks: Bonilla and others 2007, section 2).
    Without such a set it minimises `sum_d w_d / N_d * ||a_d y_d + b_g - f(X_d)||^2 + strength * ||f||^2`, X
    standardised.

    Args:
        sets: At least one; the first with weight 1 should be people's.
        config: Strength, kernels, emphasis and rounds.

    Returns:
        The function, all of it, for embeddings as given.
    """
    centre, scale = standardisation([_within(one.embeddings, one) for one in sets], config)
    centre += np.mean([one.embeddings.mean(0) for one in sets], axis=0)
    rows = np.concatenate([(one.embeddings - centre) * scale for one in sets])
    row_weights = np.concatenate([np.full(len(one.labels), (one.weight / len(one.labels)) ** 0.5) for one in sets])
    linear = (1 - config.radial) / SIZE  # also where there are fewer: their emphasis makes up for it
    kernel = linear * (rows @ rows.T)
    radial = None
    if config.radial:
        axes = _float16(principal_axes([rows[:: -(-len(rows) // _SPANNED)]], config.axes))
        places = _float16(rows @ axes)
        squares = _squares(places, places)
        is_free = np.concatenate([np.full(len(one.labels), one.groups is None) for one in sets])
        middle = max(float(np.median(squares[np.ix_(is_free, is_free)] if is_free.any() else squares)), 1e-9)
        radial = RadialPart(
            centre=_float32(centre),
            scale=_float32(scale),
            axes=axes.astype(np.float32),
            centres=places,
            coefficients=np.full(len(rows), config.radial * middle / SIZE),  # as yet what a row counts at most
            sharpness=config.sharpness / middle,
        )
        kernel += radial.coefficients * np.exp(-radial.sharpness * squares)
    parts = np.concatenate([np.full(len(one.labels), one.part) for one in sets])
    kernel *= np.minimum(parts[:, None], parts)
    kernel = _each_within(_each_within(kernel, sets).T, sets)
    factor = cho_factor(row_weights[:, None] * kernel * row_weights + config.strength * np.eye(len(rows)))
    targets = [_standardised(one) for one in sets]
    ends = np.cumsum([len(one) for one in targets])[:-1]
    found: Matrix = np.zeros(len(rows))
    for _ in range(config.rounds):
        found = row_weights * cho_solve(factor, row_weights * np.concatenate(targets))
        for k, predicted in enumerate(np.split(kernel @ found, ends)[1:], start=1):
            gain = float(predicted @ targets[k] / (targets[k] @ targets[k]))
            targets[k] = targets[k] * np.clip(gain, 0.5, 2.0)
    found = parts * _each_within(found, sets)
    weights = linear * (found @ rows) * scale
    if radial is not None:
        radial = replace(radial, coefficients=_float32(radial.coefficients * found))
    return Regressor(weights=weights, bias=-float(centre @ weights), radial=radial)


def places_left_out(sets: Sequence[LabelledSet], k: int, folds: Matrix, config: RegressionConfig) -> Matrix:
    """Places [N] of the rows of set k, by regressors fitted without their fold."""
    places = np.zeros(len(folds))
    all_folds = [folds if one is sets[k] else None for one in sets]
    for fold in np.unique(folds).tolist():
        is_left = folds == fold
        fitted = fit_regressor(without(sets, all_folds, [fold]), config)
        places[is_left] = fitted.along(sets[k].embeddings[is_left])
    return places


def without(sets: Sequence[LabelledSet], folds: Sequence[Matrix | None], left_out: Sequence[int]) -> list[LabelledSet]:
    """The sets without the rows of some folds; None: a set is kept whole."""
    found = []
    for one, fold in zip(sets, folds, strict=True):
        kept = np.ones(len(one.labels), dtype=bool) if fold is None else ~np.isin(fold, left_out)
        groups = None if one.groups is None else one.groups[kept]
        found.append(replace(one, embeddings=one.embeddings[kept], labels=one.labels[kept], groups=groups))
    return found


def principal_axes(sets: Sequence[Matrix], count: int) -> Matrix:
    """Principal axes [D, A], of length 1, of rows [N, D] of sets, each centred."""
    rows = np.concatenate([one - one.mean(0) for one in sets])
    values, vectors = np.linalg.eigh(rows @ rows.T)  # fewer rows than features
    kept = [k for k in np.argsort(-values)[:count] if values[k] > 1e-9 * values[-1]]
    return np.asarray(rows.T @ (vectors[:, kept] / np.sqrt(values[kept])))


def _squares(some: Matrix, others: Matrix) -> Matrix:
    """Squared distances [M, N] of [M, A] and [N, A]."""
    sums = (some**2).sum(1)[:, None] + (others**2).sum(1) - 2 * some @ others.T
    return np.asarray(np.maximum(sums, 0.0))


def _float16(numbers: Matrix) -> Matrix:
    return np.asarray(numbers.astype(np.float16), dtype=np.float64)


def _float32(numbers: Matrix) -> Matrix:
    return np.asarray(numbers.astype(np.float32), dtype=np.float64)


def _each_within(values: Matrix, sets: Sequence[LabelledSet]) -> Matrix:
    """Values [N, ...] of the rows of all sets, each set's as `_within`."""
    parts = np.split(values, np.cumsum([len(one.labels) for one in sets])[:-1])
    return np.concatenate([_within(part, one) for part, one in zip(parts, sets, strict=True)])


def _within(values: Matrix, one: LabelledSet) -> Matrix:
    """Values [N, ...] of a set's rows less what is taken out of their group's mean.

    Of the rest of it the set's mean is taken.
    """
    if one.groups is None:
        return np.asarray(values - values.mean(0))
    numbers, counts = np.unique(one.groups, return_inverse=True, return_counts=True)[1:]
    order = np.argsort(numbers, kind="stable")
    means = np.add.reduceat(values[order], np.append(0, np.cumsum(counts)[:-1])) / counts.reshape(
        -1, *[1] * (values.ndim - 1)
    )
    return np.asarray(values - one.apart * means[numbers] - (1 - one.apart) * values.mean(0))


def _standardised(one: LabelledSet) -> Matrix:
    labels = _within(one.labels, one)
    return np.asarray(labels / max(float(labels.std()), 1e-9))


def standardisation(sets: Sequence[Matrix], config: RegressionConfig) -> tuple[Matrix, Matrix]:
    """Centre and scale of each feature: sets count alike, groups by their emphasis.

    A group counts the same whatever encoder made it: as much as with EfficientNet-Lite0's number of features.
    """
    centre: Matrix = np.add.reduce([one.mean(0) / len(sets) for one in sets])
    variance = np.add.reduce([one.var(0) / len(sets) for one in sets])
    sizes = group_sizes(len(centre))
    emphasis = np.concatenate(
        [np.full(size, config.emphasis.get(name, 1.0) * SIZES[name] / size) for name, size in sizes.items()]
    )
    return centre, np.sqrt(emphasis) / (np.sqrt(variance) + 1e-6)
