"""Open files by path or URL; errors of the system and of FFmpeg as ClipErrors."""

import errno
import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import unquote_to_bytes

import av

from vqa import machine
from vqa.errors import ClipError, ErrorKind, MachineError
from vqa.media.storage.ranges import open_remote
from vqa.media.storage.stores import is_remote

_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}
_TOO_MANY = {errno.EMFILE, errno.ENFILE}


def composed(name: str) -> str:
    """Name in Unicode's composed form (NFC), as accents are spelled in two ways."""
    return unicodedata.normalize("NFC", name)


def local_path(uri: str) -> Path:
    """File named by a path or file:// URL, accents as the file system spells them.

    Raises ClipError "unsupported" for other schemes.
    """
    path = _named_path(uri)
    if str(path).isascii() or os.path.lexists(path):
        return path
    found = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        forms = (part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD")))
        found = next((found / form for form in forms if os.path.lexists(found / form)), found / part)
    return found if os.path.lexists(found) else path


def _named_path(uri: str) -> Path:
    if is_remote(uri):
        raise ClipError("unsupported", f"{uri}: only local files can be read here. Copy it first.")
    scheme, mark, place = uri.partition("://")
    if scheme.lower() != "file" or not mark:
        return Path(uri)
    return Path("/" + os.fsdecode(unquote_to_bytes(place.partition("/")[2])))  # any host is this one


@contextmanager
def open_source(uri: str) -> Iterator[BinaryIO]:
    """Open a regular file, or a file behind a URL (ranges.py), for reading.

    FFmpeg is given this open file, never a name: a name can be a protocol, a pattern or a playlist that opens others.

    Args:
        uri: Path, file:// URL, or URL of a scheme that fsspec reads.

    Raises:
        ClipError: `not_found`, `not_readable`, `too_large` (too many open files); for URLs `timeout`, `unsupported`.
    """
    if is_remote(uri):
        with open_remote(uri) as remote:
            yield cast(BinaryIO, remote)
        return
    path = local_path(uri)
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 (follows links; before opening, since opening a device can have effects)
        if not stat.S_ISREG(mode):
            kind = _file_type(mode)
            raise ClipError("not_readable", f"{uri}: is a {kind}, not a regular file. Give a video or image file.")
        # Without O_NONBLOCK, a pipe put in the file's place between the two calls would block for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a NUL inside the name
        raise ClipError("not_found", f"{uri!r}: no file can have this name ({error}). Correct the list.") from error
    except OSError as error:
        raise _file_error(uri, error) from error
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _file_type(mode: int) -> str:
    names = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
    return names.get(stat.S_IFMT(mode), "device")


def _file_error(uri: str, error: OSError) -> ClipError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _MISSING:
        return ClipError("not_found", f"{uri}: {reason}. Check the path (relative ones start at {Path.cwd()}).")
    if error.errno in _TOO_MANY:
        return ClipError("too_large", f"{uri}: {reason}. Raise the limit on open files.")
    return ClipError("not_readable", f"{uri}: {reason}. Check the permissions and the disk.")


@contextmanager
def media_errors(uri: str, *, doing: str) -> Iterator[None]:
    """Turn what FFmpeg or the file system raises inside the block into a ClipError.

    Args:
        uri: The file, named in the message.
        doing: What is being done with it, such as "decoding".

    Raises:
        ClipError: `too_large` (memory), `unsupported`, `corrupt`, `not_found` or `not_readable`.
        MachineError: FFmpeg could start no thread because the account has none left.
    """
    try:
        yield
    except MemoryError as error:  # also av.error.MemoryError
        message = f"{uri}: out of memory while {doing}. Raise the memory limit or scale the clip down."
        raise ClipError("too_large", message) from error
    except av.error.FFmpegError as error:
        if isinstance(error, BlockingIOError) and not machine.can_start_thread():
            raise MachineError(f"{doing} has to stop: {machine.shortage(error)}") from error
        kind: ErrorKind = "corrupt"
        if isinstance(error, av.error.LookupError | av.error.PatchWelcomeError | av.error.NotImplementedError):
            kind = "unsupported"
        reason = error.strerror or type(error).__name__
        message = f"{uri}: FFmpeg reports {reason!r} while {doing}. Check that a player can show the file."
        raise ClipError(kind, message) from error
    except OSError as error:
        raise _file_error(uri, error) from error
