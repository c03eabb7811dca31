"""A recipe file run from end to end: ladder to views, warm-up, cold start, and a folder that plain transformers
loads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from vqa.errors import UsageError
from vqa.model.card import find_card
from vqa.prompt import PRESETS, PresetName
from vqa.train.coldstart import cold_start
from vqa.train.ladder import Lesson, cut_crops, look_at, read_ladder
from vqa.train.log import Log
from vqa.train.tiny import hf, make_model, make_processor, make_tokenizer
from vqa.train.warmup import warm_up
from vqa.views import ViewsConfig


class Model(BaseModel):
    """Sizes of the model made from nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(1024, ge=300, description="byte-level BPE tokens, without the special ones")
    vision_width: int = Field(192, ge=48, multiple_of=48)
    vision_layers: int = Field(4, ge=1)
    text_width: int = Field(256, ge=64, multiple_of=64)
    text_layers: int = Field(4, ge=1)


class Stage(BaseModel):
    """One stage: how long and how fast. What belongs to one of them says so."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    rate: float = Field(gt=0)
    vision_rate: float = Field(1e-4, ge=0, description="cold start: the tower's own rate; 0 freezes it")
    average: float = Field(0.98, ge=0, lt=1, description="cold start: how much of the mean of the weights a step keeps")
    every: int = Field(100, ge=1, description="steps between two looks at the validation slice")
    frames: int = Field(8, ge=1, description="warm-up: frames of each clip that crops are cut from")
    crops: int = Field(6, ge=1, description="warm-up: crops of each frame")


class Recipe(BaseModel):
    """Schema of configs/train/embedded.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    card: str = Field("embedded", description="whose prompt, views and picture sizes are trained for")
    views_per_clip: int = Field(1, ge=1, description="looks at each training clip, with other crops")
    validation_clips: int = Field(150, ge=2, description="clips of the validation contents that choose the checkpoint")
    seed: int = 0
    threads: int = Field(2, ge=1)
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the products; weights stay float32. bfloat16 is twice as fast on processors with it"
    )
    model: Model = Model()
    warmup: Stage
    coldstart: Stage


def run(recipe: Recipe, *, ladder: Path, out: Path) -> Path:
    """All stages of the recipe; returns the folder of the trained model. A stopped run goes on where it was.

    Contents of the ladder's `test` split are not touched. Raises UsageError for a ladder that cannot teach.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(recipe.threads)
    card = find_card(recipe.card)
    prompt: PresetName = card["prompt"]
    settings = ViewsConfig(**card.get("views", {}))
    rows = read_ladder(ladder)
    train = [row for row in rows if row["split"] == "train"]
    validation = [row for row in rows if row["split"] == "validation"][: recipe.validation_clips]
    for name, some in (("train", train), ("validation", validation)):
        if len({row["opinion"] for row in some}) < 2:
            raise UsageError(f"{ladder}: {len(some)} {name} clips without two different opinions; make a wider ladder")
    lessons: list[Lesson] = []
    for number in range(recipe.views_per_clip):
        # Later looks draw their frames and boxes afresh; the first sees what scoring sees.
        drawn = settings if number == 0 else settings.model_copy(update={"temporal": "segment", "spatial": "grid"})
        lessons += look_at(train, ladder, settings=drawn, seed=recipe.seed + number, threads=recipe.threads)
    held_out = look_at(validation, ladder, settings=settings, seed=recipe.seed, threads=recipe.threads)
    crops = {
        name: cut_crops(
            some,
            ladder,
            path=out / f"crops-{name}.npy",
            frames=recipe.warmup.frames,
            each=recipe.warmup.crops,
            seed=recipe.seed,
            threads=recipe.threads,
        )
        for name, some in (("train", train), ("validation", validation))
    }

    tokenizer = make_tokenizer(_texts(lessons, prompt), vocabulary=recipe.model.vocabulary)
    processor = make_processor(tokenizer, min_pixels=card["min_pixels"], max_pixels=card["max_pixels"])
    sizes = recipe.model.model_dump(exclude={"vocabulary"})
    model = make_model(tokenizer, **sizes, seed=recipe.seed)
    precision: torch.dtype = getattr(torch, recipe.precision)
    for name in ("warmup", "coldstart"):
        stage: Stage = getattr(recipe, name)
        shared = stage.model_dump(include={"steps", "batch", "rate"})
        log = Log(out / "log.jsonl", name)
        arguments = shared | {"seed": recipe.seed, "precision": precision, "folder": out, "log": log}
        if name == "warmup":
            warm_up(model, processor, crops["train"], crops["validation"], **arguments)
        else:
            arguments |= stage.model_dump(include={"vision_rate", "average", "every"})
            best = cold_start(model, processor, lessons, held_out, prompt=prompt, **arguments)
    return export(best, out / "model")


def export(best: Path, folder: Path) -> Path:
    """The chosen checkpoint as it is shipped: safetensors in float16, half the size; scoring reads it as float32."""
    hf.AutoModelForImageTextToText.from_pretrained(best, dtype=torch.float16).save_pretrained(folder)
    hf.AutoProcessor.from_pretrained(best).save_pretrained(folder)
    return folder


def _texts(lessons: Sequence[Lesson], prompt: str) -> list[str]:
    """What the tokenizer learns from: answers as they will be written, and every question that may be asked."""
    generator = np.random.default_rng(0)
    questions = [preset.question for preset in PRESETS.values()]
    labels = ["Global multiframe picture:", "Local single frame picture 1:", "Picture 2:"]
    return [lesson.answer(generator) for lesson in lessons] + (questions + labels) * (len(lessons) // 4 + 1)
