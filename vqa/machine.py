"""Limits of this machine, container and account: cores, memory, files, threads."""

import errno
import math
import os
import resource
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from vqa.errors import MachineError

CGROUPS = Path("/sys/fs/cgroup")
SOCKET_BYTES = 107  # the longest path of a Unix socket on Linux
# Of the C library, the dynamic linker and torch.
_NO_MEMORY = ("Cannot allocate memory", "failed to map segment", "can't allocate memory")
UNLIMITED_BYTES = 2**60  # cgroup v1 writes a number near 2**63 where there is no limit


def cores(root: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """Cores that this process may use, at least 1, by affinity mask and CPU quota.

    Args:
        root: Where the control groups (v1, v2 or both) are mounted.
        own: The file that names the groups of this process.
    """
    quotas = [_quota(folder) for folder in _groups(root, own, "cpu")]
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min([allowed, *(quota for quota in quotas if quota)]) + 1e-6))


def memory_bytes(root: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """Memory that this process's container may use; arguments as of `cores`."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder in _groups(root, own, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            words = _words(folder / name)
            if words and words[0].isdecimal() and int(words[0]) < UNLIMITED_BYTES:
                limits.append(int(words[0]))
    return min(limits)


def shared_memory_bytes(folder: Path = Path("/dev/shm")) -> int:  # noqa: S108 (where Linux has it)
    """Free bytes of shared memory, which is part of the memory; 0 without any."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def queued_seconds(process: int | None = None) -> float:
    """Seconds that a thread could have run and waited for a core.

    Of a process its first thread; None: this thread. 0 where the kernel does not tell, as on other systems than Linux.
    """
    try:
        return int(_words(Path(f"/proc/{process or 'thread-self'}/schedstat"))[1]) / 1e9
    except (IndexError, ValueError):
        return 0.0


def _groups(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """Control groups (v1, v2) that limit this process: its own and all above.

    A container may see its group as the root, or its path as the host has it, which is then not there.
    """
    try:
        lines = own.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    places = {root: "/", root / controller: "/"}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            places |= {root: path, root / "unified": path}
        elif controller in controllers.split(","):
            places[root / controller] = places[root / controllers] = path
    for mount, path in places.items():
        group = mount / path.strip("/")
        yield from (mount, *(one for one in (group, *group.parents) if mount in one.parents))


def _quota(folder: Path) -> float | None:
    """Cores by the CPU quota of a group; None without one."""
    words = _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
    if len(words) != 2 or not all(word.isdecimal() and int(word) for word in words):
        return None  # v2 writes "max", v1 writes -1
    return int(words[0]) / int(words[1])


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return []


def short_folder(longest: int, *, prefix: str = "vqa-") -> Path:
    """Make a folder of this account whose path leaves room for names of sockets.

    Args:
        longest: Bytes that its path may have; a path of a socket may have 107 (`man 7 unix`).
        prefix: What its name begins with; 8 characters follow.

    Returns:
        A folder in the folder for temporary files, or in a shorter one where that has too long a path or refuses.

    Raises:
        MachineError: no folder will do.
    """
    faults = []
    places = [os.environ.get("RAY_TMPDIR"), tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"]  # noqa: S108
    for place in dict.fromkeys(place for place in places if place):
        if (length := len(os.fsencode(place)) + 1 + len(prefix) + 8) > longest:
            faults.append(f"{place}: {length} bytes")
            continue
        try:
            return Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        except OSError as error:
            faults.append(f"{place}: {error.strerror}")
    raise MachineError(
        f"no folder for sockets, whose path may have {longest} bytes ({'; '.join(faults)}). Set TMPDIR to a short "
        "folder that can be written."
    )


def shortage(error: BaseException) -> str | None:
    """What process or machine lacked to cause an error, and the way out; or None."""
    number = error.errno if isinstance(error, OSError) else None
    text = str(error)
    if number in (errno.EMFILE, errno.ENFILE) or "Too many open files" in text:
        return f"this process may open {_limit(resource.RLIMIT_NOFILE)} files at once. Raise the limit (ulimit -n)."
    if "can't start new thread" in text or "Resource temporarily unavailable" in text or number == errno.EAGAIN:
        return (
            f"no further thread or process can be started; this account may have {_limit(resource.RLIMIT_NPROC)}. "
            "Raise the limit (ulimit -u, or pids of the container), or end other processes."
        )
    if isinstance(error, MemoryError) or number == errno.ENOMEM or any(words in text for words in _NO_MEMORY):
        return (
            f"no memory is left; this process may map {_limit(resource.RLIMIT_AS, 2**20)} MiB (ulimit -v), the machine "
            f"or container has {memory_bytes() // 2**20} MiB. Raise the limit, or give fewer workers."
        )
    if "AF_UNIX path" in text:
        return f"the path of a socket is longer than {SOCKET_BYTES} bytes ({text}). Set TMPDIR to a short folder."
    return None


def can_start_thread() -> bool:
    """Whether a thread can start; if so, one that failed lacked memory for its stack."""
    try:
        threading.Thread(target=int).start()
    except RuntimeError:
        return False
    return True


@contextmanager
def shortage_told(doing: str) -> Iterator[None]:
    """Raise MachineError for what the machine lacks while `doing`; other errors pass."""
    try:
        yield
    except (OSError, RuntimeError, MemoryError) as error:
        if (what := shortage(error)) is None:
            raise
        raise MachineError(f"{doing}: {what}") from error


def require_limits(doing: str, needed: Sequence[tuple[int, str, int]]) -> None:
    """Raise this process's soft limits as needed; refuse what the hard ones forbid.

    Args:
        doing: What needs them, for the message.
        needed: Per limit its number (`resource.RLIMIT_NOFILE`), what it counts, and how many are needed.

    Raises:
        MachineError: a hard limit is below what is needed.
    """
    for kind, what, least in needed:
        soft, hard = resource.getrlimit(kind)
        if soft == resource.RLIM_INFINITY or soft >= least:
            continue
        if hard != resource.RLIM_INFINITY and hard < least:
            raise MachineError(f"{doing} needs {least} {what}, this process may have {hard}. Raise the limit.")
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (least, hard))


def _limit(kind: int, unit: int = 1) -> str:
    soft = resource.getrlimit(kind)[0]
    return "any number of" if soft == resource.RLIM_INFINITY else f"{soft // unit:,}"
