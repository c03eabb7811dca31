"""How unsure a student is of a clip.

An ensemble of directions, each fitted without two folds of people's pictures, spreads where a clip is unlike what they
learned from. Among pictures that are like them it says little of errors (docs/benchmarks/people.md), so it counts where
it is MORE than usual. The width is scaled by split conformal prediction with locally weighted residuals (Lei et al.
2018, JASA 113, section 5.2), so that it is an error on the scale of opinions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save as as_bytes

from vqa.errors import ModelError
from vqa.files import replacing
from vqa.light.card import WIDTH
from vqa.light.config import RegressionConfig
from vqa.light.regression import LabelledSet, Matrix, fit_regressor, without
from vqa.light.weights import finite_tensors
from vqa.metrics.conformal import half_width

FOLDS = 5
COVERAGE = 0.683  # one deviation of a normal error
MORE = 2.0  # times the median spread of rows that a member has not learnt from
LEAST_SLOPE = 0.25  # people disagree at the ends of the scale too


@dataclass(frozen=True, slots=True, kw_only=True)
class Width:
    """Error to expect of a score, by the spread of the members.

    It is `scale * (max(spread, least_spread) + floor) * slope(score)`.
    """

    weights: Matrix  # [members, D], as float32 holds them
    biases: Matrix  # [members]
    scale: float
    least_spread: float = 0.0  # 0: any spread counts, as in files of before
    floor: float = 0.0  # as these have
    least_slope: float = 1.0  # 1: the slope does not count, as in the oldest

    def of(self, embeddings: Matrix, scores: Matrix) -> Matrix:
        """Half widths [N] on 1-5, holding 68 % of opinions, of embeddings [N, D]."""
        spread = (embeddings @ self.weights.T + self.biases).std(1)
        return self._widths(spread, scores)

    def of_left_out(self, first: LabelledSet, folds: Matrix) -> tuple[Matrix, Matrix]:
        """Errors and widths [N] of the fitted rows, by members that left their fold out."""
        residuals, spread, scores = _left_out(first, folds, self.weights, self.biases)
        return np.abs(residuals), self._widths(spread, scores)

    def _widths(self, spread: Matrix, scores: Matrix) -> Matrix:
        unsure = np.maximum(spread, self.least_spread) + self.floor
        return np.asarray(self.scale * unsure * _slope(scores, self.least_slope))

    @classmethod
    def fit(cls, sets: Sequence[LabelledSet], folds: Sequence[Matrix | None], config: RegressionConfig) -> Self:
        """Fit the members and the scale.

        Args:
            sets: As of `regression.fit_regressor`; labels of the first on 1-5.
            folds: Of each set the fold [N] of each row, 0 to FOLDS - 1; None for sets that every member learns from.
            config: As of `regression.fit_regressor`.

        Returns:
            The width. Its scale comes from rows of the first set, each predicted by members that left its fold out.
        """
        pairs = list(combinations(range(FOLDS), 2))
        straight = config.model_copy(update={"radial": 0.0})
        members = [fit_regressor(without(sets, folds, pair), straight) for pair in pairs]
        first = sets[0]
        points = float(first.labels.std())
        weights = np.stack([one.weights for one in members]).astype(np.float32).astype(np.float64) * points
        biases = np.array([one.bias for one in members]) * points
        left_out = folds[0] if folds[0] is not None else np.zeros(len(first.labels))
        residuals, spread, scores = _left_out(first, left_out, weights, biases)
        least = MORE * float(np.median(spread))
        unscaled = cls(weights=weights, biases=biases, scale=1.0, least_spread=least, least_slope=LEAST_SLOPE)
        return replace(unscaled, scale=half_width(residuals / unscaled._widths(spread, scores), coverage=COVERAGE))

    def save(self, folder: Path) -> None:
        """Write width.safetensors into a student's folder."""
        tensors = {
            "weights": torch.from_numpy(self.weights.astype(np.float32)),
            "biases": torch.from_numpy(self.biases),
            "error": torch.tensor([self.floor, self.scale, self.least_slope, self.least_spread], dtype=torch.float64),
        }
        with replacing(folder / WIDTH) as draft:
            draft.write_bytes(as_bytes(tensors))

    @classmethod
    def load(cls, folder: Path, *, size: int) -> Self | None:
        """Load the width for embeddings [size]; None without a file. Raises ModelError."""
        if not (folder / WIDTH).exists():
            return None
        try:
            tensors = finite_tensors(folder / WIDTH)
            error = tensors["error"].reshape(-1).tolist()
            floor, scale, least_slope, least_spread = error + [1.0, 0.0][len(error) - 2 :]
            weights, biases = tensors["weights"].double().numpy(), tensors["biases"].double().numpy()
            if weights.shape != (biases.size, size) or not biases.size:
                raise ValueError(f"weights of {weights.shape} and biases of {biases.shape} for embeddings of {size}")
            if min(error) < 0:
                raise ValueError(f"floor, scale, slope and spread of {error}, none of which is below 0")
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as problem:
            what = " ".join(str(problem).split())[:200]
            raise ModelError(
                f"student {folder}: {WIDTH} cannot be used ({what}); make it anew with `vqa distill`"
            ) from problem
        return cls(
            weights=weights,
            biases=biases,
            scale=scale,
            least_spread=least_spread,
            floor=floor,
            least_slope=least_slope,
        )


def _left_out(first: LabelledSet, folds: Matrix, weights: Matrix, biases: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Residuals, spread and scores of rows, each by members that left its fold out."""
    pairs = list(combinations(range(FOLDS), 2))
    found = first.embeddings @ weights.T + biases
    is_new = np.array([[fold in pair for pair in pairs] for fold in folds.tolist()])
    middle = np.average(found, axis=1, weights=is_new)
    spread = np.sqrt(np.average((found - middle[:, None]) ** 2, axis=1, weights=is_new))
    slope, start = np.polyfit(middle, first.labels, 1)
    scores = slope * middle + start
    return first.labels - scores, spread, scores


def _slope(scores: Matrix, least: float) -> Matrix:
    """Slope of the logistic map to 1-5 at a score: 1 in the middle, less at the ends."""
    return np.clip((scores - 1) * (5 - scores) / 4, least, 1.0)


def folds_of(groups: Sequence[str]) -> Matrix:
    """The fold [N] of each picture: its group's number among all, modulo FOLDS."""
    names = {name: k % FOLDS for k, name in enumerate(sorted(set(groups)))}
    return np.array([names[group] for group in groups])
