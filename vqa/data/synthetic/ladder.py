"""Ladders of distorted clips from pristine sources, labelled by VMAF, not people.

The label is a stand-in (`opinion = 1 + 4 * VMAF / 100`, VMAF v0.6.1 of Netflix through libvmaf), never a mean opinion
score. Sources are videos (scaled down, so that their own artefacts disappear) or photographs (with a pan, zoom and
shake). Every clip is a pure function of the source's bytes, its number and the seed.
"""

import hashlib
import json
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias, TypedDict, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vqa.data.sources import EVERYTHING, LITTER, Selection
from vqa.data.synthetic.distortions import DISTORTIONS
from vqa.data.synthetic.encoding import CODECS, RARE_CODECS, encode_video, vmaf
from vqa.data.synthetic.rare import RARE
from vqa.data.synthetic.sources import SMALLEST, read_pristine
from vqa.errors import UsageError
from vqa.files import replacing, write_parquet
from vqa.types import Pixels

SUFFIXES = {".webp", ".gif", ".png", ".jpg", ".jpeg", ".mp4", ".mkv", ".webm", ".mov"}
NEAR_LOSSLESS = ("x264", 8)  # for clips whose distortions include no codec
# Most clips of the web suffer from compression, scaling and blur. VMAF rates distortions of colour and time oddly (a
# contrast of two thirds is ruinous, the effect of a freeze depends on the motion), and no model can predict that
# without the original: regression on hand-made statistics reached an SRCC of 0.75 with a quarter of the clips so
# distorted, and 0.85 without those.
WEIGHTS = dict.fromkeys(DISTORTIONS, 0.06) | {"x264": 3.0, "x265": 2.0, "vp9": 1.5, "av1": 1.5}
WEIGHTS |= {"scaling": 2.5, "defocus": 1.7, "noise": 1.3, "motion_blur": 0.8, "transmission_loss": 0.4, "banding": 0.4}
# Taken from x264, the next in order, so that what seeds drew before there were rate switches stays but for that part.
WEIGHTS |= {"rate_switches": 0.2, "x264": 2.8}
SCALED_UP = {"vp9", "av1"}
RARE_WEIGHTS = dict.fromkeys(RARE, 1.0) | dict.fromkeys(RARE_CODECS, 2.0)
BESIDE = 0.4  # share of the clips of rare damage that have common damage beside it
COUNT_WEIGHTS = (0.04, 0.58, 0.26, 0.12)  # of 0, 1, 2, 3 distortions at once


Damage: TypeAlias = Literal["common", "rare"]


class Label(TypedDict):
    """Row of ladder.parquet."""

    clip_id: str
    content_id: str
    split: str
    source: str  # name of the pristine file
    seed: int
    uri: str  # below the ladder's folder
    dataset: str
    kind: str
    width: int
    height: int
    frames: int
    codec: str
    quality: int
    distortions: list[str]
    severities: list[float]
    vmaf: float  # mean over the frames, 0-100
    vmaf_frames: list[float]
    opinion: float  # 1 + 4 * VMAF / 100: a stand-in


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One planned clip of a ladder: everything that determines its pixels."""

    clip_id: str
    sources: tuple[str, ...]  # files of this content; the clip's seed picks one
    content_id: str
    split: str
    seed: int


def find_contents(sources: Sequence[Path], *, selection: Selection = EVERYTHING) -> dict[str, tuple[Path, ...]]:
    """Group picture and video files by content, which a split never separates.

    A file given by name is its own content; below a folder, the first folder or file name is the content. Counters,
    sizes, day times and light/dark marks at the end of a name are versions of the same content
    (`Flow/contents/images/5120x2880.png` is `Flow`, `video_edit-2.webp` is `video_edit`).

    Args:
        sources: Files and folders. Links to the same file count once; too small pictures are skipped.
        selection: Which files of folders.

    Raises:
        UsageError: If a path does not exist.
    """
    contents: dict[str, set[Path]] = {}
    for source in sources:
        if not source.exists():
            raise UsageError(f"source {str(source)!r} does not exist. Give picture or video files, or folders of them.")
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            below = path.relative_to(source).as_posix() if source.is_dir() else ""
            is_taken = path.suffix.lower() in SUFFIXES and LITTER.isdisjoint(below.split("/"))
            if below and (is_taken or selection.includes(below)):
                is_taken = not selection.excludes(below)
            if is_taken and path.is_file() and not _is_small(path):
                top = path.relative_to(source).parts[0] if source.is_dir() else path.name
                name = re.sub(r"([-_](\d+(x\d+)?|\d+[ap]m|[dl]))+$", "", Path(top).stem if top == path.name else top)
                contents.setdefault(name, set()).add(path.resolve())
    return {name: tuple(sorted(paths)) for name, paths in sorted(contents.items())}


def _is_small(path: Path) -> bool:
    """Whether a still picture is too small for any clip (thumbnails beside a photo)."""
    try:
        with Image.open(path) as image:
            return getattr(image, "n_frames", 1) == 1 and (image.width < SMALLEST[0] or image.height < SMALLEST[1])
    except OSError:
        return False  # a video, or unreadable: reported when it is used


def plan_ladder(
    contents: Mapping[str, Sequence[Path]], *, clips_per_content: int, seed: int, split: str | None = None
) -> list[Rung]:
    """Plan a ladder in rounds over the contents: balanced even when interrupted.

    Args:
        contents: Files by content, as of `find_contents`.
        clips_per_content: Number of clips of each content.
        seed: Seed of splits and clips.
        split: Split of all contents. By default a fifth of the contents is `test`, a tenth `validation`, the rest
            `train`.
    """
    names = [sorted(contents)[index] for index in np.random.default_rng(seed).permutation(len(contents))]
    test, validation = round(len(names) / 5), round(len(names) / 10)
    splits = ["test"] * test + ["validation"] * validation + ["train"] * (len(names) - test - validation)
    splits = [split] * len(names) if split else splits
    return [
        Rung(
            clip_id=f"{name}-{number:03d}",
            sources=tuple(map(str, contents[name])),
            content_id=name,
            split=split,
            seed=int.from_bytes(hashlib.blake2b(f"{seed}/{name}/{number}".encode(), digest_size=6).digest(), "big"),
        )
        for number in range(clips_per_content)
        for name, split in zip(names, splits, strict=True)
    ]


def sample_distortions(
    generator: np.random.Generator,
    *,
    weights: Mapping[str, float] = WEIGHTS,
    codecs: Container[str] = frozenset(CODECS),
) -> list[tuple[str, float]]:
    """Sample distortions (name, severity 0-1) in order, at most one codec, the last.

    Up to three are drawn; `scaling` may be added where VP9 or AV1 is to look bad.

    Args:
        generator: Draws.
        weights: How often each kind is drawn.
        codecs: Which of the kinds are codecs.
    """
    names, chances = list(weights), np.array(list(weights.values()))
    count = int(generator.choice(len(COUNT_WEIGHTS), p=COUNT_WEIGHTS))
    chosen = generator.choice(names, size=count, replace=False, p=chances / chances.sum()).tolist()
    last = [name for name in chosen if name in codecs][:1]
    before = [name for name in chosen if name not in codecs]
    drawn = [(name, round(float(generator.random()), 4)) for name in before + last]
    # VP9 and AV1 look good at the lowest rates they reach; streams of even lower rates are small pictures scaled up.
    if drawn and drawn[-1][0] in SCALED_UP and drawn[-1][1] > 0.5 and "scaling" not in before:
        drawn.insert(0, ("scaling", round(float(generator.random()), 4)))
    return drawn


def sample_rare(generator: np.random.Generator) -> list[tuple[str, float]]:
    """Sample rare damage (name, severity 0-1), beside it some that is common.

    At most one codec, the last.
    """

    def one_of(weights: Mapping[str, float]) -> tuple[str, float]:
        chances = np.array(list(weights.values()))
        name = str(generator.choice(list(weights), p=chances / chances.sum()))
        return name, round(float(generator.random()), 4)

    drawn = one_of(RARE_WEIGHTS)
    if generator.random() >= BESIDE:
        return [drawn]
    is_codec = drawn[0] in RARE_CODECS
    other = one_of({name: weight for name, weight in WEIGHTS.items() if (name in CODECS) != is_codec})
    return [other, drawn] if is_codec else [drawn, other]


def make_clip(rung: Rung, *, out: Path, damage: Damage = "common") -> Label | str:
    """Make one clip and its label, or read the label if it exists (resume).

    Returns:
        The label (a row of ladder.parquet), or the reason why the source cannot be used.
    """
    label_path = out / "labels" / f"{rung.clip_id}.json"
    if label_path.exists():
        return cast(Label, json.loads(label_path.read_text()))
    generator = np.random.default_rng(rung.seed)
    source = rung.sources[generator.integers(len(rung.sources))]
    try:
        reference = read_pristine(Path(source), generator)
    except UsageError as error:
        return f"{rung.clip_id}: {error}"
    distortions = sample_rare(generator) if damage == "rare" else sample_distortions(generator)
    codecs, changes = CODECS | RARE_CODECS, DISTORTIONS | RARE
    frames = reference
    codec, quality = NEAR_LOSSLESS
    for name, severity in distortions:
        if name in codecs:
            codec, quality = name, codecs[name].at(severity)
        else:
            frames = changes[name](frames, severity, generator)
    path = out / "clips" / f"{rung.clip_id}.{codecs[codec].container}"
    encode_video(frames, path, codec=codecs[codec], quality=quality)
    coded = (codec, quality)
    return write_label(
        rung, out, source=source, reference=reference, frames=frames, clip=path, coded=coded, harms=distortions
    )


def write_label(
    rung: Rung,
    out: Path,
    *,
    source: str,
    reference: Pixels,
    frames: Pixels,
    clip: Path,
    coded: tuple[str, int],
    harms: Sequence[tuple[str, float]],
    dataset: str = "synthetic-ladder",
) -> Label:
    """Label a clip of a ladder by VMAF, and write the label below `out`.

    Args:
        rung: What was to be made.
        out: Folder of the ladder.
        source: File that the clip is of.
        reference: Pristine frames, uint8 [T, H, W, 3].
        frames: Those that were encoded, [T, H, W, 3].
        clip: The encoded file.
        coded: Codec and its quality.
        harms: Distortions and severities in [0, 1].
        dataset: Column `dataset`.

    Raises:
        RuntimeError: The file has fewer frames than were encoded, or more.
    """
    scores = vmaf(reference, clip)
    if len(scores) != len(frames):
        raise RuntimeError(f"{clip}: {len(scores)} of {len(frames)} frames")
    mean = float(np.mean(scores))
    label: Label = {
        "clip_id": rung.clip_id,
        "content_id": rung.content_id,
        "split": rung.split,
        "source": Path(source).name,
        "seed": rung.seed,
        "uri": f"clips/{clip.name}",
        "dataset": dataset,
        "kind": "video",
        "width": frames.shape[2],
        "height": frames.shape[1],
        "frames": len(frames),
        "codec": coded[0],
        "quality": coded[1],
        "distortions": [name for name, _ in harms],
        "severities": [severity for _, severity in harms],
        "vmaf": round(mean, 4),
        "vmaf_frames": [round(score, 2) for score in scores],
        "opinion": round(1 + 4 * min(max(mean, 0.0), 100.0) / 100, 4),
    }
    with replacing(out / "labels" / f"{rung.clip_id}.json") as draft:
        draft.write_text(json.dumps(label))
    return label


def synthesise(
    sources: Sequence[Path],
    *,
    out: Path,
    clips_per_content: int,
    seed: int,
    workers: int,
    split: str | None = None,
    selection: Selection = EVERYTHING,
    damage: Damage = "common",
) -> Iterator[tuple[int, int, str]]:
    """Make a ladder and its ladder.parquet (rows: Label) under `out`; reruns resume.

    Args:
        sources: Pristine pictures, videos and folders of them.
        out: Folder for clips, labels and ladder.parquet.
        clips_per_content: Number of clips of each content.
        seed: Seed of splits and clips.
        workers: Number of processes.
        split: Split of all contents; by default as in `plan_ladder`.
        selection: Which files of folders.
        damage: That which most clips have, or that which is seldom met.

    Yields:
        (done, planned, problem) per clip; the problem is "" or why a source cannot be used.

    Raises:
        UsageError: If there are no sources, or none can be used.
    """
    rungs = plan_ladder(
        find_contents(sources, selection=selection), clips_per_content=clips_per_content, seed=seed, split=split
    )
    if not rungs:
        raise UsageError("no pictures or videos among the sources. Give picture or video files, or folders of them.")
    for name in ("clips", "labels"):
        (out / name).mkdir(parents=True, exist_ok=True)
    labels: list[Label] = []
    with ProcessPoolExecutor(workers) as pool:
        for done, result in enumerate(
            pool.map(partial(make_clip, out=out, damage=damage), rungs, chunksize=4), start=1
        ):
            if isinstance(result, str):
                yield done, len(rungs), result
            else:
                labels.append(result)
                yield done, len(rungs), ""
    if not labels:
        raise UsageError(f"none of the {len(sources)} sources could be used. The reasons are above.")
    write_parquet(out / "ladder.parquet", pa.Table.from_pylist(sorted(labels, key=lambda label: label["clip_id"])))


def read_ladder(folder: Path) -> list[Label]:
    """Rows of a ladder's table, as `vqa data synth` makes it.

    Raises:
        UsageError: where there is no table, or rows of it have no opinion on 1-5.
    """
    path = folder / "ladder.parquet"
    if not path.is_file():
        raise UsageError(f"{path} does not exist. Make a ladder first: vqa data synth SOURCES --out {folder}.")
    rows = cast(list[Label], pq.read_table(path).to_pylist())
    wrong = [row["clip_id"] for row in rows if not 1 <= (row.get("opinion") or 0) <= 5]
    if wrong:
        raise UsageError(f"{path}: {len(wrong)} rows have no opinion on 1-5, e.g. {wrong[0]!r}. Make the ladder again.")
    return rows
