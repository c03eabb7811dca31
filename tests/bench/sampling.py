"""Which frames and boxes are worth their time: `python tests/bench/sampling.py --ladder DIR --out DIR [--model M]`.

For uniform, segment, keyframe x centre, grid, fragments, salient, frames x 8, 16, 32 keyframes x 1, 3, 6 pictures:

* SRCC of the model's scores against VMAF's stand-in opinion on held-out contents of a ladder (`vqa data synth`);
* recall of transient damage: of clips of 6 s of which one second is spoilt (blur, noise or lost slices), the share that
  score at least a quarter of a point below the same clip unspoilt;
* seconds a clip, look and model.

One line a setting goes to OUT/sampling.jsonl at once; a stopped run goes on behind the last one.
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from vqa import Scorer
from vqa.data.synthetic.distortions import DISTORTIONS
from vqa.data.synthetic.encoding import encode_video
from vqa.data.synthetic.sources import FPS, read_video
from vqa.metrics import srcc
from vqa.types import Clip
from vqa.views import ViewsConfig, look

AXES: dict[str, tuple[str, ...] | tuple[int, ...]] = {
    "temporal": ("uniform", "segment", "keyframe"),
    "spatial": ("centre", "grid", "fragments", "salient", "frames"),
    "keyframes": (8, 16, 32),
    "local": (1, 3, 6),
}
HARMS = (("defocus", 0.6), ("noise", 0.6), ("transmission_loss", 1.0))
FALL = 0.25  # points of opinion that count as seen


def main() -> None:
    """Prints the table, best SRCC first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ladder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("build/bench/sampling"))
    parser.add_argument("--model", default="embedded")
    for name, values in AXES.items():
        parser.add_argument(f"--{name}", nargs="+", type=type(values[0]), default=values)
    parser.add_argument("--per-content", type=int, default=1, help="clips of each held-out content")
    parser.add_argument("--pairs", type=int, default=12, help="clips with a spoilt second, each with its twin")
    arguments = parser.parse_args()
    if arguments.ladder is None:
        print("no --ladder: nothing measured (make one: vqa data synth)")
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = [row for row in pq.read_table(arguments.ladder / "ladder.parquet").to_pylist() if row["split"] == "test"]
    plain = [row for row in rows if int(row["clip_id"].rsplit("-", 1)[1]) < arguments.per_content]
    files = [arguments.ladder / row["uri"] for row in plain]
    pairs = list(itertools.islice(transient(rows, arguments.ladder, arguments.out), arguments.pairs))
    scorer = Scorer.load(arguments.model, k=1, readout="expected")
    base = ViewsConfig(**scorer.card.views)
    log = arguments.out / "sampling.jsonl"
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    known = {tuple(one["setting"]) for one in done}
    asked = itertools.product(*(getattr(arguments, name) for name in AXES))
    settings = [one for one in asked if one not in known]
    for setting in settings:
        names = dict(zip(("temporal", "spatial", "keyframes", "local_pictures"), setting, strict=True))
        config = base.model_copy(update=names)
        started = time.perf_counter()
        scores = score(scorer, files, config)
        spoilt, clean = (score(scorer, [pair[side] for pair in pairs], config) for side in (0, 1))
        seconds = (time.perf_counter() - started) / (len(files) + 2 * len(pairs))
        read = ~np.isnan(scores)
        seen = [a <= b - FALL for a, b in zip(spoilt, clean, strict=True) if not np.isnan(a + b)]
        opinions = np.array([row["opinion"] for row in plain])
        one = {
            "setting": setting,
            "srcc": srcc(scores[read], opinions[read]),
            "n": int(read.sum()),
            "recall": float(np.mean(seen)) if seen else None,
            "pairs": len(seen),
            "seconds": seconds,
        }
        done.append(one)
        with log.open("a") as file:
            file.write(json.dumps(one) + "\n")
    print(f"{len(plain)} clips, {len(pairs)} pairs; SRCC, recall of a spoilt second, seconds a clip")
    for one in sorted(done, key=lambda one: -one["srcc"]):
        temporal, spatial, keyframes, local = one["setting"]
        recall = "-" if one["recall"] is None else f"{one['recall']:.2f}"
        print(
            f"{temporal:9s} {spatial:9s} {keyframes:3d} keyframes {local:2d} local  {one['srcc']:6.3f} (n={one['n']})"
            f"  {recall} (n={one['pairs']})  {one['seconds']:.2f} s"
        )
    for place, name in enumerate(("temporal", "spatial", "keyframes", "local pictures")):
        print(f"mean by {name}:")
        for value in dict.fromkeys(one["setting"][place] for one in done):
            some = [one for one in done if one["setting"][place] == value]
            means = {
                key: np.mean([one[key] for one in some if one[key] is not None])
                for key in ("srcc", "recall", "seconds")
            }
            print(f"  {value!s:9s} {means['srcc']:6.3f}  {means['recall']:.2f}  {means['seconds']:.2f} s")


def transient(rows: Sequence[dict[str, Any]], ladder: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    """(spoilt, clean) files of 6 s, made from good clips of different contents; which second is spoilt is drawn."""
    used = set()
    for row in sorted(rows, key=lambda row: -row["opinion"]):
        if row["content_id"] in used or row["frames"] < 2 * FPS or row["opinion"] < 4:
            continue
        used.add(row["content_id"])
        spoilt, clean = (out / f"{row['clip_id']}-{side}.mp4" for side in ("spoilt", "clean"))
        if not (spoilt.exists() and clean.exists()):
            generator = np.random.default_rng(row["seed"])
            frames = np.stack([np.asarray(one) for one in read_video(ladder / row["uri"], count=2 * FPS)])
            frames = np.concatenate([frames, frames[::-1], frames])  # forth, back and forth: no cut
            encode_video(frames, clean, codec="x264", quality=16)
            name, severity = HARMS[len(used) % len(HARMS)]
            start = int(generator.integers(0, len(frames) - FPS + 1))
            frames[start : start + FPS] = DISTORTIONS[name](frames[start : start + FPS], severity, generator)
            encode_video(frames, spoilt, codec="x264", quality=16)
        yield spoilt, clean


def score(scorer: Scorer, files: Sequence[Path], config: ViewsConfig) -> np.ndarray:
    """float [N], NaN where the answer could not be read."""
    views = [look(Clip(clip_id=path.name, uri=str(path)), config) for path in files]
    return np.array([one.score if one.score is not None else np.nan for one in scorer.score(views)])


if __name__ == "__main__":
    main()
