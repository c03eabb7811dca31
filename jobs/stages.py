"""Stages of the jobs: settings that are cheap to pickle, set up in the workers.

    Work ──► SampleStage ──► Sample (views, pickled) ──► ScoreStage ──► ScoreRow
             guarded child                              the model

Rows that are final after the first stage pass the second untouched. Both executors run the same objects: `setup` once
in each worker, `process` for every batch, `close` at the end.
"""

import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Protocol, TypeAlias, TypeVar

from jobs.child import media_info, pickled_views
from jobs.config import ACCELERATOR, ClipLimits, JobConfig, gpus_of_worker, make_guard
from jobs.resume import Stamp, Work, stamp
from jobs.rows import (
    ScoredBy,
    Unchanged,
    failed,
    new_row,
    scored_by,
    scored_by_student,
    seen_status,
    unchanged,
    with_media,
    with_score,
    with_views,
)
from vqa.data.score_table import ScoreRow
from vqa.data.view_cache import PreparedRow, pack
from vqa.data.windows import windows
from vqa.errors import ClipError, MachineError, ModelError
from vqa.imports import kept
from vqa.light.card import Scale
from vqa.media.storage.fingerprint import fingerprint
from vqa.model.card import GenerationConfig, ModelCard
from vqa.model.engines.config import EngineConfig, start
from vqa.types import Clip, MediaInfo, Score, Views
from vqa.views import ViewsConfig, view_seed

if TYPE_CHECKING:
    from vqa.light.student import Student
    from vqa.media.sandbox import Guard
    from vqa.model.scorer import Scorer

WINDOWS_PER_FRAME = 4  # at most; of a pause every window shows the picture on screen

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A row as far as it is known, and the pickled Views that the model is to score."""

    row: ScoreRow
    views: bytes = field(repr=False)

    def load(self) -> Views:
        """The views."""
        views: Views = pickle.loads(self.views)  # noqa: S301 (bytes made by our own child)
        return views


Result: TypeAlias = ScoreRow | Unchanged
Item: TypeAlias = Any  # what goes from stage to stage: Work, Sample, Result or PreparedRow, by the stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a stage's workers take; `workers` at most, None: while there is room."""

    workers: int | None = None
    least: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    accelerator_type: str | None = None
    custom: Mapping[str, float] = field(default_factory=dict)

    def amounts(self) -> dict[str, float]:
        """What one worker takes, by Ray's names of resources."""
        kind = {f"{ACCELERATOR}{self.accelerator_type}": 0.001} if self.accelerator_type else {}
        found = {"CPU": self.cpus, "GPU": self.gpus, **self.custom, **kind}
        return {unit: amount for unit, amount in found.items() if amount}


class Stage(Protocol):
    """What an executor needs of a stage."""

    @property
    def batch_size(self) -> int | None:
        """Items per batch at most; None: whatever comes at once."""

    def resources(self, cluster: Mapping[str, float]) -> Resources:
        """What its workers take of a machine or cluster with these totals ("CPU", "GPU")."""

    def setup(self) -> None:
        """Load what the worker needs. Raises VqaError where that cannot be had."""

    def process(self, items: Sequence[Item]) -> Iterator[Item]:
        """The results of a batch. Raises ModelError where this process can give no more."""

    def close(self) -> None:
        """Release what `setup` took."""


@dataclass(kw_only=True)
class SampleStage:
    """Files to samples; whatever opens a file runs in a child that can be killed."""

    views: ViewsConfig
    settings: str  # the digest that goes into each run key
    clip_seconds: float | None = None
    limits: ClipLimits = field(default_factory=ClipLimits)
    seed: int = 0  # another than scoring's 0 draws other frames and boxes, where the samplers draw any
    workers: int | None = None
    job: JobConfig = field(default_factory=JobConfig)
    batch_size: int | None = None
    _child: "Guard | None" = field(default=None, init=False, repr=False)

    def resources(self, cluster: Mapping[str, float]) -> Resources:
        """A core for each worker, unless the settings say otherwise."""
        job = self.job
        least = min(job.sample_workers_min, self.workers or job.sample_workers_min)
        return Resources(workers=self.workers, least=least, cpus=job.cpus_per_sampler, custom=job.sample_resources)

    def setup(self) -> None:
        """Get the child ready; it starts with the first file."""
        self._child = make_guard(self.limits, preload=["jobs.child"])

    def close(self) -> None:
        """End the child."""
        if self._child:
            self._child.close()

    def process(self, items: Sequence[Work]) -> Iterator[Sample | Result]:
        """Samples of each file, and rows of what failed; a video's windows in a row."""
        for work in items:
            yield from self._samples(work.clip, finished=frozenset(work.finished))

    def _samples(self, clip: Clip, *, finished: frozenset[str]) -> Iterator[Sample | Result]:
        before = stamp(clip.uri)  # before reading: a file that changes meanwhile has another stamp afterwards
        try:
            content = self._guarded(fingerprint, clip.uri)
            if before is None and (before := stamp(clip.uri)):  # its store was away at first
                content = self._guarded(fingerprint, clip.uri)
        except ClipError as error:
            row = self._row(clip, error.kind, before)
            yield unchanged(row) if row.run_key in finished else failed(row, error)
            return
        parts, seconds = self._parts(clip, before)
        for part in parts:
            row = replace(self._row(part, content, before), fingerprint=content, duration_seconds=seconds)
            yield unchanged(row) if row.run_key in finished else self._sample(part, row, before)

    def _row(self, clip: Clip, source: str, of_stamp: Stamp | None) -> ScoreRow:
        size, changed = of_stamp or (None, None)
        row = new_row(clip, source, settings=self.settings)
        return replace(row, source_bytes=size, source_mtime_ns=changed)

    def _parts(self, clip: Clip, of_stamp: Stamp | None) -> tuple[list[Clip], float | None]:
        """The windows and the file's length, where it is needed to know them."""
        if self.clip_seconds is None:
            return [clip], None
        try:
            info = self._media_info(clip.uri, of_stamp)
        except ClipError:
            return [clip], None  # decoding it will meet the same error, and make the row
        seconds = info.duration_seconds
        parts = windows(clip, duration_seconds=seconds, clip_seconds=self.clip_seconds)
        # A header may lie about the length, and a time-lapse shows each picture for very long: the job reports both.
        return parts if len(parts) <= WINDOWS_PER_FRAME * info.frame_count else [clip], seconds

    def _sample(self, clip: Clip, row: ScoreRow, of_stamp: Stamp | None) -> Sample | ScoreRow:
        started = time.perf_counter()
        limit, seed = self.limits.max_frames, view_seed(row.fingerprint or "", clip) + self.seed
        try:
            return Sample(row=row, views=self._guarded(pickled_views, clip, of_stamp, limit, self.views, seed=seed))
        except ClipError as error:
            row = replace(row, decode_seconds=time.perf_counter() - started)
            if error.kind not in ("crashed", "timeout"):
                row = self._with_facts(row, of_stamp)
            return failed(row, error)

    def _with_facts(self, row: ScoreRow, of_stamp: Stamp | None) -> ScoreRow:
        """With what is known of a file that failed, as far as its headers can be read."""
        try:
            return with_media(row, self._media_info(row.uri, of_stamp))
        except ClipError:
            return row

    def _media_info(self, uri: str, of_stamp: Stamp | None) -> MediaInfo:
        return self._guarded(media_info, uri, of_stamp, self.limits.max_frames, self.views.max_pixels)

    def _guarded(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._child is None:
            raise RuntimeError("SampleStage: setup() was not called")
        try:
            return self._child.run(function, *args, **kwargs)
        except (ClipError, MachineError):
            raise
        except Exception as error:  # our own fault on one odd file must cost that file, not the job
            subject = getattr(args[0], "uri", args[0])
            what = f"{type(error).__name__}: {error}"
            message = f"{subject}: unexpected {what} in {function.__name__}; please report it"
            raise ClipError("crashed", message) from error


@dataclass(kw_only=True)
class PrepareStage(SampleStage):
    """Files to rows with their views packed."""

    def process(self, items: Sequence[Work]) -> Iterator[Result]:
        """A row for each file, with its views where it could be decoded."""
        for sample in super().process(items):
            if isinstance(sample, Sample):
                views = sample.load()
                row = with_views(replace(sample.row, status=seen_status(views)), views)
                known = {column.name: getattr(row, column.name) for column in fields(row)}
                yield PreparedRow(**known, views=pack(views))
            else:
                yield sample


@dataclass(kw_only=True)
class ScoreStage:
    """Samples to rows, with the model loaded once per worker."""

    card: ModelCard
    generation: GenerationConfig
    model_id: str
    model_revision: str
    engine: EngineConfig = field(default_factory=EngineConfig)
    job: JobConfig = field(default_factory=JobConfig)
    _scorer: "Scorer | None" = field(default=None, init=False, repr=False)

    @property
    def preload(self) -> tuple[str, ...]:
        """What a child that holds the model imports first.

        Empty where the model is in another process anyway.
        """
        return ("vqa.model.engines.transformers", "jobs.stages") if self.engine.name == "transformers" else ()

    @property
    def by(self) -> ScoredBy:
        """What its rows say of the model."""
        return scored_by(self.card, model_id=self.model_id, model_revision=self.model_revision)

    @property
    def batch_size(self) -> int:
        """Clips that the model answers at once."""
        return self.engine.concurrency if self.engine.name == "endpoint" else self.generation.batch_size

    def resources(self, cluster: Mapping[str, float]) -> Resources:
        """GPUs, where there are any, for a model that runs here; else half the cores."""
        gpus = gpus_of_worker(self.job, self.engine) if cluster.get("GPU", 0) else 0.0
        by_cores = max(1, int(cluster.get("CPU", 2) / 2 / self.job.cpus_per_worker))
        workers = self.job.score_workers or (None if gpus else by_cores)
        return _of_model(self.job, workers=workers, gpus=gpus)

    def setup(self) -> None:
        """Load the model. Raises ModelError where it is missing or of another revision."""
        # Ray gives a worker this many threads; the sums of a matrix product, and so the scores, depend on their number.
        threads = self.card.cpu_threads or max(1, int(self.job.cpus_per_worker))
        card = self.card.model_copy(update={"cpu_threads": threads})
        with kept():
            from vqa.model.scorer import Scorer

            engine = start(self.engine, card, self.generation, alone=True)  # torch: seconds that only the worker pays
            self._scorer = Scorer(engine, card=card, generation=self.generation)
        _refuse_other_revision(self.model_id, wanted=self.model_revision, found=self._scorer.model_revision)

    def close(self) -> None:
        """Let the model go."""
        if self._scorer:
            self._scorer.close()
        self._scorer = None

    def process(self, items: Sequence[Sample | Result]) -> Iterator[Result]:
        """One row for each sample, in order. Raises ModelError where the device is lost."""
        if self._scorer is None:
            raise RuntimeError("ScoreStage: setup() was not called")
        yield from _with_scores(items, self._scorer.try_score, self.by)


@dataclass(kw_only=True)
class LightStage:
    """Samples to rows by a student, without a language model."""

    student: Path
    model_id: str
    model_revision: str
    scale: Scale = "opinions"  # of its card
    job: JobConfig = field(default_factory=JobConfig)
    batch_size: int = 8
    preload: ClassVar[tuple[str, ...]] = ("vqa.light.student", "jobs.stages")  # as of ScoreStage
    _student: "Student | None" = field(default=None, init=False, repr=False)

    @property
    def by(self) -> ScoredBy:
        """What its rows say of the student."""
        return scored_by_student(self.scale, model_id=self.model_id, model_revision=self.model_revision)

    def resources(self, cluster: Mapping[str, float]) -> Resources:
        """Half the cores, as the decoders feed the student; it takes no GPU."""
        by_cores = max(1, int(cluster.get("CPU", 2) / 2 / self.job.cpus_per_worker))
        return _of_model(self.job, workers=self.job.score_workers or by_cores, gpus=0.0)

    def setup(self) -> None:
        """Load the student. Raises ModelError where it is missing or of another digest."""
        from vqa.light.card import student_digest

        _refuse_other_revision(self.model_id, wanted=self.model_revision, found=student_digest(self.student))
        with kept():
            import torch  # seconds that only the worker pays

            from vqa.light.student import Student

            torch.set_num_threads(max(1, int(self.job.cpus_per_worker)))
            self._student = Student.load(self.student)

    def close(self) -> None:
        """Let the student go."""
        self._student = None

    def process(self, items: Sequence[Sample | Result]) -> Iterator[Result]:
        """One row for each sample, in order."""
        if self._student is None:
            raise RuntimeError("LightStage: setup() was not called")
        yield from _with_scores(items, self._student.score, self.by)


def _of_model(job: JobConfig, *, workers: int | None, gpus: float) -> Resources:
    return Resources(
        workers=workers,
        least=min(job.score_workers_min, workers or job.score_workers_min),
        cpus=job.cpus_per_worker,
        gpus=gpus,
        accelerator_type=job.accelerator_type,
        custom=job.score_resources,
    )


def _refuse_other_revision(model_id: str, *, wanted: str, found: str) -> None:
    if found != wanted:
        raise ModelError(
            f"model {model_id}: this worker has it at {found}, the job was planned with "
            f"{wanted}; give every machine the same files"
        )


def _with_scores(
    items: Sequence[Sample | Result], score: Callable[[Sequence[Views]], Sequence[Score | ClipError]], by: ScoredBy
) -> Iterator[Result]:
    """Rows of a batch, in order: samples scored, the others with the model's columns."""
    views = [item.load() for item in items if isinstance(item, Sample)]
    scored = zip(views, score(views) if views else (), strict=True)
    for item in items:
        if isinstance(item, Unchanged):
            yield item
            continue
        row = replace(item.row if isinstance(item, Sample) else item, **by._asdict())
        yield with_score(row, *next(scored)) if isinstance(item, Sample) else row
