"""Pictures with detail at all sizes."""

import numpy as np
from scipy import ndimage

from vqa.types import Pixels


def detailed(seed: int, side: int) -> Pixels:
    """uint8 [side, side, 3]: noise of three sizes of grain, as strong each."""
    noise = np.random.default_rng(seed).standard_normal((side, side, 3))
    whole = np.sum([ndimage.gaussian_filter(noise, (sigma, sigma, 0)) * sigma for sigma in (0.7, 3, 12)], axis=0)
    return np.clip(128 + 60 * whole / whole.std(), 0, 255).astype(np.uint8)
