"""What travels together on Ray, and what alone; without a Ray."""

import itertools
import pickle
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jobs import ray_executor
from jobs.ray_executor import StageWorker
from jobs.resume import Work
from jobs.stages import Sample
from tests.support.naming import Naming
from vqa.data.score_table import ScoreRow
from vqa.types import Clip


def sent(worker: StageWorker, items: Sequence[object]) -> list[int]:
    """The sizes of the packets that a worker makes of these items."""
    packets = [ray_executor._items(table) for table in worker(ray_executor._table(items))]
    return [len(packet) for packet in packets]


class Sampling(Naming):
    """A row for each odd clip, a sample for each even one."""

    def process(self, items: Sequence[Work]) -> Iterator[ScoreRow | Sample]:  # type: ignore[override]
        for n, row in enumerate(super().process(items)):
            yield row if n % 2 else Sample(row=row, views=b"views")


@dataclass(kw_only=True)
class Batches(Naming):
    """A stage that notes the sizes of its batches."""

    batch_size: int | None = None
    seen: list[int] = field(default_factory=list)

    def process(self, items: Sequence[Work]) -> Iterator[ScoreRow]:
        self.seen.append(len(items))
        yield from super().process(items)


def works(count: int) -> list[Work]:
    return [Work(clip=Clip(clip_id=f"{n}", uri=f"/{n}.mp4")) for n in range(count)]


def test_what_comes_fast_travels_together() -> None:
    """Samples too: Ray takes some 20 packets a second from a decoder, of which a picture takes a hundredth."""
    assert sent(StageWorker(Naming(), packet_seconds=60), works(10)) == [10]
    assert sent(StageWorker(Naming()), works(3)) == [1, 1, 1]
    assert sent(StageWorker(Sampling(), packet_seconds=60), works(5)) == [5]


def test_a_model_is_given_no_more_at_once_than_it_takes() -> None:
    stage = Batches(batch_size=4)
    assert sent(StageWorker(stage, packet_seconds=60), works(10)) == [4, 4, 2]
    assert stage.seen == [4, 4, 2]


def test_files_travel_together_by_the_rate_at_which_they_are_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_executor, "POLL_SECONDS", 0.01)
    list_ = works(100)
    asked = iter(list_)
    feed = ray_executor._Feed((next(asked) for _ in itertools.repeat(0, 100)), most=8, cores=lambda: 1.0)
    try:
        feed.finished(200)  # in the first second
        packets = [pickle.loads(table["packet"][0].as_buffer()) for table in ray_executor._packets(str(feed._path))]
    finally:
        feed.stop()
    assert [item for packet in packets for item in packet] == list_
    assert max(map(len, packets)) <= 8


def test_packets_are_as_large_as_the_driver_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("jobs.ray_executor.time.monotonic", lambda: clock[0])
    feed = ray_executor._Feed(iter(()), most=1, cores=lambda: 1.0)
    feed.stop()
    assert feed._size(64) == 1
    for second in range(60):  # a slow start: a file a second
        clock[0] = 100.0 + second
        feed.finished(1)
    assert feed._size(64) == 1
    for _ in range(10):  # then somewhat more than it hands out one by one: it would never be more
        clock[0] += 1
        feed.finished(3 * ray_executor.TASKS_PER_SECOND // 2)
    assert feed._size(64) == 2
    for _ in range(10):  # then fifty times what the driver can hand out one by one: that counts soon
        clock[0] += 1
        feed.finished(50 * ray_executor.TASKS_PER_SECOND)
    assert 40 <= feed._size(64) <= 60 and feed._size(3) == 3
    for _ in range(10):
        clock[0] += 1
        feed.finished(1000 * ray_executor.TASKS_PER_SECOND)
    assert feed._size(64) == 64
    clock[0] += 1000  # nothing more is finished
    assert feed._size(64) < 64


def test_few_packets_wait_that_were_cut_at_a_rate_of_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand files, cut one by one, took half a minute, and those behind them as long."""
    monkeypatch.setattr(ray_executor, "TASKS_PER_SECOND", 0.01)
    feed = ray_executor._Feed(iter(works(1000)), most=64, cores=lambda: 8 / ray_executor.TASKS_PER_CORE)
    packets = ray_executor._packets(str(feed._path))

    def sizes() -> list[int]:
        return [len(pickle.loads(one["packet"][0].as_buffer())) for one in itertools.islice(packets, 8)]

    try:
        assert sizes() == [1] * 8
        feed.finished(8)
        assert sizes() == [64] * 8
    finally:
        feed.stop()


def test_work_that_is_lost_holds_back_no_packet_for_longer_than_one_takes() -> None:
    feed = ray_executor._Feed(iter(works(12)), most=64, cores=lambda: 0.0)
    try:
        assert len(list(ray_executor._packets(str(feed._path)))) == 12, "none is known to be done"
    finally:
        feed.stop()


HANGS = """
import ctypes
from jobs.ray_executor import StageWorker, _table
from tests.support.naming import Naming

class Hanging(Naming):
    def process(self, items):
        yield "one"
        ctypes.PyDLL(None).sleep(600)  # with the interpreter's lock

for table in StageWorker(Hanging(), stall_seconds=0.5)(_table(["item"])):
    print(table.num_rows, flush=True)
"""


def test_a_worker_that_hangs_ends_itself_whatever_it_holds(warm_commands: Path) -> None:
    command = [warm_commands / "python", "-c", HANGS]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, ended.stdout) == (1, "1\n")
    assert "process" in ended.stderr, "the log says where it hung"
