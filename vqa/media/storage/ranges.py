"""A file behind a URL of any store (stores.py), read by ranges.

Reads go through a cache of blocks that a process's opens share, as long as the store names the file's state (an ETag or
a time of change): probing and decoding fetch the index of an mp4 once. A gap is skipped, a stretch that is read on and
on is fetched in growing pieces, at most an eighth more than was asked for. A server without ranges is copied to a
temporary file.
"""

import io
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from vqa.errors import ClipError
from vqa.media.storage.stores import state_of, store_of, tried

BLOCK_BYTES = 1 << 16
_CACHE_BLOCKS = 512  # 32 MiB
_AHEAD_BLOCKS = 16
_MAX_COPY_BYTES = 4 << 30

_blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()
_copy: tuple[str, BinaryIO] | None = None  # the last file of a server without ranges


@contextmanager
def open_remote(uri: str) -> Iterator["RemoteFile"]:
    """Open a file behind a URL. Raises ClipError; the kinds: stores.py.

    What fails while it is read is raised again when it is left, whatever a decoder has made of it: a broken line must
    not look like a broken file.
    """
    store, path = store_of(uri)
    facts = tried(uri, lambda: store.info(path))
    if facts["type"] == "directory":
        raise ClipError("not_readable", f"{uri}: is a folder, not a file; give a video or image file")
    file = RemoteFile(uri, store, path, facts)
    try:
        yield file
    except Exception:  # whatever it is, it may come of what we failed to read
        if file.failure is not None:
            raise file.failure from None
        raise
    if file.failure is not None:
        raise file.failure


class RemoteFile(io.RawIOBase):
    """A file of a store: seekable, read-only; each read is answered in full."""

    buffer_bytes = BLOCK_BYTES // 2  # what FFmpeg may read beyond what it needs

    def __init__(self, uri: str, store: Any, path: str, facts: dict[str, Any]) -> None:
        """`facts`: the store's `info` of the path."""
        super().__init__()
        self.uri, self.failure = uri, cast("ClipError | None", None)
        self.state = state_of(facts)
        self._store, self._path = store, path
        self._key = f"{uri} {facts['size']} {self.state or id(self)}"  # blocks of an unknown state are for us alone
        self._at = self._next = self._streak = 0
        self._whole: BinaryIO | None = None
        self._size: int = facts["size"] or 0
        self._remote: Any = None
        if facts["size"] is None or not facts.get("partial", True):
            self._copy_all()
        elif self._size:
            self._remote = tried(uri, lambda: store.open(path, "rb", cache_type="none", size=self._size))

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The place of the next read."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer, but for the end of the file. After a failure the file has ended: a decoder would print or
        swallow what is raised into it, so that `open_remote` raises it."""
        stop = min(self._size, self._at + len(buffer))
        if stop <= self._at or self.failure is not None:
            return 0
        try:
            data = self._span(self._at, stop)
        except ClipError as error:
            self.failure = error
            return 0
        self._at += len(data)
        buffer[: len(data)] = data
        return len(data)

    def _span(self, start: int, stop: int) -> bytes:
        if self._whole is not None:
            return os.pread(self._whole.fileno(), stop - start, start)
        parts: list[bytes] = []
        index, last = start // BLOCK_BYTES, (stop - 1) // BLOCK_BYTES
        while index <= last:
            block = _blocks.pop((self._key, index), None)
            got = [block] if block is not None else self._fetch(index, last)
            if self._whole is not None:  # it has turned out that there are no ranges
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
        """Block `index`, those up to `last` that are missing as well, and some more where reading goes on and on."""
        self._streak = self._streak if index == self._next else 0
        count = 1
        while index + count <= last and (self._key, index + count) not in _blocks:
            count += 1
        count = max(count, min(self._streak // 8, _AHEAD_BLOCKS))
        start, stop = index * BLOCK_BYTES, min(self._size, (index + count) * BLOCK_BYTES)

        def fetch() -> bytes:
            self._remote.seek(start)
            try:
                data: bytes = self._remote.read(stop - start)
            except ValueError as error:  # fsspec's word for a server that answers a range with the whole file
                if "range requests" not in str(error):
                    raise
                self._copy_all()
                return b""
            if len(data) != stop - start:
                raise EOFError(f"{len(data)} of {stop - start} bytes came")
            return data

        data = tried(self.uri, fetch)
        self._streak += count
        self._next = index + count
        return [data[at : at + BLOCK_BYTES] for at in range(0, len(data), BLOCK_BYTES)]

    def _copy_all(self) -> None:
        """The whole file into a temporary one, which the next open of the same state finds."""
        global _copy
        if _copy is None or _copy[0] != self._key:
            _copy = (self._key, tried(self.uri, self._copied))
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
                        f"{self.uri}: its server sends no ranges, and a copy of it would pass {_MAX_COPY_BYTES} bytes; "
                        "copy it here first",
                    )
        file.flush()
        return cast(BinaryIO, file)
