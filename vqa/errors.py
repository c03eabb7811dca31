"""Everything that can go wrong, as a small family; each message names the thing, its value, the limit and the way
out."""

from collections.abc import Sequence
from typing import Literal

ErrorKind = Literal[
    "not_found",
    "not_readable",
    "not_video",
    "no_frames",
    "corrupt",
    "unsupported",
    "too_large",
    "timeout",
    "crashed",
    "model",
]


class VqaError(Exception):
    """Base of all errors that a user can cause; `exit_code` is what the command line returns for it."""

    exit_code = 1


class UsageError(VqaError):
    """A wrong command, config key, value or file given by the user (exit code 2)."""

    exit_code = 2


class ClipError(VqaError):
    """One clip cannot be scored; becomes the row's `error_kind` and `error`, never stops a job.

    `frames`: how many were decoded and planned, where too few were.
    """

    def __init__(self, kind: ErrorKind, message: str, frames: tuple[int, int] | None = None) -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind
        self.frames = frames

    def __reduce__(self) -> tuple[type["ClipError"], tuple[ErrorKind, str, tuple[int, int] | None]]:
        return ClipError, (self.kind, str(self), self.frames)  # crosses process borders with what it knows


class ModelError(VqaError):
    """A model cannot be loaded or run as asked."""


def first_few(items: Sequence[object], *, most: int = 5) -> str:
    """Return the first `most` items for a message, and how many more there are: `a, b and 7 more`."""
    return ", ".join(map(str, items[:most])) + (f" and {len(items) - most} more" if len(items) > most else "")
