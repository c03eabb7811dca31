"""Every wrong file of the zoo ends as it must, looked at as a job looks: in the guarded child."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import zoo

from vqa.errors import ClipError
from vqa.media import Guard
from vqa.types import Clip
from vqa.views import look


@pytest.fixture(scope="module")
def guard() -> Iterator[Guard]:
    with Guard(deadline_seconds=30, memory_bytes=2 << 30) as guard:
        yield guard


def outcome(guard: Guard, path: Path) -> str:
    """Status, or the error's kind."""
    clip = Clip(clip_id=path.name, uri=str(path))
    try:
        views = guard.run(look, clip, keyframes=8, global_pixels=128, crop_pixels=32)
    except ClipError as error:
        assert str(path) in str(error), "an error names its file"
        return error.kind
    return "partial" if views.is_partial else "ok"


def test_there_are_sixty_and_each_has_a_name_of_its_own() -> None:
    assert len({wrong.name for wrong in zoo.WRONG}) == len(zoo.WRONG) >= 60


@pytest.mark.parametrize("wrong", zoo.WRONG, ids=lambda wrong: wrong.name)
def test_a_wrong_file_ends_as_it_must(guard: Guard, tmp_path: Path, wrong: zoo.Wrong) -> None:
    path = tmp_path / wrong.name
    path.write_bytes(wrong.make())
    assert outcome(guard, path) == wrong.outcome
