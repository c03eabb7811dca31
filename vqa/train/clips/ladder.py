"""What a ladder teaches: views of its clips, and an answer in words that is true of each."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vqa.errors import ClipError, UsageError
from vqa.prompt import answer_text
from vqa.types import Clip, Pixels, Views
from vqa.views import ViewsConfig, look

# What people see of each, in several ways to say it; a clip's seed picks one. Which codec it was, or whether detail was
# lost in the lens or by scaling, is not for the eye.
_COMPRESSED, _BLURRED = ("compression", "coding artefacts"), ("blur", "softness")
NAMES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("x264", "x265", "vp9", "av1"), _COMPRESSED),
    **dict.fromkeys(("scaling", "defocus", "motion_blur"), _BLURRED),
    "noise": ("noise", "grain"),
    "exposure": ("wrong exposure",),
    "contrast": ("low contrast",),
    "colour_cast": ("a colour cast",),
    "banding": ("banding",),
    "transmission_loss": ("lost slices", "transmission loss"),
    "dropped_frames": ("dropped frames",),
    "frozen": ("a freeze", "frozen frames"),
    "judder": ("judder",),
    "flicker": ("flicker",),
}
CLASSES = tuple(dict.fromkeys(NAMES.values()))  # what can be seen, each with its names
CROP = 112  # pixels; one attention window of Qwen2.5-VL's tower
TEMPORAL = {"dropped_frames", "frozen", "judder"}  # no single frame shows them
DEGREES = ("slight", "clear", "heavy")
GRADES = ("bad", "poor", "fair", "good", "excellent")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesson:
    """One clip of a ladder as seen: views, and what is known of it."""

    views: Views
    opinion: float  # 1-5; VMAF's stand-in, not people's
    distortions: tuple[str, ...]
    severities: tuple[float, ...]  # 0-1

    def answer(self, generator: np.random.Generator, *, numbers: int = 2) -> str:
        """See the function `answer`."""
        return answer(generator, numbers, self.opinion, self.distortions, self.severities)


def answer(
    generator: np.random.Generator,
    numbers: int,
    opinion: float,
    distortions: Sequence[str],
    severities: Sequence[float],
) -> str:
    """A short reason made of facts only (what was done, how strongly, the grade), and the opinion for each of the
    `numbers` asked for."""
    worst: dict[tuple[str, ...], float] = {}
    for name, severity in zip(distortions, severities, strict=True):
        worst[NAMES[name]] = max(severity, worst.get(NAMES[name], 0.0))
    harms = [f"{DEGREES[min(2, int(degree * 3))]} {generator.choice(words)}" for words, degree in worst.items()]
    grade = GRADES[min(4, int(opinion - 0.5))]
    found = " and ".join(harms) if harms else "no damage"
    reason = str(
        generator.choice(
            [
                f"The clip shows {found}. It looks {grade}.",
                f"I see {found}, so the quality is {grade}.",
                f"There is {found}; the picture is {grade}.",
            ]
        )
    )
    return answer_text(reason, [opinion] * numbers)


def read_ladder(folder: Path) -> list[dict[str, Any]]:
    """Rows of `ladder.parquet` made by `vqa data synth`. Raises UsageError where there is none, or it has no
    opinions."""
    path = folder / "ladder.parquet"
    if not path.is_file():
        raise UsageError(f"{path} does not exist; make a ladder first: vqa data synth SOURCES --out {folder}")
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    wrong = [row["clip_id"] for row in rows if not 1 <= (row.get("opinion") or 0) <= 5]
    if wrong:
        raise UsageError(
            f"{path}: {len(wrong)} rows without an opinion on 1-5, e.g. {wrong[0]!r}; make the ladder again"
        )
    return rows


def look_at(
    rows: Sequence[dict[str, Any]],
    folder: Path,
    *,
    settings: Callable[[dict[str, Any]], ViewsConfig],
    seed: int,
    threads: int,
) -> list[Lesson]:
    """Views of each row's clip by its `settings`, decoded once, in the order of rows; clips that cannot be seen are
    left out."""

    def one(row: dict[str, Any]) -> Lesson | None:
        clip = Clip(clip_id=row["clip_id"], uri=str(folder / row["uri"]))
        try:
            views = look(clip, settings(row), seed=seed + row["seed"] % 1_000_003)
        except ClipError:
            return None
        return Lesson(
            views=views,
            opinion=row["opinion"],
            distortions=tuple(row["distortions"]),
            severities=tuple(row["severities"]),
        )

    with ThreadPoolExecutor(threads) as pool:
        return [lesson for lesson in pool.map(one, rows) if lesson is not None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crops:
    """Native squares of many clips, and what is known of each clip; arrays have one entry for each of N clips."""

    pixels: Pixels  # [N, crops, 112, 112, 3], on disk
    opinions: NDArray[np.float32]  # [N] 1-5
    shown: NDArray[np.float32]  # [N, 17] 1 where the distortion of that place in NAMES is there
    is_still: NDArray[np.bool_]  # [N] nothing is wrong with it that only shows in time


def by_class(shown: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N, 11]: 1 where something of that place in CLASSES is there; of `Crops.shown` [N, 17]."""
    members = [[place for place, words in enumerate(NAMES.values()) if words == one] for one in CLASSES]
    return np.stack([shown[:, places].max(axis=1) for places in members], axis=1)


def shares(distortions: Sequence[Sequence[str]], *, most: float) -> NDArray[np.float64]:
    """[N], summing to 1: how often to draw each clip so that what is rare is learned too.

    A kind of damage counts as the square root of how much rarer it is than the commonest, `most` at most; a clip as its
    rarest kind.
    """
    kinds = [{NAMES.get(name, (name,)) for name in some} or {()} for some in distortions]
    counts = Counter(kind for some in kinds for kind in some)
    common = max(counts.values(), default=1)
    weights = np.array([max(min(most, (common / counts[kind]) ** 0.5) for kind in some) for some in kinds])
    chances: NDArray[np.float64] = weights / weights.sum()
    return chances


def cut_crops(
    rows: Sequence[dict[str, Any]],
    files: Sequence[Path],
    *,
    path: Path,
    frames: int,
    each: int,
    seed: int,
    threads: int,
) -> Crops:
    """`each` squares from anywhere in each of `frames` frames of every clip (its row in its ladder, its file), in the
    file `path` (.npy), made once.

    Raises ClipError for a clip that cannot be read: a ladder is whole or made again.
    """

    shown = ViewsConfig(temporal="segment", keyframes=frames, global_pixels=64, spatial="frames", local_pictures=frames)

    def one(row: dict[str, Any], file: Path) -> Pixels:
        clip = Clip(clip_id=row["clip_id"], uri=str(file))
        generator = np.random.default_rng((seed, row["seed"]))
        pictures = look(clip, shown, seed=int(generator.integers(2**31))).local_pictures
        return np.stack([cut(pictures[i % len(pictures)], generator) for i in range(frames * each)])

    if not path.exists():
        draft = path.with_suffix(".tmp")
        shape = (len(rows), frames * each, CROP, CROP, 3)
        store = np.lib.format.open_memmap(draft, mode="w+", dtype=np.uint8, shape=shape)
        with ThreadPoolExecutor(threads) as pool:
            for index, squares in enumerate(pool.map(one, rows, files)):
                store[index] = squares
        store.flush()
        draft.replace(path)
    return Crops(
        pixels=np.load(path, mmap_mode="r"),
        opinions=np.array([row["opinion"] for row in rows], dtype=np.float32),
        shown=np.array([[name in row["distortions"] for name in NAMES] for row in rows], dtype=np.float32),
        is_still=np.array([TEMPORAL.isdisjoint(row["distortions"]) for row in rows]),
    )


def cut(picture: Pixels, generator: np.random.Generator) -> Pixels:
    """A 112-pixel square from anywhere in a picture; smaller sides are mirrored."""
    height, width, _ = picture.shape
    picture = np.pad(picture, ((0, max(0, CROP - height)), (0, max(0, CROP - width)), (0, 0)), mode="symmetric")
    y = int(generator.integers(0, max(0, height - CROP) + 1))
    x = int(generator.integers(0, max(0, width - CROP) + 1))
    return picture[y : y + CROP, x : x + CROP]
