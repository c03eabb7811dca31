"""Ending well: a signal never cuts a write in two, and a folder has one writer."""

import contextlib
import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import lease, signals
from jobs.signals import Stop, locked
from vqa import console
from vqa.errors import UsageError, VqaError


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_raised_while_waiting_and_only_noted_elsewhere(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    stop = Stop()
    stop.arm()
    try:
        os.kill(os.getpid(), number)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt), stop.waiting():
            pytest.fail("a stop that was asked for before is heard at the door")
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)  # whoever insists is heard at once
    finally:
        stop.disarm()
    assert signal.getsignal(number) is before


def test_a_signal_cuts_a_wait_short() -> None:
    stop = Stop()
    stop.arm()
    try:
        with pytest.raises(KeyboardInterrupt), stop.waiting():
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
    finally:
        stop.disarm()


def test_a_second_run_in_the_folder_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(UsageError, match=f"process {os.getpid()}"), locked(tmp_path):
        pytest.fail("two at once")
    with locked(tmp_path):
        pass


def without_locks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A file system whose locks answer with this error."""

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, 524])
def test_a_file_stands_for_the_lock_where_the_file_system_has_none(tmp_path, monkeypatch, number: int) -> None:
    without_locks(monkeypatch, number)
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.1)
    with locked(tmp_path):
        with pytest.raises(UsageError, match=rf"process {os.getpid()} .* is writing there"), locked(tmp_path):
            pytest.fail("two at once")
        assert (tmp_path / ".lock.held").is_file()
    assert not (tmp_path / ".lock.held").exists()
    with locked(tmp_path):
        pass


def test_a_lock_of_one_machine_alone_is_not_enough_where_others_see_the_folder(tmp_path, monkeypatch) -> None:
    """As on NFS with local locks, where either machine gets its own."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    monkeypatch.setattr(signals, "is_shared", lambda _: True)
    with locked(tmp_path) as before_write:
        with pytest.raises(UsageError, match=rf"process {os.getpid()} .* is writing there"), locked(tmp_path):
            pytest.fail("two at once")
        before_write()
        (tmp_path / ".lock.held").write_text("process 1 on elsewhere\nits token")
        with pytest.raises(VqaError, match="another run has taken over"):
            before_write()


def test_the_file_of_a_killed_run_is_taken_over_on_its_machine_only(tmp_path, monkeypatch) -> None:
    without_locks(monkeypatch, errno.ENOLCK)
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    number = int(ended.stdout)
    (tmp_path / ".lock.held").write_text(f"process {number} on {socket.gethostname()}")
    with locked(tmp_path):
        pass
    (tmp_path / ".lock.held").write_text(f"process {number} on elsewhere")
    with pytest.raises(UsageError, match=r"on elsewhere.*delete .*\.lock\.held"), locked(tmp_path):
        pytest.fail("nothing is known of other machines")


def test_a_lock_that_fails_otherwise_is_no_other_run(tmp_path, monkeypatch) -> None:
    without_locks(monkeypatch, errno.EIO)
    with pytest.raises(VqaError, match=r"cannot be locked \(Input/output error\)"), locked(tmp_path):
        pytest.fail("not locked")


def test_an_interrupt_that_an_import_swallowed_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_interrupts", [])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        console._note_interrupts()
        with contextlib.suppress(KeyboardInterrupt):  # what Cython does with it
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), Stop().waiting():
            pytest.fail("it was asked for")
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_address_of_a_store_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(UsageError, match=r"--out s3://bucket/out: is an address.*folder only"),
        locked(Path("s3://bucket/out")),
    ):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder that takes no others, from the kernel")
def test_a_folder_that_cannot_be_made_is_named() -> None:
    with pytest.raises(VqaError, match=r"--out /proc/x: cannot be made \(.*\)\. Give another"), locked(Path("/proc/x")):
        pass


def test_a_folder_whose_name_is_not_utf8_is_refused(tmp_path: Path) -> None:
    out = tmp_path / os.fsdecode(b"o-\xff")
    with pytest.raises(UsageError, match=r"o-\\udcff: this name is not UTF-8"), locked(out):
        pass
    assert not list(tmp_path.iterdir())
