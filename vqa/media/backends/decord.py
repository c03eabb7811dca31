"""decord back end, for comparison; its counts err in MPEG-TS, AVI, intra refresh."""

from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import av
import numpy as np
from numpy.typing import NDArray

from vqa.errors import ClipError, UsageError
from vqa.media.backends.base import as_stored, cause
from vqa.media.packets import PacketTable, nearest_frames
from vqa.media.storage.open import local_path
from vqa.types import MediaInfo


def read_decord(
    info: MediaInfo, table: PacketTable, wanted: NDArray[np.int64], *, thread_count: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    """A `Reader` (base.py) by decord; frames at times not in the table are skipped."""
    decord = load_decord()
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(str(local_path(info.uri)), num_threads=thread_count)
        starts = reader.get_frame_timestamp(range(len(reader)))[:, 0].astype(np.float64)
        starts -= starts[0]
        indices = nearest_frames(starts, table.seconds[wanted])
        for entry, index in zip(wanted, indices, strict=True):
            is_same = abs(starts[index] - table.seconds[entry]) < 1e-3 * (1 + table.seconds[entry])  # float32 there
            if is_same and not table.is_damaged[entry]:
                yield int(entry), as_stored(reader[int(index)].asnumpy(), info)
    except (decord.DECORDError, RuntimeError) as error:
        raise ClipError("corrupt", f"{info.uri}: decord reports {cause(error)!r}. Try 'pyav'.") from error


def load_decord() -> ModuleType:
    """Import decord. Raises UsageError with the reason where it cannot be used here."""
    try:
        return import_module("decord")
    except (ImportError, OSError, RuntimeError) as error:
        message = f"decode backend 'decord' cannot be used: {cause(error)}. Run pip install decord, or use 'pyav'."
        raise UsageError(message) from error
