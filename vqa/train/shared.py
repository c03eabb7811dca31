"""What the stages of one run share: the recipe, whose prompt and pictures count, and the clips."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import PartialState

from vqa.errors import UsageError
from vqa.model.card import GenerationConfig, ModelCard, Readout, settle
from vqa.prompt import PromptName
from vqa.train.clips.dataset import ListedClip, TrainingClip, digest_of, list_clips, load_clips, split_clips
from vqa.train.context import StageContext
from vqa.train.generate import REASONS
from vqa.train.metrics_log import MetricsLog
from vqa.train.recipe_stages import ColdStart, Recipe, Reinforce, Stage, Warmup, Write
from vqa.views import ViewsConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the stages of one run share."""

    recipe: Recipe
    card: ModelCard
    prompt: PromptName
    readout: Readout  # of held-out answers
    views: ViewsConfig
    out: Path
    places: tuple[str, ...]
    processes: PartialState
    seen: dict[tuple[str, int], list[TrainingClip]] = field(default_factory=dict)

    @property
    def precision(self) -> torch.dtype:
        """Of products."""
        found: torch.dtype = getattr(torch, self.recipe.precision)
        return found

    def clips(self, stage: Stage) -> tuple[list[ListedClip], list[ListedClip]]:
        """Those of the stage: to learn from, and held out."""
        places = stage.data or self.places
        if not places and not (isinstance(stage, ColdStart) and stage.reasons):
            raise UsageError(f"stage {stage.name}: no data; give --data FOLDER (of `vqa prepare`, or a ladder)")
        if not places:
            return [], []
        return split_clips(
            list_clips(places, datasets=stage.datasets), held_out=self.recipe.validation_clips, seed=self.recipe.seed
        )

    def samples(self, clips: Sequence[ListedClip], *, views_per_clip: int = 1) -> list[TrainingClip]:
        """The clips ready to be loaded; those of a ladder are looked at once in a run."""
        recipe, key = self.recipe, (digest_of(clips), views_per_clip)
        if key not in self.seen:
            found = load_clips(
                clips,
                views=self.views,
                seed=recipe.seed,
                views_per_clip=views_per_clip,
                threads=recipe.threads or 1,
            )
            for dataset in {sample.dataset for sample in found}:
                next(sample for sample in found if sample.dataset == dataset).views()  # told before the model is loaded
            self.seen[key] = found
        return self.seen[key]

    def texts(self, stage: ColdStart | Reinforce | Write) -> list[Path]:
        """The files of texts that the stage takes."""
        names = {one.name for one in self.recipe.stages}
        return [self.out / name / REASONS if name in names else Path(name) for name in stage.texts]

    def asked(self, stage: ColdStart | Reinforce | Write) -> PromptName:
        """The stage's prompt."""
        return stage.prompt or self.prompt

    def context(self, stage: Stage, folder: Path, log: MetricsLog) -> StageContext:
        """What the stage is run with beside its own settings."""
        return StageContext(
            prompt=self.prompt if isinstance(stage, Warmup) else self.asked(stage),
            readout=self.readout,
            precision=self.precision,
            seed=self.recipe.seed,
            folder=folder,
            log=log,
            processes=self.processes,
        )


def make_run(recipe: Recipe, *, out: Path, data: Sequence[Path | str] = ()) -> Run:
    """What the stages share; reads the card, loads nothing."""
    card, generation = card_of(recipe)
    return Run(
        recipe=recipe,
        card=card,
        prompt=recipe.prompt or card.prompt,
        readout=generation.readout,
        views=ViewsConfig(**card.views),
        out=out,
        places=tuple(map(str, data)) or recipe.data,
        processes=PartialState(cpu=not torch.cuda.is_available()),
    )


def card_of(recipe: Recipe) -> tuple[ModelCard, GenerationConfig]:
    """Whose prompt, views and picture sizes count, with what the recipe says otherwise; and how it is read."""
    card, generation = settle(recipe.whose, {})
    return (card.model_copy(update={"max_pixels": recipe.max_pixels}) if recipe.max_pixels else card), generation
