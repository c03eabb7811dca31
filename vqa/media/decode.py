"""Exact frames at given times, as RGB at the sizes asked for: one forward pass, each group of pictures at most once.

Which packets are decoded follows from the packet table: from the last place before each wanted frame where decoding can
start, to that frame; all others are dropped unseen. A frame is identified by its presentation time, never by counting
(files without usable times are the exception: they are decoded from their beginning).

Colours, sizes and turning: paint.py.

Damage: a frame is left out when its packet is cut off or fails, or when the decoder flags it as corrupt or concealed;
nothing stands in for it. What damage does to later frames depends on the timing of decoder threads (seen in most
bit-flipped files), so that a file found damaged is decoded by one thread, which repeats itself to the bit. Only damage
that the decoder does not notice (seen in HEVC) can still differ when several threads are asked for; the default is one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import av
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vqa.errors import ClipError, UsageError
from vqa.media.container import open_container, packets_of, video_stream
from vqa.media.paint import Painter, Size
from vqa.media.pictures import webp_pictures
from vqa.media.probe import PacketTable, probe
from vqa.media.source import local_path, media_errors, open_source
from vqa.types import Frames, MediaInfo, Pixels

BackendName = Literal["pyav", "decord"]
_MAX_REORDER = 32  # frames


def decode(
    uri: str,
    seconds: ArrayLike,
    *,
    sizes: Sequence[Size],
    backend: BackendName = "pyav",
    thread_count: int = 1,
    info: MediaInfo | None = None,
    packets: PacketTable | None = None,
) -> Frames:
    """The frames shown nearest to `seconds` (float [N], any order, repeats allowed; ties go to the earlier frame).

    `sizes`: one (width, height) as shown for each request, or None for the native size. Give `info` and `packets` from
    `probe` to avoid a second demuxing. `thread_count` changes the speed only. Raises ClipError: the kinds of `probe`,
    and `corrupt` when not one of the wanted frames could be decoded.
    """
    times = np.asarray(seconds, np.float64).reshape(-1)
    if len(times) != len(sizes) or not np.isfinite(times).all():
        raise ValueError(
            f"decode: {len(times)} times and {len(sizes)} sizes; give one size for each time, times finite"
        )
    if backend not in BACKENDS:
        raise ValueError(f"decode: unknown backend {backend!r}; use one of {', '.join(BACKENDS)}")
    if info is None or packets is None:
        info, packets = probe(uri)
    entries = nearest(packets.seconds, times)
    wanted = np.unique(entries)
    read = _read_webp if info.container == "webp" else BACKENDS["pyav" if info.is_image else backend]
    painter = Painter(width=info.width, height=info.height, rotation_degrees=info.rotation_degrees)
    pictures: dict[int, Pixels] = {}
    with media_errors(uri, doing="decoding"):
        for threads in (thread_count, 1):
            pictures.clear()
            try:
                for entry, frame in read(info, packets, wanted, threads):
                    made: dict[Size, Pixels] = {}
                    for request in np.flatnonzero(entries == entry):
                        size = sizes[int(request)]
                        if size not in made:
                            made[size] = painter.paint(frame, size)
                        pictures[int(request)] = made[size]
            except _UncleanError:
                continue
            break
    if len(times) and not pictures:
        raise ClipError(
            "corrupt", f"{uri}: none of the {len(wanted)} wanted frames could be decoded; copy or encode the file again"
        )
    requested = np.array(sorted(pictures), np.int64)
    return Frames(
        pixels=tuple(pictures[int(request)] for request in requested),
        seconds=packets.seconds[entries[requested]],
        requested=requested,
    )


def nearest(frame_seconds: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the frame nearest to each time, int64 [N]; `frame_seconds` ascending; ties go to the earlier frame."""
    right = np.searchsorted(frame_seconds, seconds).clip(1, max(1, len(frame_seconds) - 1))
    left = right - 1
    right = np.minimum(right, len(frame_seconds) - 1)
    is_right = frame_seconds[right] - seconds < seconds - frame_seconds[left]
    found = np.where(is_right, right, left)
    # Of several frames with the same time, the first.
    return np.searchsorted(frame_seconds, frame_seconds[found]).astype(np.int64)


# --- what to feed ---------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Run:
    """A stretch of packets, in file order, that is fed to the decoder from a clean start; `stop` is included."""

    start: int
    stop: int
    wanted: list[int]  # entries of the packet table


def plan(table: PacketTable, wanted: Sequence[int] | NDArray[np.int64], *, back: int = 0) -> list[_Run]:
    """The runs that give the wanted entries; overlapping and touching ones are joined. Lost packets are not planned.

    Decoding can start at a keyframe for all that is shown after it. Frames stored behind a keyframe but shown before it
    (the leading pictures of an open group) need the keyframe before. `back` starts that many keyframes earlier still.
    """
    keys = np.flatnonzero(table.starts)
    runs: list[_Run] = []
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
            runs.append(_Run(start=start, stop=stop, wanted=[entry]))
    return runs


# --- back ends ------------------------------------------------------------------------------------------------------


class _UncleanError(Exception):
    """Damage was met while several threads decoded."""


Reader = Callable[[MediaInfo, PacketTable, NDArray[np.int64], int], Iterator[tuple[int, av.VideoFrame]]]
"""(info, packets, wanted entries in ascending order, threads) -> (entry, frame as stored) for those that are sound."""


def _read_pyav(
    info: MediaInfo, table: PacketTable, wanted: NDArray[np.int64], thread_count: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    missing = {int(entry) for entry in wanted if not table.is_damaged[entry]}
    # Some streams name places to start from which a clean picture comes only later (intra refresh): frames that stay
    # away without any error are tried again from earlier and earlier.
    for back in (0, 1, 4, len(table.ticks)):
        runs = plan(table, sorted(missing), back=back)
        hopeless = {entry for run in runs for entry in run.wanted if run.start == 0}
        for entry, frame in _feed(info.uri, table, runs, thread_count, hopeless):
            missing.discard(entry)
            yield entry, frame
        missing -= hopeless
        if not missing:
            return


def _feed(
    uri: str, table: PacketTable, runs: list[_Run], thread_count: int, hopeless: set[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Feed the packets of each run; yields (entry, frame) for wanted, clean frames.

    Adds the wanted entries of runs in which damage was met to `hopeless`.
    """
    if not runs:
        return
    with open_source(uri) as file, open_container(uri, file) as container:
        stream = video_stream(uri, container)
        decoder = stream.codec_context
        decoder.thread_count = thread_count
        decoder.thread_type = "AUTO" if thread_count > 1 else "NONE"
        run_index = shown = 0
        entry_of: dict[int | None, int] = {}
        for place, packet in enumerate(packets_of(container, stream)):
            run = runs[run_index]
            if place < run.start:
                continue
            if place == run.start:
                entry_of = {int(table.ticks[table.order[entry]]): entry for entry in run.wanted}
            frames, is_clean = _decode(decoder, packet)
            if place == run.stop:
                held_back, is_clean_too = _decode(decoder, None)
                frames, is_clean = frames + held_back, is_clean and is_clean_too
            for frame in frames:
                entry = shown if table.is_counted else entry_of.get(frame.pts, -1)
                shown += 1
                is_clean = is_clean and not frame.is_corrupt
                if entry in run.wanted and not frame.is_corrupt and not table.is_damaged[entry]:
                    yield entry, frame
            if not is_clean:
                if thread_count > 1:
                    raise _UncleanError
                hopeless.update(run.wanted)
            if place == run.stop:
                run_index += 1
                if run_index == len(runs):
                    return
                decoder.flush_buffers()


def _decode(
    decoder: av.VideoCodecContext, packet: "av.Packet[av.VideoStream] | None"
) -> tuple[list[av.VideoFrame], bool]:
    """Frames that come out for this packet (None: all that are held back), and whether none failed."""
    try:
        return decoder.decode(packet), True
    except av.error.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        return [], False


def _read_webp(
    info: MediaInfo, table: PacketTable, wanted: NDArray[np.int64], thread_count: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    with open_source(info.uri) as file:
        for entry, pixels in webp_pictures(file, [int(entry) for entry in wanted if not table.is_damaged[entry]]):
            yield entry, av.VideoFrame.from_ndarray(pixels, format="rgb24")


def _read_decord(
    info: MediaInfo, table: PacketTable, wanted: NDArray[np.int64], thread_count: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    """decord, for comparison. It finds frames by counting: wrong ones in MPEG-TS, AVI and intra-refresh streams."""
    try:
        import decord
    except ImportError as error:
        raise UsageError("decode backend 'decord' is not installed; pip install decord, or use 'pyav'") from error
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(str(local_path(info.uri)), num_threads=thread_count)
        starts = reader.get_frame_timestamp(range(len(reader)))[:, 0].astype(np.float64)
        starts -= starts[0]
        indices = nearest(starts, table.seconds[wanted])
        for entry, index in zip(wanted, indices, strict=True):
            is_same = abs(starts[index] - table.seconds[entry]) < 1e-3 * (1 + table.seconds[entry])  # float32 there
            if is_same and not table.is_damaged[entry]:
                shown = np.rot90(reader[int(index)].asnumpy(), k=info.rotation_degrees // 90)  # it rotates by itself
                yield int(entry), av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), format="rgb24")
    except (decord.DECORDError, RuntimeError) as error:
        raise ClipError("corrupt", f"{info.uri}: decord says {str(error).splitlines()[0]!r}; try 'pyav'") from error


BACKENDS: dict[str, Reader] = {"pyav": _read_pyav, "decord": _read_decord}
if set(BACKENDS) != set(get_args(BackendName)):
    raise TypeError("BACKENDS and BackendName must name the same back ends")
