"""Hooks on advantages and loss against their formulas; test_objective_runs.py has them in real updates."""

import math

import numpy as np
import pytest
import torch

from vqa.train.grpo import objectives as hooks

NAN = float("nan")


def test_uncertainty_weight_by_hand() -> None:
    # Scores 1 and 5 have the variance 4 = 0.25 x 4^2, u = 1; equal ones have u = 0; 2 and 4 have 1, u = 1/4.
    factor = hooks.uncertainty_weight(np.array([[1.0, 5.0], [3.0, 3.0], [2.0, 4.0], [NAN, 3.0], [NAN, NAN]]))
    np.testing.assert_allclose(factor[:, 0], [math.exp(-0.2), 1.0, math.exp(-0.05), 1.0, 1.0])


def test_groups_without_spread_do_not_count() -> None:
    assert hooks.has_spread(np.array([[1.0, 1.0], [1.0, 1.001], [1.0, 1.1]])).ravel().tolist() == [0.0, 0.0, 1.0]


def test_nobody_is_blamed_beside_a_right_answer() -> None:
    advantages = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    right = np.array([[True, False], [False, False]])
    assert hooks.without_blame(advantages, right).tolist() == [[1.0, 0.0], [1.0, -1.0]]


def test_perception_gain_is_the_k3_divergence_over_written_tokens() -> None:
    seen, degraded = torch.log(torch.tensor([[0.5, 0.9]])), torch.log(torch.tensor([[0.25, 0.1]]))
    gain = hooks.perception_gain(seen, degraded, torch.tensor([[1, 0]]))
    assert gain.item() == pytest.approx(0.5 - math.log(0.5) - 1)
    assert hooks.perception_gain(seen, seen, torch.ones(1, 2)).item() == 0.0


def test_perception_weight_falls_to_nothing_by_epoch_five() -> None:
    assert [hooks.perception_weight(epoch, gamma=2.0) for epoch in (0.0, 2.5, 5.0, 9.0)] == pytest.approx([2, 1, 0, 0])


def test_degraded_pixels_differ_by_their_sigma_and_repeat_by_seed() -> None:
    pixels = torch.zeros(200, 50)
    noisy = hooks.degraded(pixels, sigma=0.3, seed=1)
    assert noisy.std().item() == pytest.approx(0.3, rel=0.05)
    assert torch.equal(noisy, hooks.degraded(pixels, sigma=0.3, seed=1))


def test_a_caption_that_says_as_much_as_the_picture_keeps_the_advantage() -> None:
    assert hooks.caption_weight(torch.tensor([0.0, 1.0, 2.0]), tau=0.5).tolist() == pytest.approx(
        [1.0, math.exp(-0.5), math.exp(-1.0)]
    )
    assert hooks.answer_means(torch.tensor([[1.0, 3.0], [5.0, 9.0]]), torch.tensor([[1, 1], [1, 0]])).tolist() == [2, 5]
