"""GRPO over trl: trainer, rewards, objectives."""
