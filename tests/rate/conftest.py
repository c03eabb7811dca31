"""A study of a few pictures."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.browser import browser  # noqa: F401 (a fixture)
from vqa.rate.journal import Journal, Mode
from vqa.rate.stimuli import Stimulus
from vqa.rate.study import Study, StudyConfig

Make = Callable[..., Study]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes a study on `out` in the test's folder; the one before is closed first, as if its process had ended."""
    opened: list[Journal] = []

    def start(*, count: int = 6, mode: Mode = "acr", out: str = "ratings.csv", **config: float | None) -> Study:
        while opened:
            opened.pop().close()
        stimuli = [
            Stimulus(
                clip_id=f"c{at}.png", fingerprint=f"{at}", path=tmp_path / f"{at}.png", kind="image", width=8, height=8
            )
            for at in range(count)
        ]
        settings = StudyConfig.model_validate(config)
        digests = {one.clip_id: one.fingerprint for one in stimuli}
        opened.append(Journal(tmp_path / out, mode=mode, seed=settings.seed, clips=digests))
        return Study(stimuli, opened[-1], settings)

    yield start
    while opened:
        opened.pop().close()
