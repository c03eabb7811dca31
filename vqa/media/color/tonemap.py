"""Tone mapping of HDR and wide-gamut pictures to 8-bit BT.709, gamma 2.4.

1. To light. PQ: SMPTE ST 2084 (BT.2100-2, table 4), clipped at 1000 cd/m2. HLG: inverse OETF and OOTF of a screen of
   1000 cd/m2, gamma 1.2 (BT.2100-2, table 5). SDR coding in BT.2020 colours: gamma 2.4 (BT.1886).
2. Highlights, for PQ and HLG: the EETF of BT.2390 (5.4.1) from 1000 to 203 cd/m2, the HDR reference white (BT.2408), on
   the greatest of R, G and B; the others keep their ratio to it. Light up to 94 cd/m2 stays as it is.
3. Colours: linear BT.2020 to BT.709 (BT.2407, 2); what falls outside is clipped.
4. Back to code: the inverse of BT.1886's gamma 2.4, white at 203 cd/m2.

The peaks are fixed on purpose: metadata of the file (MaxCLL, mastering display) is often missing or wrong, and the same
pixels must give the same picture. Sums are elementwise and in a fixed order, so that no machine rounds differently.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from vqa.types import Pixels

PQ, HLG = 16, 18  # transfer characteristics as ITU-T H.273 and FFmpeg number them
BT2020 = 9  # primaries and matrix, there too

_PEAK, _WHITE = 1000.0, 203.0  # cd/m2
_TO_BT709 = ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187))
_LUMA = (0.2627, 0.6780, 0.0593)
_STRIP_PIXELS = 1 << 18  # at a time: bounds memory, stays in the cache

Light = NDArray[np.float32]


def to_sdr(pixels: NDArray[np.uint16], *, transfer: int) -> Pixels:
    """Convert R'G'B' in BT.2020 colours to what an SDR screen shows.

    Args:
        pixels: uint16 [height, width, 3], full range.
        transfer: PQ, HLG, or any other number for SDR coding (ITU-T H.273).

    Returns:
        uint8 [height, width, 3], R'G'B' of BT.709, full range.
    """
    shown = np.empty(pixels.shape, np.uint8)
    rows = max(1, _STRIP_PIXELS // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        _convert(pixels[top : top + rows], transfer, shown[top : top + rows])
    return shown


def _convert(pixels: NDArray[np.uint16], transfer: int, shown: Pixels) -> None:
    light = [_light_of_code(transfer)[pixels[..., channel]] for channel in range(3)]
    if transfer == HLG:
        system = _system_of_root()[_step(np.sqrt(_weighted(_LUMA, light)))]
        light = [channel * system for channel in light]
    if transfer in (PQ, HLG):
        gain = _gain()[_step(np.maximum(np.maximum(light[0], light[1]), light[2]))]
        light = [channel * gain for channel in light]
    for channel, weights in enumerate(_TO_BT709):
        shown[..., channel] = _code_of_root()[_step(np.sqrt(_weighted(weights, light).clip(0, 1)))]


def _weighted(weights: tuple[float, float, float], light: list[Light]) -> Light:
    """Weighted channel sum; a matrix product's order of sums depends on the machine."""
    red, green, blue = (np.float32(weight) * channel for weight, channel in zip(weights, light, strict=True))
    return np.asarray(red + green + blue, np.float32)


def _step(values: Light) -> NDArray[np.uint16]:
    """Index into a table, of values from 0 to 1."""
    return (np.minimum(values, 1) * np.float32(65535) + np.float32(0.5)).astype(np.uint16)


# --- tables of 65,536 entries, over 0 to 1 ----------------------------------------------------------------------------


@cache
def _light_of_code(transfer: int) -> Light:
    """Linear light of a code; 1.0: 1000 cd/m2 (PQ), scene's peak (HLG), white (SDR)."""
    code = np.arange(65536) / 65535
    if transfer == PQ:
        light = np.minimum(_nits_of_pq(code) / _PEAK, 1)
    elif transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    else:
        light = code**2.4
    return light.astype(np.float32)


@cache
def _system_of_root() -> Light:
    """HLG's OOTF, Y to the power gamma - 1 = 0.2, of the square root of Y."""
    return ((np.arange(65536) / 65535) ** 0.4).astype(np.float32)


@cache
def _gain() -> Light:
    """Factor for 0 to 1000 cd/m2 by BT.2390's EETF, so that 1.0 is the SDR white."""
    light = np.maximum(np.arange(65536), 1) / 65535
    top, white = (float(_pq_of_nits(np.array(nits))) for nits in (_PEAK, _WHITE))
    code, most = _pq_of_nits(light * _PEAK) / top, white / top
    knee = 1.5 * most - 0.5
    t = np.maximum(code - knee, 0) / (1 - knee)
    bend = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    return (_nits_of_pq(np.where(code < knee, code, bend) * top) / _WHITE / light).astype(np.float32)


@cache
def _code_of_root() -> Pixels:
    """8-bit code, gamma 2.4, of the square root of linear light."""
    return np.rint(255 * (np.arange(65536) / 65535) ** (2 / 2.4)).astype(np.uint8)


_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128


def _nits_of_pq(code: NDArray[np.float64]) -> NDArray[np.float64]:
    root = code ** (1 / _M2)
    return np.asarray(10000 * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1))


def _pq_of_nits(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    power = (nits / 10000) ** _M1
    return np.asarray(((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2)
