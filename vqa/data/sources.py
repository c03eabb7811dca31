"""SOURCE... to a list of clips: files, folders, globs (also of remote stores) and manifests. Opens no media; looks only
at names.

Every clip gets a `clip_id` that is readable and stable: its path below the source it came from. A name that cannot
be written as UTF-8 travels as a percent-encoded `file://` URI.
"""

import glob
import os
import re
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vqa.data.records import RECORD_SUFFIXES, read_records
from vqa.data.windows import WINDOW_ID, span_suffix
from vqa.errors import ClipError, UsageError
from vqa.media.storage.open import local_path
from vqa.media.storage.stores import is_remote, list_remote
from vqa.types import Clip

_VIDEOS = """3g2 3gp asf avi divx dv f4v flv gif h264 h265 hevc ivf m1v m2ts m2v m4v mjpeg mkv mov mp4 mpeg mpg mts mxf
    nut obu ogm ogv qt rm rmvb ts vob webm webp wmv y4m"""
_IMAGES = "avif bmp heic heif jfif jp2 jpeg jpg jxl png pnm ppm tga tif tiff"
MEDIA_SUFFIXES = frozenset(f".{name}" for name in f"{_VIDEOS} {_IMAGES}".split())
MANIFEST_SUFFIXES = RECORD_SUFFIXES | {".txt"}
PATH_COLUMNS = ("uri", "path", "video", "file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What the sources hold: the clips, and what was left out and why."""

    clips: list[Clip]
    skipped_by_suffix: dict[str, int] = field(default_factory=dict)  # files in folders that are no media by their name
    unreadable_folders: tuple[str, ...] = ()
    repeated: int = 0  # the same file and span named again by another source

    @property
    def skipped(self) -> str:
        """`3 .txt, 1 without suffix`."""
        return ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in self.skipped_by_suffix.items())


@dataclass(slots=True)
class _Collector:
    clips: list[Clip] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    repeated: int = 0
    ids: set[str] = field(default_factory=set)
    places: set[tuple[str, float | None, float | None]] = field(default_factory=set)

    def add(
        self, path: str, name: str, *, clip_id: str | None = None, start: float | None = None, end: float | None = None
    ) -> None:
        uri = path if "://" in path else path_to_uri(path)
        place = (uri, start, end)
        if clip_id is None:
            if place in self.places:
                self.repeated += 1
                return
            readable = is_utf8(name) and not WINDOW_ID.search(name)  # a file may not pose as a window of another
            clip_id = (name if readable else _percent_encoded(uri)) + span_suffix(start, end)
            if clip_id in self.ids:
                clip_id = uri + span_suffix(start, end)
        if clip_id in self.ids:
            raise UsageError(f"clip_id {clip_id!r} is given twice; each clip needs its own")
        self.places.add(place)
        self.ids.add(clip_id)
        self.clips.append(Clip(clip_id=clip_id, uri=uri, start_seconds=start, end_seconds=end))


def list_clips(sources: Sequence[str]) -> Listing:
    """The clips of all sources, in the order given, each once.

    A source that does not exist is a UsageError (a slip of the pen); a manifest's line that names a missing file is a
    clip like any other and becomes a row `not_found`. Files in folders are taken by suffix, others are counted.
    """
    collector = _Collector()
    for source in sources:
        _collect(source, collector)
    return Listing(
        clips=collector.clips,
        skipped_by_suffix=dict(collector.skipped.most_common()),
        unreadable_folders=tuple(collector.unreadable),
        repeated=collector.repeated,
    )


def _collect(source: str, collector: _Collector) -> None:
    if is_remote(source):
        _remote(source, collector)
        return
    path = str(local_path(source))
    if Path(path).is_dir():
        _folder(path, path, collector)
    elif os.path.lexists(path):
        if Path(path).suffix.lower() in MANIFEST_SUFFIXES:
            _manifest(Path(path), collector)
        else:
            collector.add(path, os.path.basename(path))  # noqa: PTH119 (keeps surrogate bytes as they are)
    elif glob.has_magic(path):
        _glob(path, collector)
    else:
        raise UsageError(f"source {source!r} does not exist; give a file, a folder, a glob in quotes or a manifest")


def _remote(source: str, collector: _Collector) -> None:
    """A file is itself, whatever its suffix; folders and globs name their clips below their fixed part."""
    path = source.partition("?")[0] if source.lower().startswith("http") else source
    if Path(path).suffix.lower() in MANIFEST_SUFFIXES:
        raise UsageError(f"source {source!r}: a manifest is read from a local file only; copy it here first")
    try:
        found = list_remote(source)
    except ClipError as error:
        raise UsageError(f"source {error}") from error
    if not found:
        raise UsageError(f"source {source!r}: the store has no such file, folder or match; check the URL")
    magic = glob.has_magic(source) and found != [source]
    root = re.split(r"[*?\[]", source)[0].rpartition("/")[0] if magic else source.rstrip("/")
    for url in found:
        name = url.removeprefix(root + "/")
        if url == source:
            collector.add(url, os.path.basename(path) or url)  # noqa: PTH119 (of a URL)
        elif not any(part.startswith(".") for part in name.split("/")):
            _by_suffix(url, name, collector)


def _folder(folder: str, root: str, collector: _Collector) -> None:
    for path in walk(folder, collector.unreadable):
        _by_suffix(path, os.path.relpath(path, root), collector)


def _by_suffix(path: str, name: str, collector: _Collector) -> None:
    suffix = Path(path).suffix.lower()
    if suffix in MEDIA_SUFFIXES:
        collector.add(path, name)
    else:
        collector.skipped[suffix if is_utf8(suffix) else "(not UTF-8)"] += 1


def walk(folder: str, unreadable: list[str]) -> Iterator[str]:
    """Every file below a folder, sorted; hidden names are left out, links are followed but never in a circle."""
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
                found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
        except OSError:
            unreadable.append(current if is_utf8(current) else path_to_uri(current))
            continue
        folders = {entry.path for entry in found if os.path.isdir(entry)}  # noqa: PTH112 (a link to itself is none)
        waiting.extend(entry.path for entry in reversed(found) if entry.path in folders)
        yield from (entry.path for entry in found if entry.path not in folders)


def _glob(pattern: str, collector: _Collector) -> None:
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    root = str(Path(*parts[:fixed])) if fixed else "."
    all_suffixes = Path(pattern).suffix and not glob.has_magic(Path(pattern).suffix)  # `*.dat` was asked for by name
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)
    if not found:
        raise UsageError(f"source {pattern!r} matches no file")
    for path in found:
        if Path(path).is_dir():
            if "**" not in pattern:  # `**` names the files below by itself
                _folder(path, root, collector)
        elif all_suffixes:
            collector.add(path, os.path.relpath(path, root))
        else:
            _by_suffix(path, os.path.relpath(path, root), collector)


def _manifest(path: Path, collector: _Collector) -> None:
    for number, entry in enumerate(_entries(path), start=1):
        where = f"manifest {path}, entry {number}"
        column = next((name for name in PATH_COLUMNS if name in entry), None)
        if column is None:
            raise UsageError(f"{where}: no path; wanted a column {', '.join(PATH_COLUMNS)}, found {', '.join(entry)}")
        listed = entry[column]
        if not isinstance(listed, str) or not listed:
            raise UsageError(f"{where}: {column} = {listed!r}; wanted the path of a file")
        start, end = (_number(entry.get(name), f"{where}: {name}") for name in ("start_seconds", "end_seconds"))
        given = entry.get("clip_id")
        clip_id = None if given is None or given == "" else str(given)
        place = listed if "://" in listed else str(path.parent / listed)  # other schemes become a row `unsupported`
        try:
            collector.add(place, listed, clip_id=clip_id, start=start, end=end)
        except ValueError as error:
            raise UsageError(f"{where}: {error}") from error


def _number(value: Any, where: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number < float("inf"):
        raise UsageError(f"{where} = {value!r}; wanted seconds, 0 or more, or nothing")
    return number


def _entries(path: Path) -> list[Mapping[str, Any]]:
    """Names that are not UTF-8 come as the file system's own escapes. A .txt has one path a line."""
    if path.suffix.lower() != ".txt":
        wanted = {*PATH_COLUMNS, "clip_id", "start_seconds", "end_seconds"}
        return list(read_records(path, only=wanted, errors="surrogateescape")[1])
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            return [{"path": name} for line in file if (name := line.rstrip("\r\n"))]
    except OSError as error:
        raise UsageError(f"manifest {path}: cannot be read ({error})") from error


def is_utf8(text: str) -> bool:
    """True where the text holds no stray bytes of a file name that is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def path_to_uri(path: str) -> str:
    """The absolute path; percent-encoded `file://` where its bytes are not UTF-8."""
    absolute = os.path.abspath(path)  # noqa: PTH100 (Path.resolve would follow links)
    return absolute if is_utf8(absolute) else _percent_encoded(absolute)


def _percent_encoded(path: str) -> str:
    return path if "://" in path else "file://" + urllib.parse.quote(os.fsencode(path))
