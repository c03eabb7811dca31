"""A lock where there is none, or one of a single machine alone.

A file or object that only one run can make, and that changes while that run lives.
"""

import contextlib
import os
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from vqa.errors import ClipError, UsageError, VqaError
from vqa.files import open_in_place
from vqa.media.storage.objects import create_object, delete_object, put_object, read_object

BEAT_SECONDS = 10.0  # a holder writes this often
LOST_SECONDS = 60.0  # without a change by the clock of whoever waits: no two clocks are compared
# File systems that several machines see; the lock of a mount may hold on its own machine alone: FUSE's (sshfs, s3fs),
# NFS with nolock or local_lock, Lustre with localflock. fuseblk is a disk.
_SHARED = re.compile(r"nfs|fuse(?!blk|ctl)|cifs|smb|lustre|ceph|gpfs|beegfs|9p|virtiofs|afs|gfs2|ocfs2")


def is_shared(folder: Path, *, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether other machines may see a folder that exists.

    False where `mounts` is not there to tell (macOS).
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    place, found = folder.resolve(), (0, "")
    for line in lines:  # proc_pid_mountinfo(5): its root, its place, options, fields that may be missing, -, type
        before, _, after = line.partition(" - ")
        mounted = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split(" ")[4]))
        if place.is_relative_to(mounted):
            found = max((len(mounted.parts), after.split(" ")[0]), found, key=lambda one: one[0])  # the last of equals
    return _SHARED.match(found[1]) is not None


class Place(Protocol):
    """Where the lock is."""

    def read(self) -> str | None:
        """What it holds; None where it is free."""

    def create(self, text: str) -> bool:
        """Take it; False where it is taken."""

    def write(self, text: str) -> None:
        """Write it anew."""

    def delete(self) -> None:
        """Free it."""


class FilePlace:
    """A file, on a file system that has no locks."""

    def __init__(self, path: Path) -> None:
        """Nothing is written yet."""
        self._path = path

    def read(self) -> str | None:
        """Content of the file. Raises UsageError for a link."""
        try:
            with open_in_place(self._path, "r") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def create(self, text: str) -> bool:
        """Make the file (O_EXCL)."""
        try:
            with self._path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            return False
        return True

    def write(self, text: str) -> None:
        """Write over the file that is there. Raises UsageError for a link."""
        with open_in_place(self._path, "r+") as file:
            file.write(text)
            file.truncate()

    def delete(self) -> None:
        """Delete the file."""
        self._path.unlink(missing_ok=True)

    def __str__(self) -> str:
        return str(self._path)


class ObjectPlace:
    """An object of a store."""

    def __init__(self, url: str) -> None:
        """Nothing is written yet."""
        self._url = url

    def read(self) -> str | None:
        """Content of the object."""
        found = read_object(self._url)
        return None if found is None else found.decode(errors="replace")

    def create(self, text: str) -> bool:
        """Put the object if there is none."""
        return create_object(self._url, text.encode())

    def write(self, text: str) -> None:
        """Put the object."""
        put_object(self._url, text.encode())

    def delete(self) -> None:
        """Delete the object."""
        delete_object(self._url)

    def __str__(self) -> str:
        return self._url


class Lease:
    """What a run holds while it is the only one to write."""

    def __init__(self, place: Place, *, out: str) -> None:
        """Nothing is held yet; `out` is what the user gave."""
        self._place, self._out = place, out
        self._token = f"{this_run()}\n{secrets.token_hex(8)}"
        self._beats = 0

    @contextlib.contextmanager
    def held(self) -> Iterator["Lease"]:
        """Hold it. Raises UsageError where a run that lives holds it."""
        self._take()
        over = threading.Event()
        thread = threading.Thread(target=self._beat, args=(over,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            over.set()
            thread.join()
            with contextlib.suppress(OSError, ClipError, UsageError):
                if self._is_ours():
                    self._place.delete()

    def check(self) -> None:
        """Raise VqaError where another run has taken over; before each visible write."""
        if not self._is_ours():
            raise VqaError(
                f"--out {self._out}: another run has taken over, as nothing was heard of this one for "
                f"{LOST_SECONDS:g} s. Let that one end, or end it and run this command again."
            )

    def _text(self) -> str:
        return f"{self._token} {self._beats}"

    def _is_ours(self) -> bool:
        return (self._place.read() or "").startswith(self._token)

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(BEAT_SECONDS):
            # A store that is away comes back, or ends the run elsewhere; for a link in the place, `check` does.
            with contextlib.suppress(OSError, ClipError, UsageError):
                if not self._is_ours():
                    return
                self._beats += 1
                self._place.write(self._text())

    def _take(self) -> None:
        for _ in range(3):  # in between somebody else may free or take it
            if self._place.create(self._text()):
                return
            if (before := self._place.read()) is None:
                continue
            holder, _, beat = before.strip().partition("\n")
            if not is_dead(holder):
                if not beat:  # of a version that gave no sign of life
                    way_out = f" If that run has ended, delete {self._place}."
                    raise UsageError(held_by(self._out, holder) + way_out)
                self._wait(before, holder)
            if self._place.read() == before:
                self._place.delete()
        raise UsageError(held_by(self._out, "that began just now"))

    def _wait(self, before: str, holder: str) -> None:
        """Wait for a sign of life. Raises UsageError where there is one."""
        began = time.monotonic()
        waiting = f"--out {self._out}: {holder} was writing there; waiting {LOST_SECONDS:g} s for a sign of life"
        print(waiting, file=sys.stderr, flush=True)
        while time.monotonic() - began < LOST_SECONDS:
            time.sleep(BEAT_SECONDS / 4)
            if (now := self._place.read()) != before:
                if now is None:
                    return
                raise UsageError(held_by(self._out, now.partition("\n")[0]))


def this_run() -> str:
    """How a run names itself to others."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def held_by(out: object, holder: str) -> str:
    """The message for who finds a folder taken."""
    return f"--out {out}: another run ({holder or 'unknown'}) is writing there. Wait, or give another --out."


def is_dead(holder: str) -> bool:
    """Whether a run of this machine is gone; False for those of other machines."""
    found = re.fullmatch(r"process (\d+) on (.+)", holder.strip().partition("\n")[0])
    if found is None or found[2] != socket.gethostname():
        return False
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
