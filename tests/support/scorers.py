"""Scorers of small checkpoints, the texts that they give, and clips whose prompts differ in length."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.references.make_checkpoints import Family
from tests.support.samples import random_views
from vqa.model.scorer import Scorer
from vqa.types import Score, Views

Checkpoints = Callable[[Family], Path]


def scorer(source: Path, **options: Any) -> Scorer:
    return Scorer.load(str(source), **{"max_new_tokens": 12, "device_map": "cpu", "prompt": "preresq_video"} | options)


def texts(scores: list[Score]) -> list[tuple[str, ...]]:
    return [tuple(answer.text for answer in score.answers) for score in scores]


def small_views(count: int) -> list[Views]:
    """Clips of one or two pictures of different sizes, so that prompts differ in length."""
    views = []
    for i in range(count):
        rng = np.random.default_rng(i)
        sides = rng.integers(28, 120, (1 + i % 2, 2))
        pictures = [rng.integers(0, 256, (*map(int, pair), 3), dtype=np.uint8) for pair in sides]
        views.append(random_views(f"clip {i}", pictures))
    return views
