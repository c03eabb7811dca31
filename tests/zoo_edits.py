"""What can be done to the bytes of a media file: each edit takes bytes and gives others."""

import numpy as np
from structure import Piece


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
