"""torchcodec back end, without its own scan where no frame is counted or lost."""

import json
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import av
import numpy as np
from numpy.typing import NDArray

from vqa.errors import ClipError, UsageError
from vqa.media.backends.base import as_stored, cause
from vqa.media.packets import PacketTable
from vqa.media.storage.open import open_source
from vqa.types import MediaInfo


def read_torchcodec(
    info: MediaInfo, table: PacketTable, wanted: NDArray[np.int64], *, thread_count: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    """A `Reader` (base.py) by torchcodec; skips frames at times not in the table."""
    decoders = load_torchcodec()
    mapping = None if table.is_counted or (table.order >= len(table.ticks)).any() else _frame_mapping(table)
    with open_source(info.uri) as file:
        try:
            decoder = decoders.VideoDecoder(
                file, num_ffmpeg_threads=thread_count, dimension_order="NHWC", custom_frame_mappings=mapping
            )
            origin = decoder.metadata.begin_stream_seconds or 0.0
            for entry in wanted:
                if table.is_damaged[entry] or entry >= len(decoder):
                    continue
                frame = decoder.get_frame_at(int(entry))
                if abs(frame.pts_seconds - origin - table.seconds[entry]) < 1e-3:
                    yield int(entry), as_stored(frame.data.numpy(), info)
        except (RuntimeError, ValueError, IndexError) as error:
            raise ClipError("corrupt", f"{info.uri}: torchcodec reports {cause(error)!r}. Try 'pyav'.") from error


def _frame_mapping(table: PacketTable) -> str:
    """The table as `custom_frame_mappings`: frame n is the table's entry n."""
    ticks = table.ticks[table.order]
    gaps = np.diff(ticks, append=ticks[-1] + 1)
    rows = zip(ticks.tolist(), gaps.tolist(), table.is_key.tolist(), strict=True)
    return json.dumps({"frames": [{"pts": p, "duration": max(1, d), "key_frame": int(k)} for p, d, k in rows]})


def load_torchcodec() -> ModuleType:
    """Import `torchcodec.decoders`; UsageError says why it cannot be used here."""
    try:
        torchcodec = import_module("torchcodec")
        decoders = import_module("torchcodec.decoders")
        if torchcodec.ffmpeg_major_version is None:  # importing works without FFmpeg, the first use would not
            raise ImportError("it finds no shared libraries of FFmpeg (versions 4 to 9; those of PyAV are hidden)")
    except (ImportError, OSError, RuntimeError) as error:
        raise UsageError(
            f"decode backend 'torchcodec' cannot be used: {cause(error)}. Run pip install torchcodec, install FFmpeg's "
            "shared libraries, or use 'pyav'."
        ) from error
    return decoders
