"""Q-Insight's second question (arXiv 2503.22679): a clip's damage, and how bad.

Classes and degrees are the paper's. Our own are the words, the degrees as equal parts of a ladder's severity, and no
degree for a clip without damage. `darken` is never true here: a ladder does not record which way its exposure is wrong.
"""

import json
from collections.abc import Sequence

import numpy as np

from vqa.prompt import LINES, json_answer

Damage = tuple[str, str]  # class and severity

NONE: Damage = ("", "")  # not asked for
_CLASSES = {"noise": "noise", "defocus": "blur", "motion_blur": "blur"} | dict.fromkeys(
    ("x264", "x265", "vp9", "av1", "rate_switches"), "compression"
)
SEVERITIES = ("slight", "moderate", "obvious", "serious", "catastrophic")
QUESTION = (
    "All pictures come from one video or image. What harmed it: noise, compression, blur, darken, or null for nothing? "
    f"How badly: {', '.join(SEVERITIES)}, or null? Think in <think> </think>, then answer in <answer> </answer>, "
    'which holds JSON alone: {"distortion_class": <what>, "severity": <how badly>}. ' + LINES
)


def damage_of(distortions: Sequence[str], severities: Sequence[float]) -> Damage | None:
    """Class and degree of distortions (severities 0-1); None unless of one class."""
    if not distortions:
        return "null", "null"
    if len(distortions) > 1 or distortions[0] not in _CLASSES:
        return None
    return _CLASSES[distortions[0]], SEVERITIES[min(len(SEVERITIES) - 1, int(severities[0] * len(SEVERITIES)))]


def damage_answer(damage: Damage, generator: np.random.Generator, _: str) -> str:
    """A true answer, for a cold start to learn."""
    found = "no damage" if damage[0] == "null" else f"{damage[1]} {damage[0]}"
    reason = str(generator.choice([f"The clip shows {found}.", f"I see {found}."]))
    return json_answer(reason, json.dumps({"distortion_class": damage[0], "severity": damage[1]}))


def parse_damage(text: str) -> Damage | None:
    """Parse class and severity from the last `<answer>` block; None for another form."""
    block, closed, _ = text.rpartition("<answer>")[2].partition("</answer>")
    try:
        named = json.loads(block) if closed and len(block) < 200 else None
    except ValueError:
        return None
    if not isinstance(named, dict) or set(named) != {"distortion_class", "severity"}:
        return None
    pair = (named["distortion_class"], named["severity"])
    return pair if all(isinstance(one, str) for one in pair) else None
