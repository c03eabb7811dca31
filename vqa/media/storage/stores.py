"""Stores behind URLs, by fsspec (s3, gs, http, https, hf, ...): what is in them, and their errors by our names.

Credentials come from the environment alone, as each fsspec package reads them.

What goes wrong: refused (401, 403) and unreachable are `not_readable`, absent is `not_found`, silence is `timeout`, a
scheme that cannot be read here is `unsupported`. Resets, cut-off answers and busy servers (429, 5xx) get three tries.
"""

import hashlib
import re
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar, cast

from vqa.errors import ClipError

T = TypeVar("T")

SILENCE_SECONDS = 30.0
_PAUSES_SECONDS = (0.1, 0.5)  # between tries

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_EXTRAS = {"http": "http", "https": "http", "s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
_STATES = ("ETag", "etag", "md5Hash", "blob_id", "Last-Modified", "LastModified", "last_modified", "updated", "mtime")


def is_remote(uri: str) -> bool:
    """True for a URL of any scheme but file."""
    scheme = _SCHEME.match(uri)
    return scheme is not None and scheme[1].lower() != "file"


def remote_stamp(uri: str) -> tuple[int, int] | None:
    """Size in bytes and a number that changes with the file (63 bits of its ETag, or of its time of change); None
    where there is no file or the store tells neither."""
    try:
        store, path = store_of(uri)
        facts = tried(uri, lambda: store.info(path))
    except ClipError:
        return None
    state = state_of(facts)
    if not state or not facts["size"]:
        return None
    return int(facts["size"]), int.from_bytes(hashlib.blake2b(state.encode(), digest_size=8).digest(), "big") >> 1


def list_remote(uri: str) -> list[str]:
    """All files below a folder or matched by a glob, as URLs in order; a single file is itself; none: empty.

    http and https name single files (`?` and `*` are no patterns there). Raises ClipError.
    """
    store, path = store_of(uri)
    if _scheme(uri) in ("http", "https"):
        return [uri]
    store.invalidate_cache()
    try:
        search = store.glob if re.search(r"[*?\[]", path) else store.find
        found = tried(uri, lambda: search(path, detail=True))
    except ClipError as error:
        if error.kind == "not_found":
            return []
        raise
    return [f"{_scheme(uri)}://{name.lstrip('/')}" for name in sorted(found) if found[name]["type"] == "file"]


def _scheme(uri: str) -> str:
    found = _SCHEME.match(uri)
    return found[1].lower() if found else "file"


def store_of(uri: str) -> tuple[Any, str]:
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


def state_of(facts: dict[str, Any]) -> str:
    """What a store says that changes with the file: an ETag, else a time of change; empty where it says nothing."""
    value = next((facts[name] for name in _STATES if facts.get(name)), "")
    return value.isoformat() if isinstance(value, datetime) else str(value)


def tried(uri: str, call: Callable[[], T]) -> T:
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
