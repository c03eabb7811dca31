"""Errors that a user can cause: what is wrong, value and limit, then the way out."""

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
"""Why a clip has no score: the column `error_kind`. vqa/media/probe.py has the table of kinds for files."""


class VqaError(Exception):
    """Base of all errors that a user can cause; `exit_code` is the command line's."""

    exit_code = 1


class UsageError(VqaError):
    """Wrong command, config key, value or file (exit code 2)."""

    exit_code = 2


class ClipError(VqaError):
    """A clip without a score: `error_kind` and `error` of its row; never stops a job."""

    def __init__(self, kind: ErrorKind, message: str, frames: tuple[int, int] | None = None) -> None:
        """Make the error.

        Args:
            kind: Class of the failure.
            message: What is wrong, beginning with the URI of the file, and the way out.
            frames: How many frames were decoded, and how many were planned, where too few were.
        """
        super().__init__(message)
        self.kind: ErrorKind = kind
        self.frames = frames

    def __reduce__(self) -> tuple[type["ClipError"], tuple[ErrorKind, str, tuple[int, int] | None]]:
        return ClipError, (self.kind, str(self), self.frames)  # pickling keeps kind and frames


class MachineError(VqaError):
    """A limit of this machine, container or account that no clip is to blame for."""


class ModelError(VqaError):
    """A model that cannot be loaded or run as configured."""


def first_few(items: Sequence[object], *, most: int = 5) -> str:
    """The first `most` items and how many more there are: `a, b and 7 more`."""
    return ", ".join(map(str, items[:most])) + (f" and {len(items) - most} more" if len(items) > most else "")
