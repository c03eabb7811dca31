"""Protocol of the decoder back ends."""

import re
from collections.abc import Iterator
from typing import Literal, Protocol

import av
import numpy as np
from numpy.typing import NDArray

from vqa.media.packets import PacketTable
from vqa.types import MediaInfo

_BUILD_PLACE = re.compile(r"^(?:\[\d\d:\d\d:\d\d\] )?\S+\.(?:cc|cpp|h):\d+: ?")
BackendName = Literal["pyav", "decord", "torchcodec"]


class Reader(Protocol):
    """Decoder of chosen frames of a file."""

    def __call__(
        self, info: MediaInfo, table: PacketTable, wanted: NDArray[np.int64], *, thread_count: int
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (entry, frame as stored) for the sound wanted frames, in any order.

        Args:
            info: Facts of the file, from `probe`.
            table: Its packet table, from `probe`.
            wanted: int64 [N], distinct entries of the table, ascending.
            thread_count: Threads of the decoder; changes the speed only.

        Raises:
            ClipError: The file cannot be decoded by this back end.
            UncleanError: Damage was met with several threads.
            StrayedError: The table does not describe this file.
        """
        ...


class UncleanError(Exception):
    """Damage met by several decoder threads: later frames depend on their timing."""


class StrayedError(Exception):
    """The file's packets are not those of the packet table."""


def cause(error: Exception) -> str:
    """First line of an error without its place in decord's source, or its type."""
    first = (str(error).strip().splitlines() or [""])[0]
    return _BUILD_PLACE.sub("", first) or type(error).__name__


def as_stored(pixels: NDArray[np.uint8], info: MediaInfo) -> av.VideoFrame:
    """A frame that its decoder has already turned for display, turned back."""
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(pixels, k=info.rotation_degrees // 90)), "rgb24")
