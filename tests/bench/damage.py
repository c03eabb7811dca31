"""Is Q-Insight's reward for naming damage earned, more and more? `python tests/bench/damage.py [--out DIR]`.

Windows of the bundled clips, undamaged, with noise and with blur, are a ladder; configs/train/q_insight_tiny.yaml runs
on it with a longer cold start. Prints the means of the reward's terms over blocks of steps. Half of the questions are
about damage: 0.5 is the most that `degradation` can be. A broken run resumes.
"""

import argparse
import itertools
import json
import tempfile
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vqa.data.synthetic.distortions import DISTORTIONS
from vqa.data.synthetic.encoding import encode_video
from vqa.train.recipe import load_recipe
from vqa.train.runner import run_recipe
from vqa.types import Pixels

ROOT = Path(__file__).parents[2]
RUNGS = [("", 0.0), ("noise", 0.3), ("noise", 0.9), ("defocus", 0.5), ("defocus", 0.9)]
FRAMES, BLOCK = 8, 4


def make_ladder(folder: Path) -> Path:
    """Four windows of each bundled clip, each with every rung."""
    rows = []
    for path in sorted((ROOT / "vqa/assets/clips").glob("*.mp4")):
        with av.open(path) as file:
            frames = [frame.to_ndarray(format="rgb24") for frame in itertools.islice(file.decode(video=0), FRAMES)]
        whole: Pixels = np.stack(frames).astype(np.uint8)
        height, width = (size // 4 * 2 for size in whole.shape[1:3])
        for place in range(4):
            top, left = place // 2 * height, place % 2 * width
            window = whole[:, top : top + height, left : left + width]
            for number, (kind, severity) in enumerate(RUNGS):
                name, content = f"{path.stem}-{place}-{number}", f"{path.stem}-{place}"
                shown = DISTORTIONS[kind](window, severity, np.random.default_rng(number)) if kind else window
                if not (folder / f"{name}.mp4").exists():
                    encode_video(shown, folder / f"{name}.mp4", codec="x264", quality=8)
                row = {"clip_id": name, "uri": f"{name}.mp4", "content_id": content, "split": "train", "seed": number}
                row |= {"opinion": 5 - 4 * severity, "distortions": [kind] if kind else []}
                rows.append(row | {"severities": [severity] if kind else []})
    pq.write_table(pa.Table.from_pylist(rows), folder / "ladder.parquet")
    return folder


def main() -> None:
    """Make the ladder, run the recipe, print the curve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cold", type=int, default=240, help="steps of the cold start")
    parser.add_argument("--steps", type=int, default=24, help="steps of GRPO")
    asked = parser.parse_args()
    out = asked.out or Path(tempfile.mkdtemp())
    (out / "ladder").mkdir(parents=True, exist_ok=True)
    sets = ["validation_clips=0", "threads=1", "views.local_pictures=4", f"stages.coldstart.max_steps={asked.cold}"]
    sets += ["stages.coldstart.ema_decay=0", f"stages.score.max_steps={asked.steps}", "stages.score.patience=99"]
    recipe = load_recipe(ROOT / "configs/train/q_insight_tiny.yaml", sets)
    run_recipe(recipe, out=out / "run", data=[make_ladder(out / "ladder")])
    lines = [json.loads(line) for line in (out / "run/log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "rewards/degradation" in line]
    print("steps\tdegradation\tformat\tthreshold")
    for first in range(0, len(steps), BLOCK):
        block = steps[first : first + BLOCK]
        means = [
            np.mean([line[f"rewards/{term}"] for line in block]) for term in ("degradation", "format", "threshold")
        ]
        print(f"{first + 1}-{first + len(block)}\t" + "\t".join(f"{one:.3f}" for one in means))


if __name__ == "__main__":
    main()
