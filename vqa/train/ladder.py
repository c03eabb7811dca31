"""What a ladder teaches: views of its clips, and an answer in words that is true of each."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from vqa.errors import ClipError, UsageError
from vqa.prompt import answer_text
from vqa.types import Clip, Views
from vqa.views import ViewsConfig, look

# Several ways to say the same fact; a clip's seed picks one.
NAMES: dict[str, tuple[str, ...]] = {
    "x264": ("H.264 compression",),
    "x265": ("HEVC compression",),
    "vp9": ("VP9 compression",),
    "av1": ("AV1 compression",),
    "scaling": ("upscaling from a low resolution", "scaling"),
    "defocus": ("defocus blur", "blur"),
    "motion_blur": ("motion blur", "smear"),
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
DEGREES = ("slight", "clear", "heavy")
GRADES = ("bad", "poor", "fair", "good", "excellent")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesson:
    """One clip of a ladder as seen: views, and what is known of it."""

    views: Views
    opinion: float  # 1-5; VMAF's stand-in, not people's
    distortions: tuple[str, ...]
    severities: tuple[float, ...]  # 0-1

    def answer(self, generator: np.random.Generator) -> str:
        """A short reason made of facts only (what was done, how strongly, the grade), and the number for both
        places."""
        harms = [
            f"{DEGREES[min(2, int(severity * 3))]} {generator.choice(NAMES[name])}"
            for name, severity in zip(self.distortions, self.severities, strict=True)
        ]
        grade = GRADES[min(4, int(self.opinion - 0.5))]
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
        return answer_text(reason, [self.opinion, self.opinion])


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
    rows: Sequence[dict[str, Any]], folder: Path, *, settings: ViewsConfig, seed: int, threads: int
) -> list[Lesson]:
    """Views of each row's clip, decoded once, in the order of rows; clips that cannot be seen are left out."""

    def one(row: dict[str, Any]) -> Lesson | None:
        clip = Clip(clip_id=row["clip_id"], uri=str(folder / row["uri"]))
        try:
            views = look(clip, **settings.model_dump(), seed=seed + row["seed"] % 1_000_003)
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
