"""Perception loss: answers depend on the pictures (Q-Hawkeye, arXiv 2601.22920)."""

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from vqa.train.grpo.objective import Effect, LossObjective, Update, divergence

if TYPE_CHECKING:
    from torch import Tensor

NOISE = 45 / 255  # standard deviation, of pixels on 0-1


class PerceptionKl(LossObjective):
    """Subtract weight x mean KL(pictures || degraded pictures) from the loss.

    The mean is over all tokens of the answers. The weight falls along half a cosine to 0 at epoch `until_epoch`. As in
    the released code, no gradient flows through the degraded pictures. Of its degradations (noise of sigma 45 of 255,
    blur, JPEG, darkening, filtered by people) there is the noise only.
    """

    kind: Literal["perception_kl"]
    weight: float = Field(1e-4, gt=0, description="gamma at the start; 1e-4 in the paper")
    until_epoch: float = Field(5.0, gt=0, description="5 in the paper")

    def apply(self, update: Update) -> Effect:
        """Return minus the weighted divergence; nothing from epoch `until_epoch` on."""
        weight = self.weight_at(update.epoch)
        if weight <= 0:
            return Effect()
        import torch

        std = torch.tensor(update.processor.image_processor.image_std).mean().item()

        def degrade(inputs: dict[str, "Tensor"]) -> None:
            inputs["pixel_values"] = add_pixel_noise(inputs["pixel_values"], sigma=NOISE / std, seed=update.seed)

        gain = perception_gain(update.logps, update.logps_given(transform=degrade), update.mask)
        return Effect(loss=-weight * gain, metrics={"perception_kl": gain.item()})

    def weight_at(self, epoch: float) -> float:
        """Weight at a fractional epoch."""
        if epoch >= self.until_epoch:
            return 0.0
        return self.weight * 0.5 * (1.0 + math.cos(math.pi * epoch / self.until_epoch))


def perception_gain(logps: "Tensor", degraded: "Tensor", mask: "Tensor") -> "Tensor":
    """Mean KL(logps || degraded) over all tokens of answers [R, T]: a scalar."""
    return (divergence(logps, degraded) * mask).sum() / mask.sum().clamp(min=1)


def add_pixel_noise(pixels: "Tensor", *, sigma: float, seed: int) -> "Tensor":
    """Add Gaussian noise of deviation `sigma`, in their unit, to normalised pixels."""
    import torch

    generator = torch.Generator(pixels.device).manual_seed(seed)
    noise = torch.randn(pixels.shape, generator=generator, device=pixels.device, dtype=pixels.dtype)
    return pixels + sigma * noise
