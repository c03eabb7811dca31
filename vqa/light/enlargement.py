"""What a student makes of how far a picture was enlarged for its viewers.

Where a test enlarged its pictures (`views.shown_size`), how far says more of the opinions than the blur that is left of
it: on AVT the stored height alone has SRCC 0.93. It counts beside what the pixels say, and nothing where nobody said
how the picture was shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from vqa.light.regression import Matrix

KEPT = 0.6  # of a place, beside enlargement; fitted it is 0.4 on AVT, whose one kind of damage goes with enlargement


@dataclass(frozen=True, slots=True)
class Enlargement:
    """Place on a regressor's line, moved by how far a picture was enlarged."""

    gain: float  # of the place
    slope: float  # what each doubling of width and height takes
    bend: float  # of its square
    offset: float
    least: float  # doublings; what lies below or above what was learnt from counts as the nearest that does not
    most: float

    def placed(self, places: Matrix, enlargements: Sequence[float | None]) -> Matrix:
        """Move places [N] by times that pictures were enlarged by, where known."""
        is_known = np.array([one is not None for one in enlargements])
        doublings = np.log2([1.0 if one is None else one for one in enlargements]).clip(self.least, self.most)
        taken = self.slope * doublings + self.bend * doublings**2
        return np.asarray(np.where(is_known, self.gain * places - taken + self.offset, places))

    @classmethod
    def fit(cls, places: Matrix, enlargements: Matrix, targets: Matrix) -> Self | None:
        """Fit by least squares.

        Args:
            places: [N], of pictures that the regressor did not learn from; its own would hide what they leave.
            enlargements: [N], times.
            targets: [N], opinions as places on the line.

        Returns:
            The fit; None where these pictures do not say: all enlarged alike, or one of the two against opinions.
        """
        doublings = np.log2(enlargements)
        least, most = float(doublings.min()), float(doublings.max())
        columns = np.stack([-doublings, -(doublings**2), np.ones_like(places)], axis=1)
        slope, bend, offset = np.linalg.lstsq(columns, targets - KEPT * places, rcond=None)[0].tolist()
        rising = min(slope + 2 * bend * least, slope + 2 * bend * most)  # what is taken, with enlargement
        if most - least < 0.1 or np.cov(places, targets)[0, 1] <= 0 or rising <= 0:
            return None
        return cls(KEPT, slope, bend, offset, least, most)
