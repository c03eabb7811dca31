"""RALI's four steps (arXiv 2510.11369) on embeddings: align, PCA, basis, tune.

    features -> rotate to `axes` -> [align with texts] -> [PCA] -> basis vectors in equal parts of the scores -> [tune]

Each step in brackets can be switched off in the config. What comes out is one affine map and the basis vectors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vqa.light.align import align
from vqa.light.basis import Basis, fit_vectors, principal, unit
from vqa.light.config import AlignConfig, RaliConfig, RegressionConfig, TuningConfig
from vqa.light.embedding import SIZE
from vqa.light.ranking import Order, gaps_loss, order_loss, pairs_loss
from vqa.light.regression import principal_axes, standardisation

Matrix = NDArray[np.float64]
TextEncoder = Callable[[Sequence[str]], Matrix]

LOW, HIGH, _MIDDLE = 1.0, 5.0, 3.0
_INSIDE = 0.02  # a basis vector's score starts so far from the scale's ends, where tuning could not move it


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """People's comparisons of pictures of one lesson by index."""

    first: NDArray[np.int64]  # [P]
    second: NDArray[np.int64]  # [P]
    share: Matrix  # [P] that the first won, ties as half
    count: Matrix  # [P] how often
    of: int  # comparisons in the table, those of pictures that are not learnt from included


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """Embeddings of a set with labels; the first lesson's are on 1-5, as scores are."""

    embeddings: Matrix  # [N, D]
    labels: Matrix  # [N], higher is better, on a scale of the set's own
    texts: tuple[str, ...]  # [N]
    weight: float = 1.0
    judged: Judged | None = None
    enlargements: tuple[float | None, ...] = ()  # [N], times, for people to see it; none for a set that is not people's
    groups: tuple[str, ...] = ()  # [N], what a split must not separate; none for a set that is not people's


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Embeddings of ladders: each picture's degradation in words, and their order."""

    embeddings: Matrix  # [N, D]
    texts: tuple[str, ...]  # [N]
    order: Order


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """Features of all sets along main directions: `(x - centre) * scale @ rotation`."""

    points: tuple[Matrix, ...]  # [N, R] of each lesson, then of the facts
    centre: Matrix  # [D]
    scale: Matrix  # [D]
    rotation: Matrix  # [D, R]


def fit_basis(
    lessons: Sequence[Lesson],
    facts: Facts | None,
    config: RaliConfig,
    regression: RegressionConfig,
    texts: TextEncoder,
) -> Basis:
    """Fit a basis to sets that do not share a scale.

    Args:
        lessons: At least one.
        facts: Of ladders.
        config: The steps.
        regression: Emphasis of groups of features, as the ridge has it.
        texts: Encoder of texts, [U] -> [U, J] of length 1; not called where alignment is off.

    Returns:
        The basis, with scores on 1-5; each vector has the words of the pictures that are most alike it.
    """
    reduced = reduce(lessons, facts, config.axes, regression)
    return fit_steps(reduced, joint_space(reduced, lessons, facts, config.align, texts), lessons, facts, config)


def reduce(lessons: Sequence[Lesson], facts: Facts | None, axes: int, regression: RegressionConfig) -> Reduced:
    """Rotate the features of all sets to their main directions."""
    sets: list[Lesson | Facts] = [*lessons, facts] if facts else [*lessons]
    centre, scale = standardisation([one.embeddings for one in sets], regression)
    standard = [(one.embeddings - centre) * scale for one in sets]
    rotation = principal_axes(standard, axes) / SIZE**0.5  # points about 1 long
    return Reduced(points=tuple(one @ rotation for one in standard), centre=centre, scale=scale, rotation=rotation)


def joint_space(
    reduced: Reduced, lessons: Sequence[Lesson], facts: Facts | None, config: AlignConfig | None, texts: TextEncoder
) -> Matrix:
    """Map [R, J] from reduced features to texts; the identity without alignment."""
    if config is None:
        return np.eye(reduced.rotation.shape[1])
    told = _told(lessons, facts)
    spoken = sorted(set(told))
    place = {text: k for k, text in enumerate(spoken)}
    return align(np.concatenate(reduced.points), np.array([place[one] for one in told]), texts(spoken), config)


def fit_steps(
    reduced: Reduced, joint: Matrix, lessons: Sequence[Lesson], facts: Facts | None, config: RaliConfig
) -> Basis:
    """PCA of the joint space, basis vectors, tuning; arguments as in `fit_basis`."""
    points = reduced.points
    axes = principal(np.concatenate(points) @ joint, config.basis.components)
    matrix = joint / axes.scale @ axes.components.T
    offset = -axes.mean / axes.scale @ axes.components.T
    grades = [_on_scale(one.labels, lessons[0].labels) for one in lessons]
    judged = np.concatenate(points[: len(lessons)]) @ matrix + offset
    vectors, scores = fit_vectors(judged, np.concatenate(grades), config.basis)
    head = RaliHead(matrix, offset, vectors, np.clip(scores, LOW + _INSIDE, HIGH - _INSIDE), config.basis.temperature)
    if config.tuning:
        tune(head, lessons, facts, points, config.tuning)
    found = head.basis()
    whole = reduced.scale[:, None] * reduced.rotation @ found.projection
    places = np.concatenate(points) @ found.projection + found.offset
    return Basis(
        projection=whole,
        offset=found.offset - reduced.centre @ whole,
        vectors=found.vectors,
        scores=found.scores,
        temperature=found.temperature,
        words=nearest_texts(found.vectors, places, _told(lessons, facts)),
    )


def _told(lessons: Sequence[Lesson], facts: Facts | None) -> list[str]:
    """The text of each picture, in the order of `Reduced.points`."""
    return [text for one in lessons for text in one.texts] + list(facts.texts if facts else ())


def _on_scale(labels: Matrix, first: Matrix) -> Matrix:
    """Labels with the first set's mean and spread; tuning learns where they lie."""
    found: Matrix = (labels - labels.mean()) / max(float(labels.std()), 1e-9) * first.std() + first.mean()
    return found


class RaliHead(nn.Module):
    """Map, vectors and scores as parameters; scores stay within 1-5."""

    def __init__(self, matrix: Matrix, offset: Matrix, vectors: Matrix, scores: Matrix, temperature: float) -> None:
        """matrix [R, C], offset [C], vectors [K, C], scores [K] inside 1-5."""
        super().__init__()
        share = (scores - LOW) / (HIGH - LOW)
        self.matrix, self.offset, self.vectors, self.logits = (
            nn.Parameter(torch.from_numpy(np.ascontiguousarray(one)).float())
            for one in (matrix, offset, unit(vectors), np.log(share / (1 - share)))
        )
        self._temperature = temperature

    def forward(self, points: Tensor) -> Tensor:
        """Scores on 1-5 of points [N, R], [N]."""
        cosines = (
            functional.normalize(points @ self.matrix + self.offset, dim=1)
            @ functional.normalize(self.vectors, dim=1).T
        )
        return functional.softmax(cosines / self._temperature, dim=1) @ (
            LOW + (HIGH - LOW) * torch.sigmoid(self.logits)
        )

    def basis(self) -> Basis:
        """As plain numbers."""
        matrix, offset, vectors, logits = (
            one.detach().double().numpy() for one in (self.matrix, self.offset, self.vectors, self.logits)
        )
        scores = LOW + (HIGH - LOW) / (1 + np.exp(-logits))
        return Basis(projection=matrix, offset=offset, vectors=vectors, scores=scores, temperature=self._temperature)


def tune(
    head: RaliHead, lessons: Sequence[Lesson], facts: Facts | None, points: Sequence[Matrix], config: TuningConfig
) -> None:
    """Tune map, vectors and scores together on opinions, comparisons and ladders.

    Full batch; opinions count by their squared error.

    Each set but the first has an offset and a gain of its own, learnt: its labels say an order with distances, not
    where its scale lies.

    Args:
        head: What is trained.
        lessons: Opinions and comparisons.
        facts: Order along ladders.
        points: [N, R] of each lesson, then of the facts.
        config: Steps and weights.
    """
    generator = torch.Generator().manual_seed(config.seed)
    sizes, everything = [len(one) for one in points], torch.from_numpy(np.concatenate(points)).float()
    grades = [torch.from_numpy(_on_scale(one.labels, lessons[0].labels)).float() for one in lessons]
    size = _normalise(head, everything)
    start = head.matrix.detach().clone()
    scales = nn.Parameter(torch.zeros(len(lessons), 3))  # offset, logarithms of the gain and of a comparison's unit
    rate = config.learning_rate
    rest = [head.offset, head.vectors, head.logits, scales]
    groups: list[dict[str, Any]] = [{"params": [head.matrix], "lr": 10 * size * rate}, {"params": rest}]
    optimiser = torch.optim.Adam(groups, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
    known = [(config.order, order_loss, facts.order.pairs), (config.gaps, gaps_loss, facts.order.gaps)] if facts else []
    for _ in range(config.steps):
        optimiser.zero_grad()
        noise = config.noise * torch.randn(everything.shape, generator=generator)
        scores = head(everything + noise).split(sizes)
        losses = [config.stay * (head.matrix - start).square().sum() / start.square().sum()]
        for at, one in enumerate(lessons):
            there = scores[at]
            if at:
                there = _MIDDLE + (there - _MIDDLE) * scales[at, 1].exp() + scales[at, 0]
            losses.append(config.opinions * one.weight * (there - grades[at]).square().mean())
            if one.judged and config.pairs:
                drawn = _drawn(len(one.judged.first), config.batch, generator)
                first, second = (torch.from_numpy(part[drawn]) for part in (one.judged.first, one.judged.second))
                share, count = (torch.from_numpy(part[drawn]).float() for part in (one.judged.share, one.judged.count))
                strength = scores[at] * scales[at, 2].exp()
                loss = pairs_loss(strength, first, second, share, count, method=config.pairs_method)
                losses.append(config.pairs * one.weight * loss)
        for weight, of, places in known:
            if weight and len(places):
                chosen = torch.from_numpy(places[_drawn(len(places), config.batch, generator)])
                losses.append(weight * of(scores[-1], chosen, width=config.width))
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()


def _normalise(head: RaliHead, points: Tensor) -> float:
    """Scale the map to places about 1 long (scores stay); return its entries' size."""
    with torch.no_grad():
        length = (points @ head.matrix + head.offset).square().sum(1).mean().sqrt()
        head.matrix.div_(length)
        head.offset.div_(length)
        return head.matrix.square().mean().sqrt().item()


def _drawn(count: int, most: int, generator: torch.Generator) -> NDArray[np.int64]:
    drawn: NDArray[np.int64] = torch.randperm(count, generator=generator)[:most].numpy()
    return drawn


def nearest_texts(vectors: Matrix, places: Matrix, texts: Sequence[str]) -> tuple[str, ...]:
    """Text for each vector [K, C] whose pictures [N, C] are most alike it on average."""
    names, which = np.unique(np.array(texts), return_inverse=True)
    means = np.stack([unit(places[which == k]).mean(0) for k in range(len(names))])
    return tuple(names[(unit(vectors) @ unit(means).T).argmax(1)].tolist())
