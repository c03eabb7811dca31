"""What workers wait for, told from numbers; one Ray stands for clusters that have no room."""

import re
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from jobs import ray_session, waiting
from jobs.stages import Resources
from jobs.waiting import HeadGoneError, LossWatch, missing, needed, too_large, wait_for_process, wait_for_room
from vqa.errors import VqaError

CPU, GPU = Resources(cpus=1.0), Resources(cpus=1.0, gpus=2.0)
H100 = Resources(cpus=1.0, gpus=0.25, accelerator_type="H100")


@pytest.mark.parametrize(
    ("shares", "has", "free", "words"),
    [
        ([CPU, CPU], {"CPU": 2.0}, {"CPU": 2.0}, ""),
        ([CPU, CPU], {"CPU": 1.0}, {"CPU": 1.0}, "2 CPUs are needed, Ray has 1"),
        ([CPU, CPU], {}, {}, "2 CPUs are needed, Ray has 0"),
        ([CPU, CPU], {"CPU": 4.0}, {"CPU": 1.0}, "2 CPUs are needed, 1 of Ray's 4 are free"),
        ([CPU, GPU], {"CPU": 4.0, "GPU": 1.0}, {"CPU": 4.0, "GPU": 1.0}, "2 GPUs are needed, Ray has 1"),
        ([CPU, H100], {"CPU": 4.0, "GPU": 1.0}, {"CPU": 4.0, "GPU": 1.0}, "a node with H100 is needed, Ray has none"),
        (
            [Resources(least=3), H100],
            {"CPU": 2.0, "GPU": 8.0, "accelerator_type:A100": 1.0},
            {"CPU": 2.0, "GPU": 8.0},
            "4 CPUs are needed, Ray has 2; a node with H100 is needed, Ray has A100",
        ),
        ([Resources(cpus=0, custom={"nas": 1.0})], {}, {}, "1 of the resource 'nas' are needed, Ray has 0"),
    ],
)
def test_what_is_missing_is_said_in_numbers(shares, has, free, words) -> None:
    assert missing(needed(shares), has, free) == words


def test_a_worker_that_no_node_could_hold_is_named() -> None:
    nodes = [{"CPU": 2.0}, {"CPU": 1.0, "GPU": 1.0}]
    assert too_large([CPU, Resources(cpus=1.0, gpus=0.5)], nodes) == ""
    said = too_large([CPU, Resources(cpus=2.0, gpus=0.5)], nodes)
    assert said == (
        "a worker takes 2 CPUs and 0.5 GPUs of one node, and no node has that (at most 2 CPUs, 1 GPUs, not all on the "
        "same)"
    )


@pytest.mark.usefixtures("local_ray")
def test_waiting_for_room_says_what_is_missing_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "SAY_SECONDS", 0.5)
    said: list[str] = []
    wait_for_room([CPU, CPU], wait_seconds=30, say=said.append)
    wait_for_process(wait_seconds=60, say=said.append)
    assert said == []
    with pytest.raises(VqaError, match=r"no worker could start within 2 s: 99 CPUs are needed, Ray has \d+.*--wait"):
        wait_for_room([CPU, Resources(cpus=98.0)], wait_seconds=2, say=said.append)
    with pytest.raises(VqaError, match=r"within 2 s: .*a node with H100 is needed, Ray has none"):
        wait_for_room([CPU, Resources(accelerator_type="H100")], wait_seconds=2, say=said.append)
    assert len(said) == 2
    assert "waiting for workers: 99 CPUs are needed" in said[0]


@pytest.fixture
def head() -> Iterator[socket.socket]:
    """A port that listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_workers_that_are_killed_again_and_again_end_the_wait(
    head: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "CHECK_SECONDS", 0.05)
    lost = iter(range(1000))
    said: list[str] = []
    before = signal.getsignal(signal.SIGUSR2)
    watch = LossWatch(wait_seconds=0.5, say=said.append, losses=lambda: next(lost), head=head.getsockname)
    began = time.monotonic()
    with pytest.raises(VqaError, match=r"workers were lost before a result came.*Free memory"), watch, watch.pulling():
        time.sleep(20)
    assert time.monotonic() - began < 10
    assert len(said) == 1
    assert signal.getsignal(signal.SIGUSR2) is before


@pytest.mark.parametrize("is_waiting", [False, True], ids=["", "while Ray is asked for something"])
def test_a_head_that_is_gone_ends_the_run_in_words_before_ray_ends_it_without(
    head: socket.socket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_waiting: bool
) -> None:
    monkeypatch.setattr(waiting, "CHECK_SECONDS", 0.05)
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "1")
    over = threading.Event()

    def losses() -> int:
        over.wait(20 if is_waiting else 0)
        return 0

    said = r"Ray's head at 127\.0\.0\.1:\d+ has not answered for 0\.5 s.*the same command resumes"
    watch = LossWatch(wait_seconds=60, say=pytest.fail, losses=losses, head=head.getsockname)
    with watch:
        with watch.pulling():
            time.sleep(0.7)
        head.close()
        with pytest.raises(HeadGoneError, match=said), watch.pulling():
            time.sleep(20)
        over.set()
        with pytest.raises(HeadGoneError, match=said), watch.pulling():
            pytest.fail("it does not come back")
    time.sleep(0.5)  # where this process lives on, what it ends by has not come to be shown
    assert re.fullmatch(f"vqa: {said}\\.\n", capsys.readouterr().err)


def test_a_ray_without_its_head_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("ray.shutdown", lambda: asked.append("shutdown"))
    for kind in (None, VqaError, HeadGoneError):
        ray_session._shut_down(kind, None, None)
    assert asked == ["shutdown", "shutdown"]
