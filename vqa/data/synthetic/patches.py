"""Damaged crops with VMAF and CIEDE2000 of each: lessons for an encoder.

Contents are crops of pictures and of clips' frames, damaged by every kind of still that there is (`degradations`,
`distortions`, `rare`) and by kinds that are drawn (`drawn`); some twice, some in a part of the picture only.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vqa.data.synthetic.degradations import DEGRADATIONS, LEVELS, degrade
from vqa.data.synthetic.distortions import DISTORTIONS
from vqa.data.synthetic.drawn import DRAWN
from vqa.data.synthetic.encoding import still_figures
from vqa.data.synthetic.picture_ladder import read_picture
from vqa.data.synthetic.rare import RARE, smooth
from vqa.errors import ClipError, UsageError
from vqa.types import Pixels

Read: TypeAlias = Callable[[Path], Image.Image]

SIDE = 160  # of a crop
PATCH = 336  # of what is damaged: two crops, and room for what reaches over the edge
_PLACES = (8, PATCH - SIDE - 8)  # of the crops in a patch, on its diagonal
EDITION = 2  # of what is drawn and told; chunks of another are no use
_PATCHES, _DAMAGES = 2, 4  # of a picture, of a patch
PAIRS = 2 * _DAMAGES  # of a patch
_LONGEST, _SHORTEST = 1600, 480  # long sides that contents are shrunk to
_LEAST_DETAIL = 6.0  # deviation of a patch in grey levels; skies teach nothing
_IN_TIME = {"transmission_loss", "dropped_frames", "frozen", "judder", "flicker", "rate_switches"}
_FAMILIES = {"degradations": 0.4, "rare": 0.2, "distortions": 0.1, "drawn": 0.3}  # how often each


class Chunk(NamedTuple):
    """Crops, and what is to be told of them."""

    crops: Pixels  # [N, SIDE, SIDE, 3]
    targets: NDArray[np.float32]  # [N, 7]: those of `still_figures`


def draw_chunk(sources: Sequence[Path], count: int, *, seed: int, number: int, read: Read = read_picture) -> Chunk:
    """Damage crops of drawn contents, and tell how much.

    Arguments and errors are those of `draw_pairs`.
    """
    clean, damaged = draw_pairs(sources, count, seed=seed, number=number, read=read)
    return Chunk(damaged, still_figures(clean, damaged))


def draw_pairs(
    sources: Sequence[Path], count: int, *, seed: int, number: int, read: Read = read_picture
) -> tuple[Pixels, Pixels]:
    """Damage crops of drawn contents; the same for the same sources, seed and number.

    Args:
        sources: Files of pictures. What cannot be read is passed over.
        count: Of the crops.
        seed: Of the whole.
        number: Of the chunk.
        read: Gives a file's picture. Raises ClipError or UsageError.

    Returns:
        Clean crops and damaged ones, uint8 [count, SIDE, SIDE, 3] each: of a patch one after the other PAIRS of two
        places in turn.

    Raises:
        UsageError: no source has a picture of PATCH pixels with detail.
    """
    generator = np.random.default_rng([seed, number])
    clean: list[Pixels] = []
    damaged: list[Pixels] = []
    lost = 0
    while len(damaged) < count:
        patches = _patches(sources[int(generator.integers(len(sources)))], read, generator)
        lost = 0 if patches else lost + 1
        if lost > 20 * len(sources):
            raise UsageError(
                f"{sources[0]} and {len(sources) - 1} more: none is a picture of {round(1.5 * PATCH)} pixels or more "
                "each way with detail. Give larger ones."
            )
        for patch in patches:
            for _ in range(_DAMAGES):
                bad = damage(patch, generator)
                for at in _PLACES:
                    place = slice(at, at + SIDE), slice(at, at + SIDE)
                    clean.append(patch[place])
                    damaged.append(bad[place])
    return np.stack(clean[:count]), np.stack(damaged[:count])


def damage(patch: Pixels, generator: np.random.Generator) -> Pixels:
    """Damage a patch once or twice, all of it or a part."""
    bad = _once(patch, generator)
    if generator.random() < 0.2:
        bad = _once(bad, generator)
    if generator.random() < 0.15:
        where = smooth(patch.shape[:2], generator.uniform(5, 50), generator) > generator.uniform(-1, 0.6)
        bad = np.where(where[..., None], bad, patch)
    return bad


def _once(patch: Pixels, generator: np.random.Generator) -> Pixels:
    family, severity = generator.choice(list(_FAMILIES), p=list(_FAMILIES.values())), generator.uniform(0, 1)
    if family == "degradations":
        return degrade(patch, generator.choice(list(DEGRADATIONS)), int(generator.integers(LEVELS)) + 1, generator)
    if family == "drawn":
        return DRAWN[generator.choice(list(DRAWN))](patch, severity, generator)
    kinds = RARE if family == "rare" else {name: one for name, one in DISTORTIONS.items() if name not in _IN_TIME}
    return np.asarray(kinds[generator.choice(list(kinds))](patch[None], severity, generator)[0])


def _patches(source: Path, read: Read, generator: np.random.Generator) -> list[Pixels]:
    """Patches of a picture at a drawn size; none of what is unreadable or small."""
    try:
        whole = _contents(source, read)
    except (ClipError, UsageError):
        return []
    longest = max(whole.size)
    if min(whole.size) < PATCH:
        return []
    shortest = min(max(PATCH / min(whole.size) * longest, _SHORTEST), longest)
    scale = np.exp(generator.uniform(np.log(shortest), np.log(longest))) / longest
    size = (max(PATCH, round(whole.width * scale)), max(PATCH, round(whole.height * scale)))
    picture = whole.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    found = []
    for _ in range(_PATCHES):
        left, top = (int(generator.integers(length - PATCH + 1)) for length in size)
        patch = np.asarray(picture.crop((left, top, left + PATCH, top + PATCH)))
        if patch.std() > _LEAST_DETAIL:
            found.append(patch)
    return found


def _contents(source: Path, read: Read) -> Image.Image:
    """A picture, shrunk so far that its own damage is gone. Raises as `read`."""
    whole = read(source)
    scale = min(1 / 1.5, _LONGEST / max(whole.size))
    size = (max(1, round(whole.width * scale)), max(1, round(whole.height * scale)))
    return whole.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
