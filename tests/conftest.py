"""Fixtures for every test: neither random draws nor a scheduling policy reach another."""

import os
import random
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _restore_random_state() -> Iterator[None]:
    """Put the global generators of Python, numpy and (where loaded) torch back after each test."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch = sys.modules.get("torch")  # never imported just for this
    torch_state = torch.get_rng_state() if torch else None
    yield
    random.setstate(python_state)
    np.random.set_state(numpy_state)
    if torch and torch_state is not None:
        torch.set_rng_state(torch_state)


@pytest.fixture(autouse=True, scope="module")
def _is_scheduled_as_before() -> Iterator[None]:
    """No encoder makes this process real-time, as SVT-AV1 would (tests/support/clips.py): all else would starve."""
    if sys.platform != "linux":
        yield
        return
    before = os.sched_getscheduler(0)
    yield
    assert os.sched_getscheduler(0) == before


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray for all tests that need it in this process: starting it takes seconds."""
    from jobs.ray_executor import ray_session

    with ray_session(None):
        yield


@pytest.fixture
def vqa(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process: (exit code, stdout, stderr)."""
    from vqa.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vqa", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, captured.out, captured.err

    return run
