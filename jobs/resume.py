"""Work of a run: clips asked for against rows on disk, by names, stamps and keys."""

import hashlib
import itertools
import json
import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from jobs.listing import ClipList
from vqa.data.windows import WINDOW_ID, video_id, windows
from vqa.errors import ClipError, UsageError
from vqa.media.storage.open import local_path
from vqa.media.storage.stores import is_remote, remote_stamp
from vqa.types import Clip

# These may end otherwise (limits are not part of the key); other failures are final until the file changes.
RETRIED = frozenset({"crashed", "timeout", "too_large", "model"})
PLAN_CHUNK = 10_000  # clips that are planned at a time, where so many are listed
_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=True, separators=(",", ":"))
_FEW = 4  # files whose stamps are taken before it is asked whether that is slow
_SLOW_SECONDS = 1e-4  # of a file's stamp
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
    return hashlib.blake2b(_CANONICAL.encode(parts).encode(), digest_size=16).hexdigest()


def run_key(source: str, *, start_seconds: float | None, end_seconds: float | None, settings: str) -> str:
    """The digest of everything that changes a clip's score: content, span, settings.

    `source` is the file's fingerprint, or the error kind where it could not be read; `settings` the digest of views,
    prompt, model revision and generation. Paths, workers, batch size and deadlines are not part of it.
    """
    return digest(source, start_seconds, end_seconds, settings)


def stamp(uri: str) -> Stamp | None:
    """A file's size and time of last change, as its store reports; None without one.

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


class StoredRows:
    """Rows of a table kept as columns and found by clip name, without row objects."""

    def __init__(self, table: pa.Table) -> None:
        """Index the columns of `StoredRow` by the hash of the name of each row's video."""
        self._table = table
        names = (name for chunk in table.column("clip_id").chunks for name in chunk.to_pylist())
        hashes = np.fromiter((hash(video_id(name)) for name in names), np.int64, table.num_rows)
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def of(self, clips: Iterable[Clip]) -> list[StoredRow]:
        """The rows of these clips and of their windows; some others may be among them."""
        names = {name for clip in clips for name in (clip.clip_id, video_id(clip.clip_id))}
        wanted = np.fromiter(map(hash, names), np.int64, len(names))
        first, last = (np.searchsorted(self._hashes, wanted, side=side) for side in ("left", "right"))
        found = [self._order[a:b] for a, b in zip(first, last, strict=True) if a < b]
        return stored_rows(self._table.take(np.unique(np.concatenate(found)))) if found else []


class Planner:
    """The work of a job, planned PLAN_CHUNK clips at a time, and counts of it."""

    def __init__(
        self,
        clips: ClipList,
        rows: StoredRows,
        *,
        settings: str,
        clip_seconds: float | None,
        also: str | None = None,
        retire: Callable[[Sequence[str]], None] | None = None,
        tell: Callable[[int, bool], None] | None = None,
    ) -> None:
        """Nothing is planned yet.

        Args:
            clips: Those asked for.
            rows: Those on disk.
            settings: As of `plan_work`, like the next two.
            clip_seconds: Length of windows.
            also: Other settings whose rows are finished.
            retire: Called with the names of stale rows, before their clips are handed out.
            tell: Called with how many files there may be to do, and whether that is known for all.
        """
        self._clips, self._rows = clips, rows
        self._decide = partial(plan_work, settings=settings, clip_seconds=clip_seconds, also=also, is_listed=clips.has)
        self._retire, self._tell = retire or (lambda names: None), tell or (lambda files, is_all: None)
        self._ahead: deque[Work] = deque()
        self._chunks = self._planned()
        self.files = self.found = self.reused = self.stale = self.retried = 0
        self._windows: list[str] = []  # stale rows that may yet be listed as clips of their own

    def _planned(self) -> Iterator[list[Work]]:
        for chunk in self._clips.grouped(PLAN_CHUNK):
            plan = self._decide(chunk, self._rows.of(chunk))
            self._retire([name for name in plan.stale if not WINDOW_ID.search(name)])
            self._windows.extend(name for name in plan.stale if WINDOW_ID.search(name))
            self.files += len(chunk)
            self.found += len(plan.work)
            self.reused += len(plan.reused)
            self.stale += len(plan.stale)
            self.retried += plan.retried
            self._tell(self.found + self._clips.listed - self.files, self._clips.is_complete)
            yield plan.work
        self._retire(self.unlisted(self._windows))

    @property
    def is_complete(self) -> bool:
        """Whether all clips are listed and planned."""
        return self._clips.is_complete and self.files == self._clips.listed

    def unlisted(self, names: Iterable[str]) -> list[str]:
        """Those that are no clips of their own."""
        return [name for name in names if not self._clips.has(name)]

    def look_ahead(self, files: int) -> int:
        """Plan until more than `files` are to do, or all; return how many are known."""
        while len(self._ahead) <= files and (work := next(self._chunks, None)) is not None:
            self._ahead.extend(work)
        return len(self._ahead)

    def __iter__(self) -> Iterator[Work]:
        """The work, once, in one thread at a time."""
        while self.look_ahead(0):
            yield self._ahead.popleft()


def plan_work(
    clips: Sequence[Clip],
    rows: Iterable[StoredRow],
    *,
    settings: str,
    clip_seconds: float | None,
    also: str | None = None,
    is_listed: Callable[[str], bool] = lambda name: False,
) -> WorkPlan:
    """Decide for each clip: reuse its rows, inspect the file again, or score it anew.

    Rows whose name `is_listed`, elsewhere in a longer list, are not those of a clip's windows.

    Rows under the settings `also`, those of a cascade's second tier, are finished too.

    A file with the stamp it had is not opened. One with another stamp is inspected: where its fingerprint is the old
    one, its rows are reused after all. Raises UsageError where a row under the same clip_id is of another file.
    """
    by_source = _by_source(clips, rows, is_listed)
    stamps = dict(_stamped([(name, clip.uri) for name, (clip, _) in by_source.items()]))
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
        current = [row for row in old if row.run_key in (row_run_key(row, settings), also and row_run_key(row, also))]
        good = [row for row in current if row.error_kind not in RETRIED]
        retried += len(current) - len(good)
        good_ids = [row.clip_id for row in good]
        stale.extend({row.clip_id for row in old}.difference(good_ids))
        now = stamps[clip.clip_id]
        if now and all(_is_trusted(row, clip, now) for row in good) and _is_complete(clip, good, clip_seconds):
            reused.extend(good_ids)
        else:
            work.append(
                Work(clip=clip, finished=tuple(row_run_key(row, settings) for row in good), rows=tuple(good_ids))
            )
    return WorkPlan(work=work, reused=reused, stale=stale, retried=retried)


def _stamped(uris: Sequence[tuple[str, str]]) -> list[tuple[str, Stamp | None]]:
    """Each name with its file's stamp, taken in threads where stamps are slow."""
    found: list[tuple[str, Stamp | None]] = []

    def take(part: Iterable[tuple[str, str]]) -> list[tuple[str, Stamp | None]]:
        return [(name, stamp(uri)) for name, uri in part]

    began = time.perf_counter()
    for at in range(0, len(uris), _FEW):
        found += take(uris[at : at + _FEW])
        if time.perf_counter() - began > _SLOW_SECONDS * len(found):
            rest = uris[len(found) :]
            with ThreadPoolExecutor(16) as threads:  # a future for each file would cost more than its stamp
                return found + list(itertools.chain.from_iterable(threads.map(take, (rest[n::16] for n in range(16)))))
    return found


def _by_source(
    clips: Sequence[Clip], rows: Iterable[StoredRow], is_listed: Callable[[str], bool]
) -> dict[str, tuple[Clip, list[StoredRow]]]:
    asked = {clip.clip_id: clip for clip in clips}
    found: dict[str, list[StoredRow]] = defaultdict(list)
    for row in rows:
        own = row.clip_id in asked or is_listed(row.clip_id)
        name = row.clip_id if own else video_id(row.clip_id)
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


def row_run_key(row: StoredRow, settings: str) -> str:
    """The run key that a row has under these settings."""
    source = row.fingerprint or row.error_kind or ""
    return run_key(source, start_seconds=row.start_seconds, end_seconds=row.end_seconds, settings=settings)


def _is_trusted(row: StoredRow, clip: Clip, now: Stamp) -> bool:
    return row.fingerprint is not None and row.uri == clip.uri and (row.source_bytes, row.source_mtime_ns) == now


def _is_complete(clip: Clip, good: Sequence[StoredRow], clip_seconds: float | None) -> bool:
    duration = next((row.duration_seconds for row in good if row.duration_seconds is not None), None)
    wanted = windows(clip, duration_seconds=duration, clip_seconds=clip_seconds)
    return {part.clip_id for part in wanted} == {row.clip_id for row in good}
