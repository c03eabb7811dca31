"""Recipes: the schema of configs/train/*.yaml, and how a file is read.

A recipe is a list of stages, each of one kind: warmup, coldstart, write or grpo. Imports no torch, so that a wrong key
is refused at once.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from vqa.config import Strict, Values, build, merge_values, override, read_yaml, refuse_renamed
from vqa.errors import UsageError
from vqa.model.card import settle
from vqa.prompt import PromptName
from vqa.train.grpo.config import OBJECTIVES, GrpoSettings
from vqa.train.hardware import HardwareConfig
from vqa.views import ViewsConfig

STAGE_FILE = "stage.json"  # in the folder of each stage of a run

# By schema: the keys of recipes before 0.1.0, and what they are called now.
_SHARED = {"steps": "'max_steps'", "rate": "'learning_rate'"}
_MODEL = {"vision_rate": "'vision_learning_rate'", "rows": "'per_device_train_batch_size'"}
_MODEL |= {"recompute": "'gradient_checkpointing'"}
RENAMED = {
    "Warmup": _SHARED | {"batch": "'per_device_train_batch_size'"},
    "ColdStart": _SHARED
    | _MODEL
    | {
        "epochs": "'num_train_epochs'",
        "batch": "'global_batch_size'",
        "average": "'ema_decay'",
        "every": "'save_steps' and 'eval_steps'",
        "keep_features": "'cache_features'",
        "rare": "'rare_oversampling'",
        "workers": "'dataloader_num_workers'",
        "lora": "hardware: {lora: ...}, of the recipe",
    },
    "GrpoStage": _SHARED
    | _MODEL
    | {
        "stage": "'reward_stage'",
        "mode": "'reward_mode'",
        "clips": "'clips_per_step'",
        "k": "'num_generations'",
        "iterations": "'num_iterations'",
        "max_new_tokens": "'max_completion_length'",
        "entropy_share": "'top_entropy_quantile'",
        "save_every": "'save_steps'",
        "judge_every": "'eval_steps'",
        "first_look": "'check_first_batch'",
        "vllm": "'vllm_mode'",
        "vllm_server": "'vllm_server_base_url'",
        "vllm_memory": "'vllm_gpu_memory_utilization'",
        "uncertainty_weight": "objectives: [{kind: uncertainty_weight}]",
        "spread_filter": "objectives: [{kind: spread_filter}]",
        "without_blame": "objectives: [{kind: zero_negative_advantages}]",
        "perception_gamma": "objectives: [{kind: perception_kl, weight: ...}]",
        "perception_eta": "objectives: [{kind: sequence_entropy, weight: ...}]",
        "caption_lambda": "objectives: [{kind: caption_kl, weight: ...}]",
        "caption_tau": "objectives: [{kind: caption_kl, tau: ...}]",
    },
    "Write": {"k": "'num_return_sequences'", "within": "'max_error'"},
}


class Sizes(Strict):
    """Sizes of a model initialised at random."""

    vocabulary: int = Field(1024, ge=300, description="byte-level BPE tokens, without the special ones")
    vision_width: int = Field(192, ge=48, multiple_of=48, description="hidden size of the vision tower")
    vision_layers: int = Field(4, ge=1, description="blocks of the vision tower")
    text_width: int = Field(256, ge=64, multiple_of=64, description="hidden size of the text model")
    text_layers: int = Field(4, ge=1, description="blocks of the text model")


class Common(Strict):
    """Settings of every stage."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="of the stage and of its folder in --out")
    start: str | None = Field(
        None,
        description="model to start from: an earlier stage, `base` (the recipe's start), a card, a hub id or a folder; "
        "default: the stage before",
    )
    data: tuple[str, ...] = Field((), description="as the recipe's, for this stage alone")
    datasets: tuple[str, ...] = Field((), description="only the clips of these data sets; default: all")

    @model_validator(mode="before")
    @classmethod
    def _has_no_old_key(cls, values: object) -> object:
        return refuse_renamed(values, RENAMED.get(cls.__name__, {}))


class Warmup(Common):
    """Training of the vision tower alone to recognise damage; needs a ladder."""

    kind: Literal["warmup"]
    max_steps: int = Field(ge=1, description="updates of the weights")
    per_device_train_batch_size: int = Field(ge=1, description="crops per step; a warm-up runs in one process")
    learning_rate: float = Field(gt=0, description="peak, after a linear start; a half cosine follows")
    frames: int = Field(8, ge=1, description="per clip, that crops are cut from")
    crops: int = Field(6, ge=1, description="per frame")


class ColdStart(Common):
    """Supervised fine-tuning on reasoned answers: of ladders, clips or JSONL files."""

    kind: Literal["coldstart"]
    prompt: PromptName | None = Field(None, description="default: the recipe's")
    reasons: tuple[str, ...] = Field(
        (), description="JSONL files in the conversations or messages form, or earlier `write` stages"
    )
    max_steps: int | None = Field(None, ge=1, description="updates of the weights")
    num_train_epochs: float | None = Field(None, gt=0, description="in place of max_steps")
    global_batch_size: int = Field(ge=1, description="answers per step over all processes")
    per_device_train_batch_size: int | None = Field(
        None, ge=1, description="answers per forward pass of one process; default: its share of global_batch_size"
    )
    learning_rate: float = Field(gt=0, description="peak, after a linear start; a half cosine follows")
    vision_learning_rate: float | None = Field(
        None, ge=0, description="of the vision tower; 0 freezes it; default: learning_rate"
    )
    text: Literal["train", "freeze"] = Field("train", description="freeze: the vision tower alone is trained")
    answer_weight: float = Field(1.0, gt=0, description="weight of a token of <answer>; 1 for those before it")
    weight_decay: float = Field(0.05, ge=0, description="of AdamW")
    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="decay per step of the running mean of the weights; 0 for no mean"
    )
    save_steps: int = Field(100, ge=1, description="steps between two checkpoints")
    eval_steps: int = Field(100, ge=1, description="steps between two evaluations on the held-out clips")
    cache_features: bool = Field(
        False,
        description="keep the frozen tower's features of each clip in memory and permute its local pictures per draw",
    )
    feature_noise: float = Field(
        0.0, ge=0, description="cache_features: standard deviation of a shift per channel, as a share of its spread"
    )
    handed_channels: int = Field(
        0, ge=0, description="cache_features: first channels that feature_noise leaves alone: those a warm-up wrote"
    )
    rare_oversampling: float = Field(
        1.0, ge=1, description="cache_features: how much more often clips of rare damage are drawn, at most"
    )
    max_new_tokens: int = Field(512, ge=1, description="of an answer to a held-out clip")
    gradient_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass: less memory, more time"
    )
    dataloader_num_workers: int = Field(0, ge=0, description="processes that load and encode pictures ahead")

    @property
    def texts(self) -> tuple[str, ...]:
        """Files and earlier stages whose texts it takes."""
        return self.reasons

    @model_validator(mode="after")
    def _fit(self) -> "ColdStart":
        if (self.max_steps is None) == (self.num_train_epochs is None):
            raise ValueError("give one of max_steps and num_train_epochs")
        if self.cache_features and self.vision_learning_rate != 0:
            raise ValueError("cache_features needs a frozen tower; set vision_learning_rate: 0")
        if (self.feature_noise or self.rare_oversampling > 1) and not self.cache_features:
            raise ValueError("feature_noise and rare_oversampling need cache_features: true")
        if self.handed_channels and not self.feature_noise:
            raise ValueError("handed_channels are those that feature_noise leaves alone; set feature_noise too")
        if self.text == "freeze" and self.vision_learning_rate == 0:
            raise ValueError("text: freeze leaves nothing to train; set vision_learning_rate above 0")
        return self


class GrpoStage(Common, GrpoSettings):
    """Reinforcement learning by a reward preset; settings: vqa/train/grpo/config.py."""

    kind: Literal["grpo"]
    # Wider than the trainer's own: a recipe's stage may leave both to the recipe, which fills them in.
    prompt: PromptName | None = Field(None, description="default: the recipe's")  # type: ignore[assignment]
    seed: int | None = Field(None, ge=0, lt=2**32, description="default: the recipe's")  # type: ignore[assignment]
    captions: str | None = Field(None, description="of each clip: an earlier `write` stage, or its reasons.jsonl")

    @property
    def texts(self) -> tuple[str, ...]:
        """The earlier stage or file whose texts it takes."""
        return (self.captions,) if self.captions else ()

    @model_validator(mode="after")
    def _fit(self) -> "GrpoStage":
        users = [one.kind for one in self.objectives if one.needs_captions]
        if bool(self.captions) != bool(users):
            kinds = ", ".join(kind for kind, one in OBJECTIVES.items() if one.needs_captions)
            raise ValueError(f"captions and objectives that need them ({kinds}) go together; give both or neither")
        return self

    def settings(self, prompt: PromptName, seed: int) -> GrpoSettings:
        """Trainer's settings, with the recipe's prompt and seed where the stage has none."""
        own = {"prompt": self.prompt or prompt, "seed": seed if self.seed is None else self.seed}
        return GrpoSettings(**{name: getattr(self, name) for name in GrpoSettings.model_fields} | own)


class Write(Common):
    """Rejection sampling of an answer per clip for a later stage; trains nothing."""

    kind: Literal["write"]
    prompt: PromptName | None = Field(None, description="default: the recipe's")
    question: str | None = Field(
        None, description="in place of the prompt's; {reason} is replaced by the clip's text of `rewrites`"
    )
    rewrites: tuple[str, ...] = Field((), description="earlier `write` stages whose texts this one rewrites")
    num_return_sequences: int = Field(1, ge=1, description="answers per clip; the one nearest to the opinion is kept")
    max_error: float | None = Field(None, gt=0, description="points from the opinion; answers further off are dropped")
    plain: bool = Field(False, description="keep texts as they are (captions); false: answers with numbers only")
    temperature: float = Field(1.0, gt=0, description="of sampling")
    max_new_tokens: int = Field(512, ge=1, description="of an answer")

    @property
    def texts(self) -> tuple[str, ...]:
        """Earlier stages whose texts it takes."""
        return self.rewrites

    @model_validator(mode="after")
    def _fit(self) -> "Write":
        if bool(self.rewrites) != ("{reason}" in (self.question or "")):
            raise ValueError("rewrites and a question with {reason} go together")
        return self


RecipeStage = Warmup | ColdStart | GrpoStage | Write
KINDS: dict[str, type[Common]] = {"warmup": Warmup, "coldstart": ColdStart, "grpo": GrpoStage, "write": Write}


class Recipe(Strict):
    """Schema of configs/train/*.yaml; training begins with `start` or a random model."""

    card: str | None = Field(
        None, description="model card with prompt, views and picture sizes; default: that of `start`"
    )
    start: str | None = Field(None, description="a card, a hub id or a folder")
    model: Sizes | None = Field(None, description="sizes of a random model, in place of `start`")
    prompt: PromptName | None = Field(None, description="default: the card's")
    views: Values = Field(
        default_factory=dict, description="what is shown of a clip, in keys of `vqa score`; others are the card's"
    )
    max_pixels: int | None = Field(None, ge=1, description="area of a picture; default: the card's")
    data: tuple[str, ...] = Field((), description="ladders, folders of `vqa prepare`, manifests; replaced by --data")
    stand_in_opinions: bool = Field(
        False,
        description="train on opinions of ladders, which are VMAF's, no person's; false: on damage alone",
    )
    views_per_clip: int = Field(1, ge=1, description="coldstart on a ladder: views per clip, with different crops")
    validation_clips: int = Field(150, ge=0, description="held-out clips for evaluation and choosing weights; 0: none")
    seed: int = Field(0, ge=0, lt=2**32, description="of all that is drawn")
    threads: int | None = Field(None, ge=1, description="of torch on the CPU; default: torch's")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of matrix products; weights are float32")
    export: Literal["float32", "bfloat16", "float16"] = Field("bfloat16", description="of the weights in OUT/model")
    hardware: HardwareConfig = Field(HardwareConfig(), description="how it fits the machine; see vqa/train/hardware.py")
    stages: tuple[RecipeStage, ...] = Field(min_length=1)

    @field_validator("stages")
    @classmethod
    def _fit_hardware(cls, stages: tuple[RecipeStage, ...], info: ValidationInfo) -> tuple[RecipeStage, ...]:
        hardware = info.data.get("hardware", HardwareConfig())  # absent where it is itself wrong
        return tuple(_on_hardware(stage, hardware) for stage in stages)

    @model_validator(mode="after")
    def _fit(self) -> "Recipe":
        if (self.model is None) == (self.start is None):
            raise ValueError("give one of start (a card, a hub id or a folder) and model (sizes)")
        if self.card is None and self.start is None:
            raise ValueError("a model made from sizes needs card: whose prompt and views it is made for")
        if not self.hardware.master_weights and self.precision == "float32":
            raise ValueError("hardware.master_weights: false changes nothing in float32; set precision: bfloat16 too")
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages need different names, these are {', '.join(names)}")
        for place, stage in enumerate(self.stages):
            earlier = {one.name: one.kind for one in self.stages[:place]}
            if not isinstance(stage, Warmup):
                wrong = [one for one in stage.texts if one in names and earlier.get(one) != "write"]
                if wrong:
                    raise ValueError(f"stage {stage.name}: {wrong[0]!r} is no earlier stage of kind write")
            if stage.start in names and earlier.get(str(stage.start), "write") == "write":
                raise ValueError(f"stage {stage.name}: start {stage.start!r} is no earlier stage that trains")
            if stage.kind == "warmup" and self.model is None:
                way = f"give its sizes under model, and start: {self.start} at the stage instead of above"
                raise ValueError(f"stage {stage.name}: a warm-up needs a model made from sizes; {way}")
        return self

    def origin(self, stage: RecipeStage) -> str | None:
        """Start of a stage: an earlier stage, a card, hub id or folder; None for `model`."""
        if stage.start is not None:
            return self.start if stage.start == "base" else stage.start
        before = [one.name for one in self.stages[: self.stages.index(stage)] if one.kind != "write"]
        return before[-1] if before else self.start

    @property
    def card_name(self) -> str:
        """Name of the card whose prompt and views count."""
        return self.card or str(self.start)


def _on_hardware(stage: RecipeStage, hardware: HardwareConfig) -> RecipeStage:
    """Stage with the hardware's frozen tower; ValueError where the two do not fit."""
    if not isinstance(stage, ColdStart | GrpoStage):
        return stage
    what, rate = f"stage {stage.name}", stage.vision_learning_rate
    if hardware.vision_tower == "frozen":
        if rate:
            raise ValueError(f"{what}: vision_learning_rate is {rate:g} and hardware.vision_tower frozen; change one")
        stage = stage.model_copy(update={"vision_learning_rate": 0.0})
    if isinstance(stage, GrpoStage):
        own = hardware.optimizer_bits == 8 or hardware.offload == "optimizer"
        if own and not stage.optim.startswith("adamw_torch"):
            raise ValueError(
                f"{what}: optim is {stage.optim}, and hardware.optimizer_bits: 8 and offload: optimizer are of AdamW; "
                "change one"
            )
        return stage
    if stage.text == "freeze" and (hardware.vision_tower == "frozen" or hardware.lora):
        raise ValueError(f"{what}: text: freeze needs hardware with vision_tower: train and no lora")
    if stage.ema_decay and hardware.is_sharded:
        raise ValueError(f"{what}: ema_decay is {stage.ema_decay:g}, which needs whole weights; set it to 0")
    return stage


def load_recipe(path: Path, assignments: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a YAML file.

    Args:
        path: the file.
        assignments: `key=value` or `stages.NAME.key=value`, which override it.

    Raises:
        UsageError: naming the file, the stage and the key, with the keys there are.
    """
    values = read_yaml(path)
    listed = values.get("stages")
    if not isinstance(listed, list) or not listed or not all(isinstance(stage, dict) for stage in listed):
        raise UsageError(f"{path}: no stages. Give a list of them, each with kind ({', '.join(KINDS)}) and name.")
    names = [stage.get("name") for stage in listed]
    if len({str(name) for name in names}) < len(names):
        raise UsageError(f"{path}: stages need different names, these are {', '.join(map(str, names))}. Rename some.")
    values = override(values | {"stages": {stage.get("name"): stage for stage in listed}}, assignments)
    stages = values["stages"]
    for name in stages if isinstance(stages, dict) else [stages]:
        if name not in names:
            raise UsageError(
                f"--set stages.{name}: no stage of that name in {path}. There are {', '.join(map(str, names))}."
            )
    made = [_stage(name, stage, str(path)) for name, stage in stages.items()]
    return build(Recipe, values | {"stages": made}, where=str(path))


def recipe_views(recipe: Recipe) -> ViewsConfig:
    """Views of a recipe, its own over its card's; UsageError for a wrong setting."""
    card, _ = settle(recipe.card_name, {})
    return build(ViewsConfig, merge_values(card.views, recipe.views), where="the recipe, views")


def _stage(name: object, values: object, path: str) -> Common:
    fields = values if isinstance(values, Mapping) else {}
    kind = fields.get("kind")
    if kind not in KINDS:
        raise UsageError(f"{path}: stage {name!r}: kind is {kind!r}. There are {', '.join(KINDS)}.")
    return build(KINDS[kind], fields, where=f"{path}: stage {name!r}")
