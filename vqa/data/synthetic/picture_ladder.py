"""Ladders of degraded pictures: known order without opinions or a metric."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import Field

from vqa.config import Strict
from vqa.data.synthetic.degradations import DEGRADATIONS, LEVELS, degrade
from vqa.errors import UsageError
from vqa.types import Pixels

PRISTINE = "pristine"
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


class LadderConfig(Strict):
    """What is made of each picture."""

    kinds: int = Field(8, ge=1, le=len(DEGRADATIONS), description="kinds of degradation, drawn for each picture")
    levels: int = Field(3, ge=1, le=LEVELS, description="levels of each, drawn")
    shortest: int = Field(480, ge=64, description="long side of a pristine picture, drawn between this ...")
    longest: int = Field(1100, ge=64, description="... and this, but at most 1 / 1.5 of the source's")
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One picture of a ladder."""

    kind: str  # PRISTINE, or a key of DEGRADATIONS
    level: int  # 0 for the pristine picture
    pixels: Pixels

    @property
    def loss(self) -> float:
        """How much worse than pristine it should look, 0-1."""
        return loss_of(self.kind, self.level)


def read_picture(source: Path) -> Image.Image:
    """A picture file as RGB. Raises UsageError for a file that is none."""
    try:
        with Image.open(source) as image:
            return image.convert("RGB")
    except OSError as error:
        raise UsageError(f"{source}: cannot be read as a picture ({error}). Leave it out.") from error


def steps(source: Path, config: LadderConfig, read: Callable[[Path], Image.Image] = read_picture) -> Iterator[Step]:
    """Yield the pristine picture and its degraded copies.

    The same file and settings give the same pixels. The source is reduced first, so that its own artefacts vanish.

    Args:
        source: A file; its name seeds what is drawn.
        config: Kinds, levels and sizes.
        read: Gives the file's picture. Raises what it likes.
    """
    side, planned = plan_steps(source.name, config)
    whole = read(source)
    scale = min(max(whole.size) / 1.5, side) / max(whole.size)
    size = (max(1, round(whole.width * scale)), max(1, round(whole.height * scale)))
    pristine = np.asarray(whole.resize(size, Image.Resampling.LANCZOS))
    for kind, level in planned:
        if kind == PRISTINE:
            yield Step(kind=kind, level=level, pixels=pristine)
        else:
            draws = np.random.default_rng(_seed(f"{source.name}/{kind}", config.seed))
            yield Step(kind=kind, level=level, pixels=degrade(pristine, kind, level, draws))


def plan_steps(name: str, config: LadderConfig) -> tuple[float, list[tuple[str, int]]]:
    """Long side that `steps` draws for a file name, and kind and level of each step."""
    generator = np.random.default_rng(_seed(name, config.seed))
    side = float(np.exp(generator.uniform(np.log(config.shortest), np.log(config.longest))))
    planned = [(PRISTINE, 0)]
    for kind in generator.choice(list(DEGRADATIONS), config.kinds, replace=False).tolist():
        levels = generator.choice(LEVELS, config.levels, replace=False) + 1
        planned += [(kind, level) for level in sorted(levels.tolist())]
    return side, planned


def loss_of(kind: str, level: int) -> float:
    """Loss of a step against pristine, 0-1: the level's share of the kind's harm."""
    return 0.0 if kind == PRISTINE else level / LEVELS * DEGRADATIONS[kind].harm


def _seed(name: str, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=6).digest(), "big")


def find_pictures(
    sources: Sequence[Path], *, most: int | None = None, seed: int = 0, suffixes: Collection[str] = SUFFIXES
) -> list[Path]:
    """Find files of these suffixes, sorted; of more than `most`, that many are drawn.

    Fewer are the first of more.

    Raises:
        UsageError: A source that does not exist, or none that is a picture.
    """
    found: list[Path] = []
    for source in sources:
        if not source.exists():
            raise UsageError(f"source {source}: does not exist. Give pictures, or folders of them.")
        below = sorted(source.rglob("*")) if source.is_dir() else [source]
        found += [path for path in below if path.suffix.lower() in suffixes and path.is_file()]
    if not found:
        raise UsageError(f"no picture in {', '.join(map(str, sources))}. Give files of {', '.join(sorted(suffixes))}.")
    if most is None or len(found) <= most:
        return found
    return [found[k] for k in np.random.default_rng(seed).permutation(len(found))[:most].tolist()]
