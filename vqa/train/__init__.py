"""Cold start and reinforcement learning."""
