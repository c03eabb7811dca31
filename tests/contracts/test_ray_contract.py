"""The calls of Ray that jobs leans on, its private parts first: an upgrade that changes one breaks here, by name."""

import contextlib
import gc
import inspect
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import ray.data
from ray.data import DataContext, ExecutionOptions, ExecutionResources
from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator
from ray.data._internal.execution.resource_manager import ResourceManager

from jobs import _compat, ray_executor
from jobs.engine import run_stages
from jobs.ledger import Ledger
from jobs.progress import JobProgress
from jobs.ray_session import ray_session
from jobs.resume import Work
from jobs.stages import Resources
from vqa.console import Engine
from vqa.data.score_table import ScoreRow, ScoreTable, read_scores
from vqa.errors import ModelError
from vqa.types import Clip

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test file

pytestmark = pytest.mark.usefixtures("local_ray")


class Doubling:
    """Two items for each it gets, one at a time."""

    batch_size = None

    def resources(self, cluster: Mapping[str, float]) -> Resources:
        return Resources(workers=1)

    def setup(self) -> None:
        pass

    def process(self, items: Sequence[Work]) -> Iterator[Work]:
        for item in items:
            for part in (0, 1):
                yield replace(item, clip=Clip(clip_id=f"{item.clip.clip_id}{part}", uri="/a"))

    def close(self) -> None:
        pass


class Mortal(Doubling):
    """Leaves a note for every try; dies over number 30, each time that it is tried, and raises over number 50."""

    batch_size = 4

    def __init__(self, notes: Path) -> None:
        self.notes = notes

    def process(self, items: Sequence[Work]) -> Iterator[Work]:
        for item in items:
            number = item.clip.clip_id
            with (self.notes / number).open("a") as note:
                note.write(str(len(items)))
            if number == "30":
                os._exit(1)
            if number == "50":
                raise RuntimeError("fifty")
            yield item


def test_what_dies_is_tried_again_a_few_times_and_costs_only_its_own_rows_and_no_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_executor, "TASK_RETRIES", 1)
    work = [Work(clip=Clip(clip_id=f"{n}", uri="/a")) for n in range(1, 8)]
    # A group of training workers once waited for ever for the CPU of the last replacement.
    gc.disable()  # as in a process that waits and allocates nothing
    try:
        with ray_executor.RayExecutor([Doubling(), Mortal(tmp_path)]) as executor:
            found = [item.clip.clip_id for items in executor.stream(work, alone=True) for item in items]
            deadline = time.monotonic() + 60
            while ray.available_resources()["CPU"] < ray.cluster_resources()["CPU"]:
                assert time.monotonic() < deadline, "a CPU is still taken"
                time.sleep(0.05)
    finally:
        gc.enable()
    numbers = {f"{n}{part}" for n in range(1, 8) for part in (0, 1)}
    assert sorted(found) == sorted(numbers - {"30", "50"})
    tries = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert tries.pop("30") == "1" * (1 + ray_executor.TASK_RETRIES), "the number of tries is limited"
    assert tries == dict.fromkeys(numbers - {"30"}, "1"), "one by one; an exception is not a lost worker"


class Naming(Mortal):
    """Rows with a name for each file; dies as Mortal does."""

    def process(self, items: Sequence[Work]) -> Iterator[ScoreRow]:
        for item in super().process(items):
            yield ScoreRow(clip_id=item.clip.clip_id, uri=item.clip.uri, run_key="k", status="ok", score=3.0)


def test_a_clip_that_kills_its_worker_is_tried_twice_and_its_neighbours_have_rows(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    ledger = Ledger.of((Work(clip=Clip(clip_id=f"{n}", uri="/a")) for n in range(25, 45)), clip_seconds=None)
    table, progress = ScoreTable(tmp_path), JobProgress(0, quiet=True)
    assert not run_stages([Naming(tmp_path / "notes")], ledger, table, progress, engine=Engine.RAY)
    assert [clip.clip_id for clip in ledger.lost()] == ["30"]
    assert sorted(map(int, read_scores(tmp_path)["clip_id"].to_pylist())) == [n for n in range(25, 45) if n != 30]
    assert len((tmp_path / "notes" / "30").read_text()) == 2
    assert (tmp_path / "notes" / "30").read_text().endswith("1"), "the second time alone"


class Uneven(Doubling):
    """Leaves each item as it is; the worker that meets number 20 is slow from then on, and notes what it begins.

    None begins before both are there: how soon Ray starts the second is not what is asked.
    """

    is_slow = False

    def __init__(self, notes: Path, workers: Path) -> None:
        self.notes, self.workers = notes, workers

    def resources(self, cluster: Mapping[str, float]) -> Resources:
        return Resources(workers=2, least=2)

    def setup(self) -> None:
        (self.workers / str(os.getpid())).touch()

    def process(self, items: Sequence[Work]) -> Iterator[Work]:
        deadline = time.monotonic() + 90
        while len(list(self.workers.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        for item in items:
            self.is_slow = self.is_slow or item.clip.clip_id == "20"
            if self.is_slow:
                (self.notes / item.clip.clip_id).touch()
            time.sleep(0.5 if self.is_slow else 0.02)
            yield item


def test_a_slow_worker_keeps_little_from_the_others(tmp_path: Path) -> None:
    notes, workers = tmp_path / "notes", tmp_path / "workers"
    notes.mkdir()
    workers.mkdir()
    work = [Work(clip=Clip(clip_id=f"{n}", uri="/a")) for n in range(80)]
    with ray_executor.RayExecutor([Uneven(notes, workers)]) as executor:
        found = [item.clip.clip_id for items in executor.stream(work) for item in items]
        assert len(list(workers.iterdir())) == 2, f"of 2 workers; free at the end: {ray.available_resources()}"
    assert sorted(found, key=int) == [f"{n}" for n in range(80)]
    assert 0 < len(list(notes.iterdir())) < 25, "the others had most of what was left"


def test_the_threads_of_an_iterator_that_is_left_are_known_by_name_and_waited_for() -> None:
    def fetchers() -> int:
        return sum(thread.name == _compat.FETCHER for thread in threading.enumerate())

    before, work = fetchers(), [Work(clip=Clip(clip_id=f"{n}", uri="/a")) for n in range(80)]
    with ray_executor.RayExecutor([Doubling()]) as executor:
        results = executor.stream(work, alone=True)
        assert next(results)
        assert fetchers() == before + 1
        results.close()
        _compat.wait_for_fetchers(60.0)
        assert fetchers() == 0


def test_what_we_switch_off_is_still_there() -> None:
    assert ray._private.worker._worker_logs_enabled is False
    for name in ("enable_progress_bars", "print_on_execution_start", "max_errored_blocks"):
        assert hasattr(DataContext.get_current(), name)
    assert hasattr(DataContext.get_current(), "max_consecutive_actor_init_deaths")
    assert "ray_remote_args_fn" in inspect.signature(ray.data.Dataset.map_batches).parameters


def test_pools_keep_to_store_mb_and_give_work_to_the_node_that_has_its_views(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: set[float] = set()
    are_local: list[bool] = []
    limits_of, start = ResourceManager.get_global_limits, ActorPoolMapOperator.start

    def noted(manager: ResourceManager) -> ExecutionResources:
        limits.add(
            manager._options.resource_limits.object_store_memory
        )  # it takes the smaller of this and what is there
        return limits_of(manager)

    def started(pool: ActorPoolMapOperator, options: ExecutionOptions, *more: Any) -> None:
        start(pool, options, *more)
        are_local.append(pool._actor_locality_enabled)

    monkeypatch.setattr(ResourceManager, "get_global_limits", noted)
    monkeypatch.setattr(ActorPoolMapOperator, "start", started)
    options = DataContext.get_current().execution_options
    monkeypatch.setattr(options, "resource_limits", options.resource_limits)  # put back after the test
    work = [Work(clip=Clip(clip_id=f"{n}", uri="/a")) for n in range(4)]
    with ray_executor.RayExecutor([Doubling(), Doubling()], store_mb=24) as executor:
        assert sum(map(len, executor.stream(work))) == 16
    assert limits == {24 * 2**20}
    assert are_local == [True, True]


def test_a_ray_of_our_own_starts_no_process_that_nobody_asks() -> None:
    running = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            running |= {Path(word).name for word in process.cmdline()}
    assert "raylet" in running
    assert not running & {"monitor.py", "log_monitor.py", "dashboard.py"}


def test_the_session_tells_its_cores_and_where_its_logs_are() -> None:
    with ray_session(None) as resources:  # already connected: taken as it is
        assert resources["CPU"] >= 2
    assert ray.is_initialized()
    assert Path(_compat.log_folder()).is_dir()
    socket.create_connection(_compat.head_address(), timeout=5).close()


@ray.remote(num_cpus=0)
class RayTrainWorker:
    """An actor under the name of those of Ray Train."""

    def is_there(self) -> bool:
        return True


def test_the_workers_of_ray_train_are_found_by_the_name_of_their_class() -> None:
    from ray.train.v2._internal.execution.worker_group import worker

    assert worker.RayTrainWorker.__qualname__ == "RayTrainWorker"
    before = _compat.train_workers()
    actor = RayTrainWorker.remote()
    assert ray.get(actor.is_there.remote())
    assert _compat.train_workers() == before + 1
    ray.kill(actor)


class Unready(Doubling):
    """A stage whose model is not to be had."""

    def setup(self) -> None:
        raise ModelError("model m: its weights cannot be read: try `that`")


def test_what_a_stage_cannot_be_set_up_for_is_raised_as_it_was_said() -> None:
    executor = ray_executor.RayExecutor([Unready(), Unready()])
    with executor, pytest.raises(ModelError, match=r"^model m: its weights cannot be read: try `that`$"):
        list(executor.stream([Work(clip=Clip(clip_id="a", uri="/a"))]))
