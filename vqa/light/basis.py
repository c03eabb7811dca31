"""Basis vectors with scores: RALI's head (arXiv 2510.11369, section 3).

An embedding goes through one affine map (standardisation and PCA of the joint space); its score is the mean of the
basis vectors' scores, weighted by how alike they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its parts load when first used
from numpy.typing import NDArray

from vqa.light.config import BasisConfig

Matrix = NDArray[np.float64]

BASIS_PARTS = ("projection", "offset", "vectors", "scores")
_LEAST_SCALE = 1e-10  # a feature that varies less is not divided by it, as in the released inference


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """Vectors with scores; an embedding's score is their mean, weighted by likeness.

    `sum_k softmax_k(cos(x @ projection + offset, vectors_k) / temperature) * scores_k`.
    """

    projection: Matrix  # [D, C]
    offset: Matrix  # [C]
    vectors: Matrix  # [K, C]
    scores: Matrix  # [K]
    temperature: float
    words: tuple[str, ...] = ()  # of each vector; empty where it has none

    def weights(self, embeddings: Matrix) -> Matrix:
        """How much each vector says about embeddings [N, D]: [N, K], rows sum to 1."""
        cosines = unit(embeddings @ self.projection + self.offset) @ unit(self.vectors).T
        return np.asarray(scipy.special.softmax(cosines / self.temperature, axis=1))

    def opinions(self, embeddings: Matrix) -> Matrix:
        """Scores of embeddings [N, D] on the scale of the vectors' scores, [N]."""
        found: Matrix = self.weights(embeddings) @ self.scores
        return found

    def nearest(self, embedding: Matrix) -> str | None:
        """Words of the vector most alike an embedding [D], None where the basis has none."""
        return self.words[int(self.weights(embedding[None]).argmax())] if self.words else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """Standardisation and PCA: `(x - mean) / scale @ components.T`."""

    mean: Matrix  # [J]
    scale: Matrix  # [J]
    components: Matrix  # [C, J]

    def of(self, points: Matrix) -> Matrix:
        """[N, C] of points [N, J]."""
        found: Matrix = (points - self.mean) / self.scale @ self.components.T
        return found


def unit(points: Matrix) -> Matrix:
    """Rows of length 1; a row of zeros stays."""
    found: Matrix = points / np.maximum(np.linalg.norm(points, axis=-1, keepdims=True), 1e-12)
    return found


def principal(points: Matrix, components: int | None) -> Axes:
    """Axes of points [N, J]: standardised, then PCA (None: standardised alone)."""
    mean, scale = points.mean(0), points.std(0)
    scale = np.where(scale < _LEAST_SCALE, 1.0, scale)
    if components is None:
        return Axes(mean=mean, scale=scale, components=np.eye(points.shape[1]))
    _, _, rows = np.linalg.svd((points - mean) / scale, full_matrices=False)
    kept = rows[:components]
    signs = np.sign(kept[np.arange(len(kept)), np.abs(kept).argmax(1)])  # SVD leaves them open
    return Axes(mean=mean, scale=scale, components=kept * signs[:, None])


def buckets(scores: Matrix, count: int) -> list[NDArray[np.intp]]:
    """Indices of scores [N] by `count` equal parts of their range, no empty ones."""
    edges = np.linspace(scores.min(), scores.max(), count + 1)[1:-1]
    place = np.digitize(scores, edges)
    return [np.flatnonzero(place == k) for k in range(count) if (place == k).any()]


def shares(sizes: Sequence[int], total: int) -> list[int]:
    """Split `total` vectors over buckets by largest remainder, 1 to `size` in each.

    The paper does not say how its 250 vectors lie in its 240 buckets.
    """
    wanted = np.array(sizes) * total / sum(sizes)
    given = np.clip(np.floor(wanted), 1, sizes).astype(int)
    for k in np.argsort(given - wanted, kind="stable").tolist():
        if given.sum() >= total:
            break
        given[k] = min(given[k] + 1, sizes[k])
    return [int(one) for one in given]


def fit_vectors(points: Matrix, scores: Matrix, config: BasisConfig) -> tuple[Matrix, Matrix]:
    """K-means inside equal parts of the range of scores.

    Args:
        points: [N, C], after PCA.
        scores: [N], higher is better.
        config: How many buckets and vectors.

    Returns:
        Vectors [K, C], the means of clusters of points of length 1, and their scores [K], the means of their members'.
    """
    rows = unit(points)
    vectors, values = [], []
    parts = buckets(scores, config.buckets)
    for part, count in zip(parts, shares([len(part) for part in parts], config.vectors), strict=True):
        if count == 1:
            labels = np.zeros(len(part), dtype=np.int64)
        else:
            generator = np.random.default_rng(config.seed)
            _, labels = scipy.cluster.vq.kmeans2(rows[part], count, iter=50, minit="++", missing="warn", seed=generator)
        for k in np.unique(labels):  # a cluster can lose all its members
            members = part[labels == k]
            vectors.append(rows[members].mean(0))
            values.append(scores[members].mean())
    return np.stack(vectors), np.array(values)
