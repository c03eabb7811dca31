"""What can be done to the bytes of a media file: each edit takes bytes and gives others."""

from collections.abc import Callable

import numpy as np

from tests.support.structure import Piece, find, packets, pieces

Edit = Callable[[bytes], bytes]


def put(data: bytes, at: int, new: bytes) -> bytes:
    """Other bytes at a place; the length stays, whatever hangs over the end is dropped."""
    return data[:at] + new[: max(0, len(data) - at)] + data[at + len(new) :]


def sized(data: bytes, piece: Piece, size: int) -> bytes:
    """Another number in a piece's size field, as much of it as the field holds; nothing where there is no field."""
    is_matroska = data.startswith(b"\x1a\x45")  # marks the length in the number itself
    bits = (7 if is_matroska else 8) * piece.size_bytes
    mark = 1 << bits if is_matroska and bits else 0
    new = (mark | size % (1 << bits)).to_bytes(piece.size_bytes, "little" if data.startswith(b"RIFF") else "big")
    return put(data, piece.size_at, new)


def size_of(data: bytes, piece: Piece) -> int:
    """The number in a piece's size field; 0 where there is none."""
    field = data[piece.size_at : piece.size_at + piece.size_bytes]
    number = int.from_bytes(field, "little" if data.startswith(b"RIFF") else "big")
    return number % (1 << 7 * piece.size_bytes) if data.startswith(b"\x1a\x45") else number


def zeroed(data: bytes, piece: Piece) -> bytes:
    """A piece with a body of NULs."""
    return put(data, piece.body, bytes(piece.stop - piece.body))


def without(data: bytes, piece: Piece) -> bytes:
    """A piece taken out; sizes of the pieces around it stay as they were."""
    return data[: piece.start] + data[piece.stop :]


def exchanged(data: bytes, found: list[Piece], start: int, stop: int, new: bytes) -> bytes:
    """Bytes [start, stop) replaced by more or fewer of them, and the sizes of the pieces around them mended."""
    for piece in found:
        if piece.size_bytes and piece.body <= start and stop <= piece.stop:
            data = sized(data, piece, size_of(data, piece) + len(new) - (stop - start))
    return data[:start] + new + data[stop:]


def noisy(data: bytes, places: list[Piece], *, seed: int = 0, skip: int = 8) -> bytes:
    """Random bytes in pieces, but for the first `skip` of each body."""
    rng = np.random.default_rng(seed)
    for piece in places:
        start = piece.body + skip
        data = put(data, start, rng.bytes(max(0, piece.stop - start)))
    return data


def flipped(data: bytes, start: int, stop: int, *, count: int, rng: np.random.Generator) -> bytes:
    """`count` bits between two places turned over."""
    changed = bytearray(data)
    for at in rng.integers(start, stop, count):
        changed[int(at)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


# --- for makers of wrong files: each gives the edit of a whole good file ---------------------------------------------


def share(part: float) -> Edit:
    """The first part of the bytes, as of a broken-off download."""
    return lambda data: data[: int(len(data) * part)]


def cut(kind: str, *, nth: int = 0, inside: bool = False) -> Edit:
    """Up to a piece, or to the middle of it."""

    def edit(data: bytes) -> bytes:
        piece = find(data, kind, nth=nth)
        return data[: (piece.body + piece.stop) // 2 if inside else piece.start]

    return edit


def field(kind: str, offset: int, new: bytes, *, nth: int = 0) -> Edit:
    """Other bytes inside a piece, at an offset into its body."""
    return lambda data: put(data, find(data, kind, nth=nth).body + offset, new)


def size(kind: str, number: int, *, nth: int = 0) -> Edit:
    """Another number in a piece's size field."""
    return lambda data: sized(data, find(data, kind, nth=nth), number)


def nulls(*kinds: str) -> Edit:
    """NULs instead of the body of the first piece of each kind."""

    def edit(data: bytes) -> bytes:
        for kind in kinds:
            data = zeroed(data, find(data, kind))
        return data

    return edit


def removed(*kinds: str, nth: Callable[[int], bool] = lambda n: True) -> Edit:
    """Without the pieces of some kinds, those whose number among their kind passes."""

    def edit(data: bytes) -> bytes:
        counts = dict.fromkeys(kinds, -1)
        gone: list[Piece] = []
        for piece in pieces(data):
            if piece.kind in counts:
                counts[piece.kind] += 1
                gone += [piece] if nth(counts[piece.kind]) else []
        for piece in reversed(gone):
            data = without(data, piece)
        return data

    return edit


def renamed(old: bytes, new: bytes) -> Edit:
    """Each occurrence of a tag replaced, but for the brands in the first 64 bytes."""
    return lambda data: data[:64] + data[64:].replace(old, new)


def replaced(old: bytes, new: bytes) -> Edit:
    """Each occurrence replaced."""
    return lambda data: data.replace(old, new)


def noise(first: int = 0, stop: int | None = None, *, skip: int = 8) -> Edit:
    """Random bytes in packets [first, stop), but for the first `skip` bytes of each."""
    return lambda data: noisy(data, packets(data)[first:stop], skip=skip)


def noise_in(kind: str, *, nth: int = 0, skip: int = 8) -> Edit:
    """Random bytes in one piece."""
    return lambda data: noisy(data, [find(data, kind, nth=nth)], skip=skip)


def flips(*, seed: int, count: int, start: float) -> Edit:
    """Bits turned over behind the first part of the file."""

    def edit(data: bytes) -> bytes:
        rng = np.random.default_rng(seed)
        return flipped(data, int(len(data) * start), len(data), count=count, rng=rng)

    return edit


def then(*edits: Edit) -> Edit:
    """One after another."""

    def edit(data: bytes) -> bytes:
        for one in edits:
            data = one(data)
        return data

    return edit
