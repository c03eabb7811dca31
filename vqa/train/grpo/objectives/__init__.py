"""Terms that single papers add to GRPO, one file each.

See vqa.train.grpo.objective.
"""
