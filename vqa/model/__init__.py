"""Load a policy and score views with it."""
