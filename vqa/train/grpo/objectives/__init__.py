"""Terms that single papers add to GRPO, one file each; see vqa.train.grpo.objective."""
