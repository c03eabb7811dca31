"""A probe of a scoring job: some of its clips decoded and scored here, timed."""

import contextlib
import copy
import hashlib
import heapq
import os
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from jobs.ledger import Ledger
from jobs.local_executor import LocalExecutor
from jobs.request import ScoreInputs, stages_of
from jobs.resume import Work, stamp
from jobs.stages import Item, Resources, Sample, Stage
from vqa import machine
from vqa.data.score_table import WITHOUT_SCORE, ScoreRow, ScoreTable
from vqa.errors import UsageError
from vqa.media.storage.stores import is_remote
from vqa.types import Clip

DRIVER_ROWS = 1000  # a part of the table
MOST_QUEUED = 0.95  # of the time of a clip: something is left for work
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What was measured on the clips of a probe."""

    files: int  # in the listing
    file_bytes: Numbers  # [N] sizes of the files probed
    read_share: float  # of their bytes that is read, at most 1: what is read again is in the page cache
    clips: Numbers  # [N] rows that it gives
    decode_seconds: Numbers  # [N] of one decoding worker: fingerprint, windows, views
    score_seconds: Numbers  # [M] of one model worker, per clip that has views
    scored_share: float  # of the clips: those with views, which the model has to answer
    view_bytes: float  # pickled views of a clip, mean
    load_seconds: float  # loading the model
    driver_seconds: float  # per clip: ledger and table
    seconds: float  # of the probe, loading included
    probed: int  # files that came through, those of workers that had just started among them
    rows: int  # that they gave
    failed: Mapping[str, int]  # rows of them without a score, by kind of error, or `unparsed`
    example: str | None  # what is wrong with one of these
    decode_bytes: int  # memory of a decoding process at most
    score_bytes: int  # of the process with the model at most

    @property
    def clip_count(self) -> float:
        """Rows that the whole job gives."""
        return self.files * float(self.clips.mean())

    @property
    def read_per_clip(self) -> float:
        """Bytes read for a clip, mean."""
        return float(self.file_bytes.sum() / self.clips.sum()) * self.read_share

    @property
    def decode_per_clip(self) -> float:
        """Seconds of a decoding worker for a clip, mean."""
        return float(self.decode_seconds.sum() / self.clips.sum())

    @property
    def score_per_clip(self) -> float:
        """Seconds of a model worker for a clip, mean; clips without views cost none."""
        return float(self.score_seconds.mean()) * self.scored_share if len(self.score_seconds) else 0.0


class TimedBatch(NamedTuple):
    """What a stage did at once."""

    seconds: float
    taken: Sequence[Item]
    made: Sequence[Item]


@dataclass(kw_only=True)
class Timed:
    """A stage that times its work on each batch, without its waits.

    Those are for who takes the results, and for a core.

    A worker's first batch is noted apart: processes start with it, and libraries warm up.
    """

    stage: Stage
    load_seconds: list[float] = field(default_factory=list)
    first: list[TimedBatch] = field(default_factory=list)
    later: list[TimedBatch] = field(default_factory=list)
    _is_warm: bool = False

    def __copy__(self) -> "Timed":
        """Another worker's stage, with the same notes."""
        return Timed(stage=copy.copy(self.stage), load_seconds=self.load_seconds, first=self.first, later=self.later)

    @property
    def batches(self) -> list[TimedBatch]:
        """All of them, or those of warm workers where there are enough of these."""
        return self.later if len(self.later) > len(self.first) else self.first + self.later

    @property
    def batch_size(self) -> int | None:
        """As of the stage."""
        return self.stage.batch_size

    def resources(self, cluster: Mapping[str, float]) -> Resources:
        """As of the stage."""
        return self.stage.resources(cluster)

    def setup(self) -> None:
        """Set the stage up."""
        started = time.perf_counter()
        self.stage.setup()
        self.load_seconds.append(time.perf_counter() - started)
        self._is_warm = False

    def process(self, items: Sequence[Item]) -> Iterator[Item]:
        """What the stage makes, noted when the batch is done."""
        made: list[Item] = []
        spent, started = 0.0, _working_seconds()
        for one in self.stage.process(items):
            spent += _working_seconds() - started
            made.append(_facts(one))
            yield one
            started = _working_seconds()
        spent += _working_seconds() - started
        if made:
            (self.later if self._is_warm else self.first).append(TimedBatch(spent, items, made))
        self._is_warm = True

    def close(self) -> None:
        """Close the stage."""
        self.stage.close()


def _working_seconds() -> float:
    """A clock of this thread that stands still while it waits for a core."""
    return time.perf_counter() - machine.queued_seconds()


def _facts(item: Item) -> Item:
    """Pictures are counted, not kept."""
    return len(item.views) if isinstance(item, Sample) else None


def chosen(clips: Iterable[Clip], count: int) -> list[Clip]:
    """Pick `count` clips by a digest of their names: spread, and the same each time."""
    return heapq.nsmallest(count, clips, key=lambda clip: hashlib.blake2b(os.fsencode(clip.clip_id)).digest())


def probe_job(
    inputs: ScoreInputs, clips: Sequence[Clip], *, seconds: float, score_seconds: float | None = None
) -> Probe:
    """Decode and score some clips of a job here, as with `--engine local`.

    Args:
        inputs: What the job scores, and how.
        clips: Those that are tried, of all that the job has.
        seconds: After this long no further result is waited for.
        score_seconds: Of a model worker for a clip, where they are known: then no model is loaded.

    Raises:
        UsageError: no clip came through in that time.
        ModelError: the model cannot be loaded.
    """
    sample, scorer = (Timed(stage=stage) for stage in stages_of(inputs))
    work = [Work(clip=clip) for clip in clips]
    results: list[Item] = []
    stages = [sample] if score_seconds else [sample, scorer]
    began = time.perf_counter()
    decoders = _Decoders()
    with LocalExecutor(stages) as executor, contextlib.closing(executor.stream(work)) as stream:
        for batch in stream:
            results += batch
            decoders.look(len(sample.first) + len(sample.later))
            if time.perf_counter() - began > seconds:
                break
    files = sample.batches
    if not results or not files:
        raise UsageError(
            f"the probe: no clip came through in {seconds:g} s; give it longer (--probe-seconds), or look at one clip "
            "with `vqa score`"
        )
    every = sample.first + sample.later
    done = [one for one in results if isinstance(one, ScoreRow)]
    bad = [one for one in done if one.status in WITHOUT_SCORE]
    views = [size for batch in every for size in batch.made if size is not None]
    counts = [(batch.seconds, sum(isinstance(one, Sample) for one in batch.taken)) for batch in scorer.batches]
    places = [_place(batch) for batch in every]
    sizes = {uri: float((stamp(uri) or (0, 0))[0]) for uri in places}
    any_remote = any(map(is_remote, sizes))  # what comes by sockets is not among the bytes counted
    return Probe(
        files=inputs.clips.listed,
        file_bytes=np.array([sizes[_place(batch)] for batch in files]),
        read_share=1.0 if any_remote else decoders.read_share([sizes[uri] for uri in places]),
        clips=np.array([len(batch.made) for batch in files], np.float64),
        # The probe decodes and scores at once on the same cores: what waited for one would be counted twice.
        decode_seconds=np.array([batch.seconds for batch in files]) * (1 - decoders.queued_share(every)),
        score_seconds=np.array(
            [score_seconds] if score_seconds else [spent / count for spent, count in counts for _ in range(count)]
        ),
        scored_share=len(views) / sum(len(batch.made) for batch in every),
        view_bytes=float(np.mean(views)) if views else 0.0,
        load_seconds=sum(scorer.load_seconds),
        driver_seconds=_driver_seconds([one.row if isinstance(one, Sample) else one for one in results]),
        seconds=time.perf_counter() - began,
        probed=len(every),
        rows=len(results),
        failed=Counter(one.error_kind or one.status for one in bad),
        example=next((one.error for one in bad if one.error), None),
        decode_bytes=decoders.peak_bytes,
        score_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _place(batch: TimedBatch) -> str:
    return str(batch.taken[0].clip.uri)


def _driver_seconds(found: Sequence[ScoreRow]) -> float:
    """Seconds that ledger and table take for a row, over a part of a table."""
    rows = [replace(found[n % len(found)], clip_id=str(n)) for n in range(DRIVER_ROWS)]
    ledger = Ledger.of((Work(clip=Clip(clip_id=row.clip_id, uri=row.uri)) for row in rows), clip_seconds=None)
    with tempfile.TemporaryDirectory() as folder:
        table = ScoreTable(Path(folder))
        table.add(rows[:1])
        table.flush()
        started = time.perf_counter()
        for row in rows[1:]:
            new, _ = ledger.take([row])
            table.add([one for one in new if isinstance(one, ScoreRow)])
        table.flush()
        return (time.perf_counter() - started) / (DRIVER_ROWS - 1)


class _Look(NamedTuple):
    files: int  # done by all decoders
    read_bytes: int
    queued_seconds: float


class _Decoders:
    """Memory, bytes read and waits of the decoders, which only tell while alive."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._begun: _Look | None = None  # modules are read before it
        self._ended = _Look(0, 0, 0.0)
        self._read: dict[int, int] = {}
        self._queued: dict[int, float] = {}

    def look(self, files: int) -> None:
        for one in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if not one.children():  # not their fork server
                    self.peak_bytes = max(self.peak_bytes, one.memory_info().rss)
                    self._read[one.pid] = one.io_counters().read_chars
                    self._queued[one.pid] = machine.queued_seconds(one.pid)
        self._ended = _Look(files, sum(self._read.values()), sum(self._queued.values()))
        self._begun = self._begun or self._ended

    def read_share(self, sizes: Sequence[float]) -> float:
        """Share read of the bytes of the files done between the first look and the last."""
        first, last = self._begun or self._ended, self._ended
        between = sum(sizes[first.files : last.files])
        return min(1.0, (last.read_bytes - first.read_bytes) / between) if between else 1.0

    def queued_share(self, files: Sequence[TimedBatch]) -> float:
        """Share of the time of those files in which the decoders waited for a core."""
        first, last = self._begun or self._ended, self._ended
        between = sum(one.seconds for one in files[first.files : last.files])
        return min(MOST_QUEUED, (last.queued_seconds - first.queued_seconds) / between) if between else 0.0
