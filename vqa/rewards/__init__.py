"""What a recipe pays for: terms over a batch of K answers to each of B clips, and the published weighted lists.

`compute` is the door; the terms are pure functions of arrays. In all of them: scores float [B, K] on the opinions'
scale (1-5), NaN where the answer was not parsed; opinions float [B]; peers bool [B, B], true for two different clips of
one data set. A term is float [B, K], 0 for an unparsed answer, never NaN.
"""

from vqa.rewards.presets import REWARD_PRESETS, compute

__all__ = ["REWARD_PRESETS", "compute"]
