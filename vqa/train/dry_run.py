"""Estimate of a recipe's steps, answers, memory and least time, for `--dry-run`.

Loads no weights, writes nothing, uses no network.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from vqa.prompt import PromptName
from vqa.rewards import REWARD_PRESETS
from vqa.rewards.presets import known
from vqa.train.clips.dataset import ListedClip, check_views, knows_damage, list_training_clips, split_clips
from vqa.train.gpus import GpuFleet
from vqa.train.grpo.build import check_settings, check_terms
from vqa.train.plan import StagePlan, fitting_recipe, plan_stages, refuse_excess
from vqa.train.recipe import ColdStart, GrpoStage, Recipe, RecipeStage, Warmup, recipe_views
from vqa.train.run_context import card_of, without_stand_ins
from vqa.train.shapes import shape_of

FORMULA = (
    "memory: weights, gradients and AdamW by hardware (16 bytes per trained parameter with float32 master weights, 4 "
    "or 2 per frozen one and per one of the KL's reference), over the number of GPUs where they are in shards; "
    "activations as transformers' Qwen2.5-VL keeps them (checked on small models on a CPU, not on a GPU). Of each GPU "
    "2 GB are left to CUDA and NCCL."
)


def estimate(recipe: Recipe, *, data: Sequence[Path | str] = (), fleet: GpuFleet | None = None) -> Iterator[str]:
    """Yield lines about the start, the data and each stage.

    Args:
        recipe: of `vqa.train.recipe.load_recipe`.
        data: in place of the recipe's, as for a run; folders may be missing.
        fleet: GPUs to plan for; None: one process, compared with nothing.

    Raises:
        UsageError: for what the run would refuse, among it a stage that does not fit the GPUs.
    """
    card, _ = card_of(recipe)
    places = tuple(map(str, data)) or recipe.data
    shape, origin = shape_of(recipe)
    yield f"start: {recipe.start or 'random weights'}, {shape.parameters / 1e6:,.1f} million parameters ({origin})"
    for place in dict.fromkeys([*places, *(one for stage in recipe.stages for one in stage.data)]):
        check_views(place, recipe_views(recipe))
        yield from _data(place)
    if not places:
        yield "data: none; give --data FOLDER"
    recipe, plans, clips = planned(recipe, data=places, fleet=fleet)
    asked = recipe.prompt or card.prompt
    settings = recipe.hardware.model_dump(exclude_none=True, exclude={"auto"})
    chosen = ", ".join(f"{name} {value}" for name, value in settings.items())
    yield f"hardware: {fleet.label if fleet else 'one process, no GPU named (--gpus 8xh100)'}; {chosen}"
    for number, plan in enumerate(plans, 1):
        stage = plan.stage
        train, held_out = clips[stage.name]
        pictures, tokens = plan.pictures
        yield f"stage {number}, {stage.name} ({stage.kind}), from {recipe.origin(stage) or 'random weights'}:"
        yield from (f"  {line}" for line in _work(recipe, stage, asked, train, held_out, fleet=fleet))
        yield f"  {pictures} pictures a prompt, {tokens:,} tokens; a forward pass: {plan.work.tokens:,} tokens"
        yield from (f"  {line}" for line in plan.table())
        yield from (f"  {line}" for line in _least_time(plan, shape.parameters))
    yield FORMULA
    refuse_excess(recipe, plans)


def planned(
    recipe: Recipe, *, data: Sequence[Path | str] = (), fleet: GpuFleet | None
) -> tuple[Recipe, list[StagePlan], dict[str, tuple[list[ListedClip], list[ListedClip]]]]:
    """Settle `hardware: auto` and plan each stage; loads no weights.

    Args:
        recipe: of `vqa.train.recipe.load_recipe`.
        data: in place of the recipe's.
        fleet: as of `estimate`.

    Returns:
        The recipe as it is to be run, a plan per stage, and each stage's clips, to learn from and held out.

    Raises:
        UsageError: for data that the run would refuse, and a model whose sizes are not known.
    """
    card, _ = card_of(recipe)
    places, asked = tuple(map(str, data)) or recipe.data, recipe.prompt or card.prompt
    clips = {stage.name: _clips(recipe, stage, stage.data or places, prompt=asked) for stage in recipe.stages}
    learned = {name: train for name, (train, _) in clips.items()}
    recipe = fitting_recipe(recipe, card, learned, fleet=fleet)
    return recipe, plan_stages(recipe, card, learned, fleet=fleet), clips


def _data(place: str) -> Iterator[str]:
    if not Path(place).exists():
        yield f"data {place}: not there yet"
        return
    counts = Counter((clip.dataset, clip.split) for clip in list_training_clips([place]))
    for dataset in sorted({dataset for dataset, _ in counts}):
        splits = ", ".join(f"{split} {count:,}" for (name, split), count in sorted(counts.items()) if name == dataset)
        yield f"data {place}: {dataset}: {splits} clips"


def _clips(
    recipe: Recipe, stage: RecipeStage, places: Sequence[str], *, prompt: PromptName
) -> tuple[list[ListedClip], list[ListedClip]]:
    there = [place for place in places if Path(place).exists()]
    if not there or len(there) < len(places):
        return [], []
    clips = without_stand_ins(recipe, stage, list_training_clips(there, datasets=stage.datasets), prompt=prompt)
    return split_clips(clips, held_out=recipe.validation_clips, seed=recipe.seed)


def _work(
    recipe: Recipe,
    stage: RecipeStage,
    asked: PromptName,
    train: Sequence[ListedClip],
    held_out: Sequence[ListedClip],
    *,
    fleet: GpuFleet | None,
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
        settings = stage.settings(asked, recipe.seed)
        known(settings.reward)
        check_settings(settings.model_copy(update={"vllm_mode": None}), [], processes=fleet.count if fleet else 1)
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


def _least_time(plan: StagePlan, parameters: int) -> Iterator[str]:
    """Least seconds of a GRPO step by the vendor's figures; none was measured."""
    stage, fleet, work = plan.stage, plan.fleet, plan.work
    if fleet is None or not isinstance(stage, GrpoStage):
        return
    gpu, passes = fleet.gpu, work.passes
    # Each pass: 2 operations per parameter and token forward, 4 backward, 2 more where it is computed again
    # (Kaplan et al., arXiv 2001.08361, section 2.1), and 2 of the reference.
    operations = (6 + 2 * work.recompute + 2 * (stage.beta > 0)) * parameters * work.tokens * passes
    update = operations / (gpu.bfloat16_teraflops * 1e12)
    line = f"at least {update:.1f} s a step for {operations / 1e12:,.0f} x 10^12 operations"
    if work.rollout_rows:  # each token of the answers reads all weights
        rounds = math.ceil(work.answers * passes * stage.num_mini_batches / work.rollout_rows)
        read = 2 * parameters * stage.max_completion_length * rounds
        reading = read / (gpu.bandwidth_gb_per_second * 1e9)
        line += f", and {reading:.1f} s of reading weights while {stage.max_completion_length} tokens are written"
    yield f"{line} (the vendor's figures; not measured)"
