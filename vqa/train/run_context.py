"""What the stages of one run share: its card, its clips, its processes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from accelerate import PartialState

from vqa.config import merge_values
from vqa.errors import UsageError
from vqa.model.card import GenerationConfig, ModelCard, Readout, settle
from vqa.prompt import PromptName
from vqa.rewards.presets import known
from vqa.train.clips.dataset import (
    ListedClip,
    TrainingClip,
    check_views,
    digest_of,
    list_training_clips,
    load_clips,
    split_clips,
)
from vqa.train.context import StageContext, nobody_else
from vqa.train.generate import REASONS
from vqa.train.metrics_log import MetricsLog
from vqa.train.recipe import ColdStart, GrpoStage, Recipe, RecipeStage, Warmup, Write, recipe_views
from vqa.train.sharding import begin_sharding
from vqa.views import ViewsConfig


@dataclass(slots=True, kw_only=True)
class RunContext:
    """Settings and clips that the stages of one run share."""

    recipe: Recipe
    card: ModelCard
    prompt: PromptName
    readout: Readout  # of held-out answers
    views: ViewsConfig
    out: Path
    places: tuple[str, ...]
    processes: PartialState
    before_write: Callable[[], None] = nobody_else  # as of StageContext
    loaded: dict[tuple[str, int], list[TrainingClip]] = field(default_factory=dict)  # by digest and views per clip

    @classmethod
    def of(cls, recipe: Recipe, *, out: Path, data: Sequence[Path | str] = ()) -> "RunContext":
        """Read the recipe's card and begin sharding; loads no model and no clip."""
        card, generation = card_of(recipe)
        begin_sharding(recipe.hardware)
        return cls(
            recipe=recipe,
            card=card,
            prompt=recipe.prompt or card.prompt,
            readout=generation.readout,
            views=recipe_views(recipe),
            out=out,
            places=tuple(map(str, data)) or recipe.data,
            processes=PartialState(cpu=not torch.cuda.is_available()),
        )

    @property
    def precision(self) -> torch.dtype:
        """Number type of matrix products."""
        found: torch.dtype = getattr(torch, self.recipe.precision)
        return found

    def clips(self, stage: RecipeStage) -> tuple[list[ListedClip], list[ListedClip]]:
        """List the stage's clips, to learn from and held out; UsageError without data."""
        places = stage.data or self.places
        if not places and not (isinstance(stage, ColdStart) and stage.reasons):
            raise UsageError(f"stage {stage.name}: no data. Give --data FOLDER (of `vqa prepare`, or a ladder).")
        if not places:
            return [], []
        for place in places:
            check_views(place, self.views)
        clips = list_training_clips(places, datasets=stage.datasets)
        clips = without_stand_ins(self.recipe, stage, clips, prompt=self.prompt)
        return split_clips(clips, held_out=self.recipe.validation_clips, seed=self.recipe.seed)

    def load(self, clips: Sequence[ListedClip], *, views_per_clip: int = 1) -> list[TrainingClip]:
        """Make clips ready to be loaded; those of a ladder are decoded once per run."""
        recipe, key = self.recipe, (digest_of(clips), views_per_clip)
        if key not in self.loaded:
            found = load_clips(
                clips,
                views=self.views,
                seed=recipe.seed,
                views_per_clip=views_per_clip,
                threads=recipe.threads or 1,
            )
            for dataset in {clip.dataset for clip in found}:
                next(clip for clip in found if clip.dataset == dataset).views()  # refused before the model is loaded
            self.loaded[key] = found
        return self.loaded[key]

    def text_files(self, stage: ColdStart | GrpoStage | Write) -> list[Path]:
        """Files of texts that the stage reads."""
        names = {one.name for one in self.recipe.stages}
        return [self.out / name / REASONS if name in names else Path(name) for name in stage.texts]

    def prompt_of(self, stage: ColdStart | GrpoStage | Write) -> PromptName:
        """The stage's prompt."""
        return stage.prompt or self.prompt

    def stage_context(self, stage: RecipeStage, folder: Path, log: MetricsLog) -> StageContext:
        """Context of a stage: what it is run with beside its own settings."""
        return StageContext(
            prompt=self.prompt if isinstance(stage, Warmup) else self.prompt_of(stage),
            readout=self.readout,
            precision=self.precision,
            seed=self.recipe.seed,
            folder=folder,
            log=log,
            processes=self.processes,
            hardware=self.recipe.hardware,
            before_write=self.before_write,
        )


def without_stand_ins(
    recipe: Recipe, stage: RecipeStage, clips: list[ListedClip], *, prompt: PromptName
) -> list[ListedClip]:
    """Take out opinions that no person gave, unless the recipe trains on them.

    Raises:
        UsageError: where the stage learns nothing else of such clips, or has no others.
    """
    found = [clip for clip in clips if clip.has_stand_in]
    if recipe.stand_in_opinions or isinstance(stage, Warmup) or not found:
        return clips
    if isinstance(stage, GrpoStage):
        asks_damage = "degradation" in known(stage.reward).terms
    else:
        asks_damage = isinstance(stage, ColdStart) and (stage.prompt or prompt) == "q_insight"
    if not asks_damage or len(found) == len(clips):
        raise UsageError(
            f"stage {stage.name}: {len(found)} clips in {found[0].place} have stand-in opinions (VMAF), which no "
            "person gave. Give clips with people's opinions, or train on these by stand_in_opinions: true."
        )
    return [replace(clip, opinion=math.nan) if clip.has_stand_in else clip for clip in clips]


def card_of(recipe: Recipe) -> tuple[ModelCard, GenerationConfig]:
    """Recipe's model card with its own views and `max_pixels`, and its generation."""
    card, generation = settle(recipe.card_name, {})
    own: dict[str, object] = {"views": merge_values(card.views, recipe.views)}
    if recipe.max_pixels:
        own["max_pixels"] = recipe.max_pixels
    return card.model_copy(update=own), generation
