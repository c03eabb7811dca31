"""A ladder of damage that no lesson had: `python tests/bench/unseen.py PHOTOGRAPHS --out DIR [--seed N] [--workers N]`.

Six clips of each content, moved and labelled as `vqa data synth` does (VMAF v0.6.1), one kind of damage each: half by a
codec, half by other means, every level twice. No edition of the embedded model and no student learnt from any of CODECS
and DAMAGE (their lessons: vqa/data/synthetic, tests/bench/embedded_order.py; people's pictures are H.265 and sea
water). Left out as too near to lessons: Motion JPEG (JPEG), VP8 (its key frames are WebP's), bits dropped (banding);
and what the label cannot see, as VMAF reads luma alone: chroma lost. Levels were set by VMAF on training photographs.
people.py --clips scores it. `--levels` prints the mean VMAF of each kind and level of the clips made.
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vqa.data.synthetic.encoding import CODECS as COMMON
from vqa.data.synthetic.encoding import Codec, by_scale, encode_video
from vqa.data.synthetic.ladder import NEAR_LOSSLESS, Label, Rung, find_contents, plan_ladder, write_label
from vqa.data.synthetic.sources import read_pristine
from vqa.types import Pixels

LEVELS, CLIPS = 3, 6  # clips of a content

# Quality of each level and how: of DCTs, a wavelet (Snow), vector quantisation (SVQ1: one chroma sample for 16 pixels).
CODECS: dict[str, tuple[tuple[int, int, int], Codec]] = {
    "mpeg2video": ((8, 18, 31), by_scale("mpeg2video", 2, 31, "mkv")),
    "mpeg4": ((8, 18, 31), by_scale("mpeg4", 2, 31, "mp4")),
    "theora": ((6, 3, 0), by_scale("libtheora", 10, 0, "ogv")),
    "snow": ((6, 14, 30), by_scale("snow", 2, 31, "avi")),
    "svq1": ((10, 20, 31), by_scale("svq1", 2, 31, "mov", pixels="yuv410p")),
    "wmv2": ((8, 18, 31), by_scale("wmv2", 2, 31, "wmv")),
}


def _clip(frames: np.ndarray) -> Pixels:
    return np.asarray(np.clip(np.rint(frames), 0, 255), dtype=np.uint8)


def _rows_moved(frame: Pixels, by: np.ndarray) -> Pixels:
    """Each row displaced by so many pixels; its ends are repeated."""
    columns = np.clip(np.arange(frame.shape[1]) + by[:, None], 0, frame.shape[1] - 1)
    return np.take_along_axis(frame, columns[..., None], axis=1)


def ringing(frames: Pixels, cut: float, generator: np.random.Generator) -> Pixels:
    """No frequency above `cut` cycles a pixel, those just below it up to three times as strong: edges ring."""
    border = 32
    padded = np.pad(frames, ((0, 0), (border, border), (border, border), (0, 0)), mode="symmetric")
    height, width = padded.shape[1:3]
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)) / cut
    kept = np.where(radius < 1, 1 + 2 * radius**4, 0).astype(np.float32)[..., None]
    out = np.empty_like(frames)
    for frame, into in zip(padded, out, strict=True):
        passed = np.fft.irfft2(np.fft.rfft2(frame, axes=(0, 1)) * kept, s=(height, width), axes=(0, 1))
        into[:] = _clip(passed[border:-border, border:-border])
    return out


def combs(frames: Pixels, pixels: float, generator: np.random.Generator) -> Pixels:
    """Every other row `pixels` further: two fields of a moving picture shown as one."""
    by = np.where(np.arange(frames.shape[1]) % 2, int(pixels), 0) * int(generator.choice((-1, 1)))
    return np.stack([_rows_moved(frame, by) for frame in frames])


def dither(frames: Pixels, colours: float, generator: np.random.Generator) -> Pixels:
    """`colours` in all, those of the first frame, errors diffused (Floyd and Steinberg): an animated GIF."""
    palette = Image.fromarray(frames[0]).quantize(int(colours), method=Image.Quantize.MEDIANCUT)
    to = partial(Image.Image.quantize, palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    return np.stack([np.asarray(to(Image.fromarray(frame)).convert("RGB")) for frame in frames])


def interference(frames: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """A drifting diagonal wave of 5 to 9 pixels: another carrier in an analogue signal."""
    count, height, width, _ = frames.shape
    angle, period = generator.uniform(0.2, 1.3), generator.uniform(5, 9)
    y, x = np.mgrid[:height, :width]
    along = 2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period
    return np.stack([_clip(frames[k] + strength * np.sin(along + 0.7 * k)[..., None]) for k in range(count)])


def line_jitter(frames: Pixels, pixels: float, generator: np.random.Generator) -> Pixels:
    """Rows displaced at random (standard deviation `pixels`), in each frame anew: time-base errors of tape."""
    return np.stack(
        [_rows_moved(one, np.rint(pixels * generator.standard_normal(len(one))).astype(int)) for one in frames]
    )


def line_noise(frames: Pixels, share: float, generator: np.random.Generator) -> Pixels:
    """White, seldom black streaks of one row on this share of the rows: drop-outs of tape."""
    out, (height, width) = frames.copy(), frames.shape[1:3]
    for frame in out:
        for row in generator.choice(height, max(1, round(share * height)), replace=False):
            start, length = generator.integers(width), int(generator.uniform(0.03, 0.2) * width)
            frame[row, start : start + length] = 255 if generator.random() < 0.7 else 0
    return out


DAMAGE: dict[str, tuple[tuple[float, float, float], Callable[[Pixels, float, np.random.Generator], Pixels]]] = {
    "ringing": ((0.3, 0.18, 0.09), ringing),
    "combs": ((1, 2, 5), combs),
    "dither": ((64, 12, 4), dither),
    "interference": ((6, 16, 40), interference),
    "line_jitter": ((0.4, 1, 3), line_jitter),
    "line_noise": ((0.02, 0.1, 0.4), line_noise),
}
# Two codecs, two others and so on: every other one of these, from any place, is three of each.
KINDS = [one for k in (0, 2, 4) for part in (list(CODECS), list(DAMAGE)) for one in part[k : k + 2]]


def make(planned: tuple[Rung, str, int], out: Path) -> Label:
    """One clip and its label; a label that is there is read (resume)."""
    rung, kind, level = planned
    label_path = out / "labels" / f"{rung.clip_id}.json"
    if label_path.exists():
        found: Label = json.loads(label_path.read_text())
        return found
    generator = np.random.default_rng(rung.seed)
    source = rung.sources[generator.integers(len(rung.sources))]
    reference = frames = read_pristine(Path(source), generator)
    if kind in CODECS:
        qualities, how = CODECS[kind]
        codec, quality = kind, qualities[level]
    else:
        values, change = DAMAGE[kind]
        frames = change(frames, values[level], generator)
        codec, quality = NEAR_LOSSLESS
        how = COMMON[codec]
    path = out / "clips" / f"{rung.clip_id}.{how.container}"
    encode_video(frames, path, codec=how, quality=quality)
    return write_label(
        rung,
        out,
        source=source,
        reference=reference,
        frames=frames,
        clip=path,
        coded=(codec, quality),
        harms=[(kind, (level + 1) / LEVELS)],
        dataset="unseen-ladder",
    )


def plan(photographs: Path, seed: int) -> list[tuple[Rung, str, int]]:
    """Clips with kind and level: of a content every other one of KINDS, of all contents each kind as often."""
    rungs = plan_ladder(find_contents([photographs]), clips_per_content=CLIPS, seed=seed, split="test")
    contents = sorted({rung.content_id for rung in rungs})
    planned = []
    for rung in rungs:
        content, number = contents.index(rung.content_id), int(rung.clip_id.rpartition("-")[2])
        kind = KINDS[(content + 2 * number) % len(KINDS)]
        planned.append((rung, kind, (number + content // len(KINDS)) % LEVELS))
    return planned


def levels(labels: Sequence[Label]) -> None:
    """Mean VMAF of each kind and level."""
    for kind in KINDS:
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
    parser.add_argument("--out", type=Path, default=Path("runs/unseen"))
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--levels", action="store_true")
    arguments = parser.parse_args()
    if arguments.photographs is None:
        print("no photographs: nothing made")
        return
    planned = plan(arguments.photographs, arguments.seed)
    for name in ("clips", "labels"):
        (arguments.out / name).mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(arguments.workers) as pool:
        labels = list(pool.map(partial(make, out=arguments.out), planned))
    labels.sort(key=lambda label: label["clip_id"])
    pq.write_table(pa.Table.from_pylist(labels), arguments.out / "ladder.parquet")
    digest = hashlib.blake2b(repr([(one["clip_id"], one["vmaf"]) for one in labels]).encode(), digest_size=6)
    print(f"{len(labels)} clips of {len({one['content_id'] for one in labels})} contents, labels {digest.hexdigest()}")
    if arguments.levels:
        levels(labels)


if __name__ == "__main__":
    main()
