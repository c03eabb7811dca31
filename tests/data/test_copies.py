"""Copies of a clip: found by bytes and by frames, and never parted by a split."""

import pytest

from tests.data.test_splits import manifest, parts_of
from tests.support import clips
from vqa.data.copies import find_copies
from vqa.data.manifest import make_manifest
from vqa.data.splits import across_parts, split_manifest


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two contents; copies of the first by bytes, by container, and encoded anew at half the size; a still of grey."""
    folder = tmp_path_factory.mktemp("copies")
    one = clips.write_video(folder / "one.mp4", frames=50, noise=0.0)
    other = clips.write_video(folder / "other.mp4", frames=50, noise=0.0, seed=5, options={"g": "7"})
    clips.ffmpeg("-i", other, "-vf", "hflip,negate", folder / "flipped.mp4")
    same = folder / "same.mp4"
    same.write_bytes(one.read_bytes())
    clips.ffmpeg("-i", one, "-c", "copy", folder / "muxed.mkv")
    clips.ffmpeg("-i", one, "-vf", "scale=80:48", "-crf", "30", folder / "small.mp4")
    names = ("one.mp4", "flipped.mp4", "same.mp4", "muxed.mkv", "small.mp4", "missing.mp4")
    return [str(folder / name) for name in names]


def test_copies_are_found_by_bytes_and_by_frames(files: list[str]) -> None:
    assert find_copies(files, by="content") == [[0, 2]]
    assert find_copies(files, by="frames") == [[0, 2, 3, 4]]


def test_copies_are_never_parted() -> None:
    made = manifest(*[1] * 10)
    for seed in range(8):
        parts = parts_of(split_manifest(made, parts={"train": 0.5, "test": 0.5}, seed=seed, copies=[[0, 4, 7], [7, 9]]))
        assert len({parts[row] for row in (0, 4, 7, 9)}) == 1 and set(parts) == {"train", "test"}


def test_copies_in_different_parts_are_told() -> None:
    made = manifest(1, 1, 1)
    rows = [row | {"split": part} for row, part in zip(made.table.to_pylist(), ("train", "test", None), strict=True)]
    parted = make_manifest(rows, scales=made.scales)
    assert across_parts(parted, [[0, 1, 2]]) == ["set/1-0 (test) and set/0-0 (train)"]
    assert across_parts(parted, [[0, 2]]) == []
