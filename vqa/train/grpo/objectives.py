"""What some recipes do to advantages and loss, as functions; each is off unless a recipe asks for it."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqa.train.grpo.config import Grpo
from vqa.train.grpo.reward import Judged

Numbers = NDArray[np.float64]


def weighed(advantages: Tensor, judged: Judged, settings: Grpo) -> Tensor:
    """Advantages [B, K] of the whole batch after the recipe's hooks."""
    if settings.without_blame:
        right = (judged.terms["threshold"] + judged.terms["format"]) == 2
        advantages = without_blame(advantages, right)
    if settings.uncertainty_weight:
        advantages = advantages * torch.from_numpy(uncertainty_weight(judged.scores)).to(advantages)
    if settings.spread_filter:
        advantages = advantages * torch.from_numpy(has_spread(judged.terms["total"])).to(advantages)
    return advantages


def uncertainty_weight(scores: Numbers, *, alpha: float = 0.2, width: float = 4.0) -> Numbers:
    """Factor [B, 1] for the advantages: exp(-alpha u), u = min(1, var(s) / (width^2 / 4)) over the K scores [B, K].

    Q-Hawkeye (arXiv 2601.22920): population variance, alpha 0.2, width 4 for 1-5. Unparsed answers are left out; a
    group without any gets 1.
    """
    there = ~np.isnan(scores)
    count = np.maximum(there.sum(axis=1, keepdims=True), 1)
    mean = np.nansum(scores, axis=1, keepdims=True) / count
    variance = np.nansum((scores - mean) ** 2, axis=1, keepdims=True) / count
    factor: Numbers = np.exp(-alpha * np.clip(variance / (0.25 * width**2), 0.0, 1.0))
    return factor


def has_spread(rewards: Numbers, *, least: float = 0.001) -> Numbers:
    """Factor [B, 1]: 0 for a group whose K rewards [B, K] have a standard deviation <= `least`, else 1.

    OmniQuality-R (arXiv 2510.10609): 0.001.
    """
    factor: Numbers = (rewards.std(axis=1, keepdims=True) > least).astype(float)
    return factor


def without_blame(advantages: Tensor, right: NDArray[np.bool_]) -> Tensor:
    """Advantages [B, K] with the negative ones zeroed in groups where any answer is fully right [B, K].

    Refine-IQA (arXiv 2508.03763).
    """
    spared = torch.from_numpy(right.any(axis=1, keepdims=True)).to(advantages.device)
    return torch.where(spared & (advantages < 0), torch.zeros_like(advantages), advantages)


def divergence(seen: Tensor, other: Tensor) -> Tensor:
    """KL(seen || other) of each token by its sample (Schulman's k3): exp(o - s) - (o - s) - 1 >= 0; [rows, T] all."""
    gap = other - seen
    return torch.exp(gap) - gap - 1


def answer_means(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` [rows, T] over each answer's tokens: [rows]."""
    return (values * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def perception_gain(logps: Tensor, degraded: Tensor, mask: Tensor) -> Tensor:
    """Mean over all written tokens of KL(seen || degraded), by [rows, T]: a scalar.

    Q-Hawkeye (arXiv 2601.22920) subtracts gamma times this from the loss, so that answers depend on the picture. In its
    released code no gradient flows through `degraded`.
    """
    return (divergence(logps, degraded) * mask).sum() / mask.sum().clamp(min=1)


def perception_weight(epoch: float, *, gamma: float = 1e-4, until: float = 5.0) -> float:
    """Gamma with a cosine from its full size at the start to 0 at epoch `until` (Q-Hawkeye: 1e-4, 5)."""
    return 0.0 if epoch >= until else gamma * 0.5 * (1.0 + math.cos(math.pi * epoch / until))


def degraded(pixels: Tensor, *, sigma: float, seed: int) -> Tensor:
    """Normalised pixels with Gaussian noise of `sigma` (in their unit) added.

    Of Q-Hawkeye's degradations (noise sigma 25 of 255, blur, JPEG, darkening, chosen by people) only the noise.
    """
    generator = torch.Generator(pixels.device).manual_seed(seed)
    noise = torch.randn(pixels.shape, generator=generator, device=pixels.device, dtype=pixels.dtype)
    return pixels + sigma * noise


def caption_weight(kl: Tensor, *, tau: float) -> Tensor:
    """Factor for each answer's advantage: exp(-tau kl), `kl` [rows] its mean KL(pictures || caption).

    CapPO (arXiv 2509.21854) strengthens answers that its caption makes as likely as its picture does; the form of its
    weight and tau: NOT FOUND, this one is ours.
    """
    return torch.exp(-tau * kl)
