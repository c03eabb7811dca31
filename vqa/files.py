"""Atomic writes: a file is complete and on disk under its name, or not there."""

import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from vqa.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

Found = TypeVar("Found")


def reread(read: Callable[[], Found]) -> Found:
    """What `read` gives; again where a file was replaced under it.

    On NFS a file that another machine replaces or deletes is gone for who has it open (ESTALE), elsewhere a listed file
    may be gone by the time it is opened. Raises what `read` raises after five tries, and any other error at once.
    """
    for _ in range(4):
        try:
            return read()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESTALE):
                raise
    return read()


@contextmanager
def replacing(path: Path, *, by_several: bool = False) -> Iterator[Path]:
    """Give a draft to write, flushed and renamed to `path` when the block ends.

    It lies in a folder beside `path` that is this user's alone, under a name that nobody can know before: a link that
    somebody else puts in the place of the file, the folder or the draft, at any moment, is never written through.

    Args:
        path: What is written, or written anew.
        by_several: Several processes may write it at once; each then has a draft of its own.

    Raises:
        UsageError: As of `refuse_unwritable`.
    """
    refuse_unwritable(path)
    folder = path.with_name(f".{path.name}.{os.getpid()}.tmp" if by_several else f".{path.name}.tmp")
    discard(folder)  # a killed writer's, or put there by somebody else
    folder.mkdir(mode=0o700)  # fails where there is anything again, a link too
    draft = folder / secrets.token_hex(8)
    try:
        yield draft
        descriptor = os.open(draft, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        draft.replace(path)
    finally:
        with suppress(OSError):
            discard(folder)  # on a full disk a draft would take what others could use
    sync_folder(path.parent)


def refuse_unwritable(path: Path) -> None:
    """Raise UsageError for a path at which no file can be written.

    Work whose result goes there asks before it begins.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder. Give the name of a file.")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}. Make it first, or give another name.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: nothing can be written into {path.parent}. Give another name.")


def discard(path: Path) -> None:
    """Delete a file, a folder with all in it, or a link, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def no_link(path: str, flags: int, mode: int = 0o666) -> int:
    """Open a file but not through a link: an `opener` for `open`.

    Raises:
        UsageError: `path` is a symbolic link, which may lead to anybody's file.
    """
    try:
        if not hasattr(os, "O_NOFOLLOW") and Path(path).is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), mode)
    except OSError as error:
        if not Path(path).is_symlink():
            raise
        raise UsageError(
            f"{path}: is a link to {Path(path).readlink()}, and links are not written through. Delete it, or choose "
            "another folder for the output."
        ) from error


def open_in_place(path: Path, mode: str) -> IO[str]:
    """Open a UTF-8 file, but not through a link. Raises UsageError for one."""
    return open(path, mode, encoding="utf-8", errors="replace", opener=no_link)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # a rename is only safe from a power cut once the folder is on disk
    finally:
        os.close(descriptor)


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Write indented JSON, atomically. Raises ValueError for NaN and infinities."""
    with replacing(path) as draft:
        draft.write_text(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def write_parquet(path: Path, rows: "pa.Table") -> None:
    """Write rows to a Parquet file, atomically."""
    import pyarrow.parquet as pq  # not for --help

    with replacing(path) as draft:
        pq.write_table(rows, draft, compression="zstd")
