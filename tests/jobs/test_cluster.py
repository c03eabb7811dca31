"""A cluster of several nodes (on one machine): one of them goes away in the middle, no row does."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jobs import _compat
from jobs.request import ScoreRequest
from tests.support import clips, failing, hosts, warm
from tests.support.job_runs import Run, plain_loop, table
from vqa.data.score_table import read_scores

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

pytestmark = pytest.mark.ray

FILES = 12
# Decoded by nobody while the node is there; those before them fill two batches of the scorer.
HELD = [f"{n:02}.mp4" for n in range(6, FILES)]


@pytest.fixture
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the faults' marks are; the nodes take the environment along."""
    for name, value in failing.environment(tmp_path / "marks", held=HELD).items():
        monkeypatch.setenv(name, value)
    return tmp_path / "marks"


@pytest.fixture
def cluster(marks: Path) -> "Iterator[Cluster]":
    """A head that does no work, without the processes that nobody asks here, each of which takes a second to start."""
    _compat.set_environment()
    from ray.cluster_utils import Cluster  # not to collect tests

    with _compat.few_processes():
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        yield nodes
    finally:
        nodes.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(1500)  # three nodes start here, on two cores that other tests share
def test_a_node_that_goes_away_takes_no_row_along(
    cluster: "Cluster", marks: Path, tmp_path: Path, model_card: Path, warm_commands: Path
) -> None:
    first = cluster.add_node(num_cpus=2)  # either has room for both stages
    with warm.ray_workers_anew():
        cluster.add_node(num_cpus=2)
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for n in range(FILES):
        clips.write_video(folder / f"{n:02}.mp4", frames=8, seed=n)
    assignments = ("job.seconds_per_write=0", "job.rows_per_part=7")
    request = ScoreRequest(sources=(str(folder),), out=out, model=str(model_card), assignments=assignments)
    options = [word for assignment in assignments for word in ("--set", assignment)]
    command = [str(warm_commands / "python"), "-m", "tests.support.failing", "score", str(folder), "--out", str(out)]
    command += ["--model", str(model_card), *options]
    run = Run([*command, "--ray-address", cluster.address, "--json", "--max-failed", "0"], out)
    run.wait_for_rows(2)
    cluster.remove_node(first, allow_graceful=False)
    assert read_scores(out, ["clip_id"]).num_rows <= FILES - len(HELD)
    (marks / "free").touch()
    code, said, heard = run.end()
    summary = json.loads(said)
    assert (code, heard) == (0, "")
    assert (summary["clips"], summary["rows_new"]) == (FILES, FILES)
    assert table(out) == plain_loop(request, score_stage=failing.FailingScoreStage)


DEMANDS = """
import json, sys, time
from jobs.ray_executor import RayExecutor
from tests.support.naming import Naming
from jobs.stages import Resources
from vqa.errors import VqaError

found = []
for number, demand in enumerate(json.loads(sys.argv[2])):
    said, began = [], time.monotonic()
    stage = Naming(each=Resources(**{"workers": 1, **demand}))
    say = lambda text: said.append(time.monotonic())
    with RayExecutor([stage], address=sys.argv[1], wait_seconds=15, say=say) as one:
        ready = time.monotonic()
        try:
            list(one.stream([]))
        except VqaError as error:
            found.append({"error": str(error), "said": said[0] - ready, "ended": time.monotonic() - ready})
print(json.dumps(found))
"""


NODES: list[dict[str, Any]] = [
    {"num_cpus": 2},
    {"num_cpus": 2, "num_gpus": 1, "resources": {"accelerator_type:A100": 1}},
    {"num_cpus": 1, "resources": {"nas": 1}},
]
Inside = Callable[..., list[str]]  # a command to one that runs where the driver is


@pytest.fixture(params=["of one host", "of three hosts"])
def three_nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Inside]]:
    """Address of a Ray of NODES, and where its driver runs."""
    if request.param == "of one host":
        nodes = request.getfixturevalue("cluster")
        for node in NODES:
            nodes.add_node(**node)
        yield nodes.address, lambda *command: list(command)
    elif not hosts.is_possible():
        pytest.skip("networks can be made by root only")
    else:
        with hosts.network(tmp_path, *NODES) as (head, *_):
            yield head.ray, head.inside


@pytest.mark.full
@pytest.mark.timeout(1500)
def test_what_three_nodes_will_never_have_is_named_within_a_minute(three_nodes: tuple[str, Inside]) -> None:
    address, inside = three_nodes
    demands = {
        "2 GPUs are needed, Ray has 1": {"gpus": 2.0},
        "a node with H100 is needed, Ray has A100": {"gpus": 1.0, "accelerator_type": "H100"},
        "4 of the resource 'nas' are needed, Ray has 1": {"custom": {"nas": 4.0}},
        "12 CPUs are needed, Ray has 5": {"least": 12, "workers": 12},
        "a worker takes 3 CPUs of one node, and no node has that (at most 2 CPUs, not all on the same)": {"cpus": 3.0},
    }
    command = inside(sys.executable, "-c", DEMANDS, address, json.dumps(list(demands.values())))
    code, said, heard = Run(command, Path()).end()
    assert code == 0, heard
    for words, found in zip(demands, json.loads(said), strict=True):
        assert f"no worker could start within 15 s: {words}. Give Ray more" in found["error"]
        assert found["said"] < 60
        assert found["ended"] < 60


PLACED = """
import json, os, sys, time
from dataclasses import replace
import ray
from jobs.ray_executor import RayExecutor
from jobs.resume import Work
from jobs.stages import Resources
from tests.support.naming import Naming
from vqa.types import Clip

class Placed(Naming):
    def setup(self):
        time.sleep(2)  # as a model takes: the first worker is at work before the second is there

    def process(self, items):
        for row in super().process(items):
            time.sleep(0.05)
            yield replace(row, reason=f"{ray.get_runtime_context().get_node_id()} {os.getpid()}")

found = []
for demand in json.loads(sys.argv[2]):
    seen, workers = set(), []

    def works():
        for n in range(5000):
            if len(seen) == 2:
                return
            yield Work(clip=Clip(clip_id=f"{n}", uri=f"/{n}"))

    with RayExecutor([Placed(each=Resources(**demand), batch_size=1)], address=sys.argv[1], wait_seconds=60) as one:
        for rows in one.stream(works()):
            workers.append(one.workers()["decoding"])
            seen.update(row.reason for row in rows)
        has = {node["NodeID"]: node["Resources"] for node in ray.nodes()}
    nodes = {place.split()[0] for place in seen}
    found.append({"first": workers[0], "most": max(workers), "nodes": [has[node] for node in nodes]})
print(json.dumps(found))
"""


@pytest.mark.full
@pytest.mark.timeout(1500)
def test_workers_are_where_what_they_ask_for_is_and_grow_in_number(three_nodes: tuple[str, Inside]) -> None:
    address, inside = three_nodes
    demands = {
        "accelerator_type:A100": {"accelerator_type": "A100"},
        "GPU": {"gpus": 0.5},
        "nas": {"custom": {"nas": 0.5}, "cpus": 0.5},
    }
    pool = {"least": 1, "workers": 2}
    asked = json.dumps([{**pool, **demand} for demand in demands.values()])
    code, said, heard = Run(inside(sys.executable, "-c", PLACED, address, asked), Path()).end()
    assert code == 0, heard
    for resource, found in zip(demands, json.loads(said), strict=True):
        assert len(found["nodes"]) == 1 and resource in found["nodes"][0]
        assert (found["first"], found["most"]) == (1, 2), "from the least to as many as there may be"
