"""What a run has to do: the clips asked for against the rows on disk, by names, stamps and keys."""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from vqa.data.windows import video_id, windows
from vqa.errors import ClipError, UsageError
from vqa.media.storage.open import local_path
from vqa.media.storage.stores import is_remote, remote_stamp
from vqa.types import Clip

# These may end otherwise (limits are not part of the key); other failures are final until the file changes.
RETRIED = frozenset({"crashed", "timeout", "too_large", "model"})
Stamp = tuple[int, int]  # size in bytes, time of last change in ns


class StoredRow(NamedTuple):
    """The columns of a row on disk that decide whether it is reused."""

    clip_id: str
    uri: str
    start_seconds: float | None
    end_seconds: float | None
    error_kind: str | None
    run_key: str
    source_bytes: int | None
    source_mtime_ns: int | None
    fingerprint: str | None
    duration_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One file (or listed span of one) to sample."""

    clip: Clip
    finished: tuple[str, ...] = ()  # run keys that already have a good row, if the file turns out to be unchanged
    rows: tuple[str, ...] = ()  # clip_ids of those rows; superseded where the file turns out to be another


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkPlan:
    """The work, and what becomes of the rows on disk."""

    work: list[Work]
    reused: list[str]  # clip_ids of finished rows of unchanged files
    stale: list[str]  # those of rows to supersede before anything else: other settings, or a failure to be retried
    retried: int  # how many of the stale ones are such failures


def digest(*parts: object) -> str:
    """32 hex digits over the parts' canonical JSON."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def run_key(source: str, *, start_seconds: float | None, end_seconds: float | None, settings: str) -> str:
    """The digest of everything that changes a clip's score: content, span, settings.

    `source` is the file's fingerprint, or the error kind where it could not be read; `settings` the digest of views,
    prompt, model revision and generation. Paths, workers, batch size and deadlines are not part of it.
    """
    return digest(source, start_seconds, end_seconds, settings)


def stamp(uri: str) -> Stamp | None:
    """Size and time of last change (of a remote file, as its store reports them); None where there is no file.

    An equal stamp is trusted. The time is the later of that of the content and that of the file's entry, which nobody
    can put back: `cp -p` and rsync give new content an old time.
    """
    if is_remote(uri):
        return remote_stamp(uri)
    try:
        status = os.stat(local_path(uri))  # noqa: PTH116 (one call less, and there are many)
    except (OSError, ValueError, ClipError):
        return None
    return status.st_size, max(status.st_mtime_ns, status.st_ctime_ns)


def stored_rows(table: pa.Table) -> list[StoredRow]:
    """The rows of a scores table (or its columns in `StoredRow`)."""
    columns = (table.column(name).to_pylist() for name in StoredRow._fields)
    return list(map(StoredRow._make, zip(*columns, strict=True)))


def plan_work(
    clips: Sequence[Clip],
    rows: Iterable[StoredRow],
    *,
    settings: str,
    clip_seconds: float | None,
    also: str | None = None,
) -> WorkPlan:
    """Decide for each clip: reuse its rows, inspect the file again, or score it anew.

    Rows under the settings `also`, those of a cascade's second tier, are finished too.

    A file with the stamp it had is not opened. One with another stamp is inspected: where its fingerprint is the old
    one, its rows are reused after all. Raises UsageError where a row under the same clip_id is of another file.
    """
    by_source = _by_source(clips, rows)
    with ThreadPoolExecutor(16) as threads:
        stamps = dict(zip(by_source, threads.map(stamp, (by_source[name][0].uri for name in by_source)), strict=True))
    work: list[Work] = []
    reused: list[str] = []
    stale: list[str] = []
    retried = 0
    for clip in clips:
        if clip.clip_id not in by_source:
            work.append(Work(clip=clip))
            continue
        _, old = by_source[clip.clip_id]
        _refuse_other_file(clip, old)
        current = [row for row in old if row.run_key in (key_of(row, settings), also and key_of(row, also))]
        good = [row for row in current if row.error_kind not in RETRIED]
        retried += len(current) - len(good)
        good_ids = [row.clip_id for row in good]
        stale.extend({row.clip_id for row in old}.difference(good_ids))
        now = stamps[clip.clip_id]
        if now and all(_is_trusted(row, clip, now) for row in good) and _is_complete(clip, good, clip_seconds):
            reused.extend(good_ids)
        else:
            work.append(Work(clip=clip, finished=tuple(key_of(row, settings) for row in good), rows=tuple(good_ids)))
    return WorkPlan(work=work, reused=reused, stale=stale, retried=retried)


def _by_source(clips: Sequence[Clip], rows: Iterable[StoredRow]) -> dict[str, tuple[Clip, list[StoredRow]]]:
    asked = {clip.clip_id: clip for clip in clips}
    found: dict[str, list[StoredRow]] = defaultdict(list)
    for row in rows:
        name = row.clip_id if row.clip_id in asked else video_id(row.clip_id)
        if name in asked:
            found[name].append(row)
    return {name: (asked[name], members) for name, members in found.items()}


def _refuse_other_file(clip: Clip, old: Sequence[StoredRow]) -> None:
    others = {row.uri for row in old if row.uri != clip.uri}
    for uri in sorted(others):
        if stamp(uri) is not None:
            raise UsageError(
                f"clip {clip.clip_id!r} is {clip.uri}, but the table has a row of that name for {uri}, which "
                "still exists; use another --out, or --fresh to start over"
            )


def key_of(row: StoredRow, settings: str) -> str:
    """The run key that a row has under these settings."""
    source = row.fingerprint or row.error_kind or ""
    return run_key(source, start_seconds=row.start_seconds, end_seconds=row.end_seconds, settings=settings)


def _is_trusted(row: StoredRow, clip: Clip, now: Stamp) -> bool:
    return row.fingerprint is not None and row.uri == clip.uri and (row.source_bytes, row.source_mtime_ns) == now


def _is_complete(clip: Clip, good: Sequence[StoredRow], clip_seconds: float | None) -> bool:
    duration = next((row.duration_seconds for row in good if row.duration_seconds is not None), None)
    wanted = windows(clip, duration_seconds=duration, clip_seconds=clip_seconds)
    return {part.clip_id for part in wanted} == {row.clip_id for row in good}
