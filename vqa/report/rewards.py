"""Plot of a recipe's reward against the predicted score, for given opinions."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vqa.prompt import HIGHEST, LOWEST, PROMPTS
from vqa.report import canvas
from vqa.rewards import presets as rewards

Numbers = NDArray[np.float64]

TRUTHS = (1.5, 2.5, 3.5, 4.5)
SCALE = 2  # drawn at twice the size and reduced, for smooth lines
WIDTH, HEIGHT, TOP, SIDE, FOOT = 560, 430, 92, 64, 58


def curves(
    preset: str, *, truths: Sequence[float] = TRUTHS, draws: int = 6, seed: int = 0
) -> tuple[Numbers, dict[str, Numbers]]:
    """Compute the rewards of one answer whose score varies, in a simulated batch.

    The batch holds 25 clips of one data set with opinions uniform on 1-5 and six answers each, normal about the opinion
    with standard deviation 0.4. All D numbers of an answer are equal.

    Args:
        preset: Name of the reward preset.
        truths: Opinions T of the clip whose first answer varies.
        draws: Number of batches that rewards are averaged over.
        seed: Seed of the batches.

    Returns:
        Scores [S] of the answer, and rewards [T, S] by term, weighted; `total` is not.

    Raises:
        UsageError: If there is no such preset.
    """
    generator = np.random.default_rng(seed)
    scores = np.arange(LOWEST + 0.02, HIGHEST, 0.05)  # two decimals each, since some recipes reward decimals
    numbers = PROMPTS[preset].dimensions if preset in PROMPTS else 1
    weights = rewards.known(preset).weights | {"total": 1.0}
    earned = {name: np.zeros((len(truths), len(scores))) for name in weights}
    for _ in range(draws):
        opinions = generator.uniform(LOWEST, HIGHEST, 25)
        noise = generator.normal(0, 0.4, (25, 6))
        for t, truth in enumerate(truths):
            opinions[0] = truth
            answers = np.clip(opinions[:, None] + noise, LOWEST, HIGHEST)
            for s, score in enumerate(scores):
                answers[0, 0] = score
                values = np.repeat(answers[:, :, None], numbers, axis=2)
                terms = rewards.compute(preset, values, opinions, ["one"] * 25)
                for name, weight in weights.items():
                    earned[name][t, s] += weight * terms[name][0, 0] / draws
    return scores, earned


def plot_preset(preset: str, *, truths: Sequence[float] = TRUTHS) -> Image.Image:
    """Plot the total by opinion (left), weighted terms of the last but one (right).

    Raises:
        UsageError: If there is no such preset.
    """
    scores, earned = curves(preset, truths=truths)
    page = Image.new("RGB", (2 * WIDTH * SCALE, HEIGHT * SCALE), canvas.PAPER)
    draw = ImageDraw.Draw(page)
    title = f"{preset}: reward of one answer"
    canvas.text(draw, (SIDE * SCALE, 14 * SCALE), title, size=20 * SCALE)
    held = "25 clips x 6 answers of one data set; one answer varies, the others spread by 0.4 about their opinion"
    canvas.text(draw, (SIDE * SCALE, 42 * SCALE), held, size=12 * SCALE, fill=canvas.QUIET)
    chosen = max(0, len(truths) - 2)
    total = [(f"opinion {truth:g}", earned["total"][t], truth) for t, truth in enumerate(truths)]
    terms = [(name, term[chosen], truths[chosen]) for name, term in earned.items() if name != "total"]
    _panel(draw, 0, scores, total, "total")
    _panel(draw, WIDTH, scores, terms, f"weighted terms, opinion {truths[chosen]:g}")
    return page.resize((2 * WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def _panel(draw: canvas.Draw, left: int, scores: Numbers, lines: list[tuple[str, Numbers, float]], title: str) -> None:
    low, high = min(0.0, *(line.min() for _, line, _ in lines)), max(line.max() for _, line, _ in lines)
    step = canvas.nice(max(high - low, 1e-9) / 4)
    low, high = np.floor(low / step) * step, np.ceil(high / step) * step
    x0, x1, y0, y1 = left + SIDE, left + WIDTH - 24, TOP + 22, HEIGHT - FOOT

    def at(score: float, reward: float) -> tuple[int, int]:
        x = x0 + (score - LOWEST) / (HIGHEST - LOWEST) * (x1 - x0)
        return round(x * SCALE), round((y1 - (reward - low) / (high - low) * (y1 - y0)) * SCALE)

    for tick in np.arange(low, high + step / 2, step):
        draw.line((*at(LOWEST, tick), *at(HIGHEST, tick)), fill=canvas.RULE, width=SCALE)
        x, y = at(LOWEST, tick)
        canvas.text(draw, (x - 8 * SCALE, y), f"{tick:.4g}", size=12 * SCALE, fill=canvas.QUIET, anchor="rm")
    for score in range(1, 6):
        x, y = at(score, low)
        canvas.text(draw, (x, y + 6 * SCALE), str(score), size=12 * SCALE, fill=canvas.QUIET, anchor="ma")
    canvas.text(draw, ((x0 + x1) // 2 * SCALE, (y1 + 24) * SCALE), "score of the answer", size=12 * SCALE, anchor="ma")
    canvas.text(draw, (x0 * SCALE, (TOP - 24) * SCALE), title, size=14 * SCALE)
    x = x0
    for j, (name, line, truth) in enumerate(lines):
        colour = canvas.colour(j)
        draw.line((*at(truth, low), *at(truth, high)), fill=colour if len({t for *_, t in lines}) > 1 else canvas.KEY)
        points = [at(score, reward) for score, reward in zip(scores, line, strict=True)]
        draw.line(points, fill=colour, width=2 * SCALE, joint="curve")
        canvas.text(draw, (x * SCALE, (TOP - 2) * SCALE), name, size=12 * SCALE, fill=colour)
        x += canvas.text_width(name, size=12) + 16
