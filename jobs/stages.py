"""The two stages of the scoring job, as plain classes that know nothing of Ray: cheap to send, loaded in the worker.

    files ──► SampleStage ──► samples (views, pickled) ──► ScoreStage ──► rows (Arrow, the scores table's columns)
              guarded child                                the model

A sample that failed passes the second stage untouched. Both are called by Ray Data with batches, and by the benchmark
in a plain loop.
"""

import os
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from jobs.child import look_at, media_info
from jobs.resume import Stamp, run_key, stamp
from vqa.data.score_table import SCHEMA
from vqa.data.windows import windows
from vqa.errors import ClipError, ModelError
from vqa.media.probe import MAX_FRAMES
from vqa.media.sandbox import Guard
from vqa.media.storage.fingerprint import fingerprint
from vqa.types import Clip, MediaInfo, Score, Views
from vqa.views import ViewsConfig, view_seed

KEPT = "kept"  # status of a marker, never of a row: the row on disk is good, only its file's stamp or place is new
WORK_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("uri", pa.string()),
        ("start_seconds", pa.float64()),
        ("end_seconds", pa.float64()),
        ("finished", pa.list_(pa.string())),
    ]
)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A row as far as it is known, and what the model shall look at (None: nothing, the row is final)."""

    row: Row
    views: Views | None = None


class SampleStage:
    """Files to samples: fingerprint, windows, views; whatever opens a file happens in a child that can be killed."""

    def __init__(
        self,
        *,
        views: ViewsConfig,
        settings: str,
        clip_seconds: float | None,
        guard: Mapping[str, Any],
        max_frames: int = MAX_FRAMES,
        seed: int = 0,
    ) -> None:
        """`settings`: the digest that goes into each run key; `guard`: the limits of Guard; another `seed` than
        scoring's 0 draws other frames and boxes, where the samplers draw any."""
        self._views, self._settings, self._clip_seconds, self._seed = views, settings, clip_seconds, seed
        self._max_frames = max_frames
        self._guard = Guard(**guard, preload=["jobs.child"])

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """A batch of WORK_SCHEMA to one pickled sample at a time: a long video's windows come one after another."""
        for sample in self.each(batch):
            yield pa.table({"sample": pa.array([pickle.dumps(sample, protocol=5)], pa.large_binary())})

    def each(self, batch: pa.Table) -> Iterator[Sample]:
        """The samples of a batch of WORK_SCHEMA."""
        for work in batch.to_pylist():
            finished = frozenset(work.pop("finished"))
            yield from self.samples(Clip(**work), finished=finished)

    def samples(self, clip: Clip, *, finished: frozenset[str] = frozenset()) -> Iterator[Sample]:
        """The samples of one file; a marker `kept` for each part whose run key is in `finished`."""
        before = stamp(clip.uri)  # before reading: a file that changes meanwhile has another stamp afterwards
        base: Row = {"uri": clip.uri, "source_bytes": before and before[0], "source_mtime_ns": before and before[1]}
        try:
            content = self._guarded(fingerprint, clip.uri)
        except ClipError as error:
            row = base | _span(clip) | {"run_key": self._key(clip, error.kind)}
            yield _kept(row) if row["run_key"] in finished else _failed(row, error)
            return
        parts, seconds = self._parts(clip, before)
        base |= {"fingerprint": content, "duration_seconds": seconds}
        for part in parts:
            row = base | _span(part) | {"run_key": self._key(part, content)}
            yield _kept(row) if row["run_key"] in finished else self._sample(part, row, before)

    def close(self) -> None:
        """Ends the child."""
        self._guard.close()

    def _parts(self, clip: Clip, of_stamp: Stamp | None) -> tuple[list[Clip], float | None]:
        """The windows and the file's length, where it is needed to know them."""
        if self._clip_seconds is None:
            return [clip], None
        try:
            info: MediaInfo = self._guarded(media_info, clip.uri, of_stamp, self._max_frames)
        except ClipError:
            return [clip], None  # looking at it will meet the same error, and make the row
        seconds = info.duration_seconds
        parts = windows(clip, duration_seconds=seconds, clip_seconds=self._clip_seconds)
        # A header may lie about the length, and more windows than frames would mostly be empty.
        return parts if len(parts) <= info.frame_count else [clip], seconds

    def _sample(self, clip: Clip, row: Row, of_stamp: Stamp | None) -> Sample:
        started = time.perf_counter()
        try:
            seed = view_seed(row["fingerprint"], clip) + self._seed
            views: Views = self._guarded(look_at, clip, of_stamp, self._max_frames, self._views, seed=seed)
        except ClipError as error:
            elapsed = {"decode_seconds": time.perf_counter() - started}
            facts = {} if error.kind in ("crashed", "timeout") else self._facts(clip, of_stamp)
            return _failed(row | facts | elapsed, error)
        return Sample(row=row | _seen(views), views=views)

    def _facts(self, clip: Clip, of_stamp: Stamp | None) -> Row:
        """What is known of a file that failed, as far as its headers can be read."""
        try:
            return _media_columns(self._guarded(media_info, clip.uri, of_stamp, self._max_frames))
        except ClipError:
            return {}

    def _guarded(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return self._guard.run(function, *arguments, **options)
        except ClipError:
            raise
        except Exception as error:  # a fault of ours on one odd file must cost that file, not the job
            subject = getattr(arguments[0], "uri", arguments[0])
            what = f"{type(error).__name__}: {error}"
            message = f"{subject}: unexpected {what} in {function.__name__}; please report it"
            raise ClipError("crashed", message) from error

    def _key(self, clip: Clip, source: str) -> str:
        return run_key(source, start_seconds=clip.start_seconds, end_seconds=clip.end_seconds, settings=self._settings)


class ScoreStage:
    """Samples to rows, with the model loaded once per worker."""

    def __init__(
        self, *, model_id: str, model_revision: str, card: Mapping[str, Any], generation: Mapping[str, Any]
    ) -> None:
        """`card`, `generation`: keys of ModelCard and GenerationConfig.

        Raises ModelError where the model cannot be loaded, or is not in the state that the run's keys name.
        """
        from vqa.model.card import GenerationConfig, ModelCard
        from vqa.model.load import load
        from vqa.model.scorer import Scorer  # torch: seconds that only this worker pays

        self._columns = {"model_id": model_id, "model_revision": model_revision}
        settings = ModelCard(**card)
        self._scorer = Scorer(load(settings), card=settings, generation=GenerationConfig(**generation))
        if self._scorer.model_revision != model_revision:
            raise ModelError(
                f"model {model_id}: this worker has it at {self._scorer.model_revision}, the job was planned with "
                f"{model_revision}; give every machine the same files"
            )

    def __call__(self, batch: pa.Table) -> pa.Table:
        """A batch of pickled samples to rows of SCHEMA."""
        blobs = batch.column("sample").to_pylist()
        samples = [pickle.loads(blob) for blob in blobs]  # noqa: S301 (our own bytes, from SampleStage)
        try:
            return pa.Table.from_pylist(self.rows(samples), schema=SCHEMA)
        except ModelError:
            # The device is lost to this process. Ray starts another and tries again only where a process dies.
            os._exit(1)

    def rows(self, samples: Sequence[Sample]) -> list[Row]:
        """One row for each sample, in order. Raises ModelError where the device is lost."""
        looked_at = [sample.views for sample in samples if sample.views is not None]
        outcomes = iter(self._scorer.try_score(looked_at) if looked_at else ())
        rows = []
        for sample in samples:
            row = sample.row | self._columns
            if sample.views is not None:
                row |= _answered(sample.views, next(outcomes))
            rows.append(row)
        return rows


# --- rows -----------------------------------------------------------------------------------------------------------


def _span(clip: Clip) -> Row:
    return {"clip_id": clip.clip_id, "start_seconds": clip.start_seconds, "end_seconds": clip.end_seconds}


def _kept(row: Row) -> Sample:
    return Sample(row=row | {"status": KEPT})


def _failed(row: Row, error: ClipError) -> Sample:
    decoded, planned = error.frames or (None, None)
    frames = {"frames_decoded": decoded, "frames_planned": planned}
    return Sample(row=row | frames | {"status": "failed", "error_kind": error.kind, "error": str(error)})


def _columns(source: MediaInfo | Views | Score, names: Iterable[str]) -> Row:
    return {name: getattr(source, name) for name in names}


def _media_columns(info: MediaInfo) -> Row:
    return _columns(info, ("width", "height", "fps", "duration_seconds", "codec"))


def _seen(views: Views) -> Row:
    names = ("keyframe_seconds", "frames_decoded", "frames_planned", "decode_backend", "decode_seconds")
    boxes = [asdict(box) for box in views.crop_boxes]
    return _media_columns(views.info) | _columns(views, names) | {"crop_boxes": boxes}


def seen_status(views: Views) -> str:
    """`partial` where frames were lost."""
    return "partial" if views.is_partial else "ok"


def _answered(views: Views, score: Score | ClipError) -> Row:
    if isinstance(score, ClipError):
        return {"status": "failed", "error_kind": score.kind, "error": str(score)}
    status = "unparsed" if score.score is None else seen_status(views)
    names = ("score", "score_std", "score_global", "score_local", "answers_parsed", "reason", "score_seconds")
    return _columns(score, names) | {"status": status, "answers_total": len(score.answers)}


def crashed_row(clip: Clip, *, settings: str, message: str) -> Row:
    """The row of a clip that was lost with its worker, for good: retried by the next run."""
    key = run_key("crashed", start_seconds=clip.start_seconds, end_seconds=clip.end_seconds, settings=settings)
    row = {"uri": clip.uri, "status": "failed", "error_kind": "crashed", "error": message, "run_key": key}
    return _span(clip) | row
