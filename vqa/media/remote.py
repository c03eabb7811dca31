"""Files behind a URL of any store that fsspec opens (s3, gs, http, https, hf, ...), read by ranges.

Reads go through a cache of blocks that a process's opens share, as long as the store names the file's state (an ETag or
a time of change): probing and decoding fetch the index of an mp4 once. A gap is skipped, a stretch that is read on and
on is fetched in growing pieces, at most an eighth more than was asked for. A server without ranges is copied to a
temporary file. Credentials come from the environment alone, as each fsspec package reads them.

What goes wrong: refused (401, 403) and unreachable are `not_readable`, absent is `not_found`, silence is `timeout`, a
scheme that cannot be read here is `unsupported`. Resets, cut-off answers and busy servers (429, 5xx) get three tries.
"""

import hashlib
import io
import os
import re
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, BinaryIO, TypeVar, cast

from vqa.errors import ClipError

T = TypeVar("T")

BLOCK_BYTES = 1 << 16
SILENCE_SECONDS = 30.0
_CACHE_BLOCKS = 512  # 32 MiB
_AHEAD_BLOCKS = 16
_PAUSES_SECONDS = (0.1, 0.5)  # between tries
_MAX_COPY_BYTES = 4 << 30

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_EXTRAS = {"http": "http", "https": "http", "s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
_STATES = ("ETag", "etag", "md5Hash", "blob_id", "Last-Modified", "LastModified", "last_modified", "updated", "mtime")

_blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()
_copy: tuple[str, BinaryIO] | None = None  # the last file of a server without ranges


def is_remote(uri: str) -> bool:
    """True for a URL of any scheme but file."""
    scheme = _SCHEME.match(uri)
    return scheme is not None and scheme[1].lower() != "file"


@contextmanager
def open_remote(uri: str) -> Iterator["RemoteFile"]:
    """Open a file behind a URL. Raises ClipError; the kinds stand above.

    What fails while it is read is raised again when it is left, whatever a decoder has made of it: a broken line must
    not look like a broken file.
    """
    store, path = _store(uri)
    facts = _tried(uri, lambda: store.info(path))
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


def remote_stamp(uri: str) -> tuple[int, int] | None:
    """Size in bytes and a number that changes with the file (63 bits of its ETag, or of its time of change); None
    where there is no file or the store tells neither."""
    try:
        store, path = _store(uri)
        facts = _tried(uri, lambda: store.info(path))
    except ClipError:
        return None
    state = _state(facts)
    if not state or not facts["size"]:
        return None
    return int(facts["size"]), int.from_bytes(hashlib.blake2b(state.encode(), digest_size=8).digest(), "big") >> 1


def list_remote(uri: str) -> list[str]:
    """All files below a folder or matched by a glob, as URLs in order; a single file is itself; none: empty.

    http and https name single files (`?` and `*` are no patterns there). Raises ClipError.
    """
    store, path = _store(uri)
    if _scheme(uri) in ("http", "https"):
        return [uri]
    store.invalidate_cache()
    try:
        search = store.glob if re.search(r"[*?\[]", path) else store.find
        found = _tried(uri, lambda: search(path, detail=True))
    except ClipError as error:
        if error.kind == "not_found":
            return []
        raise
    return [f"{_scheme(uri)}://{name.lstrip('/')}" for name in sorted(found) if found[name]["type"] == "file"]


class RemoteFile(io.RawIOBase):
    """A file of a store: seekable, read-only; each read is answered in full."""

    buffer_bytes = BLOCK_BYTES // 2  # what FFmpeg may read beyond what it needs

    def __init__(self, uri: str, store: Any, path: str, facts: dict[str, Any]) -> None:
        """`facts`: the store's `info` of the path."""
        super().__init__()
        self.uri, self.failure = uri, cast("ClipError | None", None)
        self.state = _state(facts)
        self._store, self._path = store, path
        self._key = f"{uri} {facts['size']} {self.state or id(self)}"  # blocks of an unknown state are for us alone
        self._at = self._next = self._streak = 0
        self._whole: BinaryIO | None = None
        self._size: int = facts["size"] or 0
        self._remote: Any = None
        if facts["size"] is None or not facts.get("partial", True):
            self._copy_all()
        elif self._size:
            self._remote = _tried(uri, lambda: store.open(path, "rb", cache_type="none", size=self._size))

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

        data = _tried(self.uri, fetch)
        self._streak += count
        self._next = index + count
        return [data[at : at + BLOCK_BYTES] for at in range(0, len(data), BLOCK_BYTES)]

    def _copy_all(self) -> None:
        """The whole file into a temporary one, which the next open of the same state finds."""
        global _copy
        if _copy is None or _copy[0] != self._key:
            _copy = (self._key, _tried(self.uri, self._copied))
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


def _scheme(uri: str) -> str:
    found = _SCHEME.match(uri)
    return found[1].lower() if found else "file"


def _store(uri: str) -> tuple[Any, str]:
    """The file system and the path inside. Raises ClipError("unsupported")."""
    import fsspec  # a quarter of a second with its HTTP client, that local files do not pay

    scheme = _scheme(uri)
    try:
        if "::" in uri:
            raise ValueError("chains of schemes are not read")
        store, path = fsspec.core.url_to_fs(uri, **_options(scheme))
        if "file" in store.protocol:
            raise ValueError("local files are named by a path or file://")
    except ImportError as error:
        extra = f"'vqa[{_EXTRAS[scheme]}]'" if scheme in _EXTRAS else f"what fsspec needs for it ({error})"
        said = f"{uri}: reading {scheme}:// needs another package; pip install {extra}"
        raise ClipError("unsupported", said) from error
    except (ValueError, TypeError) as error:
        said = f"{uri}: scheme {scheme!r} cannot be read ({error}); copy the file first"
        raise ClipError("unsupported", said) from error
    return store, path


def _options(scheme: str) -> dict[str, Any]:
    """How long each store may be silent; tries are counted here and not in the store's own client as well."""
    if scheme in ("http", "https"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE_SECONDS, sock_read=SILENCE_SECONDS)
        return {"client_kwargs": {"timeout": timeout}}
    if scheme in ("s3", "s3a"):
        waits = {"connect_timeout": SILENCE_SECONDS, "read_timeout": SILENCE_SECONDS}
        return {"config_kwargs": {**waits, "retries": {"total_max_attempts": 1}}}
    return {}


def _state(facts: dict[str, Any]) -> str:
    value = next((facts[name] for name in _STATES if facts.get(name)), "")
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _tried(uri: str, call: Callable[[], T]) -> T:
    """What `call` returns, with another try where that can help. Raises ClipError."""
    for pause_seconds in (*_PAUSES_SECONDS, None):
        try:
            return call()
        except (ClipError, MemoryError):
            raise
        except Exception as error:  # each store has its own family of errors
            failure, is_final = _named(uri, error)
            if is_final or pause_seconds is None:
                raise failure from error
            time.sleep(pause_seconds)
    raise RuntimeError("unreachable")


def _named(uri: str, error: BaseException) -> tuple[ClipError, bool]:
    """The ClipError that an error of a store stands for, and whether another try is useless."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    status = next(filter(None, map(_status, chain)), None)
    root = chain[-1]
    reason = " ".join(str(root).split())[:200] or type(root).__name__
    if any(isinstance(one, TimeoutError) or "Timeout" in type(one).__name__ for one in chain):
        said = f"{uri}: the server sent nothing for {SILENCE_SECONDS:g} s; try again, or copy the file first"
        return ClipError("timeout", said), True
    if status in (404, 410) or (status is None and isinstance(root, FileNotFoundError)):
        return ClipError("not_found", f"{uri}: the store has no such file; check the URL"), True
    if status in (401, 403) or (status is None and isinstance(root, PermissionError)):
        said = f"{uri}: permission denied{f' ({status})' if status else ''}; credentials are taken from the environment"
        return ClipError("not_readable", said), True
    if status is not None:
        said = f"{uri}: the server answers with status {status} ({reason}); try again, or copy the file first"
        return ClipError("not_readable", said), status < 500 and status != 429
    said = f"{uri}: reading it failed {1 + len(_PAUSES_SECONDS)} times ({reason}); check the network and the server"
    return ClipError("not_readable", said), False


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error of aiohttp, botocore, gcsfs or huggingface_hub carries."""
    response = getattr(error, "response", None)
    # aiohttp gives its own complaints about an answer a code as well; those of gcsfs come from the server.
    code = "code" if type(error).__module__.startswith("gcsfs") else "status"
    for holder, name in ((error, code), (response, "status_code")):
        value = getattr(holder, name, None)
        if isinstance(value, int) and 400 <= value < 600:
            return value
    with suppress(TypeError, KeyError, AttributeError):
        return int(cast(Any, response)["ResponseMetadata"]["HTTPStatusCode"])
    return None
