"""A training step, ours against trl's own path.

    python tests/bench/grpo.py [--clips 8] [--k 6] [--rounds 2] [--steps 2] [--new-tokens 96]

The embedded model on the bundled clips, more and less blurred, seen as it scores them (a mosaic and twelve local
pictures). Ours: prompt and pictures once a clip, in the rollouts and in the update. trl's (`shared_prefill: false`):
the prompt and its pictures once an answer. The two take turns; of each turn's steps the last counts.
"""

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support import rehearsal
from vqa.model.card import find_card
from vqa.train.grpo.dataset import Example
from vqa.types import Clip, Views
from vqa.views import ViewsConfig, look

NAMES = (
    *("rollout/tokens_per_second", "rollout/seconds", "step_time", "clips_per_second", "processor seconds a step"),
    "completions/mean_length",
)


def examples(count: int) -> list[Example]:
    """Clips in memory: decoding and blurring are not what is measured."""
    settings = ViewsConfig(**find_card("embedded")["views"])
    made: list[Example] = []
    for number in range(count):
        name, sigma = rehearsal.CLIPS[number % 2], 0.5 * (number // 2)
        clip = Clip(clip_id=name, uri=str(rehearsal.ASSETS / "clips" / f"{name}.mp4"))
        views = rehearsal.blur(look(clip, settings), sigma)
        opinion = max(1.0, 4.5 - sigma - 0.25 * (number % 2))
        made.append(Example(clip_id=f"{name}-{sigma}", dataset="bunny", opinion=opinion, load=partial(_same, views)))
    return made


def main() -> None:
    """Print what the log of each way says of its last step, and the ratios."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--clips", type=int, default=8)
    options.add_argument("--k", type=int, default=6)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--steps", type=int, default=2)
    options.add_argument("--new-tokens", type=int, default=96)
    asked = options.parse_args()
    clips = examples(asked.clips)
    found: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    for _ in range(asked.rounds):
        for shared in found:
            with tempfile.TemporaryDirectory() as folder:
                trainer = rehearsal.trainer(
                    Path(folder),
                    of=clips,
                    shared_prefill=shared,
                    max_steps=asked.steps,
                    clips_per_step=asked.clips,
                    num_generations=asked.k,
                    per_device_train_batch_size=asked.clips * asked.k,
                    max_completion_length=asked.new_tokens,
                    check_first_batch=False,
                    save_strategy="no",
                )
                started = time.process_time()
                trainer.train()
                spent = (time.process_time() - started) / asked.steps
            last = [entry for entry in trainer.state.log_history if "step_time" in entry][-1]
            found[shared].append(last | {"processor seconds a step": spent})
    print(f"{'':28}{'ours':>10}{'trl':>10}{'ratio':>8}")
    for name in NAMES:
        ours, theirs = (median(entry[name] for entry in found[shared]) for shared in (True, False))
        print(f"{name:28}{ours:10.2f}{theirs:10.2f}{ours / theirs:8.2f}")


def _same(views: Views) -> Views:
    return views


if __name__ == "__main__":
    main()
