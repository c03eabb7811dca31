"""Files behind URLs, read by byte ranges through a cache of blocks.

The cache is shared by all opens of a process as long as the store names the file's state (an ETag or a time of change),
so that probing and decoding fetch the index of an mp4 once. Gaps are skipped; sequential reads are fetched in growing
pieces, at most an eighth more than was asked for. From a server without ranges the file is copied to a temporary one.
"""

import io
import itertools
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

from vqa.errors import ClipError
from vqa.media.storage.stores import FileInfo, Store, state_of, store_of, with_retries

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK_BYTES = 1 << 16
_CACHE_BLOCKS = 512  # 32 MiB
_AHEAD_BLOCKS = 16
_MAX_COPY_BYTES = 4 << 30

_blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()
_opened = itertools.count()  # not id(), which a file opened later may have again
_copy: tuple[str, BinaryIO] | None = None  # the last file of a server without ranges


@contextmanager
def open_remote(uri: str) -> Iterator["RemoteFile"]:
    """Open a file behind a URL. Raises ClipError (kinds: stores.py).

    What fails while it is read is raised when the block is left, whatever a decoder has made of it: a broken connection
    must not look like a broken file.
    """
    store, path = store_of(uri)
    facts = with_retries(uri, lambda: store.info(path))
    if facts["type"] == "directory":
        raise ClipError("not_readable", f"{uri}: is a folder, not a file. Give a video or image file.")
    file = RemoteFile(uri, store, path, facts)
    try:
        yield file
    except Exception:  # whatever it is, it may come of a failed read
        if file.failure is not None:
            raise file.failure from None
        raise
    if file.failure is not None:
        raise file.failure


class RemoteFile(io.RawIOBase):
    """A file of a store, seekable and read-only; each read is answered in full."""

    buffer_bytes = BLOCK_BYTES // 2  # what FFmpeg may read beyond what it needs

    def __init__(self, uri: str, store: Store, path: str, facts: FileInfo) -> None:
        """Open the file; `facts` is the store's `info` of the path. Raises ClipError."""
        super().__init__()
        self.uri, self.failure = uri, cast("ClipError | None", None)
        self.state = state_of(facts)
        self._store, self._path = store, path
        self._key = f"{uri} {facts['size']} {self.state or next(_opened)}"  # without a state, blocks are not shared
        self._at = self._next = self._streak = 0
        self._whole: BinaryIO | None = None
        self._size: int = facts["size"] or 0
        self._remote: BinaryIO | None = None
        if facts["size"] is None or not facts.get("partial", True):
            self._copy_all()
        elif self._size:
            self._remote = with_retries(uri, lambda: store.open(path, "rb", cache_type="none", size=self._size))

    def readable(self) -> bool:
        """Whether it can be read: always."""
        return True

    def seekable(self) -> bool:
        """Whether it can be sought in: always."""
        return True

    def tell(self) -> int:
        """Offset of the next read, in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the offset of the next read; returns it."""
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill the buffer, but for the end of the file.

        After a failure the file has ended: a decoder would print or swallow an exception, so `open_remote` raises it.
        """
        target = memoryview(buffer)
        stop = min(self._size, self._at + len(target))
        if stop <= self._at or self.failure is not None:
            return 0
        try:
            data = self._span(self._at, stop)
        except ClipError as error:
            self.failure = error
            return 0
        self._at += len(data)
        target[: len(data)] = data
        return len(data)

    def _span(self, start: int, stop: int) -> bytes:
        if self._whole is not None:
            return os.pread(self._whole.fileno(), stop - start, start)
        parts: list[bytes] = []
        index, last = start // BLOCK_BYTES, (stop - 1) // BLOCK_BYTES
        while index <= last:
            block = _blocks.pop((self._key, index), None)
            got = [block] if block is not None else self._fetch(index, last)
            if self._whole is not None:  # the server turned out to send no ranges
                return self._span(start, stop)
            for number, data in enumerate(got):
                _blocks[self._key, index + number] = data
            parts += got
            index += len(got)
        while len(_blocks) > _CACHE_BLOCKS:
            _blocks.popitem(last=False)
        skipped = start % BLOCK_BYTES
        return b"".join(parts)[skipped : skipped + stop - start]

    def _fetch(self, index: int, last: int) -> list[bytes]:
        """Block `index`, missing ones up to `last`, and more where reading is sequential."""
        self._streak = self._streak if index == self._next else 0
        count = 1
        while index + count <= last and (self._key, index + count) not in _blocks:
            count += 1
        count = max(count, min(self._streak // 8, _AHEAD_BLOCKS))
        start, stop = index * BLOCK_BYTES, min(self._size, (index + count) * BLOCK_BYTES)

        remote = self._remote
        assert remote is not None

        def fetch() -> bytes:
            remote.seek(start)
            try:
                data = remote.read(stop - start)
            except ValueError as error:  # fsspec, for a server that answers a range with the whole file
                if "range requests" not in str(error):
                    raise
                self._copy_all()
                return b""
            if len(data) != stop - start:
                raise EOFError(f"{len(data)} of {stop - start} bytes received")
            return data

        data = with_retries(self.uri, fetch)
        self._streak += count
        self._next = index + count
        return [data[at : at + BLOCK_BYTES] for at in range(0, len(data), BLOCK_BYTES)]

    def _copy_all(self) -> None:
        """Copy the file to a temporary one, which the next open of the same state uses."""
        global _copy
        if _copy is None or _copy[0] != self._key:
            _copy = (self._key, with_retries(self.uri, self._copied))
        self._whole = _copy[1]
        self._size = os.fstat(self._whole.fileno()).st_size

    def _copied(self) -> BinaryIO:
        file = tempfile.TemporaryFile()  # noqa: SIM115 (it ends with its last holder)
        with self._store.open(self._path, "rb", block_size=0) as source:
            while data := source.read(1 << 20):
                file.write(data)
                if file.tell() > _MAX_COPY_BYTES:
                    raise ClipError(
                        "too_large",
                        f"{self.uri}: its server sends no ranges, and a copy of it is above {_MAX_COPY_BYTES} bytes. "
                        "Copy the file first.",
                    )
        file.flush()
        return cast(BinaryIO, file)
