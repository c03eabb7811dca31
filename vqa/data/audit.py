"""Audit of a data set: the labels of a manifest against the media files.

Files are opened in guarded children, several at a time, so that a damaged file costs its deadline and not the run.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Literal, TypeVar

import numpy as np

from vqa.data.cells import SafeWriter
from vqa.data.copies import find_copies
from vqa.data.dialects import Row
from vqa.data.manifest import Manifest
from vqa.data.sources import EVERYTHING, Selection, list_clips
from vqa.errors import ClipError, UsageError
from vqa.files import replacing
from vqa.media.decode import decode
from vqa.media.probe import probe
from vqa.media.sandbox import Guard
from vqa.media.storage.fingerprint import fingerprint
from vqa.media.storage.open import composed, local_path
from vqa.media.storage.stores import is_remote
from vqa.types import Pixels

T = TypeVar("T")
Check = Literal[
    "file", "kind", "frames", "length", "rate", "decoding", "duplicate", "reference", "unlabelled", "shared"
]

SAMPLED_FRAMES = 5
DEADLINE_SECONDS, MEMORY_BYTES = 60.0, 4 * 2**30
_FILES = {"uri": "", "reference_uri": "its reference "}  # of a row, and how a finding names it
_DECODED_SIZE = (16, 16)  # pixels of what is returned; the decoder works at full size all the same
_TOLERANCE = 0.02  # share of a labelled value, for lists that round or were made from another cut


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """Facts of one media file, as probed and decoded."""

    is_image: bool
    frame_count: int
    duration_seconds: float
    fps: float
    frames_requested: int
    frames_decoded: int
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A failed check; `clip_id` is empty for a file without a row in the manifest."""

    clip_id: str
    uri: str
    check: Check
    detail: str


def check_files(
    manifest: Manifest,
    *,
    root: Path | None = None,
    selection: Selection = EVERYTHING,
    every_frame: bool = False,
    workers: int = 2,
    deadline_seconds: float = DEADLINE_SECONDS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Finding]:
    """Compare each row of a manifest with its file.

    The aspects `frames`, `duration_seconds` and `fps` may differ from the file by 2 %, or by one frame, 0.1 s and 0.01
    frames per second if that is more. Duplicates are files of equal `fingerprint`.

    Args:
        manifest: The labels.
        root: Folder in which media files without a row are reported too.
        selection: Which files of that folder.
        every_frame: Decode every frame instead of five per clip.
        workers: Files opened at a time.
        deadline_seconds: Time per file, after which it counts as `timeout`.
        progress: Called with the number of files done and the number of all.

    Returns:
        The failed checks in the order of the manifest, then the files below `root` that no row names.

    Raises:
        UsageError: If `root` is not a folder.
    """
    if root is not None and not root.is_dir():
        raise UsageError(f"--root {root} is no folder. Give the folder with the media files.")
    rows = manifest.table.to_pylist()
    found: list[Finding] = []
    by_content: dict[str, str] = {}
    uris = [row["uri"] for row in rows]
    outcomes = map_files(file_facts, uris, workers=workers, deadline_seconds=deadline_seconds, every_frame=every_frame)
    for done, (row, outcome) in enumerate(zip(rows, outcomes, strict=True), start=1):
        progress(done, len(rows))
        found += [
            Finding(clip_id=row["clip_id"], uri=row["uri"], check=check, detail=detail)
            for check, detail in _failed_checks(row, outcome, by_content)
        ]
    if root is not None:
        found += [
            Finding(clip_id="", uri=uri, check="unlabelled", detail="no row of the manifest names this file")
            for uri in _unlabelled(root, manifest, selection)
        ]
    return found


def find_shared(manifest: Manifest, other: Manifest, *, other_name: str) -> list[Finding]:
    """Find clips whose picture, reference or content two sets share.

    Args:
        manifest: The labels.
        other: The set that must not hold the same, such as a test set beside a training set.
        other_name: Of `other`, for the findings.

    Returns:
        A finding per clip of `manifest` and way in which it is shared, in the order of the manifest: by name of content
        or reference within one data set, whose names mean the same in both; whatever the data sets, by the files
        themselves, clips and references alike, of which near-duplicates are those of `vqa.data.copies` by frames
        (re-encoded, rescaled).
    """
    own, others = manifest.table.to_pylist(), other.table.to_pylist()
    found: list[tuple[int, Finding]] = []

    def add(place: int, detail: str) -> None:
        row = own[place]
        found.append((place, Finding(clip_id=row["clip_id"], uri=row["uri"], check="shared", detail=detail)))

    named: set[int] = set()
    by_scene: dict[str, Row] = {}
    for row in others:
        for scene in _scenes(row):
            by_scene.setdefault(scene, row)
    for place, row in enumerate(own):
        if shared := next((one for one in _scenes(row) if one in by_scene), None):
            match = by_scene[shared]
            named.add(place)
            add(place, f"{shared} of {other_name}: {match['clip_id']}{_part(match)}")
    files = dict.fromkeys(row[name] for name in _FILES for row in [*own, *others] if row[name])
    group_of = {uri: uri for uri in files}
    for group in find_copies(names := list(files), by="frames"):
        group_of.update({names[one]: names[group[0]] for one in group})
    holders: dict[str, tuple[Row, str]] = {}
    for name in _FILES:
        for row in (one for one in others if one[name]):
            holders.setdefault(group_of[row[name]], (row, "the reference of " if name == "reference_uri" else ""))
    for place, row in enumerate(own):
        for name, words in _FILES.items():
            holder = holders.get(group_of.get(row[name], ""))
            if holder and (name == "uri" or place not in named):
                match, theirs = holder
                add(place, f"{words}looks like {theirs}{match['clip_id']}{_part(match)} of {other_name}")
                break
    return [finding for _, finding in sorted(found, key=lambda one: one[0])]


def _scenes(row: Row) -> list[str]:
    """Names of what a clip shows: its content and its reference's file, by data set."""
    scenes = [f"content {str(row['content_id']).rpartition('/')[2].lower()} ({row['dataset']})"]
    if row["reference_uri"]:
        scenes.append(f"reference {Path(str(row['reference_uri'])).stem.lower()} ({row['dataset']})")
    return scenes


def _part(row: Row) -> str:
    return f" ({row['split']})" if row["split"] else ""


def _failed_checks(row: Row, outcome: FileFacts | ClipError, by_content: dict[str, str]) -> Iterator[tuple[Check, str]]:
    reference = row["reference_uri"]
    if reference and not is_remote(reference) and not local_path(reference).exists():
        yield "reference", f"{reference} does not exist"
    if isinstance(outcome, ClipError):
        yield "file", f"{outcome.kind}: {outcome}"
        return
    if (row["kind"] == "image") != outcome.is_image:
        yield "kind", f"the label is {row['kind']}, the file is {'an image' if outcome.is_image else 'a video'}"
    if outcome.frames_decoded < outcome.frames_requested:
        yield "decoding", f"{outcome.frames_decoded} of {outcome.frames_requested} frames could be decoded"
    labelled = dict(row["aspects"] or ())
    aspects: tuple[tuple[Check, str, float, float, str], ...] = (
        ("frames", "frames", outcome.frame_count, 1.0, ""),
        ("length", "duration_seconds", outcome.duration_seconds, 0.1, " s"),
        ("rate", "fps", outcome.fps, 0.01, " frames per second"),
    )
    for check, name, real, slack, unit in aspects:
        if name in labelled and abs(labelled[name] - real) > max(slack, _TOLERANCE * abs(labelled[name])):
            yield check, f"the label is {labelled[name]:g}{unit}, the file has {real:g}{unit}"
    first = by_content.setdefault(outcome.fingerprint, row["clip_id"])
    if first != row["clip_id"]:
        yield "duplicate", f"same content as {first}"


def _unlabelled(root: Path, manifest: Manifest, selection: Selection) -> list[str]:
    """Media files below root that no row names; spellings of accents count as one."""
    listed = {uri for name in ("uri", "reference_uri") for uri in manifest.table.column(name).to_pylist() if uri}
    listed = {composed(uri) for uri in listed}
    uris = (clip.uri for clip in list_clips([str(root)], selection=selection).clips)
    return [uri for uri in uris if composed(uri) not in listed]


def count_by_check(found: Sequence[Finding]) -> dict[Check, int]:
    """Return the number of findings per check, most frequent first."""
    return dict(Counter(one.check for one in found).most_common())


def write_findings(path: Path, found: Sequence[Finding]) -> None:
    """Write the findings as CSV (clip_id, uri, check, detail), atomically."""
    with replacing(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = SafeWriter(file)
        writer.writerow(("clip_id", "uri", "check", "detail"))
        writer.writerows((one.clip_id, one.uri, one.check, one.detail) for one in found)


def file_facts(uri: str, *, every_frame: bool) -> FileFacts:
    """Probe and decode a file: every frame, or five spread over it. Raises ClipError."""
    info, packets = probe(uri)
    count = len(packets.seconds)
    sampled = np.linspace(0, count - 1, count if every_frame else SAMPLED_FRAMES)
    wanted = np.unique(sampled.round().astype(int))
    frames = decode(uri, packets.seconds[wanted], sizes=[_DECODED_SIZE] * len(wanted), info=info, packets=packets)
    return FileFacts(
        is_image=info.is_image,
        frame_count=count,
        duration_seconds=info.duration_seconds,
        fps=info.fps,
        frames_requested=len(wanted),
        frames_decoded=len(frames.requested),
        fingerprint=fingerprint(uri),
    )


def middle_frame(uri: str, *, room: tuple[int, int]) -> Pixels:
    """Decode the frame in the middle, reduced to fit into `room` (width, height).

    Returns:
        uint8 [height, width, 3], RGB.

    Raises:
        ClipError: If the file cannot be decoded.
    """
    info, packets = probe(uri)
    scale = min(1.0, room[0] / info.width, room[1] / info.height)
    size = (max(1, round(info.width * scale)), max(1, round(info.height * scale)))
    return decode(uri, [packets.seconds[len(packets.seconds) // 2]], sizes=[size], info=info, packets=packets).pixels[0]


def map_files(
    function: Callable[..., T],
    uris: Sequence[str],
    *,
    workers: int = 2,
    deadline_seconds: float = DEADLINE_SECONDS,
    **options: object,
) -> Iterator[T | ClipError]:
    """Run `function(uri, **options)` per file in `workers` killable children.

    Yields:
        The return values in the order of `uris`; the ClipError in place of the value where one was raised.
    """
    with ExitStack() as stack:
        guards: SimpleQueue[Guard] = SimpleQueue()
        for _ in range(workers):
            guard = Guard(deadline_seconds=deadline_seconds, memory_bytes=MEMORY_BYTES, preload=(__name__,))
            guards.put(stack.enter_context(guard))

        def outcome(uri: str) -> T | ClipError:
            guard = guards.get()
            try:
                return guard.run(function, uri, **options)
            except ClipError as error:
                return error
            finally:
                guards.put(guard)

        yield from stack.enter_context(ThreadPoolExecutor(workers)).map(outcome, uris)
