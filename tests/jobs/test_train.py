"""A recipe on two workers by Ray Train: they wait for room, one is killed, the run resumes from its checkpoint."""

import io
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
from safetensors.torch import load_file

from jobs import train
from jobs.train import run
from tests.support import clips, failing_training
from vqa.data.view_cache import PreparedRow, pack
from vqa.data.view_cache_writer import PreparedTable
from vqa.errors import UsageError, VqaError
from vqa.model.card import find_card
from vqa.train.recipe import load_recipe
from vqa.types import Clip
from vqa.views import ViewsConfig, look

PATIENCE_SECONDS = 900.0
STEPS = 4
SHARDED = ["fsdp2", "zero3"] if find_spec("deepspeed") else ["fsdp2"]
RECIPE = f"""
start: embedded
stand_in_opinions: true
threads: 1
validation_clips: 0
export: float16
stages:
- {{kind: coldstart, name: cold, max_steps: {STEPS}, global_batch_size: 2, per_device_train_batch_size: 1,
   learning_rate: 1.0e-4, vision_learning_rate: 0, save_steps: 1, eval_steps: 1}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def prepared(tmp_path: Path) -> Path:
    """Four clips as `vqa prepare` leaves them, without Ray."""
    views = ViewsConfig(
        **find_card("embedded")["views"] | {"global_pixels": 64, "local_pictures": 1, "crop_pixels": 56}
    )
    out = tmp_path / "prepared"
    rows: list[PreparedRow] = []
    listed: list[dict[str, Any]] = []
    for n in range(4):
        clip = Clip(clip_id=f"{n}", uri=str(clips.write_video(tmp_path / f"{n}.mp4", frames=8, seed=n)))
        seen = look(clip, views)
        rows.append(PreparedRow(clip_id=clip.uri, uri=clip.uri, status="ok", run_key=f"{n}", views=pack(seen)))
        facts: dict[str, Any] = {"dataset": "ladder", "content_id": f"{n}", "split": "train", "opinion": 1.5 + n}
        listed.append(facts | {"clip_id": f"{n}", "uri": clip.uri, "distortions": ["noise"], "severities": [0.2 * n]})
    table = PreparedTable(out)
    table.add(rows)
    table.flush()
    table.write_clips(out, listed)
    return out


def checkpoints(out: Path) -> set[int]:
    return {int(path.name.rpartition("-")[2]) for path in (out / "cold").glob("checkpoint-*")}


@ray.remote
class Other:
    """Somebody else's work on the same Ray."""

    def is_there(self) -> bool:
        return True


@pytest.fixture
def other(local_ray: None) -> Iterator[Any]:
    """Takes all CPUs but one."""
    actor = Other.options(num_cpus=ray.cluster_resources()["CPU"] - 1).remote()
    assert ray.get(actor.is_there.remote())
    yield actor
    ray.kill(actor)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", *(pytest.param(one, marks=pytest.mark.full) for one in SHARDED)])
def test_workers_start_when_their_cpus_are_free_and_a_lost_one_is_replaced(
    tmp_path: Path,
    recipe: Path,
    other: Any,
    vqa: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    sharding: str,
) -> None:
    out, marks, heard = tmp_path / "out", tmp_path / "marks", io.StringIO()
    monkeypatch.setattr(sys, "stderr", heard)
    monkeypatch.setattr("jobs.waiting.SAY_SECONDS", 0.5)
    monkeypatch.setattr("jobs.train._worker", failing_training.dies_once(marks, step=STEPS // 2))
    monkeypatch.setattr("jobs.signals.is_shared", lambda _: True)  # workers ask whether the driver still holds it

    def free_the_cpus_when_told() -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while "waiting" not in heard.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)
        ray.kill(other)

    thread = threading.Thread(target=free_the_cpus_when_told)
    thread.start()
    data, shards = prepared(tmp_path), f"hardware.sharding={sharding}"
    code, said, _ = vqa("train", recipe, "--out", out, "--data", data, "--workers", 2, "--set", shards)
    thread.join()
    assert (code, said.strip()) == (0, str(out / "model")), heard.getvalue()
    cpus = ray.cluster_resources()["CPU"]
    told = f"waiting for workers: 2 CPUs are needed, 1 of Ray's {cpus:g} are free (--wait 600)"
    assert heard.getvalue().splitlines()[0] == told
    assert (marks / "killed").exists()
    saved = [int(line) for line in (marks / "saved").read_text().split()]
    assert saved == list(range(1, STEPS + 1)), "no step was done twice"
    assert max(checkpoints(out)) == STEPS
    assert (out / "model" / "model.safetensors").is_file()
    assert not (out / "ray").exists()
    if sharding != "none":  # whole copies: tests/train/test_recipe_stops.py
        monkeypatch.undo()
        run(load_recipe(recipe, [shards]), out=tmp_path / "undisturbed", data=[data], workers=2)
        one, other = (load_file(tmp_path / name / "cold/model/model.safetensors") for name in ("out", "undisturbed"))
        assert all(torch.equal(weights, other[name]) for name, weights in one.items()) and set(one) == set(other)


def test_a_fault_of_the_run_is_raised_as_it_was_said_and_not_tried_again(
    tmp_path: Path, recipe: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group stands in this process, and is started twice, as by Ray Train."""
    tries = []

    def run_recipe(*_: object, **__: object) -> Path:
        tries.append(1)
        raise UsageError("data nowhere: no such folder")

    def fit(config: dict[str, Any], *_: object, **__: object) -> str:
        with pytest.raises(UsageError):
            train._worker(config)
        train._worker(config)
        return ""

    monkeypatch.setitem(sys.modules, "vqa.train.runner", SimpleNamespace(run_recipe=run_recipe))
    monkeypatch.setattr(train, "_fit", fit)
    with pytest.raises(VqaError, match=r"^data nowhere: no such folder$") as caught:
        run(load_recipe(recipe), out=tmp_path / "out", workers=2)
    assert (len(tries), caught.value.exit_code) == (1, 2)


@pytest.mark.full
def test_ray_train_hands_on_a_fault_of_the_run(tmp_path: Path, recipe: Path, local_ray: None) -> None:
    with pytest.raises(VqaError, match=r"data .*nowhere: no such folder. Make it by") as caught:
        run(load_recipe(recipe), out=tmp_path / "out", data=[tmp_path / "nowhere"], workers=2)
    assert caught.value.exit_code == 2


@pytest.mark.usefixtures("other")
def test_workers_that_never_start_end_the_run_in_words(tmp_path: Path, recipe: Path) -> None:
    # Which CPUs are free Ray tells a moment later; tests/jobs/test_waiting.py has the numbers.
    words = r"no worker could start within 2 s: .* ask for less \(--workers\)"
    with pytest.raises(VqaError, match=words):
        run(load_recipe(recipe), out=tmp_path / "out", workers=2, wait_seconds=2)


def test_more_workers_than_ray_has_cpus_are_refused(tmp_path: Path, recipe: Path, local_ray: None) -> None:
    with pytest.raises(VqaError, match=r"--workers 4096: Ray has \d+ CPUs, one worker needs one"):
        run(load_recipe(recipe), out=tmp_path / "out", workers=4096)
