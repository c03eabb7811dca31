"""Training data of a stage: the lessons of a cold start, the examples of GRPO."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from vqa.prompt import PromptName, dimensions
from vqa.train.clips.conversations import read_conversations
from vqa.train.clips.dataset import TrainingClip, damage_clips
from vqa.train.grpo.dataset import Example
from vqa.train.recipe import ColdStart, GrpoStage
from vqa.views import ViewsConfig


def lessons_of(
    stage: ColdStart,
    learned: Sequence[TrainingClip],
    *,
    texts: Sequence[Path],
    prompt: PromptName,
    views: ViewsConfig,
    seed: int,
) -> list[TrainingClip]:
    """Clips of a cold start with an answer each, for Q-Insight about damage too.

    Args:
        stage: whose `reasons`, if any, stand in place of the clips' own.
        learned: the stage's clips.
        texts: files of those reasons.
        prompt: of the stage.
        views: of clips that a file of reasons names by their pictures.
        seed: of what is drawn for those.

    Raises:
        UsageError: for a file that holds no reasons of these clips.
    """
    lessons = [sample for sample in learned if sample.opinion is not None]  # of a stand-in its damage alone
    if stage.reasons:
        of = {sample.clip_id: sample for sample in learned}
        read = partial(read_conversations, views=views, numbers=dimensions(prompt), seed=seed)
        lessons = [sample for path in texts for sample in read(path, of)]
    return lessons + damage_clips(learned, prompt) if prompt == "q_insight" else lessons


def examples_of(stage: GrpoStage, learned: Sequence[TrainingClip], *, captions: Mapping[str, str]) -> list[Example]:
    """Examples of GRPO: a clip's quality, and for Q-Insight's reward its damage.

    Quality is left out for stand-in opinions, damage where it is not known.

    Args:
        stage: whose reward is earned.
        learned: the stage's clips.
        captions: by clip_id.
    """
    examples = [
        Example(
            clip_id=sample.clip_id,
            dataset=sample.dataset,
            opinion=math.nan if sample.opinion is None else sample.opinion,
            load=sample.views,
            caption=captions.get(sample.clip_id),
        )
        for sample in learned
    ]
    asked = zip(examples, learned, strict=True) if stage.reward == "q_insight" else ()
    damaged = [replace(one, damage=sample.damage, opinion=math.nan) for one, sample in asked if sample.damage]
    return [one for one in examples if not math.isnan(one.opinion)] + damaged
