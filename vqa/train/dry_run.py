"""Estimate of a recipe's steps, answers and memory, for `vqa train FILE --dry-run`.

Loads no weights, writes nothing, uses no network.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from vqa.errors import UsageError
from vqa.model.card import ModelCard, settle
from vqa.model.resolve import EMBEDDED
from vqa.prompt import PROMPTS, PromptName
from vqa.rewards import REWARD_PRESETS
from vqa.rewards.presets import known
from vqa.train.clips.dataset import ListedClip, check_views, knows_damage, list_clips, split_clips
from vqa.train.grpo.build import check, check_terms
from vqa.train.modules import tower_of
from vqa.train.recipe import ColdStart, GrpoStage, Recipe, Stage, Warmup, recipe_views
from vqa.train.runner import card_of, without_stand_ins
from vqa.train.scratch.model import make_model, make_tokenizer
from vqa.train.types import Model
from vqa.views import ViewsConfig

hf: Any = transformers
PIXELS_PER_TOKEN = 28 * 28  # Qwen2.5-VL merges 2x2 patches of 14 pixels
LORA_LAYERS = 7  # linear layers per block of the text model
GB = 1e9
FORMULA = (
    "memory: 16 bytes per trained float32 parameter (weight 4, gradient 4, AdamW 8), 4 per frozen one, 4 more with a "
    "running mean, 4 per parameter of the KL's reference; activations 34 x tokens x width x layers x bytes / 2 "
    "(arXiv 2205.05198, without attention; with gradient_checkpointing 2 in place of 34, and one layer in full). FSDP "
    "and ZeRO-3 divide the first part by the number of processes. Not counted: all weights once more on each of them "
    "while answers are generated, in the precision of matrix products; the allocator; the tower's activations."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCount:
    """Parameters of a model; None where they are not known."""

    total: float | None
    tower: float | None = None
    width: int | None = None  # of the text model
    layers: int | None = None
    origin: str


def estimate(recipe: Recipe, *, data: Sequence[Path | str] = ()) -> Iterator[str]:
    """Yield lines about the start, the data and each stage.

    Args:
        recipe: of `vqa.train.recipe.load_recipe`.
        data: in place of the recipe's, as for a run; folders may be missing.

    Raises:
        UsageError: for what the run would refuse.
    """
    card, _ = card_of(recipe)
    places = tuple(map(str, data)) or recipe.data
    counted = _count(recipe)
    size = f"about {counted.total / 1e6:,.1f} million parameters" if counted.total else "parameters not known"
    yield f"start: {recipe.start or 'random weights'}, {size} ({counted.origin})"
    for place in dict.fromkeys([*places, *(one for stage in recipe.stages for one in stage.data)]):
        check_views(place, recipe_views(recipe))
        yield from _data(place)
    if not places:
        yield "data: none; give --data FOLDER"
    for number, stage in enumerate(recipe.stages, 1):
        train, held_out = _clips(recipe, stage, stage.data or places, prompt=recipe.prompt or card.prompt)
        yield f"stage {number}, {stage.name} ({stage.kind}), from {recipe.origin(stage) or 'random weights'}:"
        yield from (f"  {line}" for line in _work(recipe, stage, card, train, held_out))
        yield f"  memory per process: {_memory(recipe, stage, card, counted)}"
    yield FORMULA


def _data(place: str) -> Iterator[str]:
    if not Path(place).exists():
        yield f"data {place}: not there yet"
        return
    counts = Counter((clip.dataset, clip.split) for clip in list_clips([place]))
    for dataset in sorted({dataset for dataset, _ in counts}):
        splits = ", ".join(f"{split} {count:,}" for (name, split), count in sorted(counts.items()) if name == dataset)
        yield f"data {place}: {dataset}: {splits} clips"


def _clips(
    recipe: Recipe, stage: Stage, places: Sequence[str], *, prompt: PromptName
) -> tuple[list[ListedClip], list[ListedClip]]:
    there = [place for place in places if Path(place).exists()]
    if not there or len(there) < len(places):
        return [], []
    clips = without_stand_ins(recipe, stage, list_clips(there, datasets=stage.datasets), prompt=prompt)
    return split_clips(clips, held_out=recipe.validation_clips, seed=recipe.seed)


def _work(
    recipe: Recipe, stage: Stage, card: ModelCard, train: Sequence[ListedClip], held_out: Sequence[ListedClip]
) -> Iterator[str]:
    if train:
        yield f"{len(train):,} clips to learn from, {len(held_out):,} held out"
    if isinstance(stage, Warmup):
        crops = stage.max_steps * stage.per_device_train_batch_size
        yield f"{stage.max_steps:,} steps x {stage.per_device_train_batch_size} crops = {crops:,} crops"
    elif isinstance(stage, ColdStart):
        clips = len(train) * recipe.views_per_clip
        size = stage.global_batch_size
        steps = stage.max_steps or (math.ceil((stage.num_train_epochs or 0) * clips / size) if clips else None)
        length = f"{steps:,} steps" if steps else f"{stage.num_train_epochs:g} epochs of clips that are not there yet"
        yield f"{length} x {size} answers" + (f" = {steps * size:,} answers" if steps else "")
    elif isinstance(stage, GrpoStage):
        settings = stage.settings(recipe.prompt or card.prompt, recipe.seed)
        known(settings.reward)
        check(settings.model_copy(update={"vllm_mode": None}), [])
        check_terms(settings, has_damage=not train or any(knows_damage(clip) for clip in train))
        seen = stage.max_steps * stage.clips_per_step // (stage.num_iterations * stage.num_mini_batches)
        answers = seen * stage.num_generations
        yield f"reward {stage.reward}: {', '.join(REWARD_PRESETS[stage.reward].weights)}"
        yield (
            f"{stage.max_steps:,} steps x {stage.clips_per_step} clips x {stage.num_generations} answers = "
            f"{answers:,} answers, at most {answers * stage.max_completion_length:,} tokens"
        )
        if train:
            yield f"{seen / len(train):.1f} epochs of the clips"
    else:
        count = f"{len(train):,}" if train else "the"
        yield f"{stage.num_return_sequences} answers per clip for {count} clips, of which one is kept"


def _memory(recipe: Recipe, stage: Stage, card: ModelCard, counted: ParameterCount) -> str:
    if counted.total is None:
        return "not known without the model's config"
    total, tower = counted.total, counted.tower or 0.0
    trained, extra = total, 0.0
    if isinstance(stage, Warmup):
        trained = tower
    elif isinstance(stage, ColdStart):
        trained = tower if stage.text == "freeze" else total - tower * (stage.vision_learning_rate == 0)
        if recipe.hardware.lora:
            trained = LORA_LAYERS * 2 * recipe.hardware.lora.r * (counted.width or 0) * (counted.layers or 0)
            total += trained
        extra = 4 * trained * (stage.ema_decay > 0)
    elif isinstance(stage, GrpoStage):
        trained = total - tower * (stage.vision_learning_rate == 0)
        extra = 4 * total * (stage.beta > 0)
    else:
        trained = 0.0
    state = 16 * trained + 4 * (total - trained) + extra
    parts = f"weights {4 * total / GB:.3g} + gradients {4 * trained / GB:.3g} + optimizer {8 * trained / GB:.3g} GB" + (
        f" + {'reference' if isinstance(stage, GrpoStage) else 'mean'} {extra / GB:.3g} GB" if extra else ""
    )
    if counted.width is None or counted.layers is None or isinstance(stage, Warmup):
        return f"{parts} = {state / GB:.3g} GB, without activations"
    tokens, recompute = _tokens(recipe, stage, card)
    one = tokens * counted.width * (2 if recipe.precision == "float32" else 1)
    active = one * (2 * counted.layers + 34 if recompute else 34 * counted.layers)
    return f"{parts} + activations {active / GB:.3g} GB for {tokens:,} tokens = {(state + active) / GB:.3g} GB"


def _tokens(recipe: Recipe, stage: Stage, card: ModelCard) -> tuple[int, bool]:
    """Tokens of one forward pass of a process, and whether activations are recomputed."""
    prompt = stage.prompt if not isinstance(stage, Warmup) else None
    asked = _picture_tokens(ViewsConfig(**card.views), card)
    asked += len(PROMPTS[prompt or recipe.prompt or card.prompt].question) // 4
    if isinstance(stage, GrpoStage):
        rows = min(stage.per_device_train_batch_size, stage.clips_per_step * stage.num_generations)
        prompts = math.ceil(rows / stage.num_generations) if stage.shared_prefill else rows
        return prompts * asked + rows * stage.max_completion_length, stage.gradient_checkpointing
    if isinstance(stage, ColdStart):
        rows = stage.per_device_train_batch_size or stage.global_batch_size
        return rows * (asked + stage.max_new_tokens), stage.gradient_checkpointing
    return asked + (0 if isinstance(stage, Warmup) else stage.num_return_sequences * stage.max_new_tokens), True


def _picture_tokens(views: ViewsConfig, card: ModelCard) -> int:
    """Tokens of the pictures of a 16:9 clip, within the card's areas."""
    whole = views.global_pixels**2 * 9 // 16
    areas = [whole] * (1 if views.global_kind == "mosaic" else views.keyframes)
    areas += [views.crop_pixels**2] * views.local_pictures
    least, most = card.min_pixels or 0, card.max_pixels or 2**40
    return sum(min(max(area, least), most) // PIXELS_PER_TOKEN for area in areas)


def _count(recipe: Recipe) -> ParameterCount:
    if recipe.model is not None:
        tokenizer = make_tokenizer([prompt.question for prompt in PROMPTS.values()], vocabulary=300)
        model = make_model(tokenizer, **recipe.model.model_dump(exclude={"vocabulary"}), seed=0)
        more = max(0, recipe.model.vocabulary - 300) * recipe.model.text_width
        return _counted(model, "made from sizes", more=more)
    source = settle(str(recipe.start), {})[0].source
    place = str(EMBEDDED) if source == "embedded" else source
    try:
        config = hf.AutoConfig.from_pretrained(place, local_files_only=True)
        with torch.device("meta"):
            return _counted(hf.AutoModelForImageTextToText.from_config(config), "by its config")
    except (
        OSError,
        ValueError,
    ) as error:  # how transformers reports a model that is not on this machine, or not such a model
        if Path(place).is_dir():
            raise UsageError(
                f"start {source}: no config.json in it of a model that takes pictures and writes text. Give the folder "
                "that save_pretrained wrote."
            ) from error
    without = f"the config of {source} is not on this machine"
    if recipe.parameters is not None:
        return ParameterCount(total=recipe.parameters, origin=f"by the recipe; {without}")
    named = re.search(r"(?<![0-9.])(\d+(?:\.\d+)?)b(?![a-z])", source.lower())
    if named:
        return ParameterCount(total=float(named[1]) * 1e9, origin=f"by its name; {without}")
    return ParameterCount(total=None, origin=without)


def _counted(model: Model, origin: str, *, more: int = 0) -> ParameterCount:
    text = model.config.get_text_config()
    return ParameterCount(
        total=sum(one.numel() for one in model.parameters()) + more,
        tower=sum(one.numel() for one in tower_of(model).parameters()),
        width=text.hidden_size,
        layers=text.num_hidden_layers,
        origin=origin,
    )
