"""Other contents under the conditions of a test with people, labelled by what its viewers said of these conditions.

A test shows a few dozen contents, too few to tell a content from what was done to it: most of what a student gets wrong
on a new source is the same for all pictures of that source. Where a test says how each picture was coded, the mean
opinion is a smooth function of that, and pictures of any other content can be coded alike and take that mean.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image
from pydantic import Field

from vqa.config import Strict
from vqa.data.synthetic.degradations import DEGRADATIONS
from vqa.light.regression import Matrix
from vqa.types import Pixels

FEWEST = 20  # pictures with opinions under known conditions
_FINER = 1.15  # a source's shorter side over the coded height, so that its own artefacts vanish
_JITTER = 2  # of CRF
_HEIGHT, _CRF = 400.0, 20.0  # where terms of the fit are near 0


class ConditionsConfig(Strict):
    """Contents to code as a test coded its own."""

    sources: list[Path] = Field(description="pictures, or folders of them; contents of no test")
    contents: int | None = Field(None, ge=1, description="files taken of these, drawn; null = all")
    each: int = Field(6, ge=1, description="conditions of a content, drawn among the test's")
    weight: float = Field(1.0, gt=0, description="of all these pictures together, where a set of people's counts 1")
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionCurve:
    """Mean opinion as a function of coded height and CRF."""

    weights: Matrix  # [7]

    @classmethod
    def fit(cls, conditions: Matrix, opinions: Matrix) -> Self:
        """Fit a cubic of log height and a quadratic of CRF, with one mixed term, by least squares.

        Args:
            conditions: [N, 2], coded height in pixels and CRF.
            opinions: [N], higher is better.
        """
        found, *_ = np.linalg.lstsq(_terms(conditions), opinions, rcond=None)
        return cls(weights=np.asarray(found, dtype=np.float64))

    def at(self, conditions: Matrix) -> Matrix:
        """Mean opinion [N] of conditions [N, 2]."""
        found: Matrix = _terms(conditions) @ self.weights
        return found


def _terms(conditions: Matrix) -> Matrix:
    height, crf = np.log(conditions[:, 0] / _HEIGHT), conditions[:, 1] / _CRF - 1
    return np.stack([np.ones(len(height)), height, crf, height**2, crf**2, height * crf, height**3], axis=1)


def coded_alike(
    picture: Image.Image,
    conditions: Sequence[tuple[int, int]],
    *,
    count: int,
    shown_size: tuple[int, int],
    generator: np.random.Generator,
) -> Iterator[tuple[tuple[int, int], Pixels]]:
    """Yield a picture under conditions drawn among a test's: height and CRF, and the pixels as people would see them.

    The middle square is reduced, coded as one H.265 intra frame, decoded and enlarged.

    Args:
        picture: RGB. Conditions that it is too small for are not drawn; of a very small one nothing is yielded.
        conditions: Coded height in pixels and CRF of the test's pictures.
        count: How many, at most.
        shown_size: (width, height) that people saw, bicubic.
        generator: Draws conditions and a little change of CRF.
    """
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    possible = [one for one in conditions if one[0] * _FINER <= side]
    for place in generator.choice(len(possible), min(count, len(possible)), replace=False).tolist() if possible else ():
        height, crf = possible[place]
        crf = int(np.clip(crf + generator.integers(-_JITTER, _JITTER + 1), 0, 51))
        small = square.resize((height, height), Image.Resampling.LANCZOS)
        pixels = np.asarray(small, dtype=np.float32) / np.float32(255)
        coded = DEGRADATIONS["x265"].change(pixels, float(crf), generator)
        shown = Image.fromarray(np.rint(np.clip(coded, 0, 1) * 255).astype(np.uint8))
        yield (height, crf), np.asarray(shown.resize(shown_size, Image.Resampling.BICUBIC))
