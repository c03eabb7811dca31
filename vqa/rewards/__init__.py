"""Reward terms of published recipes, and their weighted sums.

`compute` is the entry point; the terms are pure functions of arrays, over K answers to each of B clips. In all of them:
scores float [B, K] on the opinions' scale (1-5), NaN where the answer was not parsed; opinions float [B]; peers bool
[B, B], true for two different clips of one data set. A term is float [B, K], 0 for an unparsed answer, never NaN.
"""

from vqa.rewards.presets import REWARD_PRESETS, compute

__all__ = ["REWARD_PRESETS", "compute"]
