"""Labels beside files: is each file there, does it decode, is it as long as the labels say, is it there only once?"""

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vqa.data.examine import DEADLINE_SECONDS, Facts, examine, in_guards
from vqa.data.manifest import Manifest
from vqa.data.sources import MEDIA_SUFFIXES, path_to_uri, walk
from vqa.errors import ClipError, UsageError
from vqa.files import replacing
from vqa.media.storage.open import local_path
from vqa.media.storage.stores import is_remote

What = Literal["file", "kind", "frames", "length", "rate", "decoding", "duplicate", "reference", "unlabelled"]
_SLACK = 0.02  # share of what a label says, for lists that round or were made from another cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """Where a label and a file do not fit; of a file that no label names, `clip_id` is empty."""

    clip_id: str
    uri: str
    what: What
    detail: str


def check_files(
    manifest: Manifest,
    *,
    root: Path | None = None,
    every_frame: bool = False,
    workers: int = 2,
    deadline_seconds: float = DEADLINE_SECONDS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Disagreement]:
    """Every disagreement, in the order of the manifest, then files below `root` that no row names.

    Told lengths (aspects `frames`, `duration_seconds`, `fps`) may be 2 % off, or one frame, 0.1 s, 0.01 a second.
    Duplicates are files of one `fingerprint`. Raises UsageError for a root that is no folder.
    """
    if root is not None and not root.is_dir():
        raise UsageError(f"--root {root}: no folder")
    rows = manifest.table.to_pylist()
    found: list[Disagreement] = []
    by_content: dict[str, str] = {}
    uris = [row["uri"] for row in rows]
    outcomes = in_guards(examine, uris, workers=workers, deadline_seconds=deadline_seconds, every_frame=every_frame)
    for done, (row, outcome) in enumerate(zip(rows, outcomes, strict=True), start=1):
        progress(done, len(rows))
        found += [
            Disagreement(clip_id=row["clip_id"], uri=row["uri"], what=what, detail=detail)
            for what, detail in _compare(row, outcome, by_content)
        ]
    if root is not None:
        found += [
            Disagreement(clip_id="", uri=uri, what="unlabelled", detail="a media file that no label names")
            for uri in unlabelled(root, manifest)
        ]
    return found


def _compare(
    row: Mapping[str, Any], outcome: Facts | ClipError, by_content: dict[str, str]
) -> Iterator[tuple[What, str]]:
    reference = row["reference_uri"]
    if reference and not is_remote(reference) and not local_path(reference).exists():
        yield "reference", f"{reference} is not there"
    if isinstance(outcome, ClipError):
        yield "file", f"{outcome.kind}: {outcome}"
        return
    if (row["kind"] == "image") != outcome.is_image:
        yield "kind", f"label says {row['kind']}, the file is {'a picture' if outcome.is_image else 'a video'}"
    if outcome.decoded < outcome.wanted:
        yield "decoding", f"{outcome.decoded} of {outcome.wanted} frames could be decoded"
    told = dict(row["aspects"] or ())
    sides: tuple[tuple[What, str, float, float, str], ...] = (
        ("frames", "frames", outcome.frame_count, 1.0, ""),
        ("length", "duration_seconds", outcome.duration_seconds, 0.1, " s"),
        ("rate", "fps", outcome.fps, 0.01, " frames per second"),
    )
    for what, aspect, real, slack, unit in sides:
        if aspect in told and abs(told[aspect] - real) > max(slack, _SLACK * abs(told[aspect])):
            yield what, f"label says {told[aspect]:g}{unit}, the file has {real:g}{unit}"
    first = by_content.setdefault(outcome.fingerprint, row["clip_id"])
    if first != row["clip_id"]:
        yield "duplicate", f"same content as {first}"


def unlabelled(root: Path, manifest: Manifest) -> list[str]:
    """Media files below root that no row names, neither as clip nor as reference."""
    listed = {uri for name in ("uri", "reference_uri") for uri in manifest.table.column(name).to_pylist()}
    files = (path_to_uri(path) for path in walk(str(root), []) if Path(path).suffix.lower() in MEDIA_SUFFIXES)
    return [uri for uri in files if uri not in listed]


def counted(found: Sequence[Disagreement]) -> dict[What, int]:
    """How many there are of each kind, most frequent first."""
    return dict(Counter(one.what for one in found).most_common())


def write_disagreements(path: Path, found: Sequence[Disagreement]) -> None:
    """A CSV line for each, atomically."""
    with replacing(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("clip_id", "uri", "what", "detail"))
        writer.writerows((one.clip_id, one.uri, one.what, one.detail) for one in found)
