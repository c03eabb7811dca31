"""Streams, encoded once when first asked for."""

from collections.abc import Callable

import pytest

from tests.support.streams import Stream, write


@pytest.fixture(scope="package")
def stream_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Stream]:
    """Name -> stream."""
    folder = tmp_path_factory.mktemp("streams")
    made: dict[str, Stream] = {}

    def get(name: str) -> Stream:
        if name not in made:
            made[name] = write(name, folder)
        return made[name]

    return get
