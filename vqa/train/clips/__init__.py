"""Training data: prepared views, ladders, conversations, degradation questions."""
