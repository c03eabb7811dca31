"""Every wrong file of the zoo gets its error kind in the guarded child, as in a job."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import zoo
from tests.support.fuzzing import outcome
from tests.support.zoo_good import Wrong
from vqa.media import Guard


@pytest.fixture(scope="module")
def guard() -> Iterator[Guard]:
    with Guard(deadline_seconds=30, memory_bytes=2 << 30) as guard:
        yield guard


def test_there_are_sixty_and_each_has_a_name_of_its_own() -> None:
    assert len({wrong.name for wrong in zoo.WRONG}) == len(zoo.WRONG) >= 60


@pytest.mark.parametrize("wrong", zoo.WRONG, ids=lambda wrong: wrong.name)
def test_a_wrong_file_ends_as_it_must(guard: Guard, tmp_path: Path, wrong: Wrong) -> None:
    path = tmp_path / wrong.name
    path.write_bytes(wrong.make())
    row = outcome(guard, path)
    assert row["outcome"] == wrong.outcome, row
