"""A stage with a model in a child of its worker.

What kills the model then costs a child and no worker. A worker of Ray that dies comes back after seconds of processor
time: a process, its imports, the model; without Ray it is the command itself. The child is forked from a server that
has the imports done; only the model is loaded anew.
"""

import faulthandler
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

from jobs.rows import LOST, failed
from jobs.stages import LightStage, Result, Sample, ScoreStage, Stage
from vqa.errors import ClipError, ModelError, VqaError
from vqa.media.sandbox import Guard

_log = logging.getLogger(__name__)
NEVER_SECONDS = 365 * 86400.0  # a deadline that none reaches: a child that hangs ends itself, and a load takes its time
# Where a worker has a GPU. What is imported before a fork may ask its driver something, which then works in no child.
GPUS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_stage: ScoreStage | LightStage | None = None  # in a child: the one that is set up


class ChildLostError(ModelError):
    """The child died while it loaded the model, which no clip is to blame for."""


class GuardedStage:
    """A model's stage, run in a child.

    A clip is tried twice: with its batch, then, where the child died, alone; then its row says so.
    """

    def __init__(self, stage: ScoreStage | LightStage, *, stall_seconds: float | None = None) -> None:
        """Nothing is started yet.

        Args:
            stage: What the child runs.
            stall_seconds: A batch that takes longer counts as one that the child died over; None: it may take any time.
        """
        self._inner, self._stall_seconds = stage, stall_seconds
        preload = () if any(map(os.environ.get, GPUS)) else stage.preload
        self._guard = Guard(deadline_seconds=NEVER_SECONDS, memory_bytes=None, preload=preload, tries=1, server="model")

    @property
    def batch_size(self) -> int:
        """As of the stage."""
        return self._inner.batch_size

    def setup(self) -> None:
        """Load the model in a child, twice if the first one dies over it.

        Raises ModelError as the stage, ChildLostError.
        """
        for is_last in (False, True):
            try:
                return self._guard.run(_set_up, self._inner)
            except ClipError as error:
                if is_last:
                    raise ChildLostError(
                        f"model {self._inner.by.model_id}: the process that loads it died twice. For want of memory "
                        "the system kills without a word: see its log, give more memory or take a smaller model; the "
                        "same command resumes"
                    ) from error
        return None

    def close(self) -> None:
        """End the child."""
        self._guard.close()

    def process(self, items: Sequence[Sample | Result]) -> Iterator[Result]:
        """One row for each item, in order.

        Raises ModelError where the device is lost, ChildLostError where the model is lost as it is loaded anew.
        """
        if made := self._made(items):
            yield from made
            return
        for item in items:
            yield from self._made([item]) or [self._lost(item)]

    def _made(self, items: Sequence[Sample | Result]) -> list[Result] | None:
        """The rows, or None where the child died or failed over them."""
        try:
            made = self._guard.run(_process, items, self._stall_seconds)
            if made is None:  # a new child, without a model
                self.setup()
                made = self._guard.run(_process, items, self._stall_seconds)
        except Exception as error:  # our own fault on one odd clip must cost that clip, not its batch or the job
            if isinstance(error, VqaError) and not isinstance(error, ClipError):
                raise
            what = error.kind if isinstance(error, ClipError) else f"{type(error).__name__}: {error}"
            _log.warning("the model's process failed over %s: %s", _named(items), what)
            return None
        return made

    def _lost(self, item: Sample | Result) -> Result:
        if not isinstance(item, Sample):
            raise ChildLostError(f"the model's process died over a clip that it need not look at: {item.uri}")
        row = replace(item.row, **self._inner.by._asdict())
        return failed(row, ClipError("crashed", f"{row.uri}: {LOST}"))


def in_child(stage: Stage, stall_seconds: float | None) -> Stage | GuardedStage:
    """The stage in a child where it loads a model into its process, else as it is."""
    if isinstance(stage, ScoreStage | LightStage) and stage.preload:
        return GuardedStage(stage, stall_seconds=stall_seconds)
    return stage


def _named(items: Sequence[Sample | Result]) -> str:
    first = items[0].row.uri if isinstance(items[0], Sample) else items[0].uri
    return f"{first} and {len(items) - 1} more" if len(items) > 1 else first


def _set_up(stage: ScoreStage | LightStage) -> None:
    global _stage
    stage.setup()
    _stage = stage


def _process(items: Sequence[Sample | Result], stall_seconds: float | None) -> list[Result] | None:
    """The rows, or None in a child that has nothing set up."""
    if _stage is None:
        return None
    if stall_seconds is not None:
        faulthandler.dump_traceback_later(stall_seconds, file=2, exit=True)  # needs no Python to run
    try:
        return list(_stage.process(items))
    finally:
        faulthandler.cancel_dump_traceback_later()
