"""Decode exact frames at given times to RGB of given sizes, in one forward pass.

Which packets are decoded follows from the packet table: from the last place before each wanted frame where decoding can
start, up to that frame, without those that no wanted frame needs (backends/pyav.py, bitstream/prune.py). Each group of
pictures is decoded at most once. A frame is identified by its presentation time, never by counting, but for files
without usable times, which are decoded from their beginning. Colours, sizes and rotation: color/convert.py.

A frame is left out when its packet is cut off or fails, or when the decoder flags it as corrupt or concealed; nothing
replaces it. What damage does to later frames depends on the timing of decoder threads (seen in most bit-flipped files),
so that a file found damaged is decoded by one thread, which repeats to the bit. Only damage that the decoder does not
notice (seen in HEVC) can still differ with several threads; the default is one.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vqa.errors import ClipError
from vqa.media.backends.base import BackendName, Reader, StrayedError, UncleanError
from vqa.media.backends.pyav import read_pyav
from vqa.media.backends.registry import BACKENDS
from vqa.media.backends.stills import read_heif, read_pillow
from vqa.media.color.convert import FrameConverter, TargetSize
from vqa.media.packets import PacketTable, nearest_frames
from vqa.media.probe import BY_PILLOW, COMPOSITE, probe
from vqa.media.storage.open import media_errors
from vqa.types import Frames, MediaInfo, Pixels


def decode(
    uri: str,
    seconds: ArrayLike,
    *,
    sizes: Sequence[TargetSize],
    backend: BackendName = "pyav",
    thread_count: int = 1,
    prune: bool = True,
    info: MediaInfo | None = None,
    packets: PacketTable | None = None,
) -> Frames:
    """Decode the frames shown nearest to the given times.

    Args:
        uri: Path or URL.
        seconds: Times, float [N], in any order, repeats allowed; ties go to the earlier frame.
        sizes: (width, height) as shown for each time, or None for the native size.
        backend: Decoder; the frames are the same, colours differ slightly (backends/registry.py).
        thread_count: Threads of the decoder; changes the speed only.
        prune: Skip packets that no wanted frame needs (PyAV only); the frames are the same either way.
        info: Facts of the file from `probe`; with `packets`, saves a second demuxing.
        packets: Its packet table from `probe`.

    Returns:
        Pictures (uint8 [height, width, 3]), times, and which requests they answer; requests whose frame is lost are
        left out.

    Raises:
        ClipError: The kinds of `probe`; `corrupt` when none of the wanted frames could be decoded.
        UsageError: The back end cannot be used in this installation.
        ValueError: Unequal counts, times that are not finite, or an unknown back end.
    """
    times = np.asarray(seconds, np.float64).reshape(-1)
    if len(times) != len(sizes) or not np.isfinite(times).all():
        raise ValueError(
            f"decode: {len(times)} times and {len(sizes)} sizes. Give one size for each time, and finite times."
        )
    if backend not in BACKENDS:
        raise ValueError(f"decode: unknown backend {backend!r}. Use one of {', '.join(BACKENDS)}.")
    if info is None or packets is None:
        info, packets = probe(uri)
    try:
        entries, pictures = _pictures(info, packets, times, sizes, _reader(info, backend, prune=prune), thread_count)
    except StrayedError:  # the index does not describe the file
        info, packets = probe(uri, by_index=False)
        entries, pictures = _pictures(info, packets, times, sizes, _reader(info, backend, prune=prune), thread_count)
    if len(times) and not pictures:
        wanted = len(np.unique(entries))
        raise ClipError(
            "corrupt",
            f"{uri}: none of the {wanted} wanted frames could be decoded. Copy or encode the file again.",
            (0, wanted),
        )
    requested = np.array(sorted(pictures), np.int64)
    return Frames(
        pixels=tuple(pictures[int(request)] for request in requested),
        seconds=packets.seconds[entries[requested]],
        requested=requested,
    )


def _reader(info: MediaInfo, backend: BackendName, *, prune: bool) -> Reader:
    if info.container in BY_PILLOW:
        return read_pillow
    if info.container == COMPOSITE:
        return read_heif
    # The others neither crop nor mirror nor give alpha, and turn only by what the container says.
    needs_pyav = info.is_image or info.has_alpha or info.crop or info.is_mirrored or info.is_turned_by_stream
    if needs_pyav or backend == "pyav":
        return partial(read_pyav, prune=prune)
    return BACKENDS[backend]


def _pictures(
    info: MediaInfo,
    packets: PacketTable,
    times: NDArray[np.float64],
    sizes: Sequence[TargetSize],
    read: Reader,
    thread_count: int,
) -> tuple[NDArray[np.int64], dict[int, Pixels]]:
    """Table entry of each request [N], and the picture of each decoded request."""
    entries = nearest_frames(packets.seconds, times)
    wanted = np.unique(entries)
    converter = FrameConverter(info=info)
    pictures: dict[int, Pixels] = {}
    with media_errors(info.uri, doing="decoding"):
        for threads in (thread_count, 1):
            pictures.clear()
            try:
                for entry, frame in read(info, packets, wanted, thread_count=threads):
                    made: dict[TargetSize, Pixels] = {}
                    for request in np.flatnonzero(entries == entry):
                        size = sizes[int(request)]
                        if size not in made:
                            made[size] = converter.convert(frame, size)
                        pictures[int(request)] = made[size]
            except UncleanError:
                continue
            break
    return entries, pictures
