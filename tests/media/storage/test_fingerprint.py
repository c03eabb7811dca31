"""The fingerprint: it follows the content, not the name or the clock, and stays cheap for large files."""

import os
import shutil

import numpy as np
import pytest

from tests.support import clips
from vqa.errors import ClipError
from vqa.media import fingerprint
from vqa.media.storage.fingerprint import BLOCK_BYTES, BLOCKS


def test_the_same_bytes_have_the_same_fingerprint_under_any_name_and_time(tmp_path) -> None:
    path = clips.write_video(tmp_path / "a.mp4", frames=5)
    copy = tmp_path / "copy of it.mkv"
    shutil.copyfile(path, copy)
    os.utime(copy, (0, 0))
    assert fingerprint(str(path)) == fingerprint(str(copy)) == fingerprint(copy.as_uri())
    assert len(fingerprint(str(path))) == 32


def test_any_changed_byte_of_a_small_file_changes_it(tmp_path) -> None:
    data = np.random.default_rng(0).bytes(200_000)
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    prints = {fingerprint(str(path))}
    for position in range(0, len(data), 20_011):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        prints.add(fingerprint(str(path)))
    path.write_bytes(data[:-1])
    prints.add(fingerprint(str(path)))
    path.write_bytes(b"")
    prints.add(fingerprint(str(path)))
    assert len(prints) == 1 + 10 + 2


def test_head_tail_length_and_blocks_of_a_large_file_count(tmp_path) -> None:
    size = BLOCKS * BLOCK_BYTES + 5 * BLOCK_BYTES
    path = tmp_path / "large.mp4"
    prints = set()
    second_block = (size - BLOCK_BYTES) // (BLOCKS - 1)
    for position in (None, 0, size - 1, second_block, second_block + BLOCK_BYTES - 1):
        with path.open("wb") as file:  # sparse: nothing is really written but the marks
            file.truncate(size)
            if position is not None:
                file.seek(position)
                file.write(b"x")
        prints.add(fingerprint(str(path)))
    with path.open("wb") as file:
        file.truncate(size + 1)
    prints.add(fingerprint(str(path)))
    assert len(prints) == 6


def test_files_that_cannot_be_read_have_none(tmp_path) -> None:
    for path, kind in [(tmp_path / "missing.mp4", "not_found"), (tmp_path, "not_readable")]:
        with pytest.raises(ClipError) as caught:
            fingerprint(str(path))
        assert caught.value.kind == kind
