"""Layout of a HEIF or AVIF still: tiles, alpha, crop, turn (ISO/IEC 23008-12).

FFmpeg gives one stream per coded item, so that a picture stored in tiles (every photograph of an iPhone) comes as its
first tile, and it neither applies the alpha item nor the `clap` of a picture.
"""

import os
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

from vqa.media.bitstream.bits import Bits, EndOfBitsError
from vqa.media.containers.mp4 import inner_boxes, top_boxes
from vqa.types import Crop

_MAX_META_BYTES = 1 << 24
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0", b"urn:mpeg:hevc:2015:auxid:1\0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """Colours or alpha of a picture: items in rows of `columns`, cut to its size."""

    items: tuple[int, ...]  # ids, which are those of FFmpeg's streams
    columns: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeifImage:
    """Primary picture: cropped, flipped (upside down), then turned clockwise."""

    colours: Plane
    alpha: Plane | None
    crop: Crop | None
    rotation_degrees: int
    is_mirrored: bool

    @property
    def is_composite(self) -> bool:
        """Whether it is more than one coded item as FFmpeg gives it."""
        return len(self.colours.items) > 1 or self.alpha is not None or self.crop is not None


def primary_image(file: BinaryIO) -> HeifImage | None:
    """Read the primary picture's layout, or None; keeps the file's position."""
    position = file.tell()
    try:
        meta = next((span for kind, *span in top_boxes(file) if kind == b"meta"), None)
        if meta is None or meta[1] - meta[0] > _MAX_META_BYTES:
            return None
        file.seek(meta[0])
        return _Items(file, file.read(meta[1] - meta[0])).primary()
    except (EndOfBitsError, LookupError, StopIteration):
        return None
    finally:
        file.seek(position)


class _Items:
    """The item boxes of a `meta` box."""

    def __init__(self, file: BinaryIO, body: bytes) -> None:
        self._file, self._boxes = file, dict(inner_boxes(body[4:]))
        self._properties = list(inner_boxes(dict(inner_boxes(self._boxes[b"iprp"]))[b"ipco"]))
        self._of_item = self._associations(dict(inner_boxes(self._boxes[b"iprp"]))[b"ipma"])
        self._references = self._read_references(self._boxes.get(b"iref", bytes(4)))
        self._kinds = self._read_kinds(self._boxes[b"iinf"])

    def primary(self) -> HeifImage:
        body = Bits(self._boxes[b"pitm"])
        item = body.read(32 if body.read(32) >> 24 else 16)
        crop: Crop | None = None
        turn, is_mirrored = 0, False
        colours = self._plane(item)
        for kind, value in self._properties_of(item):  # in the order in which they are applied
            if kind == b"clap":
                crop = _clean_aperture(value, colours.width, colours.height)
            elif kind == b"irot":
                turn -= 90 * (value[0] & 3)  # counterclockwise
            elif kind == b"imir":  # 0: upside down, 1: left to right (edition of 2022, 6.5.12; before it was unclear)
                turn, is_mirrored = (180 - turn if value[0] & 1 else -turn), not is_mirrored
        auxiliary = [one for kind, one, to in self._references if kind == b"auxl" and item in to]
        alpha = next(filter(self._is_alpha, auxiliary), None)
        return HeifImage(
            colours=colours,
            alpha=None if alpha is None else self._plane(alpha),
            crop=crop,
            rotation_degrees=turn % 360,
            is_mirrored=is_mirrored,
        )

    def _plane(self, item: int) -> Plane:
        if self._kinds[item] != b"grid":
            size = Bits(next(value for kind, value in self._properties_of(item) if kind == b"ispe")[4:])
            return Plane(items=(item,), columns=1, width=size.read(32), height=size.read(32))
        tiles = next(to for kind, one, to in self._references if kind == b"dimg" and one == item)
        grid = Bits(self._payload(item))
        is_wide = grid.read(16) & 1
        rows, columns = grid.read(8) + 1, grid.read(8) + 1
        width, height = (grid.read(32 if is_wide else 16) for _ in range(2))
        if rows * columns != len(tiles):
            raise EndOfBitsError
        return Plane(items=tiles, columns=columns, width=width, height=height)

    def _is_alpha(self, item: int) -> bool:
        return any(kind == b"auxC" and value[4:].startswith(_ALPHA) for kind, value in self._properties_of(item))

    def _properties_of(self, item: int) -> list[tuple[bytes, bytes]]:
        return [self._properties[index - 1] for index in self._of_item.get(item, ()) if index]

    @staticmethod
    def _associations(body: bytes) -> dict[int, list[int]]:
        """Indices of the properties of each item (`ipma`)."""
        bits = Bits(body)
        head = bits.read(32)
        id_bits, index_bits = (32 if head >> 24 else 16), (15 if head & 1 else 7)
        found: dict[int, list[int]] = {}
        for _ in range(bits.read(32)):
            item, count = bits.read(id_bits), bits.read(8)
            found[item] = [bits.read(1 + index_bits) & ((1 << index_bits) - 1) for _ in range(count)]
        return found

    @staticmethod
    def _read_references(body: bytes) -> list[tuple[bytes, int, tuple[int, ...]]]:
        """(kind, from item, to items) of each reference (`iref`)."""
        id_bits = 32 if body[0] else 16
        found = []
        for kind, value in inner_boxes(body[4:]):
            bits = Bits(value)
            item, count = bits.read(id_bits), bits.read(16)
            found.append((kind, item, tuple(bits.read(id_bits) for _ in range(count))))
        return found

    @staticmethod
    def _read_kinds(body: bytes) -> dict[int, bytes]:
        """Type of each item (`iinf`); entries before version 2 have none."""
        found = {}
        for _, entry in inner_boxes(body[8 if body[0] else 6 :]):
            if entry[0] >= 2:
                size = 2 if entry[0] == 2 else 4
                found[int.from_bytes(entry[4 : 4 + size], "big")] = entry[6 + size : 10 + size]
        return found

    def _payload(self, item: int) -> bytes:
        """Bytes of a grid item's layout (`iloc`), at most 12, in the file or `idat`."""
        body = self._boxes[b"iloc"]
        bits, version = Bits(body[4:]), body[0]
        offset_bits, length_bits, base_bits, index_bits = (8 * bits.read(4) for _ in range(4))
        for _ in range(bits.read(32 if version == 2 else 16)):
            one = bits.read(32 if version == 2 else 16)
            method = bits.read(16) & 15 if version else 0
            bits.read(16)
            base, extents = bits.read(base_bits), bits.read(16)
            for _ in range(extents):
                bits.read(index_bits if version else 0)
                start, length = base + bits.read(offset_bits), bits.read(length_bits)
                if one != item:
                    continue
                if method == 1:
                    return self._boxes[b"idat"][start : start + length]
                if start >= self._file.seek(0, os.SEEK_END):  # a damaged place can lie beyond what can be sought
                    raise EndOfBitsError
                self._file.seek(start)
                return self._file.read(min(length, 12))
        raise EndOfBitsError


def _clean_aperture(box: bytes, width: int, height: int) -> Crop | None:
    """Crop of a picture by its `clap` box (ISO/IEC 14496-12, 12.1.4), if it fits."""
    numbers = struct.unpack(">4Iiiii", box) if len(box) == 32 else (0,) * 8
    if not all(numbers[1::2]):
        return None
    wide, high, right, down = (Fraction(top, bottom) for top, bottom in zip(numbers[::2], numbers[1::2], strict=True))
    left, top = round((width - wide) / 2 + right), round((height - high) / 2 + down)
    crop = Crop(left, width - left - round(wide), top, height - top - round(high))
    is_inside = min(crop) >= 0 and wide >= 1 and high >= 1
    return crop if is_inside and any(crop) else None
