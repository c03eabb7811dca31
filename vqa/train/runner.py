"""A recipe's stages one after the other, each from where its `start` ended. A stopped run goes on in the middle of one.

Every process of a launch runs this; the first one notes what is finished.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import PrinterCallback

from vqa.errors import UsageError
from vqa.model.card import settle
from vqa.prompt import PROMPTS, PromptName, dimensions
from vqa.train.checkpoints import (
    export_model,
    last_checkpoint,
    load_for_generation,
    load_for_training,
    save_model,
    without_rename_warnings,
)
from vqa.train.clips.conversations import read_conversations
from vqa.train.clips.dataset import ListedClip, TrainingClip, answer_writer, damage_clips, digest_of
from vqa.train.finished import begin, finish, key_of
from vqa.train.generate import generate_reasons, texts_by_clip
from vqa.train.grpo.build import make_trainer
from vqa.train.grpo.dataset import Example
from vqa.train.metrics_log import LogCallback, MetricsLog
from vqa.train.recipe_stages import ColdStart, Recipe, Reinforce, Stage, Warmup, Write
from vqa.train.scratch.crops import cut_crops
from vqa.train.scratch.model import make_model, make_processor, make_tokenizer
from vqa.train.scratch.warmup import warm_up
from vqa.train.sft.trainer import cold_start
from vqa.train.shared import Run, make_run
from vqa.train.validation import validate

hf: Any = transformers  # its types do not hold what it does


def run_stages(recipe: Recipe, *, out: Path, data: Sequence[Path | str] = (), until: str | None = None) -> Path:
    """All stages of the recipe, or those `until` one; returns OUT/model.

    The same command again goes on where it was stopped, runs no finished stage twice, and refuses settings that differ
    from those of a stage that was begun.
    Clips of a `test` split are not touched. Raises UsageError for data and settings that cannot teach, ModelError where
    the training itself fails.
    """
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    names = [stage.name for stage in recipe.stages]
    if until is not None and until not in names:
        raise UsageError(f"--until {until}: no stage of that name; there are {', '.join(names)}")
    hf.utils.logging.disable_progress_bar()
    run = make_run(recipe, out=out, data=data)
    keys: dict[str, str] = {}
    last, prompt, is_new = "", run.prompt, not (out / "model").exists()
    for stage in recipe.stages:
        train, held_out = run.clips(stage)
        settings = _settings(run, stage, train, held_out, keys)
        keys[stage.name] = key_of(settings)
        folder = out / stage.name
        with run.processes.main_process_first():
            is_finished = begin(folder, settings)
        if not is_finished:
            is_new = True
            _run_stage(run, stage, train, held_out, folder)
            run.processes.wait_for_everyone()
            if run.processes.is_main_process:
                finish(folder, settings)
        last = last if isinstance(stage, Write) else stage.name
        prompt = run.asked(stage) if isinstance(stage, ColdStart | Reinforce) else prompt
        if stage.name == until:
            break
    if not last:
        return out
    if is_new and run.processes.is_main_process:
        card = run.card.model_copy(update={"prompt": prompt})
        export_model(out / last / "model", out / "model", dtype=getattr(torch, recipe.export), card=card)
    run.processes.wait_for_everyone()
    return out / "model"


def _settings(
    run: Run, stage: Stage, train: Sequence[ListedClip], held_out: Sequence[ListedClip], keys: dict[str, str]
) -> dict[str, Any]:
    """All that the stage's weights hang on."""
    recipe, origin = run.recipe, run.recipe.origin(stage)
    shared = recipe.model_dump(mode="json", include={"model", "seed", "precision", "views_per_clip"})
    texts = () if isinstance(stage, Warmup) else stage.texts
    return (
        shared
        | stage.model_dump(mode="json", exclude={"dataloader_num_workers", "data", "start"}, exclude_none=True)
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
def _run_stage(run: Run, stage: Stage, train: list[ListedClip], held_out: list[ListedClip], folder: Path) -> None:
    log = MetricsLog(run.out / "log.jsonl", stage.name)
    views_per_clip = run.recipe.views_per_clip if isinstance(stage, ColdStart) else 1
    learned = [] if isinstance(stage, Warmup) else run.samples(train, views_per_clip=views_per_clip)
    model, processor = _start(run, stage, train)
    if isinstance(stage, Warmup) or (isinstance(stage, ColdStart) and stage.cache_features):
        model.to(run.processes.device)  # no trainer has placed it yet
    if isinstance(stage, Warmup):
        _warm_up(run, stage, model, processor, train, held_out, folder, log)
        save_model(model, processor, folder / "model", processes=run.processes)
        return
    context = run.context(stage, folder, log)
    if isinstance(stage, Write):
        generate_reasons(model, processor, learned, run.texts(stage), stage=stage, context=context)
        return
    kept = run.samples(held_out)
    if isinstance(stage, ColdStart):
        lessons = _lessons(run, stage, learned)
        trained = cold_start(model, processor, lessons, kept, settings=stage, context=context)
    else:
        judge = partial(
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
            _examples(run, stage, learned),
            folder=folder,
            processes=run.processes.num_processes,
            judge=judge if kept else None,
            bf16=run.precision == torch.bfloat16,
            use_cpu=not torch.cuda.is_available(),
            save_total_limit=2,
            disable_tqdm=True,
        )
        trained.remove_callback(PrinterCallback)
        trained.add_callback(LogCallback(log))
        saved = last_checkpoint(folder)
        trained.train(resume_from_checkpoint=str(saved) if saved else None)
    save_model(trained, processor, folder / "model", processes=run.processes)


def _start(run: Run, stage: Stage, train: Sequence[ListedClip]) -> tuple[Any, Any]:
    recipe, card, origin = run.recipe, run.card, run.recipe.origin(stage)
    if origin is not None:
        earlier = {one.name for one in recipe.stages}
        source = str(run.out / origin / "model") if origin in earlier else settle(origin, {})[0].source
        card = card.model_copy(update={"source": source})
        if isinstance(stage, Write):
            return load_for_generation(card, threads=recipe.threads, processes=run.processes)
        return load_for_training(card, threads=recipe.threads)
    if recipe.model is None or card.min_pixels is None or card.max_pixels is None:
        raise UsageError(f"card {recipe.whose}: a model made from nothing needs min_pixels and max_pixels there")
    tokenizer = make_tokenizer(_texts(train, run.prompt), vocabulary=recipe.model.vocabulary)
    processor = make_processor(tokenizer, min_pixels=card.min_pixels, max_pixels=card.max_pixels)
    return make_model(tokenizer, **recipe.model.model_dump(exclude={"vocabulary"}), seed=recipe.seed), processor


def _texts(train: Sequence[ListedClip], prompt: PromptName) -> list[str]:
    """What the tokenizer learns from: answers as they will be written, and every question that may be asked."""
    generator = np.random.default_rng(0)
    questions = [one.question for one in PROMPTS.values()]
    labels = ["Global multiframe picture:", "Local single frame picture 1:", "Picture 2:"]
    writers = [answer_writer(clip) for clip in train]
    said = [write(generator, dimensions(prompt)) for write in writers if write is not None]
    return said + (questions + labels) * (len(said) // 4 + 1)


def _warm_up(
    run: Run,
    stage: Warmup,
    model: Any,
    processor: Any,
    train: list[ListedClip],
    held_out: list[ListedClip],
    folder: Path,
    log: MetricsLog,
) -> None:
    recipe = run.recipe
    if run.processes.num_processes > 1:
        raise UsageError(f"stage {stage.name}: a warm-up runs in one process; run it first, by `vqa train --until`")
    if not held_out:
        raise UsageError(f"stage {stage.name}: no held-out clips; set validation_clips")
    if odd := {clip.place for clip in train + held_out if not clip.is_of_ladder}:
        raise UsageError(f"stage {stage.name}: a warm-up needs ladders (vqa data synth), not {', '.join(sorted(odd))}")
    seed = recipe.seed + recipe.stages.index(stage)  # a second warm-up sees other squares, in another order
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
    warm_up(model, processor, *crops, settings=stage, seed=seed, context=run.context(stage, folder, log))


def _lessons(run: Run, stage: ColdStart, learned: list[TrainingClip]) -> list[TrainingClip]:
    """What a cold start imitates: the stage's reasons or the clips' own; under Q-Insight's prompt its damage too."""
    prompt = run.asked(stage)
    lessons = learned
    if stage.reasons:
        of = {sample.clip_id: sample for sample in learned}
        read = partial(read_conversations, views=run.views, numbers=dimensions(prompt), seed=run.recipe.seed)
        lessons = [sample for path in run.texts(stage) for sample in read(path, of)]
    return lessons + damage_clips(learned, prompt) if prompt == "q_insight" else lessons


def _examples(run: Run, stage: Reinforce, learned: list[TrainingClip]) -> list[Example]:
    """What GRPO asks about: each clip's quality; for Q-Insight's reward its damage too, where it is known."""
    captions = texts_by_clip(run.texts(stage))
    examples = [
        Example(
            clip_id=sample.clip_id,
            dataset=sample.dataset,
            opinion=float(sample.opinion or 0),
            load=sample.views,
            caption=captions.get(sample.clip_id),
        )
        for sample in learned
    ]
    asked = zip(examples, learned, strict=True) if stage.reward == "q_insight" else ()
    return examples + [
        replace(one, damage=sample.damage, opinion=float("nan")) for one, sample in asked if sample.damage is not None
    ]
