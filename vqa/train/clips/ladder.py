"""Words for a ladder's clips: a true answer to each, and how rare its damage is."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vqa.prompt import PROMPTS, answer_text, grade_of

# Names of each distortion as people see it, one of which is drawn for an answer. Which codec it was, or whether detail
# was lost in the lens or by scaling, cannot be seen.
_COMPRESSED, _BLURRED = ("compression", "coding artefacts"), ("blur", "softness")
NAMES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("x264", "x265", "vp9", "av1", "rate_switches"), _COMPRESSED),
    **dict.fromkeys(("scaling", "defocus", "motion_blur"), _BLURRED),
    "noise": ("noise", "grain"),
    "exposure": ("wrong exposure",),
    "contrast": ("low contrast",),
    "colour_cast": ("colour cast",),
    "banding": ("banding",),
    "transmission_loss": ("lost slices", "transmission loss"),
    "dropped_frames": ("dropped frames",),
    "frozen": ("freezing", "frozen frames"),
    "judder": ("judder",),
    "flicker": ("flicker",),
}
CLASSES = tuple(dict.fromkeys(NAMES.values()))  # what can be seen, each with its names
DEGREES = ("slight", "clear", "heavy")


def ladder_answer(
    generator: np.random.Generator,
    prompt: str,
    opinion: float,
    distortions: Sequence[str],
    severities: Sequence[float],
) -> str:
    """A short reason of facts (distortions, how strong, the grade), and the opinion.

    Args:
        generator: draws the wording.
        prompt: whose form the answer has; all its numbers are the opinion.
        opinion: on 1-5.
        distortions: keys of NAMES.
        severities: 0-1, one for each distortion.
    """
    reason = ladder_reason(generator, opinion, distortions, severities)
    return answer_text(reason, [opinion] * PROMPTS[prompt].dimensions, PROMPTS[prompt].form)


def ladder_reason(
    generator: np.random.Generator, opinion: float, distortions: Sequence[str], severities: Sequence[float]
) -> str:
    """The reason of `ladder_answer`, without its numbers."""
    worst: dict[tuple[str, ...], float] = {}
    for name, severity in zip(distortions, severities, strict=True):
        worst[NAMES[name]] = max(severity, worst.get(NAMES[name], 0.0))
    harms = [f"{DEGREES[min(2, int(degree * 3))]} {generator.choice(words)}" for words, degree in worst.items()]
    grade = grade_of(opinion)
    found = " and ".join(harms) if harms else "no damage"
    return str(
        generator.choice(
            [
                f"The clip shows {found}. It looks {grade}.",
                f"I see {found}, so the quality is {grade}.",
                f"There is {found}; the picture is {grade}.",
            ]
        )
    )


def rarity_weights(distortions: Sequence[Sequence[str]], *, most: float) -> NDArray[np.float64]:
    """Probability with which to draw each clip, so that rare damage is learned too.

    A kind of damage counts as the square root of how much rarer it is than the commonest one, `most` at most; a clip
    counts as its rarest kind.

    Args:
        distortions: keys of NAMES for each of N clips.
        most: limit of a kind's weight, at least 1.

    Returns:
        float64 [N], summing to 1.
    """
    kinds = [{NAMES.get(name, (name,)) for name in some} or {()} for some in distortions]
    counts = Counter(kind for some in kinds for kind in some)
    common = max(counts.values(), default=1)
    weights = np.array([max(min(most, (common / counts[kind]) ** 0.5) for kind in some) for some in kinds])
    probabilities: NDArray[np.float64] = weights / weights.sum()
    return probabilities
