"""Images: a JPEG without its end is corrupt, and a bomb is too large before room is made for it."""

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.support import clips
from tests.support.structure import find
from tests.support.zoo_good import good
from vqa.errors import ClipError
from vqa.media import Guard, decode, probe


def jpeg(**options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(clips.picture(3)).save(out, "JPEG", **options)
    return out.getvalue()


JPEGS = {
    "baseline": jpeg(),
    "progressive": jpeg(progressive=True),
    "restarts": jpeg(restart_marker_blocks=2),
    "with a preview": jpeg(exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + jpeg(quality=5)),
    "with a tail": jpeg() + b"\xff\xd8 more" * 9,
}


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_without_its_end_is_corrupt_and_a_whole_one_is_shown(tmp_path: Path, name: str) -> None:
    data, path = JPEGS[name], tmp_path / "a.jpg"
    path.write_bytes(data)
    assert len(decode(str(path), [0.0], sizes=[None]).pixels) == 1
    end = data.rindex(b"\xff\xd9", 0, len(jpeg()) + 5 if name == "with a tail" else None)
    for kept in (end, end - 300, (end + data.rindex(b"\xff\xda", 0, end)) // 2):
        path.write_bytes(data[:kept])
        with pytest.raises(ClipError) as caught:
            decode(str(path), [0.0], sizes=[None])
        assert caught.value.kind == "corrupt"


def in_header(name: str, at: int, fields: bytes) -> bytes:
    data = good(name)
    return data[:at] + fields + data[at + len(fields) :]


def bmp() -> bytes:
    out = io.BytesIO()
    Image.fromarray(clips.picture(3)).save(out, "BMP")
    return out.getvalue()[:18] + (65535).to_bytes(4, "little") * 2 + out.getvalue()[26:]


BOMBS = {
    "a.png": lambda: in_header("still.png", 16, (65535).to_bytes(4, "big") * 2),
    "a.gif": lambda: in_header("moving.gif", 6, b"\xff" * 4),
    "a.jpg": lambda: in_header("still.jpg", find(good("still.jpg"), "c0").body + 1, b"\xff" * 4),
    "a.bmp": bmp,
    "a.y4m": lambda: good("raw.y4m").replace(b"W96 H64", b"W65535 H65535"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_too_large_before_room_is_made_for_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(BOMBS[name]())
    with (
        Guard(deadline_seconds=20, memory_bytes=32 << 20) as guard,
        pytest.raises(ClipError, match="65535x65535 is more than 67108864 pixels") as caught,
    ):
        guard.run(probe, str(tmp_path / name))
    assert caught.value.kind == "too_large"
