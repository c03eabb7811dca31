"""Mutations of good files by number: the same number gives the same bytes, on any machine with the same encoders.

A mutation knows the format: it picks a piece (box, element, chunk, page, marker) by its kind, so that a table of 20
bytes is hit as often as the media, or a packet as FFmpeg's demuxer finds it, and changes its size, its numbers, its
bytes, its place. One to three are done one after another; packets first, while they are still where the demuxer said.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from tests.support.structure import Piece, packets, pieces
from tests.support.zoo_edits import exchanged, flipped, put, size_of, sized, zeroed
from tests.support.zoo_good import GOOD, good

SEEDS = tuple(name for name in GOOD if name != "sound.m4a")
_MOST_PIECES = 2000  # a mutant can nest its pieces deeper and deeper


class Mutant(NamedTuple):
    """A good file after its mutations; `steps` says what was done, in order."""

    number: int
    seed: str
    steps: tuple[str, ...]
    data: bytes


Edit = Callable[[bytes, Piece, Generator, list[Piece]], bytes]


def mutant(number: int) -> Mutant:
    """Mutation `number`, 0 and up; the good files take turns."""
    seed = SEEDS[number % len(SEEDS)]
    rng = np.random.default_rng([20_261_121, number])
    data, steps = good(seed), []
    names = [*PACKET_EDITS, *PIECE_EDITS]
    chosen = [names[int(n)] for n in rng.integers(len(names), size=rng.integers(1, 4))]
    for name in sorted(chosen, key=lambda name: name in PIECE_EDITS):
        found = _packets(seed) if name in PACKET_EDITS else _pieces(data)
        if not found or not data:
            continue
        kinds = sorted({piece.kind for piece in found})
        kind = kinds[int(rng.integers(len(kinds)))]
        alike = [piece for piece in found if piece.kind == kind]
        place = int(rng.integers(len(alike)))
        data = (PACKET_EDITS | PIECE_EDITS)[name](data, alike[place], rng, found)
        steps.append(f"{name} {kind}[{place}]")
    return Mutant(number, seed, tuple(steps), data)


@cache
def _packets(seed: str) -> list[Piece]:
    try:
        return packets(good(seed))
    except Exception:  # FFmpeg reads no animated WebP: its pieces are all there is
        return []


def _pieces(data: bytes) -> list[Piece]:
    """As many as can be found: the readers are made for good files."""
    found: list[Piece] = []
    with suppress(IndexError, ValueError):
        found.extend(islice(pieces(data), _MOST_PIECES))
    found = [p._replace(stop=min(p.stop, len(data))) for p in found if p.start < p.body <= len(data)]
    return found or [Piece("file", 0, 0, len(data))]


def _number(rng: Generator, size_bytes: int, old: int) -> int:
    """A number likely to hurt: the ends of its range, near what stood there, or any."""
    top = 1 << 8 * size_bytes
    near = [old + 1, old - 1, old * 2, old // 2, old ^ 1 << int(rng.integers(8 * size_bytes))]
    ends = [0, 1, 2, 7, top - 1, top - 2, top // 2, top // 2 - 1, int.from_bytes(rng.bytes(size_bytes), "big")]
    choice = near if rng.random() < 0.4 else ends
    return choice[int(rng.integers(len(choice)))] % top


def _size(data: bytes, piece: Piece, rng: Generator, _: list[Piece]) -> bytes:
    if not piece.size_bytes:
        return _bits(data, piece, rng, _)
    return sized(data, piece, _number(rng, piece.size_bytes, size_of(data, piece)))


def _field(data: bytes, piece: Piece, rng: Generator, _: list[Piece]) -> bytes:
    """A number of 1, 2, 4 or 8 bytes in a body: counts, offsets, times, sizes of pictures; most stand in front."""
    width = int(rng.choice([1, 2, 4, 4, 4, 8]))
    room = min(piece.stop - piece.body, 64 if rng.random() < 0.8 else 1 << 30)
    at = piece.body + int(rng.integers(max(1, room // width))) * width
    order = "little" if data.startswith(b"RIFF") else "big"
    old = int.from_bytes(data[at : at + width], order)
    return put(data, at, _number(rng, width, old).to_bytes(width, order))


def _bits(data: bytes, piece: Piece, rng: Generator, _: list[Piece]) -> bytes:
    stop = min(piece.stop, len(data))
    return flipped(data, min(piece.start, stop - 1), stop, count=int(rng.integers(1, 17)), rng=rng)


def _noise(data: bytes, piece: Piece, rng: Generator, _: list[Piece]) -> bytes:
    start = int(rng.integers(piece.body, piece.stop)) if piece.stop > piece.body else piece.body
    return put(data, start, rng.bytes(int(rng.integers(1, 65))))


def _nulls(data: bytes, piece: Piece, _: Generator, __: list[Piece]) -> bytes:
    return zeroed(data, piece)


def _remove(data: bytes, piece: Piece, rng: Generator, found: list[Piece]) -> bytes:
    return exchanged(data, found if rng.random() < 0.5 else [], piece.start, piece.stop, b"")


def _duplicate(data: bytes, piece: Piece, rng: Generator, found: list[Piece]) -> bytes:
    new = data[piece.start : piece.stop] * int(rng.choice([2, 2, 3, 50]))
    return exchanged(data, found if rng.random() < 0.5 else [], piece.start, piece.stop, new[: 1 << 20])


def _swap(data: bytes, piece: Piece, rng: Generator, found: list[Piece]) -> bytes:
    """Two pieces, neither within the other, change places."""
    others = [p for p in found if p.stop <= piece.start or p.start >= piece.stop]
    if not others:
        return data
    first, second = sorted([piece, others[int(rng.integers(len(others)))]], key=lambda p: p.start)
    return (
        data[: first.start]
        + data[second.start : second.stop]
        + data[first.stop : second.start]
        + data[first.start : first.stop]
        + data[second.stop :]
    )


def _insert(data: bytes, piece: Piece, rng: Generator, found: list[Piece]) -> bytes:
    new = rng.bytes(int(rng.integers(1, 300)))
    return exchanged(data, found if rng.random() < 0.5 else [], piece.start, piece.start, new)


def _truncate(data: bytes, piece: Piece, rng: Generator, _: list[Piece]) -> bytes:
    return data[: int(rng.choice([piece.start, piece.body, (piece.body + piece.stop) // 2]))]


def _head(data: bytes, piece: Piece, rng: Generator, _: list[Piece]) -> bytes:
    """Bits in the first bytes of a packet: the headers of the codec."""
    return flipped(data, piece.start, min(piece.stop, piece.start + 16), count=int(rng.integers(1, 5)), rng=rng)


def _foreign(data: bytes, piece: Piece, rng: Generator, _: list[Piece]) -> bytes:
    """A packet with the bytes of one of another file."""
    other = SEEDS[int(rng.integers(len(SEEDS)))]
    there = _packets(other) or _pieces(good(other))
    source = there[int(rng.integers(len(there)))]
    return put(data, piece.start, good(other)[source.start : source.stop][: piece.stop - piece.start])


PACKET_EDITS: dict[str, Edit] = {
    "bits of packet's head": _head,
    "bits of": _bits,
    "noise into": _noise,
    "foreign bytes into": _foreign,
    "NULs in": _nulls,
}
PIECE_EDITS: dict[str, Edit] = {
    "size of": _size,
    "field of": _field,
    "another field of": _field,
    "bits in": _bits,
    "noise in": _noise,
    "no bytes but NUL in": _nulls,
    "remove": _remove,
    "duplicate": _duplicate,
    "swap": _swap,
    "insert before": _insert,
    "cut at": _truncate,
}
