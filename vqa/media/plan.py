"""Which frame is nearest to a time, and which stretches of packets give the wanted frames. Pure index arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqa.media.probe import PacketTable

_MAX_REORDER = 32  # frames


@dataclass(kw_only=True)
class Run:
    """A stretch of packets, in file order, that is fed to the decoder from a clean start; `stop` is included."""

    start: int
    stop: int
    wanted: list[int]  # entries of the packet table


def nearest(frame_seconds: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the frame nearest to each time, int64 [N]; `frame_seconds` ascending; ties go to the earlier frame."""
    right = np.searchsorted(frame_seconds, seconds).clip(1, max(1, len(frame_seconds) - 1))
    left = right - 1
    right = np.minimum(right, len(frame_seconds) - 1)
    is_right = frame_seconds[right] - seconds < seconds - frame_seconds[left]
    found = np.where(is_right, right, left)
    # Of several frames with the same time, the first.
    return np.searchsorted(frame_seconds, frame_seconds[found]).astype(np.int64)


def plan(table: PacketTable, wanted: Sequence[int] | NDArray[np.int64], *, back: int = 0) -> list[Run]:
    """The runs that give the wanted entries; overlapping and touching ones are joined. Lost packets are not planned.

    Decoding can start at a keyframe for all that is shown after it. Frames stored behind a keyframe but shown before it
    (the leading pictures of an open group) need the keyframe before. `back` starts that many keyframes earlier still.
    """
    keys = np.flatnonzero(table.starts)
    runs: list[Run] = []
    for entry in sorted((int(w) for w in wanted), key=lambda w: int(table.order[w])):
        place = int(table.order[entry])
        if place >= len(table.ticks):
            continue
        usable = keys[(keys <= place) & (table.ticks[keys] <= table.ticks[place])]
        start = int(usable[-1 - back]) if len(usable) > back and not table.is_counted else 0
        # The n-th frame shown is stored at most this many places later: no codec holds back more.
        stop = min(place + _MAX_REORDER, len(table.ticks) - 1) if table.is_counted else place
        if runs and start <= runs[-1].stop + 1:
            runs[-1].stop = stop
            runs[-1].wanted.append(entry)
        else:
            runs.append(Run(start=start, stop=stop, wanted=[entry]))
    return runs
