"""Damage whose very kind is drawn: filters, noise, transforms, bands and more.

Named kinds teach themselves; what is drawn from a wide family teaches what damage has in common. Pure functions:
picture uint8 [H, W, 3], severity in [0, 1] to the same shape; families, ranges and code are vqa's own.
"""

import numpy as np
from PIL import Image
from scipy import fft, ndimage

from vqa.data.synthetic.distortions import Distortion, clip
from vqa.data.synthetic.rare import blocks_of, from_blocks, smooth
from vqa.types import Pixels


def filtered(picture: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Filter by a kernel of 3 to 9 pixels: an impulse and a drawn rest."""
    side = int(generator.choice([3, 5, 7, 9]))
    squares = ((np.mgrid[:side, :side] - side // 2) ** 2).sum(0)
    kernel = generator.standard_normal((side, side)) * np.exp(-squares / (2 * generator.uniform(0.4, 2.5) ** 2))
    kernel -= kernel.mean() * generator.uniform(0, 1)
    kernel *= severity * generator.uniform(0.3, 1.5) / np.abs(kernel).sum()
    kernel[side // 2, side // 2] += 1
    kernel /= kernel.sum() if abs(kernel.sum()) > 0.3 else 1
    return clip(ndimage.convolve(picture.astype(np.float64), kernel[..., None], mode="reflect"))


def noisy(picture: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Add noise of a drawn spectrum, 3 to 42 grey levels, even, by light or by place."""
    height, width, _ = picture.shape
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    stretch = np.exp(generator.uniform(-1, 1))
    radius = np.hypot(down * stretch, across / stretch)
    family = generator.integers(3)
    if family == 0:  # coloured
        gain = (radius + 0.01) ** -generator.uniform(-0.5, 1.5)
    elif family == 1:  # a ring of frequencies
        centre = np.exp(generator.uniform(np.log(0.02), np.log(0.5)))
        gain = np.exp(-((np.log((radius + 1e-3) / centre) / generator.uniform(0.1, 0.6)) ** 2) / 2)
    else:  # near one wave
        angle, centre, spread = (
            generator.uniform(0, np.pi),
            generator.uniform(0.05, 0.45),
            generator.uniform(0.005, 0.06),
        )
        far = (down - centre * np.sin(angle)) ** 2 + (across - centre * np.cos(angle)) ** 2
        gain = np.exp(-far / (2 * spread**2))
    planes = [
        np.fft.irfft2(gain * np.fft.rfft2(generator.standard_normal((height, width))), s=(height, width))
        for _ in range(3)
    ]
    noise = np.stack(planes[:1] * 3 if generator.random() < 0.6 else planes, axis=-1)
    noise *= 3 * 14**severity / (noise.std() + 1e-9)
    shape = generator.integers(3)
    if shape == 1:
        noise *= np.sqrt(picture / 110)
    elif shape == 2:
        noise *= np.clip(smooth((height, width), generator.uniform(8, 60), generator) + 0.3, 0, None)[..., None]
    return clip(picture + noise)


def transformed(picture: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Quantise cosines of blocks of 4 to 32 pixels, by drawn steps and dead zones."""
    side = int(generator.choice([4, 6, 8, 12, 16, 24, 32]))
    rise = np.add.outer(np.arange(side), np.arange(side)) / side
    steps = 6 * 25**severity * (1 + generator.uniform(0, 6) * rise ** generator.uniform(0.5, 2))
    rounding, of_colour = generator.uniform(0.3, 0.5), generator.uniform(1, 4)
    step = steps * np.array([1, of_colour, of_colour])[:, None, None]
    planes = np.asarray(Image.fromarray(picture).convert("YCbCr"), dtype=np.float64)
    found = fft.dctn(blocks_of(planes, side), axes=(3, 4), norm="ortho")
    rounded = np.sign(found) * np.floor(np.abs(found) / step + rounding) * step
    changed = from_blocks(fft.idctn(rounded, axes=(3, 4), norm="ortho"), *picture.shape[:2])
    return np.asarray(Image.fromarray(clip(changed), "YCbCr").convert("RGB"))


def banded(picture: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Change bands of detail: each louder or softer, cored, quantised, or not."""
    rest, bands = picture.astype(np.float64), []
    for sigma in (0.8, 1.6, 3.2, 6.4):
        low = ndimage.gaussian_filter(rest, (sigma, sigma, 0))
        bands.append(rest - low)
        rest = low
    for band in bands:
        how = generator.integers(4)
        if how == 0:
            rest = rest + band * np.exp(generator.uniform(-1, 1) * 2 * severity)
        elif how == 1:
            rest = rest + np.sign(band) * np.maximum(np.abs(band) - severity * generator.uniform(1, 25), 0)
        elif how == 2:
            step = max(severity * generator.uniform(2, 40), 1e-3)
            rest = rest + np.rint(band / step) * step
        else:
            rest = rest + band
    return clip(rest)


def displaced(picture: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Move pixels by a smooth field of up to 5 pixels' deviation."""
    shape = picture.shape[:2]
    sigma, reach = generator.uniform(1, 25), severity * generator.uniform(0.5, 5)
    places = np.mgrid[: shape[0], : shape[1]] + reach * np.stack([smooth(shape, sigma, generator) for _ in range(2)])
    planes = [
        ndimage.map_coordinates(picture[..., k].astype(np.float64), places, order=1, mode="reflect") for k in range(3)
    ]
    return clip(np.stack(planes, axis=-1))


def resampled(picture: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Shrink by up to 6 and enlarge again, each by a drawn filter."""
    height, width, _ = picture.shape
    factor = 1 + 5 * severity * generator.uniform(0.3, 1)
    across = factor * np.exp(generator.uniform(-0.5, 0.5) * (generator.random() < 0.4))
    down, up = (Image.Resampling(int(generator.choice([0, 1, 2, 3, 4]))) for _ in range(2))
    small = Image.fromarray(picture).resize((max(8, round(width / across)), max(8, round(height / factor))), down)
    return np.asarray(small.resize((width, height), up))


DRAWN: dict[str, Distortion] = {
    one.__name__: one for one in (filtered, noisy, transformed, banded, displaced, resampled)
}
