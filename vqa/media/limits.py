"""What one call in the guarded child may use: memory, processor time, open files; by the kernel's resource limits."""

import itertools
import math
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Limits(NamedTuple):
    """What one call may use; None: no limit."""

    memory_bytes: int | None
    cpu_seconds: int | None
    open_files: int | None


@contextmanager
def limited(limits: Limits) -> Iterator[None]:
    """Afterwards the old limits hold again: sending the answer is not the call's."""
    now: dict[int, int] = {}
    if limits.memory_bytes is not None:
        now[resource.RLIMIT_DATA] = _data_bytes() + limits.memory_bytes
    if limits.cpu_seconds is not None:
        now[resource.RLIMIT_CPU] = math.ceil(time.process_time()) + limits.cpu_seconds
    if limits.open_files is not None:
        now[resource.RLIMIT_NOFILE] = _number_of_free_file(limits.open_files)
    before = {kind: resource.getrlimit(kind) for kind in now}
    try:
        for kind, limit in now.items():
            highest = before[kind][1]
            resource.setrlimit(kind, (limit if highest < 0 else min(limit, highest), highest))
        yield
    finally:
        for kind, limits_before in before.items():
            resource.setrlimit(kind, limits_before)


def _number_of_free_file(count: int) -> int:
    """The kernel's limit is on the numbers of open files: the one that leaves `count` of them free."""
    listed = list(Path("/dev/fd").iterdir())
    held = {int(path.name) for path in listed if path.exists()}  # without the list's own
    free = (number for number in itertools.count() if number not in held)
    return next(itertools.islice(free, count - 1, None)) + 1


def _data_bytes() -> int:
    """Private writable memory of this process, which is what RLIMIT_DATA counts; 0 where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:")), 0)
