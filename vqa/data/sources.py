"""List clips from SOURCE arguments: files, folders, globs, lists, remote stores.

No media file is opened. The `clip_id` of a clip is readable and stable: its path below the source it was found in. A
file name that is not UTF-8 becomes a percent-encoded `file://` URI.
"""

import fnmatch
import glob
import hashlib
import itertools
import os
import re
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vqa.data.dialects import AS_SEEN, Dialect, Row, parse_number
from vqa.data.tables import ROW_SUFFIXES, iter_lines, iter_rows
from vqa.data.windows import WINDOW_ID, span_suffix
from vqa.errors import ClipError, UsageError
from vqa.media.storage.open import local_path
from vqa.media.storage.stores import is_remote, list_remote
from vqa.types import Clip

_VIDEOS = """264 265 3g2 3gp asf avi divx dv f4v flv gif h264 h265 hevc insv ivf lrv m1v m2t m2ts m2v m4v mjpeg mk3d mkv
    mod mov mp4 mpeg mpg mts mxf nut obu ogm ogv qt rm rmvb tod ts vob webm webp wmv y4m"""
_IMAGES = "apng avif bmp heic heif jfif jp2 jpe jpeg jpg jxl mpo png pnm ppm tga tif tiff"
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _VIDEOS.split())
MEDIA_SUFFIXES = frozenset(f".{name}" for name in f"{_VIDEOS} {_IMAGES}".split())
# What systems, not people, put beside media: thumbnails of network drives, recycle bins, resource forks, leftovers.
LITTER = frozenset(
    {"@eaDir", "#recycle", "#snapshot", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "lost+found"}
)
PATH_COLUMNS = ("uri", "path", "video", "file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The clips of the sources, and what was skipped."""

    clips: list[Clip]
    skipped_by_suffix: dict[str, int] = field(default_factory=dict)  # files in folders whose suffix is no media
    unreadable_folders: tuple[str, ...] = ()
    repeated: int = 0  # clips named again by another source
    litter: int = 0  # files in folders of LITTER
    hidden: int = 0  # media files and folders whose names begin with a dot
    excluded: int = 0  # by the user's patterns

    @property
    def skipped(self) -> str:
        """The skipped files in words, e.g. `3 .txt, 1 without suffix`."""
        return ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in self.skipped_by_suffix.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Files to take of a source: shell patterns of the path below it, or of the name."""

    include: tuple[str, ...] = ()  # taken whatever their suffix, in folders of LITTER too
    exclude: tuple[str, ...] = ()

    def includes(self, name: str) -> bool:
        """Whether a pattern takes this path."""
        return _matches(name, self.include)

    def excludes(self, name: str) -> bool:
        """Whether a pattern leaves out this path, or a folder it lies in."""
        parts = name.split("/")
        return any(_matches("/".join(parts[:end]), self.exclude) for end in range(1, len(parts) + 1))


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(one, pattern) for pattern in patterns for one in (name, name.rpartition("/")[2]))


EVERYTHING = Selection()


@dataclass(slots=True)
class Tally:
    """Counts of a listing so far, and digests of the names and places taken."""

    listed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    repeated: int = 0
    litter: int = 0
    hidden: int = 0
    excluded: int = 0
    _ids: set[bytes] = field(default_factory=set)
    _places: set[bytes] = field(default_factory=set)

    def has(self, clip_id: str) -> bool:
        """Whether a clip of this name was listed."""
        return _digest(clip_id) in self._ids

    def summary(self, clips: list[Clip]) -> Listing:
        """The listing of these clips, with what was skipped."""
        return Listing(
            clips=clips,
            skipped_by_suffix=dict(self.skipped.most_common()),
            unreadable_folders=tuple(self.unreadable),
            repeated=self.repeated,
            litter=self.litter,
            hidden=self.hidden,
            excluded=self.excluded,
        )


def _digest(*parts: object) -> bytes:
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogateescape"), digest_size=12).digest()


class _TakenError(UsageError):
    """A clip_id that another clip has."""


@dataclass(frozen=True, slots=True)
class _Collector:
    tally: Tally
    selection: Selection
    dialect: Dialect

    def clip(
        self, path: str, name: str, *, clip_id: str | None = None, start: float | None = None, end: float | None = None
    ) -> Iterator[Clip]:
        """The clip of a path, none where another source has named it."""
        uri, tally = path if "://" in path else path_to_uri(path), self.tally
        place = _digest(uri, start, end)
        if clip_id is None:
            if place in tally._places:
                tally.repeated += 1
                return
            name = as_utf8(name)
            readable = is_utf8(name) and not WINDOW_ID.search(name)  # a file must not pass for a window of another
            clip_id = (name if readable else _percent_encoded(uri)) + span_suffix(start, end)
            if tally.has(clip_id):
                clip_id = uri + span_suffix(start, end)
        own = _digest(clip_id)
        if own in tally._ids:
            raise _TakenError(f"clip_id {clip_id!r} occurs twice. Give each clip its own.")
        clip = Clip(clip_id=clip_id, uri=uri, start_seconds=start, end_seconds=end)
        tally._places.add(place)
        tally._ids.add(own)
        tally.listed += 1
        yield clip


def list_clips(sources: Sequence[str], *, selection: Selection = EVERYTHING, dialect: Dialect = AS_SEEN) -> Listing:
    """List the clips of all sources, once each, in the order given (`stream_clips`)."""
    tally = Tally()
    clips = list(stream_clips(sources, tally, selection=selection, dialect=dialect))
    return tally.summary(clips)


def stream_clips(
    sources: Sequence[str], tally: Tally, *, selection: Selection = EVERYTHING, dialect: Dialect = AS_SEEN
) -> Iterator[Clip]:
    """List the clips of all sources as they are found, in the order given, each once.

    A row of a list that names a missing file is a clip like any other and becomes a row `not_found` when it is scored.

    Args:
        sources: Files, folders, globs, lists of files (.csv, .jsonl, .parquet, .txt) and URLs of remote stores. Files
            in folders are taken by their suffix, others are counted as skipped.
        tally: Filled while the clips are read.
        selection: Patterns of files in folders, globs and stores to take or skip.
        dialect: Of lists that are text.

    Yields:
        The clips. The names in a glob, and in a folder (by itself, without those below), are held while it is read, of
        S3 a page of 1,000, those of lists a few thousand at a time; see `list_remote` of other stores.

    Raises:
        UsageError: If a source does not exist, a glob matches nothing, or a list cannot be read.
    """
    collector = _Collector(tally, selection, dialect)
    for source in sources:
        yield from _collect(source, collector)


def _collect(source: str, collector: _Collector) -> Iterator[Clip]:
    if is_remote(source):
        yield from _remote(source, collector)
        return
    path = str(local_path(source))
    if Path(path).is_dir():
        yield from _folder(path, path, collector)
    elif os.path.lexists(path):
        if Path(path).suffix.lower() in ROW_SUFFIXES:
            yield from _list(Path(path), collector)
        else:
            yield from collector.clip(path, os.path.basename(path))  # noqa: PTH119 (keeps surrogate bytes as they are)
    elif glob.has_magic(path):
        yield from _glob(path, collector)
    else:
        raise UsageError(f"source {source!r} does not exist. Give a file, a folder, a quoted glob or a list of files.")


def _remote(source: str, collector: _Collector) -> Iterator[Clip]:
    """List a remote file (any suffix), folder or glob; ids are paths below its root."""
    path = source.partition("?")[0] if source.lower().startswith("http") else source
    if Path(path).suffix.lower() in ROW_SUFFIXES:
        raise UsageError(f"source {source!r}: lists of files are read from local files only. Copy it here first.")
    root = re.split(r"[*?\[]", source)[0].rpartition("/")[0] if glob.has_magic(source) else source.rstrip("/")
    is_empty = True
    try:
        for url in list_remote(source):
            is_empty = False
            name = url.removeprefix(root + "/")
            if url == source:
                yield from collector.clip(url, os.path.basename(path) or url)  # noqa: PTH119 (of a URL)
            elif not any(part.startswith(".") for part in name.split("/")):
                yield from _by_suffix(url, name, collector)
            elif _is_media(name):
                collector.tally.hidden += 1
    except ClipError as error:
        raise UsageError(f"source {error}") from error
    if is_empty:
        raise UsageError(f"source {source!r}: the store has no such file, folder or match. Check the URL.")


def _folder(folder: str, root: str, collector: _Collector) -> Iterator[Clip]:
    for path in walk(folder, collector.tally):
        yield from _by_suffix(path, os.path.relpath(path, root), collector)


def _by_suffix(path: str, name: str, collector: _Collector) -> Iterator[Clip]:
    suffix = Path(path).suffix.lower()
    is_included = collector.selection.includes(name)
    if collector.selection.excludes(name):
        collector.tally.excluded += 1
    elif not is_included and not LITTER.isdisjoint(name.split("/")[:-1]):
        collector.tally.litter += 1
    elif is_included or _is_media(name):
        yield from collector.clip(path, name)
    else:
        collector.tally.skipped[suffix if is_utf8(suffix) else "(not UTF-8)"] += 1


def _is_media(name: str) -> bool:
    return Path(name).suffix.lower() in MEDIA_SUFFIXES


def walk(folder: str, tally: Tally) -> Iterator[str]:
    """Walk files below a folder in sorted order, links followed once, none hidden.

    Args:
        folder: Where to begin.
        tally: Folders that cannot be read are named in it, hidden folders and media files counted.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            status = Path(current).stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(current) as entries:
                every = sorted(entries, key=lambda e: e.name)
        except OSError:
            tally.unreadable.append(current if is_utf8(current) else path_to_uri(current))
            continue
        folders = {entry.path for entry in every if os.path.isdir(entry)}  # noqa: PTH112 (a link to itself is none)
        found = [entry.path for entry in every if not entry.name.startswith(".")]
        tally.hidden += sum(
            entry.path in folders or _is_media(entry.name) for entry in every if entry.name.startswith(".")
        )
        waiting.extend(path for path in reversed(found) if path in folders)
        yield from (path for path in found if path not in folders)


def _glob(pattern: str, collector: _Collector) -> Iterator[Clip]:
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    root = str(Path(*parts[:fixed])) if fixed else "."
    all_suffixes = Path(pattern).suffix and not glob.has_magic(Path(pattern).suffix)  # `*.dat` names its suffix
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)
    if not found:
        raise UsageError(f"source {pattern!r} matches no file. Check the pattern.")
    for path in found:
        if Path(path).is_dir():
            if "**" not in pattern:  # `**` matches the files below as well
                yield from _folder(path, root, collector)
        elif all_suffixes:
            yield from collector.clip(path, os.path.relpath(path, root))
        else:
            yield from _by_suffix(path, os.path.relpath(path, root), collector)


def _list(path: Path, collector: _Collector) -> Iterator[Clip]:
    folder = str(path.parent)
    for at, entry in enumerate(_entries(path, collector.dialect), start=1):
        where = f"{path}, row {at}"
        given = [name for name in PATH_COLUMNS if name in entry]
        column = next((name for name in given if entry[name] not in (None, "")), given[0] if given else None)
        if column is None:
            raise UsageError(f"{where}: no path. Give a column {', '.join(PATH_COLUMNS)}; found {', '.join(entry)}.")
        listed = entry[column]
        if not isinstance(listed, str) or not listed:
            raise UsageError(f"{where}: {column} = {listed!r} is no path of a file. Fill it, or remove the row.")
        # Other schemes become a row `unsupported`. A path object for each row would take most of the listing's time.
        place = _place(folder, listed)
        if column == "uri" and (other := entry.get("path")) and _place(folder, str(other)) != place:
            raise UsageError(f"{where}: uri = {listed!r} and path = {other!r} are two files. Keep one of the columns.")
        start, end = (_seconds(entry.get(name), f"{where}: {name}") for name in ("start_seconds", "end_seconds"))
        clip_id = _own_id(entry)
        try:
            yield from collector.clip(place, listed, clip_id=clip_id, start=start, end=end)
        except _TakenError as error:
            earlier = enumerate(itertools.islice(_entries(path, collector.dialect), at - 1), start=1)
            first = next((f"row {n}" for n, one in earlier if _own_id(one) == clip_id), "another clip")
            raise UsageError(
                f"{where}: clip_id = {clip_id!r} is that of {first} too. Give each clip its own."
            ) from error
        except ValueError as error:
            raise UsageError(f"{where}: {error}") from error


def _own_id(entry: Row) -> str | None:
    """The clip_id that a row of a list gives."""
    given = entry.get("clip_id")
    return None if given is None or given == "" else str(given)


def _place(folder: str, listed: str) -> str:
    return listed if "://" in listed else os.path.join(folder, listed)  # noqa: PTH118


def _seconds(cell: object, where: str) -> float | None:
    if cell is None or cell == "":
        return None
    try:
        seconds = parse_number(cell)
    except (TypeError, ValueError):
        seconds = None
    if seconds is None or seconds < 0:
        raise UsageError(f"{where} = {cell!r} is no time. Give seconds, 0 or more, or nothing.")
    return seconds


def _entries(path: Path, dialect: Dialect) -> Iterator[Row]:
    """Rows of a list of files (.txt: a path a line), not UTF-8 as surrogate escapes."""
    if path.suffix.lower() == ".txt":
        return ({"path": name} for name in iter_lines(path, errors="surrogateescape"))
    wanted = {*PATH_COLUMNS, "clip_id", "start_seconds", "end_seconds"}
    return iter_rows(path, only=wanted, errors="surrogateescape", dialect=dialect)


def as_utf8(name: str) -> str:
    """The UTF-8 spelling of a file name that Python decoded by a narrower locale."""
    try:
        return os.fsencode(name).decode()
    except UnicodeError:
        return name


def is_utf8(text: str) -> bool:
    """Whether a text has no surrogate escapes, as names that are not UTF-8 have."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def path_to_uri(path: str) -> str:
    """Absolute path, or a percent-encoded `file://` URI where it is not UTF-8."""
    absolute = os.path.abspath(path)  # noqa: PTH100 (Path.resolve would follow links)
    return absolute if is_utf8(absolute) else _percent_encoded(absolute)


def _percent_encoded(path: str) -> str:
    return path if "://" in path else "file://" + urllib.parse.quote(os.fsencode(path))
