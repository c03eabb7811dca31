"""The calls of Ray that jobs leans on, its private parts first: an upgrade that changes one breaks here, by name."""

import gc
import inspect
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from jobs import _compat, ray_executor
from jobs.ray_session import ray_session
from jobs.resume import Work
from jobs.stages import Resources
from vqa.errors import ModelError
from vqa.types import Clip

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test file

pytestmark = pytest.mark.usefixtures("local_ray")


class Doubler:
    """Two rows for each it gets, one at a time."""

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for number in batch.column("number").to_pylist():
            for part in (0, 1):
                yield pa.table(
                    {"number": [number * 10 + part], "blob": pa.array([os.urandom(300_000)], pa.large_binary())}
                )


class Mortal:
    """Leaves a note for every try; dies over number 30, raises over number 50."""

    def __init__(self, *, notes: str) -> None:
        self.notes = Path(notes)

    def __call__(self, batch: pa.Table) -> pa.Table:
        numbers = batch.column("number").to_pylist()
        for number in numbers:
            with (self.notes / str(number)).open("a") as note:
                note.write("x")
            if number == 30:
                os._exit(1)
            if number == 50:
                raise RuntimeError("fifty")
        return pa.table({"number": numbers, "size": [batch.num_rows] * batch.num_rows})


def strategy() -> ActorPoolStrategy:
    return ActorPoolStrategy(min_size=1, max_size=1, max_tasks_in_flight_per_actor=1)


def test_what_dies_is_tried_again_a_few_times_and_costs_only_its_own_rows(tmp_path: Path) -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.target_min_block_size, context.target_max_block_size = 0, 1  # each row alone
    context.max_errored_blocks = -1
    data = ray.data.from_arrow([pa.table({"number": [n]}) for n in range(8)])
    data = data.map_batches(
        Doubler,
        batch_size=None,
        batch_format="pyarrow",
        compute=strategy(),
        num_cpus=1,
        ray_remote_args_fn=ray_executor._restarts,
    ).map_batches(
        Mortal,
        fn_constructor_kwargs={"notes": str(tmp_path)},
        batch_size=1,
        batch_format="pyarrow",
        compute=strategy(),
        num_cpus=1,
        ray_remote_args_fn=ray_executor._restarts,
    )
    rows = [row for table in data.iter_batches(batch_size=None, batch_format="pyarrow") for row in table.to_pylist()]
    assert sorted(row["number"] for row in rows) == sorted({10 * n + p for n in range(8) for p in (0, 1)} - {30, 50})
    assert {row["size"] for row in rows} == {1}, "batch_size is what a stage gets"
    assert len((tmp_path / "30").read_text()) == 1 + ray_executor.TASK_RETRIES, "the number of tries is limited"
    assert len((tmp_path / "50").read_text()) == 1, "an exception is not a lost worker"
    del data
    gc.collect()  # what lets go of the replacement of a worker that died, see RayExecutor.stream


def test_what_we_switch_off_is_still_there() -> None:
    assert ray._private.worker._worker_logs_enabled is False
    for name in ("enable_progress_bars", "print_on_execution_start", "max_errored_blocks"):
        assert hasattr(DataContext.get_current(), name)
    assert hasattr(DataContext.get_current(), "max_consecutive_actor_init_deaths")
    assert "ray_remote_args_fn" in inspect.signature(ray.data.Dataset.map_batches).parameters


def test_the_session_tells_its_cores_and_where_its_logs_are() -> None:
    with ray_session(None) as resources:  # already connected: taken as it is
        assert resources["CPU"] >= 2
    assert ray.is_initialized()
    assert Path(_compat.log_folder()).is_dir()


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


class Unready:
    """A stage whose model is not to be had."""

    batch_size = None

    def resources(self, cluster: Mapping[str, float]) -> Resources:
        return Resources(workers=1)

    def setup(self) -> None:
        raise ModelError("model m: its weights cannot be read: try `that`")

    def process(self, items: Sequence[object]) -> Iterator[object]:
        yield from items

    def close(self) -> None:
        pass


def test_what_a_stage_cannot_be_set_up_for_is_raised_as_it_was_said() -> None:
    executor = ray_executor.RayExecutor([Unready(), Unready()])
    with executor, pytest.raises(ModelError, match=r"^model m: its weights cannot be read: try `that`$"):
        list(executor.stream([Work(clip=Clip(clip_id="a", uri="/a"))]))


class DiesOver:
    """A stage whose process dies over one clip, each time that it is tried."""

    batch_size = None

    def __init__(self, clip_id: str) -> None:
        self.clip_id = clip_id

    def resources(self, cluster: Mapping[str, float]) -> Resources:
        return Resources(workers=1)

    def setup(self) -> None:
        pass

    def process(self, items: Sequence[Work]) -> Iterator[Work]:
        for item in items:
            if item.clip.clip_id == self.clip_id:
                os._exit(1)
            yield item

    def close(self) -> None:
        pass


def test_a_worker_that_dies_for_good_leaves_its_cpu_free(tmp_path: Path) -> None:
    # A group of training workers once waited for ever for the CPU of the last replacement.
    work = [Work(clip=Clip(clip_id=f"{n}", uri=f"/{n}")) for n in range(3)]
    gc.disable()  # as in a process that waits and allocates nothing
    try:
        with ray_executor.RayExecutor([DiesOver("1")]) as executor:
            found = [item.clip.clip_id for items in executor.stream(work) for item in items]
            assert sorted(found) == ["0", "2"]
            deadline = time.monotonic() + 60
            while ray.available_resources()["CPU"] < ray.cluster_resources()["CPU"]:
                assert time.monotonic() < deadline, "a CPU is still taken"
                time.sleep(0.05)
    finally:
        gc.enable()
