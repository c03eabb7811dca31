"""HEIF and AVIF: tiles, turns and mirrors, crops and alpha of still pictures."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import clips
from vqa.errors import ClipError
from vqa.media import decode, probe
from vqa.media.containers.heif import primary_image
from vqa.types import Crop

FAULTS = Path(__file__).parents[2] / "faults"


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


def with_property(data: bytes, added: bytes) -> bytes:
    """An AVIF of one item with one more property, which is of that item."""
    grown = len(added)
    for kind, more in ((b"meta", grown + 1), (b"iprp", grown + 1), (b"ipco", grown), (b"ipma", 1)):
        at = data.index(kind) - 4
        data = data[:at] + struct.pack(">I", struct.unpack(">I", data[at : at + 4])[0] + more) + data[at + 4 :]
    start = data.index(b"ipco") - 4
    end = start + struct.unpack(">I", data[start : start + 4])[0] - grown
    inside, count = data[start + 8 : end], 0
    while inside:
        inside, count = inside[struct.unpack(">I", inside[:4])[0] :], count + 1
    data = data[:end] + added + data[end:]
    at = data.index(b"ipma") + 4 + 4 + 4 + 2  # version and flags, entries, item
    last = at + 1 + data[at]  # transforms are applied in the order of their associations
    data = data[:at] + bytes([data[at] + 1]) + data[at + 1 : last] + bytes([0x80 | (count + 1)]) + data[last:]
    at = data.index(b"iloc") + 4 + 4 + 2 + 2  # one item with one extent: its offset moves
    sizes, version = data[at - 4], data[data.index(b"iloc") + 4]
    assert (sizes, version) == (0x44, 0)
    at += 2 + 2 + 2
    (offset,) = struct.unpack(">I", data[at : at + 4])
    return data[:at] + struct.pack(">I", offset + grown + 1) + data[at + 4 :]


def avif(path: Path, *properties: bytes) -> Path:
    Image.fromarray(clips.picture(5, noise=0.0)).save(path, quality=90)
    data = path.read_bytes()
    for one in properties:
        data = with_property(data, one)
    path.write_bytes(data)
    return path


def clap(width: int, height: int, right: int, down: int) -> bytes:
    """A clean aperture around a centre moved by halves of a pixel."""
    return box(b"clap", struct.pack(">4I4i", width, 1, height, 1, right, 2, down, 2))


@pytest.mark.parametrize(
    ("aperture", "crop"),
    [
        ((160, 90, 0, -6), Crop(0, 0, 0, 6)),
        ((150, 96, 10, 0), Crop(10, 0, 0, 0)),
        ((100, 50, 0, 0), Crop(30, 30, 23, 23)),
    ],
)
def test_a_clean_aperture_is_all_that_is_shown(tmp_path: Path, aperture: tuple[int, ...], crop: Crop) -> None:
    whole = decode(str(avif(tmp_path / "whole.avif")), [0.0], sizes=[None]).pixels[0]
    path = avif(tmp_path / "cut.avif", clap(*aperture))
    info, _ = probe(str(path))
    assert (info.crop, info.width, info.height, info.is_image) == (crop, *aperture[:2], True)
    shown = decode(str(path), [0.0], sizes=[None]).pixels[0]
    np.testing.assert_array_equal(shown, whole[crop.top : 96 - crop.bottom, crop.left : 160 - crop.right])


@pytest.mark.parametrize("angle", [0, 1, 2, 3])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_turns_and_mirrors_come_in_their_order(tmp_path: Path, angle: int, axis: int | None) -> None:
    properties = [clap(140, 80, 0, 0), box(b"irot", bytes([angle]))]
    properties += [box(b"imir", bytes([axis]))] if axis is not None else []
    whole = decode(str(avif(tmp_path / "whole.avif")), [0.0], sizes=[None]).pixels[0]
    expected = np.rot90(whole[8:88, 10:150], angle)  # counterclockwise
    if axis is not None:
        expected = expected[:, ::-1] if axis else expected[::-1]  # as libavif, libheif and FFmpeg
    shown = decode(str(avif(tmp_path / "turned.avif", *properties)), [0.0], sizes=[None]).pixels[0]
    np.testing.assert_array_equal(shown, expected)


def test_tiles_are_pasted_by_the_grid_in_the_order_of_its_references(tmp_path: Path) -> None:
    with (FAULTS / "iphone_grid_irot.heic").open("rb") as file:
        found = primary_image(file)
    assert found is not None and found.colours.items == (1, 2, 3, 4)
    assert (found.colours.columns, found.colours.width, found.colours.height) == (2, 1000, 740)
    assert (found.rotation_degrees, found.is_mirrored, found.alpha) == (270, False, None)
    data = (FAULTS / "iphone_grid_irot.heic").read_bytes()
    at = data.index(b"dimg") + 4 + 4
    swapped = data[:at] + struct.pack(">4H", 2, 1, 4, 3) + data[at + 8 :]
    assert data[at : at + 8] == struct.pack(">4H", 1, 2, 3, 4)
    seen = decode(str(FAULTS / "iphone_grid_irot.heic"), [0.0], sizes=[None]).pixels[0]
    assert seen.shape == (1000, 740, 3)
    upright = np.rot90(seen, -1)  # as stored
    path = tmp_path / "swapped.heic"
    path.write_bytes(swapped)
    other = np.rot90(decode(str(path), [0.0], sizes=[None]).pixels[0], -1)
    np.testing.assert_array_equal(other[:, :488], upright[:, 512:])


def test_a_lost_tile_is_a_lost_picture(tmp_path: Path) -> None:
    data = bytearray((FAULTS / "iphone_grid_irot.heic").read_bytes())
    start = data.index(b"mdat") + 4 + 20_000  # inside the second tile
    data[start : start + 12_000] = bytes(12_000)
    path = tmp_path / "bad.heic"
    path.write_bytes(data)
    with pytest.raises(ClipError, match="none of the 1 wanted frames could be decoded") as error:
        decode(str(path), [0.0], sizes=[None])
    assert error.value.kind == "corrupt"


def test_a_picture_put_together_in_another_way_is_unsupported(tmp_path: Path) -> None:
    path = tmp_path / "overlay.heic"
    path.write_bytes((FAULTS / "iphone_grid_irot.heic").read_bytes().replace(b"\0grid", b"\0iovl"))
    with pytest.raises(ClipError, match="put together from others") as error:
        probe(str(path))
    assert error.value.kind == "unsupported"
