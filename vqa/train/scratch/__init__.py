"""A small model from random weights, and the warm-up of its vision tower."""
