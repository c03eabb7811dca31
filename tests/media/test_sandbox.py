"""The guarded child: whatever native code does in it costs one call, and nothing of it outlives the parent."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from pebble.pool.process import PoolManager

from tests.support import native_faults
from tests.support.alive import is_alive, wait_until
from vqa.errors import ClipError, MachineError
from vqa.media.sandbox import Guard
from vqa.types import Clip

DEADLINE = 0.5  # for tests that are alone on the machine; all others end by themselves, however busy it is
MARGIN = 2.0  # the machine may be busy; without the kill the call would never end
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def guard() -> Iterator[Guard]:
    """For calls that end by themselves, however busy the machine is."""
    with Guard(deadline_seconds=60.0, memory_bytes=256 * MEBIBYTE) as guard:
        guard.start()
        yield guard


@pytest.fixture(scope="module")
def hasty() -> Iterator[Guard]:
    with Guard(deadline_seconds=DEADLINE, memory_bytes=None, preload=["tests.support.native_faults"]) as guard:
        guard.start()
        yield guard


@pytest.mark.alone
@pytest.mark.parametrize("hang", [native_faults.spin_holding_the_interpreter, native_faults.sleep_in_native_code])
def test_a_hang_in_native_code_ends_at_the_deadline_and_the_next_call_works(hasty, hang) -> None:
    start = time.monotonic()
    with pytest.raises(ClipError, match=r"not done after 0\.5 s") as caught:
        hasty.run(hang)
    assert caught.value.kind == "timeout"
    assert DEADLINE <= time.monotonic() - start < DEADLINE + MARGIN
    assert hasty.run(native_faults.echo, 7) == 7


@pytest.mark.parametrize("crash", [native_faults.segfault, native_faults.abort])
def test_a_crash_in_native_code_is_reported_and_the_next_call_works(guard, crash) -> None:
    with pytest.raises(ClipError, match="died twice") as caught:
        guard.run(crash)
    assert caught.value.kind == "crashed"
    assert guard.run(native_faults.echo, 7) == 7


def test_a_call_whose_child_is_killed_from_outside_is_tried_once_more(guard, tmp_path) -> None:
    assert guard.run(native_faults.killed_once, str(tmp_path / "marker")) == "fine"


def test_killing_the_child_at_any_moment_of_good_calls_loses_none(guard) -> None:
    rng = np.random.default_rng(0)
    for _ in range(6):
        child = guard.run(native_faults.process_id)
        timer = threading.Timer(float(rng.uniform(0.0, 0.2)), os.kill, (child, signal.SIGKILL))
        timer.start()
        picture = guard.run(native_faults.echo, np.full(3 * MEBIBYTE, 7, np.uint8))
        assert picture.sum() == 21 * MEBIBYTE
        assert guard.run(native_faults.sleep, 0.1) == 0.1
        timer.join()


def test_an_idle_child_killed_from_outside_costs_nothing(guard) -> None:
    child = guard.run(native_faults.process_id)
    os.kill(child, signal.SIGKILL)
    assert wait_until(lambda: not is_alive(child))
    time.sleep(0.3)  # the pool notices
    assert guard.run(native_faults.echo, 7) == 7


def test_a_call_that_a_breaking_pool_never_took_is_tried_once_more(guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle child killed just before a call: pebble aborts the calls it knows of, then learns of this one."""
    child, schedule, late = guard.run(native_faults.process_id), PoolManager.schedule, []

    def after_the_end(manager: PoolManager, task: object) -> None:
        if not late:
            late.append(task)
            os.kill(child, signal.SIGKILL)
            assert wait_until(lambda: not manager.context.alive)
            time.sleep(0.1)  # what it knows of is aborted
        schedule(manager, task)

    monkeypatch.setattr(PoolManager, "schedule", after_the_end)
    start = time.monotonic()
    assert guard.run(native_faults.echo, 7) == 7
    assert late
    assert time.monotonic() - start < guard.deadline_seconds, "it was waited for until it had to be stuck"


def test_memory_beyond_the_limit_is_too_large_and_below_it_is_fine(guard) -> None:
    assert guard.run(native_faults.allocate, 128 * MEBIBYTE) == 128 * MEBIBYTE
    with pytest.raises(ClipError, match=f"{256 * MEBIBYTE} bytes") as caught:
        guard.run(native_faults.allocate, 512 * MEBIBYTE)
    assert caught.value.kind == "too_large"
    assert guard.run(native_faults.allocate, 128 * MEBIBYTE) == 128 * MEBIBYTE


@pytest.mark.alone
def test_processor_time_is_limited_call_by_call() -> None:
    """A limit apart from the deadline: on a busy machine a call may wait for long without having cost much."""
    with Guard(deadline_seconds=60.0, memory_bytes=None, cpu_seconds=1) as guard:
        child = guard.run(native_faults.process_id)
        for _ in range(2):  # each has a second of its own
            assert guard.run(native_faults.burn, 0.7) == 0.7
        assert guard.run(native_faults.sleep, 1.5) == 1.5, "waiting costs nothing"
        assert guard.run(native_faults.process_id) == child
        with pytest.raises(ClipError, match=r"not done after 1 s of processor time\. Raise this limit") as caught:
            guard.run(native_faults.spin_holding_the_interpreter)
        assert caught.value.kind == "timeout"
        assert guard.run(native_faults.echo, 7) == 7


def test_open_files_are_limited_call_by_call(tmp_path) -> None:
    (tmp_path / "a").touch()
    with Guard(deadline_seconds=60.0, memory_bytes=None, open_files=8) as guard:
        for _ in range(3):
            assert guard.run(native_faults.open_at_once, str(tmp_path / "a"), 7) == 7
        with pytest.raises(ClipError, match=r"more than 8 open files\. Raise limits\.open_files\.$") as caught:
            guard.run(native_faults.open_at_once, str(tmp_path / "a"), 9)
        assert caught.value.kind == "too_large"
        assert guard.run(native_faults.open_at_once, str(tmp_path / "a"), 7) == 7, "what failed has let go"


def test_the_limit_is_on_the_call_not_on_its_answer(guard) -> None:
    picture = np.zeros(100 * MEBIBYTE, np.uint8)
    assert guard.run(native_faults.echo, picture).nbytes == picture.nbytes


def test_errors_of_the_function_come_through_as_they_are(guard) -> None:
    with pytest.raises(ClipError, match="no such clip") as caught:
        guard.run(native_faults.raise_this, ClipError("not_found", "no such clip"))
    assert caught.value.kind == "not_found"
    with pytest.raises(ZeroDivisionError) as unexpected:
        guard.run(divmod, 1, 0)
    assert "In the guarded child" in unexpected.value.__notes__[0]
    with pytest.raises(RuntimeError, match="cannot travel"):
        guard.run(native_faults.raise_unpicklable)
    with pytest.raises(SystemExit):
        guard.run(native_faults.leave)
    assert guard.run(native_faults.echo, 7) == 7


@pytest.mark.alone
def test_errors_name_the_clip(hasty) -> None:
    with pytest.raises(ClipError, match=r"^videos/a\.mp4: "):
        hasty.run(native_faults.hang_over, Clip(clip_id="a", uri="videos/a.mp4"))


def test_the_child_stays_warm_and_is_free_of_heavy_libraries(guard) -> None:
    assert guard.run(native_faults.process_id) == guard.run(native_faults.process_id) != os.getpid()
    modules = guard.run(native_faults.loaded_modules)
    assert "vqa.media.decode" in modules
    assert not {"torch", "ray", "transformers", "pytest"} & set(modules)


@pytest.mark.alone
def test_a_fresh_child_starts_in_a_fraction_of_a_second() -> None:
    with Guard(deadline_seconds=5.0, memory_bytes=None) as guard:
        guard.start()  # also starts the server, once per process
        guard.close()
        start = time.monotonic()
        guard.start()
        assert time.monotonic() - start < 1.0  # about 10 ms on an idle machine


def test_modules_can_be_loaded_before_the_clock_starts() -> None:
    with Guard(deadline_seconds=60.0, memory_bytes=None, preload=["xml.dom.minidom"]) as guard:
        assert "xml.dom.minidom" in guard.run(native_faults.loaded_modules)


def test_calls_from_several_threads_wait_in_line(guard) -> None:
    answers: list[object] = []
    threads = [threading.Thread(target=lambda n=n: answers.append(guard.run(native_faults.echo, n))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == list(range(8))


def test_the_child_outlives_the_thread_that_started_it() -> None:
    children: list[int] = []
    with Guard(deadline_seconds=60.0, memory_bytes=None) as guard:
        starter = threading.Thread(target=lambda: children.append(guard.run(native_faults.process_id)))
        starter.start()
        starter.join()
        time.sleep(0.2)
        assert guard.run(native_faults.process_id) == children[0]


def test_close_ends_the_child() -> None:
    guard = Guard(deadline_seconds=60.0, memory_bytes=None)
    child = guard.run(native_faults.process_id)
    guard.close()
    assert wait_until(lambda: not is_alive(child))


def test_limits_must_be_positive() -> None:
    for name in ("deadline_seconds", "memory_bytes", "cpu_seconds", "open_files"):
        with pytest.raises(ValueError, match=f"{name} is 0"):
            Guard(**({"deadline_seconds": 1.0, "memory_bytes": None} | {name: 0}))


def test_no_thread_left_is_the_clips_fault_only_where_the_parent_has_one(monkeypatch) -> None:
    with Guard(deadline_seconds=60.0, memory_bytes=None) as guard:
        with pytest.raises(RuntimeError, match="new thread"):
            guard.run(native_faults.no_thread)
        monkeypatch.setattr("vqa.machine.can_start_thread", lambda: False)
        with pytest.raises(MachineError, match="ulimit -u"):
            guard.run(native_faults.no_thread)
