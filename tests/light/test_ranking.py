"""Losses of order, in numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from vqa.light.align import align, contrastive_loss
from vqa.light.config import AlignConfig
from vqa.light.ranking import gaps_loss, order_loss, order_of, pairs_loss


@pytest.mark.parametrize(("method", "chance"), [("bradley-terry", 1 / (1 + math.exp(-1))), ("thurstone", 0.8413447)])
def test_comparisons_by_their_likelihood(method: str, chance: float) -> None:
    scores = torch.tensor([3.0, 2.0])
    first, second = torch.tensor([0, 1]), torch.tensor([1, 0])

    def loss(*share: float) -> float:
        count = torch.tensor([1.0, 3.0])
        return pairs_loss(scores, first, second, torch.tensor(share), count, method=method).item()  # type: ignore[arg-type]

    assert loss(1.0, 0.0) == pytest.approx(-math.log(chance))
    assert loss(0.0, 0.0) == pytest.approx(-(math.log(1 - chance) + 3 * math.log(chance)) / 4)
    assert loss(0.5, 0.0) == pytest.approx(-(math.log(1 - chance) / 2 + 3.5 * math.log(chance)) / 4)


def test_the_order_of_a_ladder_is_along_each_kind() -> None:
    kinds = np.array(["none", "blur", "blur", "noise"])
    order = order_of(kinds, np.array([0.0, 0.2, 1.0, 0.5]), pristine="none")
    assert sorted(map(tuple, order.pairs.tolist())) == [(0, 1), (0, 2), (0, 3), (1, 2)]
    # of blur: 1.0 (0, 2) > 0.8 (1, 2) > 0.2 (0, 1); never a gap of blur against one of noise
    assert sorted(map(tuple, order.gaps.tolist())) == [(0, 2, 0, 1), (0, 2, 1, 2), (1, 2, 0, 1)]
    assert order.moved(10).pairs.min() == 10


def test_losses_of_order_fall_with_the_right_gap() -> None:
    scores = torch.tensor([4.0, 3.5, 1.0])
    right, wrong = torch.tensor([[0, 1]]), torch.tensor([[1, 0]])
    assert order_loss(scores, right, width=0.5).item() == pytest.approx(math.log1p(math.exp(-1)))
    assert order_loss(scores, wrong, width=0.5).item() == pytest.approx(math.log1p(math.exp(1)))
    gaps = torch.tensor([[1, 2, 0, 1]])  # 2.5 against 0.5
    assert gaps_loss(scores, gaps, width=1.0).item() == pytest.approx(math.log1p(math.exp(-2)))


def test_pictures_with_one_text_are_no_negatives() -> None:
    texts = torch.eye(3)[[0, 0, 1]]
    near = contrastive_loss(texts * 5, texts, torch.tensor([0, 0, 1]), temperature=0.1)
    # cosines 1 and 0 over 0.1: each of two alike gets half, which is the least that is possible
    assert near.item() == pytest.approx((2 * math.log(2) + 0) / 3, abs=1e-3)
    assert contrastive_loss(texts, texts, torch.tensor([0, 1, 2]), temperature=0.1) == pytest.approx(
        near.item(), abs=1e-3
    )
    assert contrastive_loss(-texts, texts, torch.tensor([0, 0, 1]), temperature=0.1) > near + 5


def test_alignment_brings_pictures_to_their_texts_and_repeats() -> None:
    generator = np.random.default_rng(0)
    texts = np.linalg.qr(generator.standard_normal((6, 6)))[0][:4]
    text_of = generator.integers(0, 4, 300)
    points = np.eye(4)[text_of] @ generator.standard_normal((4, 20)) + 0.3 * generator.standard_normal((300, 20))
    config = AlignConfig(steps=60, batch=64)
    weights = align(points[:200], text_of[:200], texts, config)
    seen = points[200:] @ weights
    assert ((seen @ (texts - texts[text_of[:200]].mean(0)).T).argmax(1) == text_of[200:]).mean() > 0.95
    assert (align(points[:200], text_of[:200], texts, config) == weights).all()
