"""Results in a store: a folder here whose files are put there whole, in order.

Of a part of the table that grows a reader sees the last whole state, as stores replace objects at once. What is put is
at most a write (`job.seconds_per_write`) behind; a store that is away is caught up with later.
"""

import contextlib
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from jobs.lease import Lease, ObjectPlace
from jobs.resume import Stamp
from vqa.errors import ClipError, UsageError, VqaError
from vqa.media.storage.objects import delete_object, list_objects, put_object, read_object

READ_ONLY = ("http", "https", "file")
PATIENCE_SECONDS = 600.0  # at the end of a run, for a store that is away
PAUSE_SECONDS = 5.0
PART = re.compile(r"scores/[^./][^/]*\.parquet")  # of the table; what else a store lists may lead out of a folder


class Mirror:
    """A folder and what of it the store has."""

    def __init__(self, url: str, folder: Path, *, check: Callable[[], None], say: Callable[[str], None]) -> None:
        """Fetch the table that is there.

        Args:
            url: Where the results go.
            folder: An empty one.
            check: Raises where the results are somebody else's by now.
            say: Prints a line.
        """
        self._url, self.folder, self._check, self._say = url.rstrip("/"), folder, check, say
        self._there: dict[str, Stamp] = {}
        self._lock = threading.Lock()
        self._is_behind = False
        for name in filter(PART.fullmatch, list_objects(self._url)):
            if (content := read_object(f"{self._url}/{name}")) is not None:
                place = folder / name
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(content)
                self._there[name] = _stamp(place)

    def push(self) -> None:
        """Put what has changed; what the store does not take stays for the next time."""
        try:
            self._push()
        except ClipError as error:
            if not self._is_behind:
                self._say(f"warning: {error} What is not there yet follows later.")
            self._is_behind = True
        else:
            self._is_behind = False

    def finish(self) -> None:
        """Put the rest. Raises VqaError where the store takes nothing any more."""
        began = time.monotonic()
        while True:
            try:
                return self._push()
            except ClipError as error:
                if time.monotonic() - began > PATIENCE_SECONDS:
                    raise VqaError(f"--out {self._url}: {error} The rows that are there are whole.") from error
            time.sleep(PAUSE_SECONDS)

    def _push(self) -> None:
        with self._lock:
            here = {name: _stamp(self.folder / name) for name in _names(self.folder)}
            changed = sorted((stamp[1], name) for name, stamp in here.items() if self._there.get(name) != stamp)
            gone = [name for name in self._there if name.startswith("scores/") and name not in here]
            if not changed and not gone:
                return
            self._check()
            # A row that moves is in superseded/ before it leaves its part, and leaves before it is in another.
            for name in (name for _, name in changed if name.startswith("superseded/")):
                self._put(name)
            for name in gone:
                delete_object(f"{self._url}/{name}")
                del self._there[name]
            for name in (name for _, name in changed if not name.startswith("superseded/")):
                self._put(name)

    def _put(self, name: str) -> None:
        place = self.folder / name
        stamp = _stamp(place)
        put_object(f"{self._url}/{name}", place.read_bytes())
        self._there[name] = stamp


def _names(folder: Path) -> list[str]:
    names: list[str] = []
    for top, folders, files in os.walk(folder):  # passes over a folder that is gone, as a draft's is once it is written
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [(Path(top) / name).relative_to(folder).as_posix() for name in files if not name.startswith(".")]
    return names


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def mirrored(url: str, *, say: Callable[[str], None], is_written: bool = True) -> Iterator[Mirror]:
    """A mirror of the results in a store, which one run at a time writes.

    Raises:
        UsageError: another run writes there, or nothing can be written there.
        VqaError: the store does not answer.
    """
    if (scheme := url.partition("://")[0]) in READ_ONLY:
        raise UsageError(f"--out {url}: {scheme}:// can only be read. Give a folder, or an address such as s3://.")
    with tempfile.TemporaryDirectory(prefix="vqa-out-", ignore_cleanup_errors=True) as folder:
        try:
            if not is_written:
                yield Mirror(url, Path(folder), check=lambda: None, say=say)
                return
            with Lease(ObjectPlace(f"{url.rstrip('/')}/.lock.held"), out=url).held() as lease:
                mirror = Mirror(url, Path(folder), check=lease.check, say=say)
                try:
                    yield mirror
                finally:
                    mirror.finish()
        except ClipError as error:
            raise VqaError(f"--out {error}") from error
