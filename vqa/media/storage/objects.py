"""Whole objects of a store: read, put, create, delete, list.

A reader sees an object whole or not at all. All functions raise ClipError where the store fails.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from vqa.errors import ClipError
from vqa.media.storage.stores import Store, store_of, with_retries

T = TypeVar("T")


def read_object(url: str) -> bytes | None:
    """Content of an object; None where there is none."""
    try:
        return _call(url, lambda store, path: store.cat_file(path), doing="reading")
    except ClipError as error:
        if error.kind == "not_found":
            return None
        raise


def put_object(url: str, content: bytes) -> None:
    """Put an object in the place of the one that may be there."""
    _call(url, lambda store, path: store.pipe_file(path, content), doing="writing")


def create_object(url: str, content: bytes) -> bool:
    """Put an object where there is none; False where another content is there.

    S3 and Google's store decide between two that try at once (a conditional put); others may let both pass, the later
    one to stay.
    """
    try:
        _call(url, lambda store, path: store.pipe_file(path, content, mode="create"), doing="writing")
    except ClipError:  # where one is there, each store says so in its own way
        found = read_object(url)
        if found is None:
            raise
        return found == content  # a try whose answer was lost may have made it
    return read_object(url) == content


def delete_object(url: str) -> None:
    """Delete an object, which may be absent."""
    try:
        _call(url, lambda store, path: store.rm_file(path), doing="deleting")
    except ClipError as error:
        if error.kind != "not_found":
            raise


def list_objects(url: str) -> list[str]:
    """Sorted names below a folder, relative to it; none where there is no folder."""

    def names(store: Store, path: str) -> list[str]:
        store.invalidate_cache()
        root = path.strip("/") + "/"
        return sorted(name.lstrip("/").removeprefix(root) for name in store.find(path, detail=True))

    try:
        return _call(url, names, doing="listing")
    except ClipError as error:
        if error.kind == "not_found":
            return []
        raise


def _call(url: str, work: Callable[[Store, str], T], *, doing: str) -> T:
    store, path = store_of(url)
    return with_retries(url, partial(work, store, path), doing=doing)
