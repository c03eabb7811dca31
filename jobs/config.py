"""Settings of a scoring run: defaults < card < --config < --set < flags."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from jobs.resume import digest
from vqa.config import Strict, Values, build, merge_values, override, read_yaml
from vqa.errors import UsageError
from vqa.evaluate.calibrate import Calibration
from vqa.light import card as student
from vqa.media.probe import MAX_FRAMES
from vqa.media.sandbox import Guard
from vqa.media.storage import hosts
from vqa.model.card import AnswerForm, GenerationConfig, ModelCard, as_asked, find_card
from vqa.model.engines.config import SERVED, EngineConfig, check_engine
from vqa.model.question import DESCRIBE, check_askable, check_readout, with_words
from vqa.model.resolve import locate_model, with_folder_sampling
from vqa.prompt import messages
from vqa.types import PictureCounts
from vqa.views import ViewsConfig

Amount = Annotated[float, Field(ge=0)]
ACCELERATOR = "accelerator_type:"  # Ray's resource of nodes that have one, of which workers take a thousandth
# Ray's own resources, and what to set instead of counting them twice.
_MEMORY = {
    "memory": "leave it out: limits.memory_mb is what decoding one clip may allocate",
    "object_store_memory": "set job.store_mb, for all processes",
}
_RAYS_OWN: Mapping[str, Mapping[str, str]] = {
    "sample_resources": {"CPU": "set job.cpus_per_sampler", "GPU": "leave it out: decoding uses none", **_MEMORY},
    "score_resources": {"CPU": "set job.cpus_per_worker", "GPU": "set job.gpus_per_worker", **_MEMORY},
}
Tiers = Literal["light", "reason", "cascade"]
KEY_VERSION = 2  # raise it when the same settings begin to give other numbers


class ClipLimits(Strict):
    """Limits per clip; no part of a run key, and the next run retries what they fail."""

    deadline_seconds: float = Field(120.0, gt=0, description="for each of: reading a file, decoding it or a window")
    memory_mb: int | None = Field(4096, gt=0, description="what decoding one clip may allocate; null = no limit")
    cpu_seconds: int | None = Field(120, gt=0, description="processor time for each, all threads; null = no limit")
    # Two are enough for a local file, a remote one has its loop's and its connections.
    open_files: int | None = Field(256, ge=8, description="files and connections at once; null = no limit")
    max_frames: int = Field(MAX_FRAMES, gt=0, description="frames that a file may have or declare")
    private_hosts: bool = Field(
        default_factory=hosts.is_allowed, description="URLs may lead into private networks, also by redirects"
    )


class JobConfig(Strict):
    """How the work is distributed; changes the speed, never a number."""

    sample_workers: int | None = Field(None, ge=1, description="decoding processes at most; null = by the cores")
    score_workers: int | None = Field(None, ge=1, description="model processes at most; null = by the GPUs or cores")
    sample_workers_min: int = Field(1, ge=1, description="decoding processes before the first clip; Ray adds the rest")
    score_workers_min: int = Field(1, ge=1, description="model processes before the first clip")
    cpus_per_sampler: float = Field(1.0, gt=0, description="cores that Ray counts for each decoding process")
    sample_resources: dict[str, Amount] = Field({}, description="Ray's custom resources for each decoding process")
    score_resources: dict[str, Amount] = Field({}, description="Ray's custom resources for each model process")
    accelerator_type: str | None = Field(None, description="as Ray names it, e.g. H100: model processes run there only")
    store_mb: int | None = Field(
        None,
        ge=1,
        description="decoded views that wait in Ray's object stores at most, before it spills; null = by Ray",
    )
    cpus_per_worker: float = Field(1.0, gt=0, description="cores for each model process")
    gpus_per_worker: float = Field(1.0, gt=0, description="GPUs, or a share of one, for each; unused without GPUs")
    rows_per_part: int = Field(5000, ge=1, description="rows in a Parquet file, at least but for the last")
    stall_seconds: float | None = Field(
        3600.0,
        gt=0,
        description="a model's process (on Ray: any worker) that makes nothing for so long is ended; null = never",
    )
    unread_limit: int | None = Field(
        20, ge=1, description="stop where none of the first answers can be read; null = never"
    )
    price_per_hour: float | None = Field(None, ge=0, description="of all machines together, for the metric vqa_cost")
    seconds_per_write: float = Field(10.0, ge=0, description="finished rows reach the disk about this often")

    @field_validator("sample_resources", "score_resources")
    @classmethod
    def _are_custom(cls, given: dict[str, float], about: ValidationInfo) -> dict[str, float]:
        for name in given:
            if way := _RAYS_OWN[about.field_name or ""].get(name):
                raise ValueError(f"{name} is a resource of Ray's own; {way}")
            if name.startswith(ACCELERATOR):
                raise ValueError(f"{name} is a resource of Ray's own; set job.accelerator_type, for model processes")
        return given


class ScoreConfig(Strict):
    """All settings of `vqa score`."""

    tier: Tiers = Field("reason", description="light: a small student, without a language model; cascade: both")
    student: Path | None = Field(None, description="of light and cascade: a folder of vqa distill; null = embedded")
    light_views: ViewsConfig | None = Field(None, description="of a cascade's student; null = its own, and the rest")
    reason_share: float = Field(0.1, ge=0, le=1, description="cascade: of the clips, given to the reasoner at most")
    reason_scale: Path | None = Field(
        None, description="cascade: file of vqa calibrate from the reasoner's scores to the student's scale"
    )
    model: ModelCard
    model_engine: EngineConfig = Field(default_factory=EngineConfig)
    clip_seconds: float | None = Field(None, gt=0, description="length of windows; null = whole files")
    calibration: Path | None = Field(None, description="file of vqa calibrate: adds mos, mos_low, mos_high")
    views: ViewsConfig = Field(default_factory=ViewsConfig)
    generation: GenerationConfig = Field(default_factory=GenerationConfig)
    limits: ClipLimits = Field(default_factory=ClipLimits)
    job: JobConfig = Field(default_factory=JobConfig)


def resolve(
    path: Path | None = None, *, assignments: Sequence[str] = (), flags: Mapping[str, object] | None = None
) -> ScoreConfig:
    """Resolve the settings of a run.

    `flags` holds explicit options (`{"model": "embedded", "generation": {"k": 6}}`). `model` may be a name in every
    source; the card it names lies under everything else. Raises UsageError.
    """
    values, where = (read_yaml(path), str(path)) if path else ({}, "the settings")
    return resolve_values(values, assignments=assignments, flags=flags, where=where)


def resolve_values(
    values: Values, *, assignments: Sequence[str] = (), flags: Mapping[str, object] | None = None, where: str
) -> ScoreConfig:
    """As `resolve`, from what a file holds."""
    file = _with_named_model(values)
    flags = _with_named_model(flags or {})
    chosen = flags.get("model", {}).get("name")
    if chosen and file.get("model", {}).get("name", chosen) != chosen:
        del file["model"]  # the file's settings of one model are not meant for another
    given = merge_values(_with_named_model(override(file, assignments)), flags)
    card = find_card(str(given.get("model", {}).pop("name", "embedded")))
    card = as_asked(card, given.get("model", {}))
    # A card's views, generation and engine are defaults for this model, so they lie below the file.
    base: Values = {key: card[key] for key in ("views", "generation", "model_engine") if key in card} | {"model": card}
    if given.get("tier") not in ("light", "cascade"):
        return build(ScoreConfig, merge_values(base, given), where=where)
    folder = Path(str(given["student"])) if given.get("student") else student.EMBEDDED_STUDENT
    views = student.read_card(folder).views
    if given["tier"] == "light":
        config = build(ScoreConfig, merge_values({"model": card, "views": views}, given), where=where)
        _refuse_other_views(config.views, views, folder, section="views")
        return config
    # What the student does not settle, such as `snap`, holds for both tiers; the rest for the reasoner.
    settled = {*views, *student.FIXED_VIEWS}
    of_both, of_light = given.get("views") or {}, given.get("light_views") or {}
    if not (isinstance(of_both, Mapping) and isinstance(of_light, Mapping)):
        return build(ScoreConfig, merge_values(base, given), where=where)  # which refuses them
    shared = {key: value for key, value in of_both.items() if key not in settled}
    own = {"light_views": merge_values(merge_values(views, shared), of_light)}
    config = build(ScoreConfig, merge_values(merge_values(base, given), own), where=where)
    if config.light_views:
        _refuse_other_views(config.light_views, views, folder, section="light_views")
    return config


def _refuse_other_views(given: ViewsConfig, views: Values, folder: Path, *, section: str) -> None:
    """Raise UsageError for pictures that a student was not made with."""
    made_with = ViewsConfig.model_validate(views)
    for key in student.FIXED_VIEWS:
        if (found := getattr(given, key)) != (wanted := getattr(made_with, key)):
            raise UsageError(
                f"{section}.{key} = {found!r}: the student {folder} was made with {wanted!r}; leave it out, or add "
                f"--set {section}.{key}={wanted}"
            )


def light_part(config: ScoreConfig) -> ScoreConfig:
    """The light tier of a cascade as its own run, with the keys of `--tier light`."""
    if config.light_views is None:
        raise UsageError("light_views: none; a cascade's settings come from `resolve`")
    return config.model_copy(update={"tier": "light", "views": config.light_views, "light_views": None})


def gpus_of_worker(job: JobConfig, engine: EngineConfig) -> float:
    """GPUs, or the share of one, that a model process takes where there are any."""
    if engine.name == "endpoint":
        return 0.0
    if engine.name == "vllm" and engine.tensor_parallel > 1:
        return float(engine.tensor_parallel)
    return job.gpus_per_worker


def _with_named_model(values: Mapping[str, object]) -> Values:
    """`model: NAME` is short for `model: {name: NAME}`."""
    model = values.get("model")
    if model is None:
        return dict(values)
    return {**values, "model": dict(model) if isinstance(model, Mapping) else {"name": model}}


def make_guard(limits: ClipLimits, *, preload: Sequence[str] = ()) -> Guard:
    """A guarded child with these limits that imports `preload` before its first call."""
    if limits.private_hosts:
        hosts.allow_private()
    return Guard(
        deadline_seconds=limits.deadline_seconds,
        memory_bytes=limits.memory_mb and limits.memory_mb * 2**20,
        cpu_seconds=limits.cpu_seconds,
        open_files=limits.open_files,
        preload=preload,
    )


def identify(config: ScoreConfig) -> tuple[str, str]:
    """Id and revision (commit or digest) of the model or student. Raises ModelError."""
    if config.tier == "light":
        folder = config.student or student.EMBEDDED_STUDENT
        return student.read_card(folder).name, student.student_digest(folder)
    if config.model_engine.name == "endpoint":
        return config.model_engine.served_model or config.model.source, SERVED
    location = locate_model(config.model.source, revision=config.model.revision, subfolder=config.model.subfolder)
    return location.model_id, location.revision


def asked_config(config: ScoreConfig) -> ScoreConfig:
    """The settings with the words to ask, and the sampling that the folder brings.

    Raises UsageError for a model that cannot be asked, before anything is loaded.
    """
    if config.tier == "light":
        return config
    card = with_words(config.model)
    check_askable(card)
    check_readout(card, config.generation)
    check_engine(config.model_engine, card, config.generation)
    generation = config.generation
    if generation.folder_sampling:
        location = locate_model(card.source, revision=card.revision, subfolder=card.subfolder)
        generation = with_folder_sampling(generation, location)
    return config.model_copy(update={"model": card, "generation": generation})


def pinned_card(card: ModelCard, *, revision: str) -> ModelCard:
    """The card with the hub's commit in place of a branch; folders have none."""
    return (
        card
        if revision == SERVED or revision.startswith("blake2b:")
        else card.model_copy(update={"revision": revision})
    )


def settings_digest(
    config: ScoreConfig, *, model_id: str, model_revision: str, scale: Calibration | None = None
) -> str:
    """Digest of all settings that change a number.

    Views, prompt, model, generation; of a cascade's reasoner also the student and `scale`, by which its scores are put
    on the student's scale. Batch size, workers, limits and paths are not among them.
    """
    views = config.views.identity()
    if config.tier == "light":
        # Numbers of severity were scores once: those rows are none of now.
        told = student.read_card(config.student or student.EMBEDDED_STUDENT).scale
        kind = [told] if told == "severity" else []
        return digest(KEY_VERSION, views, config.clip_seconds, config.tier, [model_id, model_revision], *kind)
    model = config.model
    generation = config.generation.identity()
    card = model.model_dump(mode="json", include={"dtype", "attention", "min_pixels", "max_pixels"})
    is_told = config.views.count_repeats  # of separate pictures in other words
    count = 1 + (is_told and config.views.global_kind == "frames" and not model.layout.is_video)
    counts: PictureCounts = {"global_count": count, "local_count": 1, "repeats": 0 if is_told else None}
    chat = messages(model.prompt, model.layout, question=model.question, **counts)
    asked = [model.prompt, model.dimensions, chat]
    # Only what differs from what every model had before there were such settings, so that keys of then stay.
    unread = {"choices"} | (set() if config.generation.readout == "published" else {"published_reading"})
    form = model.answer.model_dump(mode="json", exclude=unread)
    more = [form] if form != AnswerForm().model_dump(mode="json", exclude=unread) else []
    if config.generation.describe:
        more.append({"description": model.description or DESCRIBE})
    if config.model_engine.name != "transformers":
        more.append({"model_engine": config.model_engine.name})
    elif config.model_engine.compile:
        more.append({"compile": True})
    if config.tier == "cascade":  # its scores are on the student's scale
        linked = scale.model_dump(mode="json", exclude={"created"}) if scale else None
        more.append({"student": identify(light_part(config)), "scale": linked})
    return digest(KEY_VERSION, views, generation, card, config.clip_seconds, asked, [model_id, model_revision], *more)
