"""Run of a recipe: its stages in order, and what a stopped run resumes from.

    OUT/log.jsonl            a line of metrics now and then
    OUT/STAGE/stage.json     the stage's settings, and whether it is finished
    OUT/STAGE/checkpoint-*   the last two; of a warm-up warmup.pt
    OUT/STAGE/model          the model after the stage, in float32
    OUT/model                the model after the last stage, for scoring

Every process of a launch runs this; the main process writes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import PrinterCallback, ProcessorMixin

from vqa import machine
from vqa.errors import UsageError
from vqa.model.card import settle
from vqa.prompt import PROMPTS, PromptName
from vqa.train.checkpoints import (
    export_model,
    load_for_generation,
    load_for_training,
    save_model,
    without_rename_warnings,
)
from vqa.train.clips.dataset import (
    ListedClip,
    answer_writer,
    digest_of,
    knows_damage,
    view_of,
)
from vqa.train.context import nobody_else
from vqa.train.generate import generate_reasons, texts_by_clip
from vqa.train.grpo.build import check_terms, make_trainer
from vqa.train.grpo.perturbations import second_pass
from vqa.train.guarded import resume_from
from vqa.train.hardware import WHOLE
from vqa.train.lessons import examples_of, lessons_of
from vqa.train.metrics_log import LogCallback, MetricsLog
from vqa.train.recipe import ColdStart, GrpoStage, Recipe, RecipeStage, Warmup, Write
from vqa.train.run_context import RunContext
from vqa.train.scratch.crops import cut_crops
from vqa.train.scratch.model import make_model, make_processor, make_tokenizer
from vqa.train.scratch.warmup import warm_up
from vqa.train.sft.trainer import cold_start
from vqa.train.stage_record import begin_stage, finish_stage, stage_key
from vqa.train.types import Model
from vqa.train.validation import validate

hf: Any = transformers  # its types do not hold what it does


def run_recipe(
    recipe: Recipe,
    *,
    out: Path,
    data: Sequence[Path | str] = (),
    until: str | None = None,
    before_write: Callable[[], None] = nobody_else,
) -> Path:
    """Run the stages of a recipe that are not finished.

    The same call again resumes where it was stopped and runs no finished stage twice. Clips of a `test` split are not
    used.

    Args:
        recipe: of `vqa.train.recipe.load_recipe`.
        out: folder for checkpoints, log and models.
        data: ladders, folders of `vqa prepare` and manifests, in place of the recipe's.
        until: name of the last stage to run.
        before_write: as of StageContext; the main process calls it.

    Returns:
        OUT/model, or `out` where no stage that trains has run.

    Raises:
        UsageError: for data and settings that cannot teach, and for a stage in `out` that has other settings.
        ModelError: where training fails.
    """
    if (threads := recipe.threads or machine.cores()) < torch.get_num_threads() or recipe.threads:
        torch.set_num_threads(threads)
    names = [stage.name for stage in recipe.stages]
    if until is not None and until not in names:
        raise UsageError(f"--until {until}: no stage of that name. There are {', '.join(names)}.")
    hf.utils.logging.disable_progress_bar()
    run = RunContext.of(recipe, out=out, data=data)
    run.before_write = before_write
    planned = recipe.stages[: names.index(until) + 1] if until else recipe.stages
    clips = {stage.name: run.clips(stage) for stage in planned}
    for stage in planned:  # all of them before the first, which may take days
        if isinstance(stage, GrpoStage):
            _check_reward(run, stage, clips[stage.name][0])
    keys: dict[str, str] = {}
    last, prompt, is_new = "", run.prompt, not (out / "model").exists()
    for stage in planned:
        train, held_out = clips[stage.name]
        settings = _stage_settings(run, stage, train, held_out, keys)
        keys[stage.name] = stage_key(settings)
        folder = out / stage.name
        with run.processes.main_process_first():
            is_finished = begin_stage(folder, settings)
        if not is_finished:
            is_new = True
            _run_stage(run, stage, train, held_out, folder)
            run.processes.wait_for_everyone()
            if run.processes.is_main_process:
                before_write()
                finish_stage(folder, settings)
        last = last if isinstance(stage, Write) else stage.name
        prompt = run.prompt_of(stage) if isinstance(stage, ColdStart | GrpoStage) else prompt
    if not last:
        return out
    if is_new and run.processes.is_main_process:
        before_write()
        card = run.card.model_copy(update={"prompt": prompt})
        export_model(out / last / "model", out / "model", dtype=getattr(torch, recipe.export), card=card)
    run.processes.wait_for_everyone()
    return out / "model"


def _check_reward(run: RunContext, stage: GrpoStage, train: Sequence[ListedClip]) -> None:
    """Raise UsageError for a term of the reward that these clips leave silent."""
    settings = stage.settings(run.prompt, run.recipe.seed)
    stills = []
    if second_pass(settings) == "temporal" and "temporal" not in settings.allow_silent:
        firsts = {clip.dataset: clip for clip in reversed(train)}
        stills = sorted(name for name, clip in firsts.items() if len(view_of(clip, run.views).keyframe_seconds) < 2)
    check_terms(settings, has_damage=any(knows_damage(clip) for clip in train), stills=stills)


def _stage_settings(
    run: RunContext,
    stage: RecipeStage,
    train: Sequence[ListedClip],
    held_out: Sequence[ListedClip],
    keys: dict[str, str],
) -> dict[str, object]:
    """All settings that the stage's weights depend on."""
    recipe, origin = run.recipe, run.recipe.origin(stage)
    own = {"model", "seed", "precision", "views_per_clip", "stand_in_opinions"}
    shared = recipe.model_dump(mode="json", include=own)
    texts = () if isinstance(stage, Warmup) else stage.texts
    return (
        shared
        | stage.model_dump(mode="json", exclude={"dataloader_num_workers", "data", "start"}, exclude_none=True)
        | ({"hardware": recipe.hardware.taught} if recipe.hardware.taught else {})
        | {
            "card": run.card.model_dump(mode="json", include={"min_pixels", "max_pixels", "views"}),
            "asked": run.prompt,
            "readout": run.readout,
            "from": keys.get(str(origin), origin),
            "texts": [keys.get(name, name) for name in texts],
            "clips": f"{len(train)} clips ({digest_of(train)})",
            "held_out": f"{len(held_out)} clips ({digest_of(held_out)})",
        }
    )


@without_rename_warnings()
def _run_stage(
    run: RunContext, stage: RecipeStage, train: list[ListedClip], held_out: list[ListedClip], folder: Path
) -> None:
    log = MetricsLog(run.out / "log.jsonl", stage.name)
    views_per_clip = run.recipe.views_per_clip if isinstance(stage, ColdStart) else 1
    learned = [] if isinstance(stage, Warmup) else run.load(train, views_per_clip=views_per_clip)
    model, processor = _start(run, stage, train)
    if isinstance(stage, Warmup) or (isinstance(stage, ColdStart) and stage.cache_features):
        model.to(run.processes.device)  # no trainer has placed it yet
    if isinstance(stage, Warmup):
        _warm_up(run, stage, model, processor, train, held_out, folder, log)
        save_model(model, processor, folder / "model", processes=run.processes, before_write=run.before_write)
        return
    context = run.stage_context(stage, folder, log)
    if isinstance(stage, Write):
        generate_reasons(model, processor, learned, run.text_files(stage), stage=stage, context=context)
        return
    kept = run.load(held_out)
    if isinstance(stage, ColdStart):
        lessons = lessons_of(
            stage, learned, texts=run.text_files(stage), prompt=context.prompt, views=run.views, seed=context.seed
        )
        trained = cold_start(model, processor, lessons, kept, settings=stage, context=context)
    else:
        evaluate = partial(
            validate,
            processor=processor,
            clips=kept,
            prompt=context.prompt,
            readout=run.readout,
            max_new_tokens=stage.max_completion_length,
        )
        trained = make_trainer(
            stage.settings(context.prompt, context.seed),
            model.requires_grad_(True).train(),
            processor,
            examples_of(stage, learned, captions=texts_by_clip(run.text_files(stage))),
            folder=folder,
            processes=run.processes.num_processes,
            evaluate=evaluate if kept else None,
            arguments={
                "bf16": run.precision == torch.bfloat16 and run.recipe.hardware.master_weights,
                "use_cpu": not torch.cuda.is_available(),
                "save_total_limit": 2,
                "disable_tqdm": True,
            },
            hardware=run.recipe.hardware,
        )
        trained.before_write = run.before_write
        trained.remove_callback(PrinterCallback)
        trained.add_callback(LogCallback(log))
        trained.train(resume_from_checkpoint=resume_from(folder))
    save_model(trained, processor, folder / "model", processes=run.processes, before_write=run.before_write)


def _start(run: RunContext, stage: RecipeStage, train: Sequence[ListedClip]) -> tuple[Model, ProcessorMixin]:
    recipe, card, origin = run.recipe, run.card, run.recipe.origin(stage)
    if origin is not None:
        earlier = {one.name for one in recipe.stages}
        source = str(run.out / origin / "model") if origin in earlier else settle(origin, {})[0].source
        card = card.model_copy(update={"source": source})
        if isinstance(stage, Write):
            return load_for_generation(card, threads=recipe.threads, processes=run.processes)
        hardware = WHOLE if isinstance(stage, ColdStart) and stage.cache_features else recipe.hardware
        dtype = "float32" if recipe.hardware.master_weights else recipe.precision
        return load_for_training(card, threads=recipe.threads, dtype=dtype, hardware=hardware)
    if recipe.model is None or card.min_pixels is None or card.max_pixels is None:
        raise UsageError(
            f"card {recipe.card_name}: no min_pixels and max_pixels, which a model made from sizes needs. Add them"
        )
    tokenizer = make_tokenizer(_texts(train, run.prompt), vocabulary=recipe.model.vocabulary)
    processor = make_processor(tokenizer, min_pixels=card.min_pixels, max_pixels=card.max_pixels)
    return make_model(tokenizer, **recipe.model.model_dump(exclude={"vocabulary"}), seed=recipe.seed), processor


def _texts(train: Sequence[ListedClip], prompt: PromptName) -> list[str]:
    """Texts to train the tokenizer on: answers as they will be, and all questions."""
    generator = np.random.default_rng(0)
    questions = [one.question for one in PROMPTS.values()]
    labels = ["Global multiframe picture:", "Local single frame picture 1:", "Picture 2:"]
    writers = [answer_writer(clip) for clip in train]
    said = [write(generator, prompt) for write in writers if write is not None]
    return said + (questions + labels) * (len(said) // 4 + 1)


def _warm_up(
    run: RunContext,
    stage: Warmup,
    model: Model,
    processor: ProcessorMixin,
    train: list[ListedClip],
    held_out: list[ListedClip],
    folder: Path,
    log: MetricsLog,
) -> None:
    recipe = run.recipe
    if run.processes.num_processes > 1:
        raise UsageError(
            f"stage {stage.name}: a warm-up runs in one process, not {run.processes.num_processes}. "
            "Run it first, by `vqa train --until`."
        )
    if not held_out:
        raise UsageError(f"stage {stage.name}: no held-out clips. Set validation_clips.")
    if odd := {clip.place for clip in train + held_out if not clip.is_of_ladder}:
        raise UsageError(f"stage {stage.name}: a warm-up needs ladders (vqa data synth), not {', '.join(sorted(odd))}")
    seed = recipe.seed + recipe.stages.index(stage)  # a second warm-up sees other crops, in another order
    with run.processes.main_process_first():
        crops = [
            cut_crops(
                some,
                path=folder / f"crops-{name}.npy",
                frames=stage.frames,
                crops_per_frame=stage.crops,
                seed=seed,
                threads=recipe.threads or 1,
            )
            for name, some in (("train", train), ("validation", held_out))
        ]
    warm_up(model, processor, *crops, settings=stage, seed=seed, context=run.stage_context(stage, folder, log))
