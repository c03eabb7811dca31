"""Remote stores by fsspec (s3, gs, http, hf, ...): listing, facts, ClipErrors.

Credentials are read from the environment, as each fsspec package does.

| what goes wrong | kind |
| --- | --- |
| refused (401, 403), without credentials, unreachable, in a private network (hosts.py), no host | `not_readable` |
| absent | `not_found` |
| silence | `timeout` |
| a scheme that cannot be read here | `unsupported` |

Resets, cut-off answers and busy servers (429, 5xx) get three tries.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import BinaryIO, Protocol, TypedDict, TypeVar, cast
from urllib.parse import urlsplit

from vqa.errors import ClipError
from vqa.media.storage.hosts import ALLOWED, PrivateHostError, public_client, refuse_private

T = TypeVar("T")

SILENCE_SECONDS = 30.0
MOST_FOLDERS = 1000  # on a store's first level that are listed one by one, each a request or more
_PAUSES_SECONDS = (0.1, 0.5)  # between tries

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_PAGED = ("s3", "s3a")
_WITH_HOST = frozenset({"http", "https", "ftp", "ftps", "sftp", "ssh", "smb", "webdav", "webhdfs"})
_EXTRAS = {"http": "http", "https": "http", "s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, in the environment; for a public bucket "
    "FSSPEC_S3_ANON=true",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, a key file, in the environment; for a public bucket FSSPEC_GS_TOKEN=anon",
    "hf": "HF_TOKEN in the environment",
}
_NO_CREDENTIALS = re.compile("Credential|Token|Profile")  # names of errors of botocore and google.auth
_STATES = ("ETag", "etag", "md5Hash", "blob_id", "Last-Modified", "LastModified", "last_modified", "updated", "mtime")


class FileInfo(TypedDict, total=False):
    """What fsspec's `info` returns; stores add keys, those of _STATES among them."""

    name: str  # path inside the store
    type: str  # "file" or "directory"
    size: int | None  # bytes
    partial: bool  # whether byte ranges can be read (http)


class Store(Protocol):
    """The calls of fsspec's AbstractFileSystem that are used here."""

    protocol: str | tuple[str, ...]

    def info(self, path: str) -> FileInfo:
        """Facts of a file or folder."""
        ...

    def open(self, path: str, mode: str, **options: object) -> BinaryIO:
        """Open a file."""
        ...

    def ls(self, path: str, *, detail: bool) -> list[FileInfo]:
        """What lies in a folder, or the file itself."""
        ...

    def find(self, path: str, *, detail: bool) -> dict[str, FileInfo]:
        """All files below a folder."""
        ...

    def glob(self, path: str, *, detail: bool) -> dict[str, FileInfo]:
        """All files that match a pattern."""
        ...

    def cat_file(self, path: str) -> bytes:
        """Content of a file."""
        ...

    def pipe_file(self, path: str, value: bytes, *, mode: str = "overwrite") -> object:
        """Write a file whole; `mode`: overwrite or create."""
        ...

    def rm_file(self, path: str) -> None:
        """Delete a file."""
        ...

    def invalidate_cache(self) -> None:
        """Forget listings."""
        ...


class PagedStore(Store, Protocol):
    """The calls of s3fs beside these, by which a listing is read page by page."""

    def split_path(self, path: str) -> tuple[str, str, str | None]:
        """Bucket, key and version."""
        ...

    def call_s3(self, method: str, **arguments: str) -> "Page":
        """A request of S3's interface, by botocore's name of it."""
        ...


class Page(TypedDict, total=False):
    """An answer of S3's ListObjectsV2, of up to 1,000 objects."""

    Contents: list[dict[str, str]]
    IsTruncated: bool
    NextContinuationToken: str


def is_remote(uri: str) -> bool:
    """Whether this is a URL of any scheme but file."""
    scheme = _SCHEME.match(uri)
    return scheme is not None and scheme[1].lower() != "file"


def remote_stamp(uri: str) -> tuple[int, int] | None:
    """Size in bytes, and 63 bits of a digest of the ETag or time of change.

    None where there is no file, it is empty, or the store names no state.
    """
    try:
        store, path = store_of(uri)
        facts = with_retries(uri, lambda: store.info(path))
    except ClipError:
        return None
    state = state_of(facts)
    if not state or not facts["size"]:
        return None
    return facts["size"], int.from_bytes(hashlib.blake2b(state.encode(), digest_size=8).digest(), "big") >> 1


def is_away(uri: str) -> bool:
    """Whether a store is unreachable, silent or busy for now; not where it refuses."""
    try:
        store, path = _store_of(uri)
        store.info(path)
    except ClipError:  # a URL that cannot be read at all
        return False
    except Exception as error:  # each store has its own family of errors
        failure, is_final = _as_clip_error(uri, error)
        return failure.kind == "timeout" or not is_final
    return False


def list_remote(uri: str) -> Iterator[str]:
    """URLs of all files below a folder or matched by a glob; may be none.

    A URL of a file gives itself; http and https only name files (`?` and `*` are no patterns there). Raises ClipError.

    | what | order | held at a time |
    | --- | --- | --- |
    | s3 | the store's, by key; directory buckets have none | a page of 1,000 |
    | others | sorted in each folder of the first level | that folder, or all, if more than MOST_FOLDERS |
    | a glob | sorted | all that match |
    """
    store, path = store_of(uri)
    if _scheme(uri) in ("http", "https"):
        yield uri
        return
    store.invalidate_cache()
    try:
        if re.search(r"[*?\[]", path):
            yield from _urls(uri, with_retries(uri, lambda: store.glob(path, detail=True)))
            return
        if _scheme(uri) in _PAGED and (first := next(pages := _pages(uri, cast("PagedStore", store), path), None)):
            yield first
            yield from pages
            return
        level = with_retries(uri, lambda: store.ls(path, detail=True))
        folders = {one["name"] for one in level if one["type"] == "directory"}
        if len(folders) > MOST_FOLDERS or path.strip("/") in {name.strip("/") for name in folders}:
            yield from _urls(uri, with_retries(uri, lambda: store.find(path, detail=True)))
            return
        for one in sorted(level, key=lambda one: one["name"]):
            found = {one["name"]: one}
            if one["type"] == "directory":
                found = with_retries(uri, partial(store.find, one["name"], detail=True))
            yield from _urls(uri, found)
    except ClipError as error:
        if error.kind != "not_found":
            raise


def _pages(uri: str, store: PagedStore, path: str) -> Iterator[str]:
    """URLs of the objects below a folder of S3, a page asked for when needed."""
    bucket, key, _ = store.split_path(path)
    if not bucket:
        return
    asked = {"Bucket": bucket, "Prefix": f"{key.strip('/')}/".lstrip("/")}
    while True:
        page = with_retries(uri, partial(store.call_s3, "list_objects_v2", **asked))
        yield from (f"{_scheme(uri)}://{bucket}/{one['Key']}" for one in page.get("Contents", ()))
        if not page.get("IsTruncated"):
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]


def _urls(uri: str, found: Mapping[str, FileInfo]) -> Iterator[str]:
    return (f"{_scheme(uri)}://{name.lstrip('/')}" for name in sorted(found) if found[name]["type"] == "file")


def _scheme(uri: str) -> str:
    found = _SCHEME.match(uri)
    return found[1].lower() if found else "file"


def store_of(uri: str) -> tuple[Store, str]:
    """The file system of a URL, and the path inside. Raises ClipError.

    Some connect when they are made (ftp, sftp, smb).
    """
    return with_retries(uri, partial(_store_of, uri), doing="connecting to")


def _store_of(uri: str) -> tuple[Store, str]:
    import fsspec  # takes a quarter of a second with its HTTP client, which local files do not need

    scheme = _scheme(uri)
    try:
        named = urlsplit(uri)
        if scheme in _WITH_HOST and not named.hostname:
            raise ClipError("not_readable", f"{uri}: names no host. Give {scheme}://HOST/PATH.")
        is_ipv6 = "[" in named.netloc
        if "::" in (uri.replace(named.netloc, "", 1) if is_ipv6 else uri):
            raise ValueError("chains of schemes are not supported")
        if scheme not in ("http", "https"):
            refuse_private(uri, scheme)  # before: some stores connect when they are made
        if is_ipv6:  # whose :: fsspec would take for a chain
            kind = fsspec.get_filesystem_class(scheme)
            store, path = kind(**kind._get_kwargs_from_urls(uri), **_options(scheme)), kind._strip_protocol(uri)
        else:
            store, path = fsspec.core.url_to_fs(uri, **_options(scheme))
        if "file" in store.protocol:
            raise ValueError("local files are named by a path or file://")
    except ImportError as error:
        way_out = f"Run pip install 'vqa[{_EXTRAS[scheme]}]'." if scheme in _EXTRAS else f"Install it ({error})."
        raise ClipError("unsupported", f"{uri}: {scheme}:// needs another package. {way_out}") from error
    except (ValueError, TypeError) as error:
        message = f"{uri}: scheme {scheme!r} cannot be read ({error}). Copy the file first."
        raise ClipError("unsupported", message) from error
    except PrivateHostError as error:
        raise _private(uri) from error
    return store, path


def _private(uri: str) -> ClipError:
    return ClipError(
        "not_readable",
        f"{uri}: leads to an address in a private network, which is refused. Give --allow-private-hosts, or set "
        f"{ALLOWED}=1, where all URLs of the list are trusted.",
    )


def _options(scheme: str) -> dict[str, object]:
    """Timeouts of the store's client, and no retries: `with_retries` counts them."""
    if scheme in ("http", "https"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE_SECONDS, sock_read=SILENCE_SECONDS)
        return {"client_kwargs": {"timeout": timeout}, "get_client": public_client}
    if scheme in ("s3", "s3a"):
        waits = {"connect_timeout": SILENCE_SECONDS, "read_timeout": SILENCE_SECONDS}
        return {"config_kwargs": {**waits, "retries": {"total_max_attempts": 1}}}
    return {}


def state_of(facts: FileInfo) -> str:
    """ETag of a file, else its time of change; empty where the store gives neither."""
    value = next(filter(None, map(facts.get, _STATES)), "")
    return value.isoformat() if isinstance(value, datetime) else str(value)


def with_retries(uri: str, call: Callable[[], T], *, doing: str = "reading") -> T:
    """Return what `call` returns, with retries where they can help. Raises ClipError."""
    for pause_seconds in (*_PAUSES_SECONDS, None):
        try:
            return call()
        except (ClipError, MemoryError):
            raise
        except Exception as error:  # each store has its own family of errors
            failure, is_final = _as_clip_error(uri, error, doing)
            if is_final or pause_seconds is None:
                raise failure from error
            time.sleep(pause_seconds)
    raise RuntimeError("unreachable")


def _as_clip_error(uri: str, error: BaseException, doing: str = "reading") -> tuple[ClipError, bool]:
    """The ClipError for an error of a store, and whether another try is useless."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    status = next(filter(None, map(_status, chain)), None)
    if any(isinstance(one, PrivateHostError) for one in chain):
        return _private(uri), True
    root = chain[-1]
    reason = " ".join(str(root).split())[:200] or type(root).__name__
    way_out = "Try again, or copy the file first." if doing == "reading" else "Try again."
    if any(isinstance(one, TimeoutError) or "Timeout" in type(one).__name__ for one in chain):
        message = f"{uri}: the server sent nothing for {SILENCE_SECONDS:g} s. {way_out}"
        return ClipError("timeout", message), True
    if status in (404, 410) or (status is None and isinstance(root, FileNotFoundError)):
        return ClipError("not_found", f"{uri}: the store has no such file. Check the URL."), True
    if status in (401, 403) or (status is None and isinstance(root, PermissionError)):
        number = f" ({status})" if status else ""
        return ClipError("not_readable", f"{uri}: permission denied{number}. {_way_in(uri)}"), True
    if status is None and (faults := [type(one).__name__ for one in chain if _lacks_credentials(one)]):
        message = f"{uri}: no credentials for the store ({reason}). {_way_in(uri)}"
        # Those of a cloud machine come by its network, which may fail for a moment.
        return ClipError("not_readable", message), not any("Retrieval" in name for name in faults)
    if status is not None:
        message = f"{uri}: the server answers with status {status} ({reason}). {way_out}"
        return ClipError("not_readable", message), status < 500 and status != 429
    message = f"{uri}: {doing} it failed {1 + len(_PAUSES_SECONDS)} times ({reason}). Check the network and the server."
    return ClipError("not_readable", message), False


def _lacks_credentials(error: BaseException) -> bool:
    """Whether a client found none, or no whole ones, in the places where it looks."""
    kind = type(error)
    return kind.__module__.startswith(("botocore.", "google.auth.")) and bool(_NO_CREDENTIALS.search(kind.__name__))


def _way_in(uri: str) -> str:
    """How a store is told who asks."""
    scheme = _scheme(uri)
    what = _CREDENTIALS.get(_EXTRAS.get(scheme, scheme), "the store's credentials in the environment")
    return f"Set {what}."


def _status(error: BaseException) -> int | None:
    """HTTP status in an error of aiohttp, botocore, gcsfs or huggingface_hub."""
    response = getattr(error, "response", None)
    # aiohttp's `code` is also set for answers that it cannot parse; gcsfs' is the server's status.
    code = "code" if type(error).__module__.startswith("gcsfs") else "status"
    for holder, name in ((error, code), (response, "status_code")):
        value = getattr(holder, name, None)
        if isinstance(value, int) and 400 <= value < 600:
            return value
    with suppress(TypeError, KeyError, AttributeError):
        return int(cast("dict[str, dict[str, int]]", response)["ResponseMetadata"]["HTTPStatusCode"])
    return None
