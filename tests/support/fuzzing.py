"""Mutants scored as a job scores clips: in one warm guarded child, one row each."""

import os
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tests.support.mutations import Mutant
from tests.support.zoo_good import good
from vqa.errors import ClipError
from vqa.media import Guard
from vqa.types import Clip, Views
from vqa.views import ViewsConfig, look

SETTINGS = ViewsConfig(keyframes=8, global_pixels=128, local_pictures=1, crop_pixels=32)
MEMORY_BYTES = 2 << 30


def broken(views: Views) -> str | None:
    """What is wrong with views of a file that counts as good, whatever the file is."""
    info, times = views.info, views.keyframe_seconds
    whole = all(p.ndim == 3 and p.shape[2] == 3 and p.size and p.dtype == "uint8" for p in views.pictures)
    checks = {
        "no picture": bool(views.global_pictures and views.local_pictures and whole),
        "keyframes out of order": list(times) == sorted(times) and all(0 <= t < float("inf") for t in times),
        "a keyframe twice": views.is_partial or len(set(times)) == len(times),  # a lost one is shown by its neighbour
        "frames": 1 <= views.frames_decoded <= views.frames_planned <= info.frame_count,
        "too few frames": views.frames_decoded >= views.frames_planned / 2,
        "facts": info.width > 0 < info.height and 0 <= info.fps < float("inf") > info.duration_seconds >= 0,
        "a box beyond the picture": all(
            min(b.x, b.y) >= 0 and b.x + b.width <= info.width and b.y + b.height <= info.height
            for b in views.crop_boxes
        ),
    }
    return next((name for name, is_kept in checks.items() if not is_kept), None)


def difference(views: Views, other: Views) -> float | None:
    """Mean absolute difference of the global pictures, 0-255; None where they show other times or sizes."""
    shapes = [[picture.shape for picture in v.global_pictures] for v in (views, other)]
    if views.keyframe_seconds != other.keyframe_seconds or shapes[0] != shapes[1]:
        return None
    pairs = zip(views.global_pictures, other.global_pictures, strict=True)
    return round(float(np.mean([np.abs(a.astype(np.int16) - b).mean() for a, b in pairs])), 3)


def outcome(guard: Guard, path: Path, *, like: Views | None = None) -> dict[str, Any]:
    """The row of one file: `outcome` is ok, partial, an error kind, or "fault" for what must never happen."""
    started = time.perf_counter()
    try:
        views = guard.run(look, Clip(clip_id=path.name, uri=str(path)), SETTINGS)
    except ClipError as error:
        row = {"outcome": error.kind, "error": str(error).replace(str(path), "FILE")}
        if "FILE" not in row["error"]:
            row |= {"outcome": "fault", "error": f"an error that names no file: {error}"}
    except Exception:  # whatever else comes out is what is looked for
        row = {"outcome": "fault", "error": traceback.format_exc()}
    else:
        row = {"outcome": "partial" if views.is_partial else "ok"}
        if fault := broken(views):
            row = {"outcome": "fault", "error": f"{fault}: {views!r} {views.info!r} {views.keyframe_seconds}"}
        elif like is not None:
            row["difference"] = difference(views, like)
    return row | {"seconds": round(time.perf_counter() - started, 3)}


class Runner:
    """One warm guard, and what each mutation did to it."""

    def __init__(self, folder: Path, *, deadline_seconds: float) -> None:
        self._folder = folder
        self._guard = Guard(deadline_seconds=deadline_seconds, memory_bytes=MEMORY_BYTES, preload=["vqa.views"])
        self._like: dict[str, Views] = {}
        self._child = 0

    def __enter__(self) -> "Runner":
        self._child = self._guard.run(os.getpid)
        return self

    def __exit__(self, *_: object) -> None:
        self._guard.close()

    def row(self, found: Mutant) -> dict[str, Any]:
        """Looks at one mutant, and at its seed the first time."""
        if found.seed not in self._like:
            path = self.write(found.seed, good(found.seed))
            self._like[found.seed] = self._guard.run(look, Clip(clip_id=found.seed, uri=str(path)), SETTINGS)
        path = self.write(f"{found.number} {found.seed}", found.data)
        row = outcome(self._guard, path, like=self._like[found.seed])
        path.unlink()
        child = self._guard.run(os.getpid)
        row["is_new_child"], self._child = child != self._child, child
        row["child_mb"], row["own_mb"] = (round(psutil.Process(p).memory_info().rss / 2**20) for p in (child, None))
        return {"number": found.number, "seed": found.seed, "steps": found.steps} | row

    def write(self, name: str, data: bytes) -> Path:
        """A file in the folder."""
        path = self._folder / name
        path.write_bytes(data)
        return path
