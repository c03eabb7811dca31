"""`vqa score` and `vqa prepare` with faults at chosen places, each of which happens once; the score needs no model.

`python -m tests.support.failing score …` is the command with the stages of this file. `VQA_FAULTS` (JSON) names the
folder of `marks`, one for each fault that has happened, and where each happens: a clip for the processes that work on
one, a number of finished clips for the driver. Kills are SIGKILL.
"""

import functools
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from ctypes import PyDLL
from dataclasses import replace
from pathlib import Path
from typing import Any

import jobs.request
from jobs.progress import JobProgress
from jobs.resume import Work
from jobs.stages import Result, Sample, SampleStage, ScoreStage
from vqa.errors import ClipError
from vqa.types import Answer, Clip, Score, Views

VARIABLE = "VQA_FAULTS"
SLOW_SECONDS = 2.0  # that a slow worker takes longer over each clip


def environment(marks: Path, **faults: str | int | bool | list[str]) -> dict[str, str]:
    """The variable for a run with these faults.

    Args:
        marks: Folder for the marks of faults that have happened.
        faults: `decoder`, `sampler` and `scorer` (a clip_id: who works on it is killed), `driver` and `interrupted`
            (finished clips after which it is killed, or its process group gets SIGINT), `held` (clip_ids that nobody
            decodes before there is a mark `free`), `poison` and `poison_scorer` (clip_ids: who decodes or scores one
            is killed, each time), `hungry` and `hung` (a clip_id: who scores it takes memory without
            end, or hangs for good), `slow` and `slow_scorer` (a clip_id: who decodes or scores it is slow from then
            on, as its node or its disk may be, and notes in the mark which clips it begins), `padding` (bytes that each
            clip's views are longer by), `model` (true: the model scores, and no digest).
    """
    marks.mkdir(exist_ok=True)
    return {VARIABLE: json.dumps({"marks": str(marks), **faults})}


def _faults() -> dict[str, Any]:
    return dict(json.loads(os.environ.get(VARIABLE) or "{}"))


def _happens(name: str, place: object) -> bool:
    """Whether the fault is due here and has not happened yet; marks it."""
    faults = _faults()
    if faults.get(name) != place:
        return False
    try:
        (Path(faults["marks"]) / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _eat() -> None:
    """Take memory, all of it touched, until somebody ends this process."""
    held = []
    while True:
        held.append(b"x" * 2**26)
        time.sleep(0.02)


class _Slow:
    """Slow from a clip on."""

    _is_slow = False

    def linger(self, fault: str, clip_id: str) -> None:
        """Note the clip and wait, where the fault has happened to this one."""
        self._is_slow = self._is_slow or _happens(fault, clip_id)
        if self._is_slow:
            with (Path(_faults()["marks"]) / fault).open("a") as mark:
                mark.write(f"{clip_id}\n")
            time.sleep(SLOW_SECONDS)


class FailingSampleStage(SampleStage, _Slow):
    """Is killed over a clip, or the process that decodes it for this one; or slow from a clip on."""

    def process(self, items: Sequence[Work]) -> Iterator[Sample | Result]:
        """As SampleStage."""
        for work in items:
            if _happens("sampler", work.clip.clip_id):
                _die()
            self.linger("slow", work.clip.clip_id)
            faults = _faults()
            while work.clip.clip_id in faults.get("held", ()) and not (Path(faults["marks"]) / "free").exists():
                time.sleep(0.02)
            for made in super().process([work]):
                padding = bytes(faults.get("padding", 0))  # which pickle does not read
                yield replace(made, views=made.views + padding) if isinstance(made, Sample) else made

    def _guarded(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return super()._guarded(_in_child, *arguments, work=function, **options)


def _in_child(subject: Any, *arguments: Any, work: Callable[..., Any], **options: Any) -> Any:
    if isinstance(subject, Clip) and (
        subject.clip_id in _faults().get("poison", ()) or _happens("decoder", subject.clip_id)
    ):
        _die()
    return work(subject, *arguments, **options)


class FailingScoreStage(ScoreStage, _Slow):
    """Is killed over a clip; scores by `digest_score`.

    So a mix-up of clips shows, and no worker loads a model.
    """

    def setup(self) -> None:
        """Loads nothing, but where the faults ask for the model."""
        if _faults().get("model"):
            super().setup()
        else:
            self._scorer = _DigestScorer()

    def process(self, items: Sequence[Sample | Result]) -> Iterator[Result]:
        """As ScoreStage."""
        for item in items:
            if not isinstance(item, Sample):
                continue
            self.linger("slow_scorer", item.row.clip_id)
            if _happens("scorer", item.row.clip_id) or item.row.clip_id in _faults().get("poison_scorer", ()):
                _die()
            if _happens("hung", item.row.clip_id):
                PyDLL(None).sleep(10**6)  # with the interpreter's lock
            if _happens("hungry", item.row.clip_id):
                _eat()
        yield from super().process(items)


class _DigestScorer:
    def try_score(self, views: Sequence[Views]) -> list[Score | ClipError]:
        return [digest_score(one) for one in views]

    def close(self) -> None:
        pass


def digest_score(views: Views) -> Score:
    """A score that follows from the clip's name and every pixel."""
    digest = hashlib.blake2b(views.clip.clip_id.encode(), digest_size=4)
    for picture in views.pictures:
        digest.update(picture.tobytes())
    value = 1 + 4 * int.from_bytes(digest.digest(), "big") / 2**32
    answer = Answer(text=f"{value:.4f}", values=(value,), reason="")
    return Score(
        score=value, score_std=0.0, score_global=None, score_local=None, reason="", answers=(answer,), score_seconds=0.0
    )


def arm() -> None:
    """Puts the faults into this process, which drives a run."""
    jobs.request.SampleStage, jobs.request.ScoreStage = FailingSampleStage, FailingScoreStage
    advance = JobProgress.advance

    @functools.wraps(advance)
    def counted(self: JobProgress, **finished: Any) -> None:
        advance(self, **finished)
        faults = _faults()
        if self.clips_done >= faults.get("driver", sys.maxsize) and _happens("driver", faults["driver"]):
            _die()
        if self.clips_done >= faults.get("interrupted", sys.maxsize) and _happens("interrupted", faults["interrupted"]):
            os.killpg(0, signal.SIGINT)  # what Ctrl-C does

    JobProgress.advance = counted  # type: ignore[method-assign]


if __name__ == "__main__":
    from tests.support import failing  # by a name that workers can import
    from vqa.cli import main

    failing.arm()
    main()
