"""Curves from scores to opinions: logistics, steps, and a line near y = x."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy  # its parts load when first used
from numpy.typing import ArrayLike, NDArray

from vqa.metrics.correlation import Numbers, pair

CurveKind = Literal["logistic4", "logistic5", "isotonic", "line"]
LIMIT = 100.0  # of a logistic's width, in standard deviations of the scores
LINE = 20.0  # by this width it is a line for every score there is


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveFit:
    """A fitted curve; call it with scores [N] for opinions [N]."""

    kind: CurveKind
    parameters: tuple[float, ...]  # b1, b2, ... of FORMULAS; isotonic: the knots' scores, then their opinions
    converged: bool
    note: str = ""

    def __call__(self, scores: ArrayLike) -> Numbers:
        """Opinions [N] for scores [N]."""
        return CURVES[self.kind](np.asarray(scores, dtype=np.float64), np.array(self.parameters))


FORMULAS: dict[CurveKind, str] = {
    "logistic4": "b2 + (b1 - b2) / (1 + exp(-(x - b3) / |b4|))",
    "logistic5": "b1 (1/2 - 1 / (1 + exp(b2 (x - b3)))) + b4 x + b5",
    "isotonic": "linear between the knots, level outside",
    "line": "b1 x + b2",
}


def _logistic4(x: Numbers, b: Numbers) -> Numbers:
    return np.asarray(b[1] + (b[0] - b[1]) * scipy.special.expit((x - b[2]) / abs(b[3])))


def _logistic5(x: Numbers, b: Numbers) -> Numbers:
    return np.asarray(b[0] * (scipy.special.expit(b[1] * (x - b[2])) - 0.5) + b[3] * x + b[4])


def _knots(x: Numbers, b: Numbers) -> Numbers:
    half = len(b) // 2
    return np.asarray(np.interp(x, b[:half], b[half:]))


def _line(x: Numbers, b: Numbers) -> Numbers:
    return np.asarray(b[0] * x + b[1])


CURVES: dict[CurveKind, Callable[[Numbers, Numbers], Numbers]] = {
    "logistic4": _logistic4,
    "logistic5": _logistic5,
    "isotonic": _knots,
    "line": _line,
}


def fit_logistic4(scores: ArrayLike, opinions: ArrayLike) -> CurveFit | None:
    """Fit the monotone 4-parameter logistic (VQEG FR-TV Phase II, 2003).

    By least squares; the curve may fall as scores rise: see `rises`.

    Args:
        scores: [N].
        opinions: [N], in the same order.

    Returns:
        The curve; None for fewer than five clips or a constant.
    """
    found = _shape(scores, opinions, slope=False)
    if found is None:
        return None
    (low, span), middle, width, converged, note = found
    return CurveFit(kind="logistic4", parameters=(low + span, low, middle, width), converged=converged, note=note)


def fit_logistic5(scores: ArrayLike, opinions: ArrayLike) -> CurveFit | None:
    """Fit the logistic plus a line (Sheikh, Sabir, Bovik 2006, eq. 8).

    By least squares; the curve need not be monotone.

    Args:
        scores: [N].
        opinions: [N], in the same order.

    Returns:
        The curve; None for fewer than five clips or a constant.
    """
    found = _shape(scores, opinions, slope=True)
    if found is None:
        return None
    (base, span, slope), middle, width, converged, note = found
    parameters = (span, 1 / width, middle, slope, base + span / 2)
    return CurveFit(kind="logistic5", parameters=parameters, converged=converged, note=note)


def _shape(
    scores: ArrayLike, opinions: ArrayLike, *, slope: bool
) -> tuple[tuple[float, ...], float, float, bool, str] | None:
    """Fit y = c0 + c1 expit((x - middle) / width) [+ c2 x] by least squares.

    Gives (c), middle, width, converged, note. For a given middle and width the c follow from linear least squares
    (variable projection, Golub and Pereyra 1973), so that only two numbers are searched for, from the best point of a
    coarse grid.
    """
    x, y = pair(scores, opinions)
    if len(x) < 5 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    centre, scale = float(x.mean()), float(x.std())
    z = (x - centre) / scale
    columns = 3 if slope else 2
    basis = np.empty((len(z), columns))
    basis[:, 0] = 1
    if slope:
        basis[:, 2] = z

    def coefficients(shape: Numbers) -> NDArray[np.float64]:
        basis[:, 1] = scipy.special.expit((z - shape[0]) / np.exp(shape[1])) - 0.5
        return np.asarray(np.linalg.lstsq(basis, y, rcond=None)[0])

    def residuals(shape: Numbers) -> Numbers:
        return np.asarray(basis @ coefficients(shape) - y)

    limits = np.array([[z.min() - 3, np.log(0.01)], [z.max() + 3, np.log(LIMIT)]])
    grid = [np.array([m, w]) for m in (-2.0, -1.0, 0.0, 1.0, 2.0) for w in np.log([0.05, 0.2, 0.5, 1.0, 3.0, 10.0])]
    start = min((np.clip(point, *limits) for point in grid), key=lambda point: float(np.sum(residuals(point) ** 2)))
    found = scipy.optimize.least_squares(residuals, np.clip(start, limits[0] + 1e-6, limits[1] - 1e-6), bounds=limits)
    c = coefficients(found.x)
    middle, width = centre + scale * float(found.x[0]), scale * float(np.exp(found.x[1]))
    # Back from z to x, and from (expit - 1/2) to expit.
    line = float(c[2]) / scale if slope else 0.0
    base = float(c[0]) - float(c[1]) / 2 - line * centre
    note = "as straight as a line" if found.x[1] > np.log(LINE) else ""
    c_out = (base, float(c[1]), line) if slope else (base, float(c[1]))
    return c_out, middle, width, bool(found.success), note


def fit_isotonic(scores: ArrayLike, opinions: ArrayLike) -> CurveFit | None:
    """Fit non-falling steps, joined by lines (pool adjacent violators).

    By least squares; clips of one score count with their mean opinion.

    Args:
        scores: [N].
        opinions: [N], in the same order.

    Returns:
        The curve; None for no clips.
    """
    x, y = pair(scores, opinions)
    if not len(x):
        return None
    knots, where, counts = np.unique(x, return_inverse=True, return_counts=True)
    level = scipy.optimize.isotonic_regression(np.bincount(where, y) / counts, weights=counts).x
    # Of a run of equal levels only the ends say anything.
    inner = np.r_[False, (level[1:-1] == level[:-2]) & (level[1:-1] == level[2:]), False][: len(level)]
    keep = ~inner
    return CurveFit(kind="isotonic", parameters=(*map(float, knots[keep]), *map(float, level[keep])), converged=True)


def fit_line(scores: ArrayLike, opinions: ArrayLike) -> CurveFit | None:
    """Fit a line that departs from y = x as far as the clips bear it out.

    Bayesian linear regression of opinion minus score, offset and slope a priori normal about 0; their two variances, in
    units of the noise's, are those of a grid that the opinions are likeliest under (evidence: MacKay 1992, Bayesian
    interpolation). Few clips whose scores stand on the opinions' scale already leave them where they are.

    Args:
        scores: [N].
        opinions: [N], in the same order.

    Returns:
        The line, which may fall; None for fewer than three clips or a constant.
    """
    x, y = pair(scores, opinions)
    if len(x) < 3 or np.ptp(x) == 0:
        return None
    centre, scale = float(x.mean()), float(x.std())
    z, off = (x - centre) / scale, y - x
    # Ones and z are orthogonal and of length sqrt(N), so each coefficient stands for itself.
    count = len(x)
    told = np.array([off.mean(), float(z @ off) / count])
    rest = max(float(off @ off) - count * float(told @ told), 1e-12 * max(float(y @ y), 1e-300))
    ratios = np.append(0.0, np.geomspace(1e-3, 1e6, 46))  # of a coefficient's variance to the noise's
    kept = count * ratios / (1 + count * ratios)  # share of a coefficient that is kept
    left = count * told[:, None] ** 2 * (1 - kept)  # [2, ratios]: of the squares, what such a prior leaves
    squares = rest + left[0][:, None] + left[1]
    penalty = np.log1p(count * ratios) / 2
    evidence = -count / 2 * np.log(squares) - penalty[:, None] - penalty
    best = np.unravel_index(np.argmax(evidence), evidence.shape)
    offset, tilt = told * (kept[best[0]], kept[best[1]])
    slope = 1 + tilt / scale
    return CurveFit(kind="line", parameters=(float(slope), float(offset - tilt / scale * centre)), converged=True)


def rises(fit: CurveFit, scores: ArrayLike) -> bool:
    """Whether the curve at the highest of the scores [N] is above that at the lowest."""
    x = np.asarray(scores, dtype=np.float64)
    ends = fit([x.min(), x.max()])
    return bool(ends[1] > ends[0])
