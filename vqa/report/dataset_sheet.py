"""A data set at a glance: how its opinions spread, and which clips to look at first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa.data.manifest import Manifest

BINS = 32  # of an eighth of a point, from 1 to 5
_BLOCKS = " ▁▂▃▄▅▆▇█"

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Glance:
    """One data set; opinions are on 1-5. Clips are rows of the manifest, the foremost first."""

    dataset: str
    count: int
    least: float
    mean: float
    greatest: float
    histogram: NDArray[np.int64]  # [BINS]
    best: Sequence[Row]
    worst: Sequence[Row]
    disputed: Sequence[Row]  # by mos_std; none where no spread is known


def glances(manifest: Manifest, *, most: int) -> list[Glance]:
    """Each data set by name, with the `most` best, worst and most disputed clips; ties go by clip_id."""
    of_set: dict[str, list[Row]] = {}
    for row in sorted(manifest.table.to_pylist(), key=lambda row: str(row["clip_id"])):
        of_set.setdefault(row["dataset"], []).append(row)
    found = []
    for dataset, rows in sorted(of_set.items()):
        opinions = np.array([row["mos"] for row in rows])
        spread = [row for row in rows if row["mos_std"] is not None]
        found.append(
            Glance(
                dataset=dataset,
                count=len(rows),
                least=float(opinions.min()),
                mean=float(opinions.mean()),
                greatest=float(opinions.max()),
                histogram=np.histogram(opinions, BINS, (1, 5))[0],
                best=sorted(rows, key=lambda row: -row["mos"])[:most],
                worst=sorted(rows, key=lambda row: row["mos"])[:most],
                disputed=sorted(spread, key=lambda row: -row["mos_std"])[:most],
            )
        )
    return found


def in_blocks(histogram: NDArray[np.int64]) -> str:
    """A histogram as one line of text; a bin that holds anything shows."""
    heights = np.ceil(histogram * (len(_BLOCKS) - 1) / max(1, histogram.max())).astype(int)
    return "".join(_BLOCKS[height] for height in heights)
