"""Atomic writes: a file is complete and on disk under its name, or not there."""

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

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
    """Give a draft beside `path`, flushed and renamed to it when the block ends.

    Args:
        path: What is written, or written anew.
        by_several: Several processes may write it at once; each then has a draft of its own.

    Raises:
        UsageError: `path` is a folder, or lies in none.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder. Give the name of a file.")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}. Make it first, or give another name.")
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp" if by_several else f".{path.name}.tmp")
    if draft.is_symlink():  # put there by somebody else: what is written must not land where it leads
        draft.unlink()
    try:
        yield draft
        descriptor = os.open(draft, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink()  # on a full disk it would take what others could use
        raise
    sync_folder(path.parent)


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
