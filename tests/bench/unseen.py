"""Ladders of unseen damage: `python tests/bench/unseen.py PHOTOGRAPHS --out DIR [--set first|second] [--workers N]`.

Six clips of each content, moved and labelled as `vqa data synth` does (VMAF v0.6.1), one kind of damage each, every
level twice: of one of two sets of twelve kinds (unseen_kinds.py). When a set was chosen, no edition of the embedded
model and no student had learnt from any of it (their lessons: vqa/data/synthetic, tests/bench/embedded_order.py;
people's pictures are H.265 and sea water).

First set, half by a codec: some lessons (rare.py, RARE_CODECS) were since written by one who knew it. Left out as too
near to lessons: Motion JPEG (JPEG), VP8 (its key frames are WebP's), bits dropped (banding); and what the label cannot
see, as VMAF reads luma alone: chroma lost.

`--wide`: the same kinds drawn as `vqa data synth` draws its own, none to three at once, from what VMAF hardly
sees to what it calls ruinous, so that labels spread as a ladder's do. One kind at three levels spreads them over two
thirds of that, and over a narrower range a rank correlation is lower, whatever the kind.

Second set, five by a codec, one by a codebook as Cinepak has: chosen after those lessons, by one who saw no model's
answer and no score but VMAF. Left out as too near to lessons: relatives of H.263 and MPEG-4 (RealVideo, WMV 7, Xvid),
of JPEG (DV, ProRes, DNxHR) and of ASUS V2; few tones a block (Video 1, RPZA, DXT); elastic bending; lost packets;
trails; reflections. As too slow: RoQ, Cinepak itself. As VMAF hardly sees them, or likes them: crawling dots, sensor
mosaics.

Levels were set by VMAF on training photographs. people.py --clips scores a set. `--levels` prints the mean VMAF of each
kind and level of the clips made.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.unseen_kinds import (
    FIRST_CODECS,
    FIRST_DAMAGE,
    SECOND_CODECS,
    SECOND_DAMAGE,
    WIDE,
    Codecs,
    Damage,
    transcoded,
)
from vqa.data.synthetic.encoding import CODECS as COMMON
from vqa.data.synthetic.encoding import encode_video
from vqa.data.synthetic.ladder import (
    NEAR_LOSSLESS,
    Label,
    Rung,
    find_contents,
    plan_ladder,
    sample_distortions,
    write_label,
)
from vqa.data.synthetic.sources import read_pristine

LEVELS, CLIPS = 3, 6  # clips of a content


class Harm(NamedTuple):
    """One kind of damage of a clip."""

    kind: str
    severity: float  # 0 to 1
    value: float  # what the kind is told


SETS: dict[str, tuple[Codecs, Damage]] = {
    "first": (FIRST_CODECS, FIRST_DAMAGE),
    "second": (SECOND_CODECS, SECOND_DAMAGE),
}


def kinds(which: str) -> list[str]:
    """Two of the first half, two others and so on: every other one of these, from any place, is three of each."""
    codecs, damage = SETS[which]
    both = [*codecs, *damage]
    return [one for k in (0, 2, 4) for part in (both[:6], both[6:]) for one in part[k : k + 2]]


def make(planned: tuple[Rung, list[Harm]], out: Path, which: str = "first") -> Label:
    """One clip and its label; a label that is there is read (resume)."""
    rung, harms = planned
    label_path = out / "labels" / f"{rung.clip_id}.json"
    if label_path.exists():
        found: Label = json.loads(label_path.read_text())
        return found
    generator = np.random.default_rng(rung.seed)
    source = rung.sources[generator.integers(len(rung.sources))]
    reference = frames = read_pristine(Path(source), generator)
    codecs, damage = SETS[which]
    coded = NEAR_LOSSLESS
    how, quality = COMMON[coded[0]], coded[1]
    for kind, _, value in harms:
        if kind in damage:
            frames = damage[kind][1](frames, value, generator)
            continue
        coded, own = (kind, round(value)), codecs[kind][1]
        if which == "second":
            frames = transcoded(frames, own, coded[1])
        else:
            how, quality = own, coded[1]
    path = out / "clips" / f"{rung.clip_id}.{how.container}"
    encode_video(frames, path, codec=how, quality=quality)
    return write_label(
        rung,
        out,
        source=source,
        reference=reference,
        frames=frames,
        clip=path,
        coded=coded,
        harms=[(kind, severity) for kind, severity, _ in harms],
        dataset="unseen-ladder",
    )


def plan(photographs: Path, seed: int, which: str = "first") -> list[tuple[Rung, list[Harm]]]:
    """Clips with one kind at a level: of a content every other one of the kinds, of all contents each as often."""
    rungs = plan_ladder(find_contents([photographs]), clips_per_content=CLIPS, seed=seed, split="test")
    ordered, (codecs, damage) = kinds(which), SETS[which]
    contents = sorted({rung.content_id for rung in rungs})
    planned = []
    for rung in rungs:
        content, number = contents.index(rung.content_id), int(rung.clip_id.rpartition("-")[2])
        kind = ordered[(content + 2 * number) % len(ordered)]
        level = (number + content // len(ordered)) % LEVELS
        value = (codecs if kind in codecs else damage)[kind][0][level]
        planned.append((rung, [Harm(kind, (level + 1) / LEVELS, value)]))
    return planned


def plan_wide(photographs: Path, seed: int, which: str = "first") -> list[tuple[Rung, list[Harm]]]:
    """Clips with kinds and severities as `vqa data synth` draws them: none to three at once, each as often."""
    weights = dict.fromkeys(kinds(which), 1.0)
    return [
        (rung, [Harm(kind, severity, at(kind, severity)) for kind, severity in drawn])
        for rung in plan_ladder(find_contents([photographs]), clips_per_content=CLIPS, seed=seed, split="test")
        for drawn in [sample_distortions(np.random.default_rng([rung.seed, 1]), weights=weights, codecs=SETS[which][0])]
    ]


def at(kind: str, severity: float) -> float:
    """Value of a kind at a severity in [0, 1]."""
    return float(np.interp(severity, (0, 1 / 3, 2 / 3, 1), WIDE[kind]))


def levels(labels: Sequence[Label], which: str) -> None:
    """Mean VMAF of each kind and level."""
    for kind in kinds(which):
        found = [
            [
                one["vmaf"]
                for one in labels
                if one["distortions"] == [kind] and round(one["severities"][0] * LEVELS) == k
            ]
            for k in range(1, LEVELS + 1)
        ]
        print(f"{kind:12}", "  ".join(f"{np.mean(some) if some else np.nan:6.1f} ({len(some)})" for some in found))


def main() -> None:
    """Makes clips, labels and ladder.parquet; says how many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", type=Path, nargs="?")
    parser.add_argument("--set", dest="which", choices=list(SETS), default="first")
    parser.add_argument("--out", type=Path, default=Path("runs/unseen"))
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--wide", action="store_true", help="as `vqa data synth` draws, for one kind at three levels")
    parser.add_argument("--levels", action="store_true")
    arguments = parser.parse_args()
    if arguments.photographs is None:
        print("no photographs: nothing made")
        return
    planned = (plan_wide if arguments.wide else plan)(arguments.photographs, arguments.seed, arguments.which)
    for name in ("clips", "labels"):
        (arguments.out / name).mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(arguments.workers) as pool:
        labels = list(pool.map(partial(make, out=arguments.out, which=arguments.which), planned))
    labels.sort(key=lambda label: label["clip_id"])
    pq.write_table(pa.Table.from_pylist(labels), arguments.out / "ladder.parquet")
    digest = hashlib.blake2b(repr([(one["clip_id"], one["vmaf"]) for one in labels]).encode(), digest_size=6)
    print(f"{len(labels)} clips of {len({one['content_id'] for one in labels})} contents, labels {digest.hexdigest()}")
    if arguments.levels:
        levels(labels, arguments.which)


if __name__ == "__main__":
    main()
