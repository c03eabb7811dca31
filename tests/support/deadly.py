"""A model's stage without a model, that ends or fails its process over chosen clips."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.stages import Result, Sample, ScoreStage
from vqa.errors import ModelError


@dataclass(kw_only=True)
class Deadly(ScoreStage):
    """Scores 3; leaves a note of every try of a clip and of every load."""

    notes: Path
    loads: int = 10**6  # of the model, before a process dies over one
    load_seconds: float = 0.0

    @property
    def preload(self) -> tuple[str, ...]:
        """No torch, which nothing here needs."""
        return ("tests.support.deadly",) if super().preload else ()

    def setup(self) -> None:
        self._note("setup", 1)
        time.sleep(self.load_seconds)
        if len((self.notes / "setup").read_text()) > self.loads:
            os.kill(os.getpid(), signal.SIGKILL)

    def process(self, items: Sequence[Sample | Result]) -> Iterator[Result]:
        for item in items:
            name = item.row.clip_id if isinstance(item, Sample) else item.clip_id
            self._note(name, len(items))
            if name == "deadly":
                os.kill(os.getpid(), signal.SIGKILL)
            if name == "hanging":
                time.sleep(600)
            if name == "odd":
                raise RuntimeError("odd")
            if name == "lost":
                raise ModelError("the device is gone")
            yield (
                replace(item.row, status="ok", score=3.0, model_id=str(os.getpid()))
                if isinstance(item, Sample)
                else item
            )

    def _note(self, name: str, count: int) -> None:
        with (self.notes / name).open("a") as note:
            note.write(str(count))
