"""A cluster of several nodes (on one machine): one of them goes away in the middle, no row does."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobs import _compat
from jobs.request import ScoreRequest
from tests.support import clips, failing, warm
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


@pytest.mark.full
@pytest.mark.timeout(1500)
def test_what_three_nodes_will_never_have_is_named_within_a_minute(cluster: "Cluster") -> None:
    cluster.add_node(num_cpus=2)
    cluster.add_node(num_cpus=2, num_gpus=1, resources={"accelerator_type:A100": 1})
    cluster.add_node(num_cpus=1, resources={"nas": 1})
    demands = {
        "2 GPUs are needed, Ray has 1": {"gpus": 2.0},
        "a node with H100 is needed, Ray has A100": {"gpus": 1.0, "accelerator_type": "H100"},
        "4 of the resource 'nas' are needed, Ray has 1": {"custom": {"nas": 4.0}},
        "12 CPUs are needed, Ray has 5": {"least": 12, "workers": 12},
        "a worker takes 3 CPUs of one node, and no node has that (at most 2 CPUs, not all on the same)": {"cpus": 3.0},
    }
    command = [sys.executable, "-c", DEMANDS, cluster.address, json.dumps(list(demands.values()))]
    code, said, heard = Run(command, Path()).end()
    assert code == 0, heard
    for words, found in zip(demands, json.loads(said), strict=True):
        assert f"no worker could start within 15 s: {words}. Give Ray more" in found["error"]
        assert found["said"] < 60
        assert found["ended"] < 60
