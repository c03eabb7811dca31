"""Ending well: a signal never cuts a write in two, and a folder has one writer."""

import os
import signal
from pathlib import Path

import pytest

from jobs.signals import Stop, locked
from vqa.errors import UsageError


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
