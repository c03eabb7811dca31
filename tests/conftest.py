"""Fixtures for every test: neither random draws nor a scheduling policy reach another."""

import atexit
import functools
import gc
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import warm
from vqa.imports import kept

# The gate has a test in each core: threads of one library would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Servers of tests are on loopback; what is refused by default is in tests/media/storage/test_hosts.py.
os.environ.setdefault("VQA_ALLOW_PRIVATE_HOSTS", "1")
# Ray gives its workers niceness 15: beside the gate's other lane, which takes both cores, they would hardly run.
os.environ.setdefault("RAY_worker_niceness", "0")


# Words without which a file holds no test of a lane; the gate's lanes are chosen by `-m`.
LANES = {"ray": ("local_ray", "mark.ray", "engine: Engine"), "alone": ("mark.alone",)}


# A file with this line is of the Ray lane alone; importing Ray's libraries takes the others five seconds.
ALL_RAY = "\nimport ray\n"


# What children of guards import; the server that they are forked from has it loaded, whichever test is the first.
GUARDED = ("jobs.child", "vqa.data.audit")


def may_hold(path: Path, lane: str) -> bool:
    """Whether a file of tests may hold some of a lane."""
    text = path.read_text(encoding="utf-8")
    return any(word in text for word in LANES[lane])


def is_all_ray(path: Path) -> bool:
    """Whether a file of tests holds tests of the Ray lane only."""
    return ALL_RAY in path.read_text(encoding="utf-8")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A lane imports no file that holds nothing for it: all of them together take 15 seconds."""
    wanted = config.option.markexpr
    lane = wanted.partition(" ")[0]
    if not collection_path.match("test_*.py"):
        return None
    if lane in LANES and not may_hold(collection_path, lane):
        return True
    if "not ray" in wanted and is_all_ray(collection_path):
        return True
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What uses the Ray of this process goes to its lane of the gate; the other Ray tests are marked where they are.

    What scores with the small checkpoint of `model_card` is marked too: `make test-fast` leaves it out.
    """
    lost = set()
    for item in items:
        if "local_ray" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.ray)
        if "model_card" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.model)
        lost |= {(item.path, lane) for lane in LANES if item.get_closest_marker(lane)}
    lost = {(path, lane) for path, lane in lost if not may_hold(path, lane)}
    lost |= {(item.path, "not ray") for item in items if not item.get_closest_marker("ray") and is_all_ray(item.path)}
    if lost:
        raise pytest.UsageError(f"no lane of the gate would run these: {lost}; tests/conftest.py finds lanes by words")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)  # the gate's processes end together


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: list[Any]) -> None:
    """Fork the processes of a lane from this one, once it has the heavy imports behind it: 10 s of work for each."""
    config.add_cleanup(warm.serve(with_ray=False))
    for spec in specs:
        spec.python = warm.pytest_worker()


def pytest_runtestloop(session: pytest.Session) -> None:
    """Have warm commands where tests ask for them, and warm workers of Ray, from before there are threads."""
    is_ray = any(item.get_closest_marker("ray") for item in session.items)
    if is_ray or any("warm_commands" in getattr(item, "fixturenames", ()) for item in session.items):
        session.config.add_cleanup(warm.serve(with_ray=is_ray))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collectors of garbage visit neither what is imported while tests are collected, 13 of 30 seconds, nor later.

    Each run of a trainer starts one.
    """
    with kept(), warm.importing_ray():
        yield
    if typer := sys.modules.get("typer"):  # the tree of all commands, 35 ms for each line that a test runs
        typer.main.get_command = functools.cache(typer.main.get_command)
    if testing := sys.modules.get("typer.testing"):
        testing._get_command = typer.main.get_command
    if forked := sys.modules.get("vqa.media.forked"):
        forked.server_of(GUARDED)
    atexit.register(gc.freeze)  # as in vqa.cli


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
def _session_of_ray() -> Iterator[None]:
    from jobs.ray_session import ray_session

    with ray_session(None):
        yield


@pytest.fixture
def local_ray(_session_of_ray: None) -> Iterator[None]:
    """One Ray for all tests that need it in this process, as starting it takes seconds; each leaves its CPUs free, for
    which the next one, such as a group of training workers, would wait without end."""
    import ray

    yield
    deadline, cpus = time.monotonic() + 120, ray.cluster_resources()["CPU"]
    while (free := ray.available_resources().get("CPU", 0.0)) < cpus:
        assert time.monotonic() < deadline, f"{cpus - free:g} of {cpus:g} CPUs are still taken"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def warm_commands() -> Path:
    """The folder of `python` and `vqa` for commands whose start is not what is tested."""
    return warm.commands()


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
