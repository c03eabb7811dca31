"""The fields of a clip's row as the stages fill them, from headers to score."""

from dataclasses import dataclass, replace
from typing import NamedTuple

from jobs.resume import run_key
from vqa.data.score_table import ScoreRow, Status, Tier
from vqa.errors import ClipError
from vqa.light.card import RAW, Scale
from vqa.model.card import Asked, ModelCard
from vqa.model.question import words_digest
from vqa.types import Clip, MediaInfo, Score, Views

LOST = "its worker died or failed both times that it was tried; run the same command to try again"
ANSWER_CHARACTERS = 200  # of an answer that holds no score, shown of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Unchanged:
    """A clip whose row on disk is still good, and where its file is now."""

    clip_id: str
    uri: str
    source_bytes: int | None
    source_mtime_ns: int | None
    duration_seconds: float | None


class ScoredBy(NamedTuple):
    """What a row says of where its score comes from."""

    tier: Tier
    model_id: str
    model_revision: str
    asked: Asked | None = None
    question_digest: str | None = None
    raw_low: float | None = None
    raw_high: float | None = None


def scored_by(card: ModelCard, *, model_id: str, model_revision: str) -> ScoredBy:
    """What a model's rows say of it: the question asked, the scale of its answers."""
    scale = card.scale
    return ScoredBy("reason", model_id, model_revision, card.asked, words_digest(card), scale.low, scale.high)


def scored_by_student(scale: Scale, *, model_id: str, model_revision: str) -> ScoredBy:
    """What a student's rows say of it; one of severity has a scale of its own."""
    low, high = RAW if scale == "severity" else (None, None)
    return ScoredBy("light", model_id, model_revision, raw_low=low, raw_high=high)


def new_row(clip: Clip, source: str, *, settings: str) -> ScoreRow:
    """A clip's row before decoding; `source`: its fingerprint, or why it has none."""
    start, end = clip.start_seconds, clip.end_seconds
    return ScoreRow(
        clip_id=clip.clip_id,
        uri=clip.uri,
        start_seconds=start,
        end_seconds=end,
        run_key=run_key(source, start_seconds=start, end_seconds=end, settings=settings),
    )


def unchanged(row: ScoreRow) -> Unchanged:
    """That a row on disk is still good."""
    return Unchanged(
        clip_id=row.clip_id,
        uri=row.uri,
        source_bytes=row.source_bytes,
        source_mtime_ns=row.source_mtime_ns,
        duration_seconds=row.duration_seconds,
    )


def failed(row: ScoreRow, error: ClipError) -> ScoreRow:
    """The row of a clip that cannot be decoded."""
    decoded, planned = error.frames or (None, None)
    return replace(row, error_kind=error.kind, error=str(error), frames_decoded=decoded, frames_planned=planned)


def with_media(row: ScoreRow, info: MediaInfo) -> ScoreRow:
    """With what the file's headers say."""
    return replace(
        row,
        width=info.width,
        height=info.height,
        fps=info.fps,
        duration_seconds=info.duration_seconds,
        codec=info.codec,
    )


def with_views(row: ScoreRow, views: Views) -> ScoreRow:
    """With what was decoded, and what of it the model is shown."""
    return replace(
        with_media(row, views.info),
        keyframe_seconds=views.keyframe_seconds,
        crop_boxes=views.crop_boxes,
        frames_decoded=views.frames_decoded,
        frames_planned=views.frames_planned,
        decode_backend=views.decode_backend,
        decode_seconds=views.decode_seconds,
    )


def seen_status(views: Views) -> Status:
    """Whether all planned frames were decoded."""
    return "partial" if views.is_partial else "ok"


def with_score(row: ScoreRow, views: Views, score: Score | ClipError) -> ScoreRow:
    """With the score, or the model's failure on the clip."""
    row = with_views(row, views)
    if isinstance(score, ClipError):
        return replace(row, error_kind=score.kind, error=str(score))
    is_read = score.score is not None or score.score_raw is not None
    return replace(
        row,
        status=seen_status(views) if is_read else "unparsed",
        error=None if is_read else _unread(row, score),
        score=score.score,
        score_std=score.score_std,
        score_global=score.score_global,
        score_local=score.score_local,
        score_raw=score.score_raw,
        score_expected=score.score_expected,
        answers_parsed=score.answers_parsed,
        answers_total=len(score.answers),
        prompt_tokens=score.prompt_tokens,
        answer_tokens=score.answer_tokens,
        readout=score.readout,
        reason=score.reason,
        description=score.description,
        score_seconds=score.score_seconds,
    )


def _unread(row: ScoreRow, score: Score) -> str:
    """What an answer without a score said: its end, where the score belongs."""
    said = " ".join(score.answers[0].text.split()) if score.answers else ""
    short = said if len(said) <= ANSWER_CHARACTERS else f"…{said[-ANSWER_CHARACTERS:]}"
    known = row.raw_low is not None and row.raw_high is not None
    scale = f" from {row.raw_low:g} to {row.raw_high:g}" if known else ""
    return f"no score{scale} in the model's answer: {short!r}"


def lost_row(clip: Clip, *, settings: str, by: ScoredBy | None = None) -> ScoreRow:
    """The row of a clip lost for good with its worker; the next run retries it."""
    row = new_row(clip, "crashed", settings=settings)
    return replace(row, error_kind="crashed", error=f"{clip.uri}: {LOST}", **(by._asdict() if by else {}))
