"""Imports made when a command runs: packages of optional extras, and heavy ones."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from vqa.errors import UsageError


def missing_extra(extra: str, package: str, *, doing: str) -> UsageError:
    """Return the error that names a missing package and the command that installs it.

    Args:
        extra: the extra of pyproject.toml that brings the package, such as "train".
        package: its name on PyPI.
        doing: what needs it, the subject of the sentence, such as "vqa train".
    """
    return UsageError(f"{doing} needs {package}, which is not installed. Install it with `pip install 'vqa[{extra}]'`.")


def require(extra: str, *modules: str, doing: str) -> None:
    """Raise `missing_extra` for the first module not installed; imports none of them."""
    for module in modules:
        if find_spec(module) is None:
            raise missing_extra(extra, module.replace("_", "-"), doing=doing)


def arrow_without_pandas() -> None:
    """Keep Arrow from importing pandas with the first list that it converts (0.5 s).

    It asks whether a list is one of pandas, once in a process. A table can be made into one of pandas as ever.
    """
    import pyarrow as pa

    if "pandas" not in sys.modules:
        sys.meta_path.insert(0, _WithoutPandas)
        try:
            pa.array([])
        finally:
            sys.meta_path.remove(_WithoutPandas)


class _WithoutPandas:
    """Finder of modules for which pandas is not installed."""

    @classmethod
    def find_spec(cls, fullname: str, *_: object) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname, name=fullname)


@contextmanager
def uncollected() -> Iterator[None]:
    """Suspend garbage collection, for imports of many objects and hardly any garbage."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def kept() -> Iterator[None]:
    """As `uncollected`, for what stays to a worker's end: no collection visits it.

    A model's tensors are in no cycles, so that they are freed with it all the same.
    """
    with uncollected():
        yield
        if not gc.get_freeze_count():  # the first time only: later there may be garbage, which would stay too
            gc.freeze()  # before the collector is back, which would begin with all that was loaded
