"""Copies among clips: same bytes or like frames (remuxed, re-encoded, rescaled)."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from vqa.errors import ClipError
from vqa.media import Guard, decode, probe
from vqa.media.storage.fingerprint import fingerprint

By = Literal["content", "frames"]
T = TypeVar("T")

DEADLINE_SECONDS = 60.0
FRAMES, SIDE = 5, 8
ALIKE = 0.1  # share of the bits that may differ
FLAT = 4.0  # grey levels of deviation below which a picture says nothing

Hash = NDArray[np.uint8]  # [FRAMES * SIDE * SIDE] bits


def find_copies(uris: Sequence[str], *, by: By) -> list[list[int]]:
    """Groups of clips that are copies of one another.

    Args:
        uris: N files; those that cannot be read are copies of nothing.
        by: content: equal fingerprints. frames: also frames at five places that look alike by their difference hash
            (8 x 8 signs of the steps in luma from left to right, of which a tenth may differ), in files of about the
            same length.

    Returns:
        Indices into `uris`, in groups of two or more.
    """
    pairs = [*_linked(_each(fingerprint, uris))]
    if by == "frames":
        pairs += _near(_each(frame_hash, uris))
    graph = coo_array((np.ones(len(pairs)), tuple(np.array(pairs).reshape(-1, 2).T)), shape=(len(uris),) * 2)
    _, labels = connected_components(graph, directed=False)
    groups: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels.tolist()):
        groups[label].append(index)
    return [group for group in groups.values() if len(group) > 1]


def frame_hash(uri: str) -> tuple[float, Hash] | None:
    """Duration (s) and hash of five frames, None if flat or short. Raises ClipError."""
    info, packets = probe(uri)
    last = float(packets.seconds[-1])
    places = (np.arange(FRAMES) + 0.5) / FRAMES * last
    frames = decode(uri, places, sizes=[(SIDE + 1, SIDE)] * FRAMES, info=info, packets=packets)
    if len(frames.pixels) < FRAMES:
        return None
    grey = np.stack(frames.pixels).astype(np.float64).mean(axis=-1)
    if np.median(grey.std(axis=(1, 2))) < FLAT:
        return None
    return info.duration_seconds, (np.diff(grey, axis=2) > 0).astype(np.uint8).ravel()


def _each(read: Callable[[str], T], uris: Sequence[str]) -> list[T | None]:
    """What `read` gives per file in a child that can be killed, None where it fails."""
    found: list[T | None] = []
    guard = Guard(deadline_seconds=DEADLINE_SECONDS, memory_bytes=4 << 30, preload=[__name__])
    try:
        for uri in uris:
            try:
                found.append(guard.run(read, uri))
            except ClipError:
                found.append(None)
    finally:
        guard.close()
    return found


def _linked(prints: Sequence[str | None]) -> Iterator[tuple[int, int]]:
    first: dict[str, int] = {}
    for index, one in enumerate(prints):
        if one is not None:
            yield first.setdefault(one, index), index


def _near(hashes: Sequence[tuple[float, Hash] | None]) -> Iterator[tuple[int, int]]:
    known = [(index, *one) for index, one in enumerate(hashes) if one is not None]
    places = np.array([index for index, *_ in known], np.int64)
    seconds = np.array([duration for _, duration, _ in known])
    bits = np.stack([one for *_, one in known]).astype(np.int32) if known else np.zeros((0, 1), np.int32)
    ones = bits.sum(axis=1)
    for row in range(len(known)):
        apart = ones[row] + ones[row + 1 :] - 2 * (bits[row + 1 :] @ bits[row])
        is_as_long = np.abs(seconds[row + 1 :] - seconds[row]) <= 0.05 + 0.02 * seconds[row]
        for other in np.flatnonzero((apart <= ALIKE * bits.shape[1]) & is_as_long):
            yield int(places[row]), int(places[row + 1 + other])
