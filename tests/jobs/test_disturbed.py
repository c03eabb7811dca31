"""Faults of a cluster, each in a run over 300 clips: the table is that of an undisturbed run, byte for byte."""

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from jobs.mirror import Mirror
from tests.support import clips, failing, hosts
from tests.support.job_runs import Run, as_bytes, table
from vqa.data.score_table import read_scores

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

pytestmark = [pytest.mark.full, pytest.mark.ray, pytest.mark.timeout(1500)]

CLIPS, FILES = 300, 6
NOTICE_SECONDS = 30.0  # from the warning to the end of a machine that is taken away
SPARED = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}


@dataclass(frozen=True)
class Library:
    """A list of clips, the command that scores it but for its `--out`, and the table this has to come to."""

    command: list[str]
    undisturbed: bytes


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, model_card: Path) -> Library:
    folder = tmp_path_factory.mktemp("library")
    for n in range(FILES):
        clips.write_video(folder / f"{n}.mp4", frames=8, seed=n)
    clips.write_text(folder / "text.mp4")
    names = [f"{n % FILES}.mp4,clip{n:03}\n" for n in range(CLIPS)]
    (folder / "list.csv").write_text("path,clip_id\ntext.mp4,text\n" + "".join(names))
    command = [sys.executable, "-m", "tests.support.failing", "score", str(folder / "list.csv")]
    command += ["--model", str(model_card), "--json", "--max-failed", "1"]
    command += ["--set", "job.seconds_per_write=0", "--set", "job.rows_per_part=40"]
    out = folder / "undisturbed"
    code, _, heard = Run([*command, "--engine", "local", "--out", str(out)], out).end()
    assert (code, heard) == (0, "")
    assert len(table(out)) == CLIPS + 1
    return Library(command, as_bytes(out))


@dataclass
class Scene:
    """A cluster, and runs on it into one folder, with faults at seeded moments."""

    library: Library
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    cluster: "Cluster | None" = None
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def rows(self) -> int:
        return read_scores(self.out, ["clip_id"]).num_rows

    def start(self, *nodes: dict[str, Any], **faults: Any) -> "list[Any]":
        """Begin a cluster of a head that does no work and these nodes, whose workers meet these faults."""
        from ray.cluster_utils import Cluster  # not to collect tests

        for name, value in failing.environment(self.folder / "marks", **faults).items():
            self.monkeypatch.setenv(name, value)
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **SPARED})
        return [self.cluster.add_node(num_cpus=2, **node) for node in nodes or ({}, {})]

    @contextlib.contextmanager
    def joined(self) -> "Iterator[subprocess.Popen[bytes]]":
        """One more node, by `ray start --block`; in the end what is left of it is killed."""
        assert self.cluster is not None
        ray, log = str(Path(sys.executable).with_name("ray")), self.folder / "ray.log"
        command = [ray, "start", "--block", f"--address={self.cluster.address}", "--num-cpus=2"]
        with log.open("wb") as file:
            node = subprocess.Popen(command, stdout=file, stderr=file)
        try:
            hosts.wait_for_ray(node, log)
            family = psutil.Process(node.pid).children(recursive=True)
            yield node
        finally:
            node.kill()
            node.wait()
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()

    def run(self, *options: str, **environment: str) -> Run:
        assert self.cluster is not None
        where = ["--out", str(self.out), "--ray-address", self.cluster.address]
        return Run([*self.library.command, *where, *options], self.out, environment)

    def some(self, run: Run) -> None:
        """Wait until a random part of the rows is there, or a little more than before."""
        run.wait_for_rows(self.rows + int(self.rng.integers(20, 80)))

    def check(self, run: Run, *, new: int | None = None) -> dict[str, Any]:
        """The run ends well and its table is right; its summary."""
        code, said, heard = run.end()
        assert code == 0, heard + said
        summary: dict[str, Any] = json.loads(said)
        assert as_bytes(self.out) == self.library.undisturbed
        assert summary["rows_new"] == (CLIPS + 1 if new is None else new)
        assert not (self.out / "superseded").exists(), "no row had to be written twice"
        return summary

    def end(self) -> None:
        if self.cluster is not None:
            self.cluster.shutdown()
            self.cluster = None


@pytest.fixture
def scene(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    one = Scene(library, tmp_path, monkeypatch)
    try:
        yield one
    finally:
        one.end()


def clip(scene: Scene) -> str:
    return f"clip{scene.rng.integers(60, CLIPS - 60):03}"


def test_a_node_goes_away(scene: Scene) -> None:
    first, _ = scene.start()
    run = scene.run()
    scene.some(run)
    assert scene.cluster is not None
    scene.cluster.remove_node(first, allow_graceful=False)
    assert scene.rows < CLIPS
    scene.check(run)


def test_a_node_is_preempted(scene: Scene) -> None:
    """Its `ray start` gets SIGTERM; what is left of it after the notice is killed, with clips at work."""
    scene.start({}, held=[f"clip{n:03}" for n in range(CLIPS // 2, CLIPS)])
    with scene.joined() as node:
        run = scene.run()
        scene.some(run)
        node.terminate()
        told, before = time.monotonic(), scene.rows
        run.wait_until(lambda: node.poll() is not None or time.monotonic() > told + NOTICE_SECONDS)
    assert before < scene.rows < CLIPS, "the run went on meanwhile, and was not through"
    (scene.folder / "marks" / "free").touch()
    scene.check(run)


def test_the_driver_dies_and_is_submitted_again(scene: Scene) -> None:
    scene.start()
    for _ in range(2):
        run = scene.run()
        scene.some(run)
        os.kill(run.process.pid, signal.SIGKILL)
        assert run.end()[0] == -signal.SIGKILL
    safe = scene.rows
    assert safe < CLIPS
    scene.check(scene.run(), new=CLIPS + 1 - safe)


def test_the_driver_is_preempted(scene: Scene) -> None:
    scene.start()
    run = scene.run()
    scene.some(run)
    run.process.terminate()
    told = time.monotonic()
    code, said, heard = run.end()
    assert time.monotonic() - told < 30
    assert (code, json.loads(said)["state"]) == (130, "interrupted"), heard
    safe = scene.rows
    assert safe < CLIPS
    scene.check(scene.run(), new=CLIPS + 1 - safe)


def test_the_head_dies_and_is_started_again(scene: Scene) -> None:
    scene.start()
    run = scene.run()
    scene.some(run)
    assert scene.cluster is not None
    scene.cluster.head_node.kill_gcs_server(check_alive=False)
    code, _, heard = run.end()
    assert code == 1
    assert "Traceback" not in heard
    assert "head" in heard and "the same command resumes" in heard
    safe = scene.rows
    assert safe < CLIPS
    scene.end()
    scene.start()
    scene.check(scene.run(), new=CLIPS + 1 - safe)


def test_a_model_process_runs_out_of_memory(scene: Scene) -> None:
    room = 2.5 * 2**30  # that Ray leaves it before it kills it
    memory = psutil.virtual_memory()
    scene.monkeypatch.setenv("RAY_memory_usage_threshold", f"{(memory.total - memory.available + room) / memory.total}")
    scene.start(hungry=clip(scene))
    scene.check(scene.run())
    assert (scene.folder / "marks" / "hungry").exists()


def test_the_object_store_is_full(scene: Scene) -> None:
    scene.start({"object_store_memory": 80 * 2**20}, padding=4 * 2**20)
    scene.check(scene.run())


def test_the_disk_is_full(scene: Scene) -> None:
    scene.start()
    scene.out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", scene.out], check=False).returncode:
        pytest.skip("a small disk can be mounted by root only")
    try:
        code, _, heard = scene.run().end()
        assert code == 1
        assert "cannot be written to any more (No space left on device)" in heard
        assert "the same command resumes" in heard
        safe = scene.rows
        assert 0 < safe < CLIPS
        subprocess.run(["mount", "-o", "remount,size=64m", scene.out], check=True)
        scene.check(scene.run(), new=CLIPS + 1 - safe)
    finally:
        subprocess.run(["umount", "--lazy", scene.out], check=True)


def test_a_worker_hangs(scene: Scene) -> None:
    scene.start(hung=clip(scene))
    scene.check(scene.run("--set", "job.stall_seconds=15"))
    assert (scene.folder / "marks" / "hung").exists()


@pytest.mark.parametrize("fault", ["slow", "slow_scorer"])
def test_a_worker_is_slow(scene: Scene, fault: str) -> None:
    scene.start(**{fault: f"clip{scene.rng.integers(20, 80):03}"})
    run = scene.run()
    run.wait_for_rows(CLIPS * 4 // 5)
    begun = (scene.folder / "marks" / fault).read_text().split()
    scene.check(run)
    in_all = (scene.folder / "marks" / fault).read_text().split()
    assert 0 < len(begun) < CLIPS / 5, "most rows are of the others, which did not wait for it"
    assert in_all[: len(begun)] == begun and len(in_all) > len(begun), "and came while it was at its clips"
    assert len(set(in_all)) == len(in_all), "nothing was tried twice"


def test_the_store_is_away_for_a_minute(scene: Scene, library: Library) -> None:
    place = Path(library.command[4]).parent
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def serve() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(place)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    urls = [f"http://127.0.0.1:{port}/{n % FILES}.mp4,clip{n:03}\n" for n in range(CLIPS)]
    (scene.folder / "urls.csv").write_text("path,clip_id\n" + "".join(urls))
    command = [*library.command[:4], str(scene.folder / "urls.csv"), *library.command[5:]]
    plain = scene.folder / "plain"
    server = serve()
    try:
        code, _, heard = Run([*command, "--engine", "local", "--out", str(plain)], plain).end()
        assert code == 0, heard
        scene.start()
        assert scene.cluster is not None
        where = ["--out", str(scene.out), "--ray-address", scene.cluster.address]
        run = Run([*command, *where], scene.out)
        scene.some(run)
        server.kill()
        server.wait()
        assert scene.rows < CLIPS
        time.sleep(60)
        server = serve()
        code, said, heard = run.end()
        assert code == 0, heard + said
    finally:
        server.kill()
    assert as_bytes(scene.out) == as_bytes(plain)
    assert json.loads(said)["counts"] == {"ok": CLIPS}


def test_clocks_differ(scene: Scene) -> None:
    """Nodes that are a day ahead and three hours behind; a driver that is ahead, and the next one days behind."""
    faketime = pytest.importorskip("libfaketime", reason="pip install 'vqa[dev]'")
    library = Path(faketime.__file__).parent / "vendor/libfaketime/src/libfaketime.so.1"

    def clock(hours: int) -> dict[str, str]:
        return {"LD_PRELOAD": str(library), "FAKETIME": f"{hours:+}h", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    scene.start({"env_vars": clock(26)}, {"env_vars": clock(-3)})
    run = scene.run(**clock(1))
    scene.some(run)
    os.kill(run.process.pid, signal.SIGKILL)
    run.end()
    safe = scene.rows
    scene.check(scene.run(**clock(-48)), new=CLIPS + 1 - safe)


def test_a_host_is_cut_off(library: Library, tmp_path: Path) -> None:
    """Its link is down: Ray's processes on it live, and nobody is told that nothing reaches them."""
    if not hosts.is_possible():
        pytest.skip("networks can be made by root only")
    out, rng = tmp_path / "out", np.random.default_rng(9)
    with hosts.network(tmp_path, {"num_cpus": 2}, {"num_cpus": 2}) as (head, first, _):
        run = Run(head.inside(*library.command, "--out", str(out), "--ray-address", head.ray), out)
        run.wait_for_rows(int(rng.integers(20, 80)))
        first.cut_off()
        assert read_scores(out, ["clip_id"]).num_rows < CLIPS
        code, said, heard = run.end()
        alive = "import ray; ray.init(log_to_driver=False); print(sum(node['Alive'] for node in ray.nodes()))"
        look = head.inside("env", f"RAY_ADDRESS={head.ray}", sys.executable, "-c", alive)
        assert subprocess.run(look, capture_output=True, check=True).stdout == b"2\n", "Ray has lost it, and no other"
    assert code == 0, heard
    assert json.loads(said)["rows_new"] == CLIPS + 1
    assert as_bytes(out) == library.undisturbed


def test_the_driver_dies_over_results_in_a_store(library: Library, bucket: str, tmp_path: Path) -> None:
    url, rng = f"{bucket}/disturbed", np.random.default_rng(8)
    command = [*library.command, "--engine", "local", "--out", url]

    def there(folder: str) -> Path:
        (tmp_path / folder).mkdir()
        return Mirror(url, tmp_path / folder, check=lambda: None, say=print).folder

    seen = 0
    for turn in range(2):
        run = Run(command, tmp_path)
        wanted = seen + int(rng.integers(20, 80))
        looks = itertools.count()
        run.wait_until(
            lambda turn=turn, wanted=wanted, looks=looks: (
                time.sleep(1) or read_scores(there(f"{turn}-{next(looks)}"), ["clip_id"]).num_rows >= wanted
            )
        )
        os.kill(run.process.pid, signal.SIGKILL)
        assert run.end()[0] == -signal.SIGKILL
        seen = read_scores(there(f"{turn}"), ["clip_id"]).num_rows
        assert wanted <= seen < CLIPS
    code, said, heard = Run(command, tmp_path).end()
    assert code == 0, heard
    assert json.loads(said)["rows_reused"] == seen
    assert as_bytes(there("end")) == library.undisturbed
