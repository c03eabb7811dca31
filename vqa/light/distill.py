"""Train a student: a regressor or a basis, its card and its width."""

from collections.abc import Callable, Sequence

import numpy as np

from vqa.data.synthetic.picture_ladder import PRISTINE
from vqa.light.basis import Basis
from vqa.light.card import StudentCard
from vqa.light.cascade import FOLDS, Width, folds_of
from vqa.light.config import DistillConfig, RegressionConfig
from vqa.light.encoder import EfficientNetLite0
from vqa.light.enlargement import Enlargement
from vqa.light.material import Embeddings, Ladder, Material, gather
from vqa.light.rali import Facts, Lesson, fit_basis
from vqa.light.ranking import Order, order_of
from vqa.light.reasons import encode_texts, fact
from vqa.light.regression import LabelledSet, Regressor, fit_regressor, places_left_out
from vqa.light.student import Line, OpinionMap, Student


def distill(config: DistillConfig, say: Callable[[str], None]) -> Student:
    """Train a student.

    Args:
        config: Sets, teacher, ladders, encoder, embedding, regression or the steps of RALI.
        say: Takes a line on each step.

    Raises:
        UsageError: A set or teacher that is not there, with too few pictures, or with one opinion only; comparisons of
            other pictures, or against the opinions; an encoder, or one of texts, that is not there.
    """
    embeddings = Embeddings(config, say)
    material = gather(config, embeddings, say)
    head = fit_head(config, material)
    words = list(head.words) if isinstance(head, Basis) else []
    card = StudentCard(
        name=config.name,
        encoder="tower" if config.encoder else "efficientnet-lite0",
        tower=None if isinstance(embeddings.network, EfficientNetLite0) else embeddings.network.config,
        embedding=config.embedding,
        views=config.views(),
        words=words,
        trained_on=list(material.trained_on),
        scale="opinions" if material.lessons else "severity",
        limits=config.limits,
    )
    return Student(embeddings.network, head, card, fit_width(config, material), material.usual)


def fit_width(config: DistillConfig, material: Material) -> Width | None:
    """Fit the width; None unless the first set has groups, at least FOLDS of them."""
    if not material.lessons or len(set(material.lessons[0].groups)) < FOLDS:
        return None
    folds = [folds_of(one.groups) if one.groups else None for one in material.lessons]
    sets = _sets(config, material, material.lessons)
    return Width.fit(sets, [*folds, *[None] * (len(sets) - len(folds))], config.regression)


def _sets(config: DistillConfig, material: Material, lessons: Sequence[Lesson]) -> list[LabelledSet]:
    """What a regressor is fitted to."""
    sets = [LabelledSet(embeddings=one.embeddings, labels=one.labels, weight=one.weight) for one in lessons]
    if material.lessons and material.ladders:
        sets.append(joined([one.pictures for one in material.ladders], config.regression))
    return [*sets, *([material.moving] if material.moving else [])]


def fit_head(config: DistillConfig, material: Material) -> Line | Basis:
    """A regressor, or a basis by the steps of RALI."""
    lessons = material.lessons or (_severity(material.ladders),)
    if config.rali is None:
        sets = _sets(config, material, lessons)
        regressor = fit_regressor(sets, config.regression)
        places = regressor.along(sets[0].embeddings)
        enlarged = None
        for k, one in enumerate(lessons):
            enlarged = enlarged or fit_enlargement(
                sets, k, regressor, one.enlargements, one.groups, config=config.regression
            )
        return Line(regressor=regressor, map=OpinionMap.fit(places, sets[0].labels), enlargement=enlarged)
    source = config.rali.align.texts if config.rali.align else None
    facts = facts_of(material.ladders)
    return fit_basis(lessons, facts, config.rali, config.regression, lambda texts: encode_texts(texts, source))


def fit_enlargement(
    sets: Sequence[LabelledSet],
    k: int,
    regressor: Regressor,
    enlargements: Sequence[float | None],
    groups: Sequence[str],
    *,
    config: RegressionConfig,
) -> Enlargement | None:
    """Fit what enlargement makes of places, by one of the sets of a regressor.

    Args:
        sets: As of `regression.fit_regressor`.
        k: The set whose pictures people saw enlarged.
        regressor: Fitted to all of them; says where on its line the set's labels are.
        enlargements: [N] of set k, times.
        groups: [N] of set k; what predicts a picture for this has seen none of its group.
        config: As of `regression.fit_regressor`.

    Returns:
        The fit; None where some picture's is not known, or there are fewer than FOLDS groups.
    """
    known = [times for times in enlargements if times is not None]
    if len(known) < len(sets[k].labels) or len(set(groups)) < FOLDS:
        return None
    own, labels = regressor.along(sets[k].embeddings), sets[k].labels
    targets = own.mean() + own.std() * (labels - labels.mean()) / labels.std()
    return Enlargement.fit(places_left_out(sets, k, folds_of(groups), config), np.array(known), targets)


def _severity(ladders: Sequence[Ladder]) -> Lesson:
    """Ladders as the only lesson, on a severity scale: pristine is 5, ruined is 1."""
    facts = facts_of(ladders)
    if facts is None:
        raise ValueError("no ladders")
    labels = 5 + 4 * np.concatenate([one.pictures.labels for one in ladders])
    return Lesson(embeddings=facts.embeddings, labels=labels, texts=facts.texts)


def facts_of(ladders: Sequence[Ladder]) -> Facts | None:
    """Degradation of each ladder picture in words, and the order; None without any."""
    if not ladders:
        return None
    orders, start = [], 0
    for one in ladders:
        kinds = np.array([kind for kind, _ in one.steps])
        orders.append(order_of(kinds, -one.pictures.labels, pristine=PRISTINE).moved(start))
        start += len(kinds)
    return Facts(
        embeddings=np.concatenate([one.pictures.embeddings for one in ladders]),
        texts=tuple(fact(kind, level) for one in ladders for kind, level in one.steps),
        order=Order(*(np.concatenate(part) for part in zip(*orders, strict=True))),
    )


def joined(contents: Sequence[LabelledSet], config: RegressionConfig) -> LabelledSet:
    """Join ladders into one set, a group each: only the order within one is known."""
    return LabelledSet(
        embeddings=np.concatenate([one.embeddings for one in contents]),
        labels=np.concatenate([one.labels for one in contents]),
        weight=config.ladder_weight,
        groups=np.repeat(np.arange(len(contents)), [len(one.labels) for one in contents]),
    )
