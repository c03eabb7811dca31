"""What a run is asked, what it says of itself in run.json, and what it tells people."""

import contextlib
import json
import os
import platform
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from jobs.config import ScoreConfig
from jobs.execution import Asked
from jobs.progress import JobProgress, duration
from jobs.resume import Plan
from jobs.summary import overview
from vqa.console import counted, printable
from vqa.data.sources import Listing
from vqa.evaluate.calibrate import Calibration

PACKAGES = ("vqa", "torch", "transformers", "ray", "av", "pyarrow", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Asked):
    """The arguments of `vqa score`, as given."""

    sources: tuple[str, ...]
    k: int | None = None
    snap: str | None = None
    clip_seconds: float | None = None
    on_damage: str | None = None
    min_decoded_share: float | None = None
    calibration: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A request worked out: what to score, with what, under which keys."""

    request: Request
    config: ScoreConfig
    listing: Listing
    model_id: str
    model_revision: str
    settings: str  # digest
    calibration: Calibration | None = None


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def header() -> dict[str, Any]:
    """What the run.json of any job says from the start."""
    return {
        "state": "running",
        "started": now(),
        "ended": None,
        "host": {"name": socket.gethostname(), "platform": platform.platform(), "cores": os.cpu_count()},
        "versions": versions(),
    }


def opening(job: Job) -> dict[str, Any]:
    """What run.json says from the start."""
    return header() | {
        "sources": [printable(source) for source in job.request.sources],
        "files": len(job.listing.clips),
        "skipped_by_suffix": job.listing.skipped_by_suffix,
        "unreadable_folders": list(job.listing.unreadable_folders),
        "repeated": job.listing.repeated,
        "model_id": job.model_id,
        "model_revision": job.model_revision,
        "settings": job.settings,
        "config": job.config.model_dump(mode="json"),
    }


def announce(job: Job, plan: Plan, progress: JobProgress) -> None:
    """What was found, what was left out, what will be done."""
    listing = job.listing
    if listing.skipped:
        progress.say(f"skipped files that are no video or picture by their name: {printable(listing.skipped)}")
    for folder in listing.unreadable_folders:
        progress.say(f"warning: folder cannot be read, its clips are not in the table: {printable(folder)}")
    found = job.calibration
    if found and found.model_id and (found.model_revision, found.settings) != (job.model_revision, job.settings):
        progress.say("warning: the calibration was made with another revision or other settings of this model")
    kept = f"{counted(len(plan.kept), 'row')} kept, " * bool(plan.kept)
    failed = f" ({plan.retried} failed before)" * bool(plan.retried)
    stale = f"{len(plan.stale)} superseded{failed}, " * bool(plan.stale)
    progress.say(
        f"{counted(len(listing.clips), 'file')}: {kept}{stale}{len(plan.work)} to score "
        f"with {job.model_id} at {job.model_revision}"
    )


def report(job: Job, record: dict[str, Any], rows: pa.Table, progress: JobProgress) -> None:
    """The end: tables or one JSON object on stdout, the last words on stderr."""
    out = job.request.out
    if job.request.json_summary:
        print(json.dumps(record | {"out": str(out)}, ensure_ascii=False))
    elif record["state"] == "finished":
        Console().print(overview(rows, out=out))
    rate = f", {record['clips_per_second']:.2f} clips/s" if record["clips_per_second"] else ""
    progress.say(f"{counted(record['scored_now'], 'clip')} scored in {duration(record['seconds'])}{rate}")
    if record["state"] == "interrupted":
        progress.say(
            f"stopped; {counted(rows.num_rows, 'row')} safe in {printable(str(out))}; the same command goes on there"
        )
    elif record["exit_code"]:
        share = f"{record['without_score']} of {rows.num_rows} clips"
        progress.say(f"{share} without a score, more than --max-failed {job.request.max_failed}")
