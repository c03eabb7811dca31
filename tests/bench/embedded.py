"""The embedded model's figures: `python tests/bench/embedded.py [--ladder DIR] [--model M] [--iqa-python PATH]`.

1. On the test contents of a ladder (`vqa data synth`), never trained on: SRCC and PLCC of the numbers that `vqa
   score` writes against VMAF's stand-in opinion, the share parsed, and by single distortion the SRCC and the share of
   reasons that name it, by what is seen of it (NAMES in vqa/train/clips/ladder.py: no codec, no kind of blur).
2. Beside it on the same clips NIQE, BRISQUE and sharpness alone (rivals.py; --iqa-python PATH for the first two).
3. Seconds for a clip of 10 s of 1080p, looked at and scored, after start-up. The floor is the look alone (decoding).
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.rivals import Judged, judge, table
from vqa import Scorer
from vqa.data.synthetic.encoding import encode_video
from vqa.data.synthetic.sources import FPS
from vqa.metrics import plcc, srcc
from vqa.train.clips.ladder import NAMES


def held_out(ladder: Path, model: str, iqa_python: Path | None) -> None:
    """Scores the test split through the command line and prints the agreement, and that of what needs no training."""
    rows = {
        row["clip_id"]: row for row in pq.read_table(ladder / "ladder.parquet").to_pylist() if row["split"] == "test"
    }
    with tempfile.TemporaryDirectory() as folder:
        manifest, out = Path(folder) / "test.csv", Path(folder) / "out"
        names = {"clip_id": list(rows), "uri": [str((ladder / row["uri"]).resolve()) for row in rows.values()]}
        pa.csv.write_csv(pa.table(names), manifest)
        command = [sys.executable, "-m", "jobs.score", str(manifest), "--out", str(out), "--model", model]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        scored = pq.read_table(out / "scores").to_pylist()
    kept = [row for row in scored if row["score"] is not None]
    opinions = [rows[row["clip_id"]]["opinion"] for row in kept]
    scores = [row["score"] for row in kept]
    contents = {row["content_id"] for row in rows.values()}
    print(
        f"held-out contents {len(contents)}, clips {len(rows)}, rows {len(scored)}, parsed {len(kept) / len(rows):.1%}"
    )
    print(f"SRCC {srcc(scores, opinions):.3f}  PLCC {plcc(scores, opinions):.3f}  (n = {len(kept)})")
    told: list[bool] = []
    for name in sorted({name for row in rows.values() for name in row["distortions"]}):
        some = [row for row in kept if rows[row["clip_id"]]["distortions"] == [name]]
        named = [any(word in row["reason"] for word in NAMES[name]) for row in some]
        told += named
        if len(some) >= 5:
            both = [row["score"] for row in some], [rows[row["clip_id"]]["opinion"] for row in some]
            print(f"  {name:18s} n={len(some):3d}  SRCC {srcc(*both):6.3f}  named {np.mean(named):.0%}")
    print(f"distortion of {len(told)} single-distortion clips named: {np.mean(told):.1%}")
    by_clip = {row["clip_id"]: row["score"] for row in kept}
    values = [by_clip.get(clip, float("nan")) for clip in rows]
    own = Judged(name=model, values=values, seconds=float(np.mean([row["score_seconds"] for row in kept])))
    others = judge([ladder / row["uri"] for row in rows.values()], iqa_python)
    table([own, *others], [row["opinion"] for row in rows.values()])


def one_clip(model: str) -> None:
    """Times a 10 s 1080p clip, drawn by code, in a process that has already scored one."""
    with tempfile.TemporaryDirectory() as folder:
        wide = np.random.default_rng(0).integers(0, 256, (270, 640, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(wide).resize((2560, 1080), Image.Resampling.BICUBIC))
        frames = np.stack([picture[:, step : step + 1920] for step in range(10 * FPS)])
        encode_video(frames, Path(folder) / "clip.mp4", codec="x264", quality=24)
        scorer = Scorer.load(model)
        path = Path(folder) / "clip.mp4"
        scorer.score_file(path)
        whole, model_part = [], []
        for _ in range(5):
            started = time.perf_counter()
            score = scorer.score_file(path)
            whole.append(time.perf_counter() - started)
            model_part.append(score.score_seconds)
    total, part = statistics.median(whole), statistics.median(model_part)
    print(
        f"10 s 1080p: {total:.2f} s a clip (median of 5), of it the model {part:.2f} s, the look {total - part:.2f} s"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ladder", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--iqa-python", type=Path)
    arguments = parser.parse_args()
    if arguments.ladder:
        held_out(arguments.ladder, arguments.model, arguments.iqa_python)
    else:
        print("no --ladder: agreement with VMAF not measured (make one: vqa data synth)")
    one_clip(arguments.model)
