"""The decoders behind one protocol: PyAV (feed.py, the default), decord, torchcodec; and why one cannot be used here.

All give the frame of the packet table's entry or none: what decord and torchcodec find by their own counting and timing
is compared with the table's time. Pixels agree but for the conversion to RGB: PyAV's is swscale's bit-exact code with
interpolated chroma; decord's repeats the nearest chroma sample (tests: mean difference below 4 of 255).
"""

import json
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray

from vqa.errors import ClipError, UsageError
from vqa.media.backends.pyav import read_pyav
from vqa.media.plan import nearest
from vqa.media.probe import PacketTable
from vqa.media.storage.source import local_path, open_source
from vqa.types import MediaInfo

BackendName = Literal["pyav", "decord", "torchcodec"]

Reader = Callable[[MediaInfo, PacketTable, NDArray[np.int64], int], Iterator[tuple[int, av.VideoFrame]]]
"""(info, packets, wanted entries in ascending order, threads) -> (entry, frame as stored) for those that are sound."""


def read_decord(
    info: MediaInfo, table: PacketTable, wanted: NDArray[np.int64], thread_count: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    """decord, for comparison. It finds frames by counting: wrong ones in MPEG-TS, AVI and intra-refresh streams."""
    decord = load_decord()
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(str(local_path(info.uri)), num_threads=thread_count)
        starts = reader.get_frame_timestamp(range(len(reader)))[:, 0].astype(np.float64)
        starts -= starts[0]
        indices = nearest(starts, table.seconds[wanted])
        for entry, index in zip(wanted, indices, strict=True):
            is_same = abs(starts[index] - table.seconds[entry]) < 1e-3 * (1 + table.seconds[entry])  # float32 there
            if is_same and not table.is_damaged[entry]:
                yield int(entry), _as_stored(reader[int(index)].asnumpy(), info)
    except (decord.DECORDError, RuntimeError) as error:
        raise ClipError("corrupt", f"{info.uri}: decord says {str(error).splitlines()[0]!r}; try 'pyav'") from error


def read_torchcodec(
    info: MediaInfo, table: PacketTable, wanted: NDArray[np.int64], thread_count: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    """torchcodec. Our packet table spares it its scan of the file; where frames have no times of their own it scans."""
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
                    yield int(entry), _as_stored(frame.data.numpy(), info)
        except (RuntimeError, ValueError, IndexError) as error:
            raise ClipError(
                "corrupt", f"{info.uri}: torchcodec says {str(error).splitlines()[0]!r}; try 'pyav'"
            ) from error


def _frame_mapping(table: PacketTable) -> str:
    """torchcodec's `custom_frame_mappings`: its frame n is the table's entry n."""
    ticks = table.ticks[table.order]
    gaps = np.diff(ticks, append=ticks[-1] + 1)
    rows = zip(ticks.tolist(), gaps.tolist(), table.is_key.tolist(), strict=True)
    return json.dumps({"frames": [{"pts": p, "duration": max(1, d), "key_frame": int(k)} for p, d, k in rows]})


def _as_stored(pixels: NDArray[np.uint8], info: MediaInfo) -> av.VideoFrame:
    """A frame that its decoder has already turned for display, turned back."""
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(pixels, k=info.rotation_degrees // 90)), "rgb24")


def load_decord() -> Any:
    """The package. Raises UsageError where it cannot be used here, saying why."""
    try:
        import decord
    except (ImportError, OSError, RuntimeError) as error:
        raise UsageError(
            f"decode backend 'decord' cannot be used: {_cause(error)}; pip install decord, or use 'pyav'"
        ) from error
    return decord


def load_torchcodec() -> Any:
    """Its `decoders`. Raises UsageError where it cannot be used here, saying why."""
    try:
        torchcodec = import_module("torchcodec")
        decoders = import_module("torchcodec.decoders")
        if torchcodec.ffmpeg_major_version is None:  # importing works without FFmpeg, the first use would not
            raise ImportError("it finds no shared libraries of FFmpeg (versions 4 to 9; PyAV's own are not visible)")
    except (ImportError, OSError, RuntimeError) as error:
        raise UsageError(
            f"decode backend 'torchcodec' cannot be used: {_cause(error)}; pip install torchcodec, install FFmpeg's "
            "shared libraries, or use 'pyav'"
        ) from error
    return decoders


def _cause(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


BACKENDS: dict[BackendName, Reader] = {"pyav": read_pyav, "decord": read_decord, "torchcodec": read_torchcodec}
DEFAULT: BackendName = "pyav"
WHY_DEFAULT = (
    "the only one whose packets can be left out; 1.3 to 2.1 times as fast as the others by themselves, at one thread "
    "(tests/bench/decode.py)"
)


def unusable() -> dict[BackendName, str]:
    """For each back end why it cannot be used here; empty where it can."""
    reasons: dict[BackendName, str] = dict.fromkeys(BACKENDS, "")
    loaders: dict[BackendName, Callable[[], Any]] = {"decord": load_decord, "torchcodec": load_torchcodec}
    for name, load in loaders.items():
        try:
            load()
        except UsageError as error:
            reasons[name] = str(error)
    return reasons
