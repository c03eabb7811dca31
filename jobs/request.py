"""The arguments of `vqa score`, checked and settled into inputs and stages."""

from dataclasses import dataclass, replace
from pathlib import Path

from jobs.cascade import carried, scale_of, share_of
from jobs.config import (
    ScoreConfig,
    Tiers,
    asked_config,
    identify,
    light_part,
    pinned_card,
    resolve,
    settings_digest,
)
from jobs.engine import JobOptions
from jobs.listing import ClipList
from jobs.resume import PLAN_CHUNK
from jobs.stages import LightStage, SampleStage, ScoreStage
from vqa.config import Values
from vqa.data.dialects import AS_SEEN, Dialect
from vqa.data.sources import Selection, Tally, stream_clips
from vqa.errors import ModelError, UsageError
from vqa.evaluate.calibrate import Calibration, load_calibration
from vqa.light.card import CALIBRATION, EMBEDDED_STUDENT, WIDTH, read_card
from vqa.model.engines.config import EngineName, meet
from vqa.model.question import read_words


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest(JobOptions):
    """The arguments of `vqa score`, as given."""

    sources: tuple[str, ...]
    tier: Tiers | None = None
    student: Path | None = None
    reason_share: str | None = None
    reason_scale: Path | None = None
    model_engine: EngineName | None = None
    endpoint: str | None = None
    served_model: str | None = None
    deterministic: bool = False
    k: int | None = None
    question: Path | None = None
    system: Path | None = None
    describe: bool = False
    snap: str | None = None
    clip_seconds: float | None = None
    on_damage: str | None = None
    min_decoded_share: float | None = None
    calibration: Path | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    allow_private_hosts: bool = False
    dialect: Dialect = AS_SEEN


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreInputs:
    """What a request comes to: what to score, with which model and settings."""

    config: ScoreConfig
    clips: ClipList
    model_id: str
    model_revision: str
    settings: str  # digest
    calibration: Calibration | None
    light: "ScoreInputs | None" = None  # of a cascade: its first pass, by the student; the rest is the reasoner's
    scale: Calibration | None = None  # of a cascade: from the reasoner's scores to the student's scale

    @property
    def first(self) -> "ScoreInputs":
        """What scores every clip."""
        return self.light or self


def inputs_of(request: ScoreRequest) -> ScoreInputs:
    """Settle all that can go wrong before a write. Raises UsageError, ModelError."""
    config = resolve(request.config, assignments=request.assignments, flags=_flags(request))
    _refuse_unused(request, config)
    config = asked_config(config)
    if config.tier != "light":
        meet(config.model_engine, config.model, config.generation)
    given = load_calibration(config.calibration) if config.calibration else None
    selection, tally = Selection(include=request.include, exclude=request.exclude), Tally()
    clips = ClipList(stream_clips(request.sources, tally, selection=selection, dialect=request.dialect), tally)
    clips.settle(PLAN_CHUNK)  # what is wrong with a short list, or with the head of a long one, is said before a run
    if not clips.listed:
        found = clips.facts
        way = f"Skipped: {found.skipped}; --include '*.SUFFIX' takes them" if found.skipped else "Check the paths"
        raise UsageError(f"no video or picture in {', '.join(request.sources)}. {way}.")
    model_id, revision = identify(config)
    if given and given.model_id not in (None, model_id):
        raise UsageError(
            f"calibration {config.calibration}: made for {given.model_id}, this run uses {model_id}. "
            "Make one by `vqa calibrate` on this model's scores."
        )
    scale = scale_of(config, model_id=model_id, revision=revision) if config.tier == "cascade" else None
    whole = ScoreInputs(
        config=config,
        clips=clips,
        model_id=model_id,
        model_revision=revision,
        settings=settings_digest(config, model_id=model_id, model_revision=revision, scale=scale),
        calibration=given or _own_calibration(config, model_id=model_id, revision=revision),
        scale=scale,
    )
    return replace(whole, light=_light_inputs(whole)) if config.tier == "cascade" else whole


def _own_calibration(config: ScoreConfig, *, model_id: str, revision: str) -> Calibration | None:
    """Calibration that a student of severity carries, if any."""
    folder = config.student or EMBEDDED_STUDENT
    if config.tier != "light" or read_card(folder).scale == "opinions":
        return None
    return carried(folder / CALIBRATION, model_id=model_id, revision=revision)


def _light_inputs(whole: ScoreInputs) -> ScoreInputs:
    """First pass of a cascade.

    Raises ModelError for a student without uncertainty, or of severity.
    """
    config = light_part(whole.config)
    folder = config.student or EMBEDDED_STUDENT
    model_id, revision = identify(config)
    if read_card(folder).scale == "severity":
        raise ModelError(
            f"student {folder}: tells severities, no opinions (scale: severity), so it has no scale in common with the "
            "reasoner; give a student trained on opinions, or --tier light"
        )
    if not (folder / WIDTH).is_file():
        raise ModelError(
            f"student {folder}: no {WIDTH}, which tells how unsure it is of a clip; make it anew with `vqa distill`"
        )
    return replace(
        whole,
        config=config,
        model_id=model_id,
        model_revision=revision,
        settings=settings_digest(config, model_id=model_id, model_revision=revision),
        scale=None,
    )


def _refuse_unused(request: ScoreRequest, config: ScoreConfig) -> None:
    """Raise UsageError for an option that the tier would not use."""
    if config.tier == "light":
        given = {"--model": request.model, "--k": request.k, "--question": request.question, "--system": request.system}
        given |= {"--model-engine": request.model_engine, "--endpoint": request.endpoint}
        given |= {"--describe": request.describe or None, "--deterministic": request.deterministic or None}
        for option, value in given.items():
            if value is not None:
                raise UsageError(f"{option} {value}: not used by --tier light; leave it out, or name a --student")
    elif config.tier == "reason" and config.student is not None:
        raise UsageError(f"--student {config.student}: not used by --tier {config.tier}; add --tier light")
    if config.tier != "cascade":
        for option, text in (("--reason-share", request.reason_share), ("--reason-scale", request.reason_scale)):
            if text is not None:
                raise UsageError(f"{option} {text}: not used by --tier {config.tier}; add --tier cascade")


def _flags(request: ScoreRequest) -> Values:
    """The options that were given, as settings."""

    def given(**values: object) -> Values:
        return {name: value for name, value in values.items() if value not in (None, {})}

    return given(
        tier=request.tier,
        student=request.student,
        reason_share=None if request.reason_share is None else share_of(request.reason_share),
        reason_scale=request.reason_scale,
        model=given(
            name=request.model,
            question=request.question and read_words(request.question),
            system=request.system and read_words(request.system),
        ),
        model_engine=given(
            name=request.model_engine or ("endpoint" if request.endpoint else None),
            endpoints=[one.strip() for one in request.endpoint.split(",")] if request.endpoint else None,
            served_model=request.served_model,
        ),
        clip_seconds=request.clip_seconds,
        calibration=request.calibration,
        generation=given(k=request.k, describe=request.describe or None, deterministic=request.deterministic or None),
        limits=given(private_hosts=request.allow_private_hosts or None),
        views=given(snap=request.snap, on_damage=request.on_damage, min_decoded_share=request.min_decoded_share),
    )


def stages_of(inputs: ScoreInputs) -> tuple[SampleStage, ScoreStage | LightStage]:
    """The stages of a scoring run."""
    config, job = inputs.config, inputs.config.job
    sample = SampleStage(
        views=config.views,
        settings=inputs.settings,
        clip_seconds=config.clip_seconds,
        limits=config.limits,
        workers=job.sample_workers,
        job=job,
    )
    return sample, score_stage_of(inputs)


def score_stage_of(inputs: ScoreInputs) -> ScoreStage | LightStage:
    """The last stage of a scoring run."""
    config, job = inputs.config, inputs.config.job
    if config.tier == "light":
        return LightStage(
            student=config.student or EMBEDDED_STUDENT,
            model_id=inputs.model_id,
            model_revision=inputs.model_revision,
            scale=read_card(config.student or EMBEDDED_STUDENT).scale,
            job=job,
        )
    return ScoreStage(
        card=pinned_card(config.model, revision=inputs.model_revision),
        engine=config.model_engine,
        generation=config.generation,
        model_id=inputs.model_id,
        model_revision=inputs.model_revision,
        job=job,
    )
