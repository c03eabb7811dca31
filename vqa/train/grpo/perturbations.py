"""Perturbed inputs of the second passes of some rewards, without gradient.

temporal      answers to the clip with its frames out of order (VQAThinker, VQ-Insight)
probability   the probability of the opinion's tenths digit in an answer, and in one without reasoning (Refine-IQA)
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vqa.prompt import locate_numbers
from vqa.types import Pixels, Views
from vqa.views.pictures import grid_of, repeats_of

if TYPE_CHECKING:
    from vqa.train.grpo.config import GrpoSettings

DIRECT = (  # Refine-IQA's second rollout, in our words
    "All pictures come from one video or image. How good does it look? Give one score for the overall quality, from 1 "
    "(very poor) to 5 (excellent), with two decimals. Do not reason: answer at once in <answer> </answer>, which holds "
    "`Score: ` and the number alone."
)

# The term that needs a second pass, by reward.
TERM_OF_REWARD = {"vqathinker": "temporal", "vq_insight": "temporal", "refine_iqa": "probability"}


def second_pass(settings: "GrpoSettings") -> str | None:
    """Term with a second pass in this run; None without, or without shared prefill."""
    return needed_pass(settings) if settings.shared_prefill else None


def needed_pass(settings: "GrpoSettings") -> str | None:
    """Term of the reward that needs a second pass, None without one.

    VQAThinker's released script runs without its own, and so does a run that gives it no weight.
    """
    term = TERM_OF_REWARD.get(settings.reward, "")
    is_off = settings.reward == "vqathinker" and settings.reward_mode == "released"
    return None if is_off or not (settings.reward_weights or {}).get(term, term) else term


def second_views(settings: "GrpoSettings", seed: int) -> Callable[[Views], tuple[Views, str | None] | None] | None:
    """Maker of a clip's views and question of the second pass; None without one.

    They are the same for all answers to the clip.
    """
    term = second_pass(settings)
    if term == "probability":
        return lambda views: (views, DIRECT)
    if term is None:
        return None
    is_shuffle = settings.reward == "vq_insight"

    def disordered(views: Views) -> tuple[Views, None] | None:
        other = out_of_order(views, seed=seed, is_shuffle=is_shuffle)
        return None if other is None else (other, None)

    return disordered


def out_of_order(views: Views, *, seed: int, is_shuffle: bool) -> Views | None:
    """Views with their global frames (tiles of a mosaic) out of order; None for one.

    VQ-Insight (arXiv 2506.18564) shuffles them; VQAThinker (2508.06051) draws one of six ways, see `disorder`. Local
    pictures stay: they show detail.
    """
    pictures, count = views.global_pictures, len(views.keyframe_seconds)
    is_mosaic = len(pictures) == 1
    tiles = _tiles(pictures[0], count) if is_mosaic else list(pictures)
    if len(tiles) < 2:
        return None
    order = disorder(len(tiles), np.random.default_rng(seed), is_shuffle=is_shuffle)
    shown = [np.zeros_like(tiles[0]) if place < 0 else tiles[place].copy() for place in order]
    told_repeats = None if views.told_repeats is None else repeats_of(shown)
    if is_mosaic:
        whole = pictures[0].copy()
        for tile, pixels in zip(_tiles(whole, count), shown, strict=True):
            tile[:] = pixels
        shown = [whole]
    return replace(views, global_pictures=tuple(shown), told_repeats=told_repeats)


def disorder(count: int, generator: np.random.Generator, *, is_shuffle: bool) -> NDArray[np.int64]:
    """Frame at each of `count` >= 2 places, -1 for a black one: int64 [count].

    Ways of VQAThinker: shuffled, shuffled in windows of 4, reversed, each moved by at most 1, 1-3 showing the frame
    before again, 1-3 black.
    """
    order: NDArray[np.int64] = np.arange(count)
    way = 0 if is_shuffle else generator.integers(6)
    if way == 0:
        return generator.permutation(order)
    if way == 1:
        return np.concatenate([generator.permutation(part) for part in np.split(order, range(4, count, 4))])
    if way == 2:
        return order[::-1]
    if way == 3:
        return np.asarray(np.clip(order + generator.integers(-1, 2, count), 0, count - 1))
    few = 1 + generator.choice(count - 1, min(count - 1, int(generator.integers(1, 4))), replace=False)
    order[few] = few - 1 if way == 4 else -1
    return order


def _tiles(mosaic: Pixels, count: int) -> list[Pixels]:
    """First `count` tiles of a mosaic, as windows into it."""
    columns, rows = grid_of(count)
    height, width = mosaic.shape[0] // rows, mosaic.shape[1] // columns
    corners = [(i // columns * height, i % columns * width) for i in range(count)]
    return [mosaic[y : y + height, x : x + width] for y, x in corners]


def tenths_of(text: str, opinion: float, *, numbers: int) -> str | None:
    """Answer up to its first score, and behind it the opinion up to its tenths digit.

    None where no score with a decimal can be read. Refine-IQA (arXiv 2508.03763, released trainer) overwrites the
    digits of both rollouts by the truth's, and compares the probability of the tenths digit behind them: of the j-th
    answer, and of the j-th written without reasoning.

    Refine-IQA (arXiv 2508.03763, released trainer) overwrites the digits of both rollouts by the truth's, and compares
    the probability of the tenths digit behind them: of the j-th answer, and of the j-th written without reasoning.
    """
    found = locate_numbers(text, numbers)
    if found is None or "." not in text[found[0].start : found[0].stop]:
        return None
    return text[: found[0].start] + f"{opinion:.2f}"[:3]
