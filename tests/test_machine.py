"""What this process may use: read from trees of control groups as kernels and container engines lay them out."""

import errno
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
import pytest

from vqa import machine
from vqa.errors import ClipError, MachineError
from vqa.media.storage.open import media_errors

V1_UNLIMITED = "9223372036854771712"


def tree(folder: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A tree of groups and the file that names a process's own."""
    for name, text in files.items():
        (folder / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup" / name).write_text(text + "\n")
    (folder / "own").write_text(own)
    return folder / "cgroup", folder / "own"


@pytest.mark.parametrize(
    ("own", "files", "wanted"),
    [
        ("0::/\n", {"cpu.max": "100000 100000"}, 1),
        ("0::/\n", {"cpu.max": "max 100000"}, 16),
        ("0::/\n", {"cpu.max": "350000 100000"}, 3),
        ("0::/\n", {"cpu.max": "20000 100000"}, 1),
        ("0::/slurm/job_7/step\n", {"slurm/job_7/cpu.max": "400000 100000", "slurm/job_7/step/cpu.max": "max 1"}, 4),
        ("0::/a/b\n", {"a/cpu.max": "800000 100000", "a/b/cpu.max": "200000 100000"}, 2),
        ("0::/docker/as-the-host-has-it\n", {"cpu.max": "200000 100000"}, 2),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 16),
        ("4:cpu,cpuacct:/x\n", {"cpu,cpuacct/x/cpu.cfs_quota_us": "500", "cpu,cpuacct/x/cpu.cfs_period_us": "100"}, 5),
        ("4:cpu:/\n0::/\n", {"unified/cpu.max": "300000 100000"}, 3),
        ("", {}, 16),
    ],
)
def test_the_cpu_quota_of_a_container_cuts_the_cores(tmp_path, monkeypatch, own, files, wanted) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    assert machine.cores(*tree(tmp_path, own, files)) == wanted


@pytest.mark.parametrize(
    ("own", "files", "wanted"),
    [
        ("0::/\n", {"memory.max": "2147483648"}, 2**31),
        ("0::/\n", {"memory.max": "max"}, None),
        ("5:memory:/\n", {"memory/memory.limit_in_bytes": "1073741824"}, 2**30),
        ("5:memory:/\n", {"memory/memory.limit_in_bytes": V1_UNLIMITED}, None),
        ("5:memory:/a\n", {"memory/memory.limit_in_bytes": V1_UNLIMITED, "memory/a/memory.limit_in_bytes": "7"}, 7),
    ],
)
def test_the_memory_of_a_container_is_its_limit(tmp_path, own, files, wanted) -> None:
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert machine.memory_bytes(*tree(tmp_path, own, files)) == (wanted or physical)


def test_sockets_get_a_short_folder_of_their_own(tmp_path, monkeypatch) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    made = machine.short_folder(39)
    assert len(os.fsencode(made)) <= 39
    assert made.stat().st_mode & 0o777 == 0o700
    made.rmdir()
    with pytest.raises(MachineError, match=r"path may have 9 bytes.*Set TMPDIR to a short folder"):
        machine.short_folder(9)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (MemoryError(), "ulimit -v"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "ulimit -v"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), "ulimit -v"),
        (OSError("AF_UNIX path too long"), "Set TMPDIR"),
    ],
)
def test_what_the_machine_lacks_is_named_with_the_way_out(error: Exception, words: str) -> None:
    assert words in (machine.shortage(error) or "")


def test_ffmpeg_without_a_thread_blames_the_machine_not_the_clip(monkeypatch) -> None:
    def refused() -> None:
        raise av.error.BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    with pytest.raises(ClipError, match="Resource temporarily unavailable"), media_errors("a.mp4", doing="decoding"):
        refused()
    monkeypatch.setattr(machine, "can_start_thread", lambda: False)
    with (
        pytest.raises(MachineError, match=r"decoding has to stop: .*ulimit -u"),
        media_errors("a.mp4", doing="decoding"),
    ):
        refused()


def test_other_errors_are_not_the_machines() -> None:
    assert machine.shortage(ValueError("no")) is None


@pytest.fixture
def group() -> Iterator[list[Path]]:
    """A control group of this machine's own, v1 or v2: one and a half cores, 3 GiB."""
    root = machine.CGROUPS
    v1 = {"cpu": {"cpu.cfs_quota_us": "150000"}, "memory": {"memory.limit_in_bytes": str(3 * 2**30)}}
    v2 = {"": {"cpu.max": "150000 100000", "memory.max": str(3 * 2**30)}}
    made: list[Path] = []
    try:
        try:
            for controller, limits in (v2 if (root / "cgroup.controllers").exists() else v1).items():
                made.append(root / controller / f"vqa-test-{os.getpid()}")
                made[-1].mkdir()
                for name, limit in limits.items():
                    (made[-1] / name).write_text(limit)
        except OSError as error:
            pytest.skip(f"no control group can be made here: {error}")
        yield made
    finally:
        for one in made:
            with suppress(OSError):
                one.rmdir()


def test_a_process_in_a_real_group_uses_its_share(group: list[Path]) -> None:
    """And a Ray that it would start is as large, but for the two cores that its two pools take."""
    code = (
        "import os, sys; from pathlib import Path\n"
        "for one in sys.argv[1:]: Path(one, 'cgroup.procs').write_text(str(os.getpid()))\n"
        "from jobs.ray_session import _local_options; from vqa import machine\n"
        "ray = _local_options(Path('/tmp'), least_cpus=1)\n"
        "print(machine.cores(), machine.memory_bytes(), ray['num_cpus'], ray['_memory'] + ray['object_store_memory'])"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, group)], capture_output=True, text=True, check=True)
    assert [int(word) for word in done.stdout.split()] == [1, 3 * 2**30, 1, 3 * 2**30]


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="Linux tells it")
def test_a_process_that_shares_its_core_waits_for_it() -> None:
    code = f"import os\nos.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})\nwhile True: pass"
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    try:
        deadline = time.monotonic() + 60
        while any(machine.queued_seconds(one.pid) < 0.3 for one in both):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        for one in both:
            one.kill()
            one.wait()
    assert machine.queued_seconds(both[0].pid) == 0.0, "it is gone"
