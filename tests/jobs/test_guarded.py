"""A model's stage in a child: what kills it costs one clip its score, and no other."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobs import guarded
from jobs.guarded import ChildLostError, GuardedStage
from jobs.ray_executor import StageWorker
from jobs.rows import LOST, new_row
from jobs.stages import LightStage, Sample, ScoreStage
from tests.support.deadly import Deadly
from vqa.data.score_table import ScoreRow
from vqa.errors import ModelError
from vqa.model.card import GenerationConfig, ModelCard
from vqa.model.engines.config import EngineConfig
from vqa.types import Clip


def sample(name: str) -> Sample:
    return Sample(row=new_row(Clip(clip_id=name, uri=f"/{name}.mp4"), "print", settings="s"), views=b"")


def deadly(folder: Path, *, loads: int = 10**6, engine: str = "transformers") -> Deadly:
    return Deadly(
        card=ModelCard(source="embedded"),
        generation=GenerationConfig(),
        model_id="m",
        model_revision="r",
        engine=EngineConfig.model_validate({"name": engine}),
        notes=folder,
        loads=loads,
    )


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[GuardedStage]:
    one = GuardedStage(deadly(tmp_path), stall_seconds=1.0)
    one.setup()
    yield one
    one.close()


def scored(stage: GuardedStage, *names: str) -> dict[str, ScoreRow]:
    rows = list(stage.process([sample(name) for name in names]))
    assert [row.clip_id for row in rows] == list(names)
    return {row.clip_id: row for row in rows if isinstance(row, ScoreRow)}


@pytest.mark.parametrize("fault", ["deadly", "hanging", "odd"])
def test_what_ends_the_models_process_is_tried_twice_and_costs_its_neighbours_nothing(
    stage: GuardedStage, tmp_path: Path, fault: str
) -> None:
    rows = scored(stage, "a", fault, "b")
    assert [rows[name].score for name in ("a", "b")] == [3.0, 3.0]
    bad = rows[fault]
    assert (bad.status, bad.score, bad.error_kind) == ("failed", None, "crashed")
    assert bad.error == f"/{fault}.mp4: {LOST}"
    assert (bad.tier, bad.model_id, bad.model_revision) == ("reason", "m", "r")
    assert (tmp_path / fault).read_text() == "31", "with its neighbours, then alone"
    assert len((tmp_path / "setup").read_text()) == (1 if fault == "odd" else 3)
    assert scored(stage, "c")["c"].score == 3.0


def test_a_clip_by_itself_is_tried_twice_too(stage: GuardedStage, tmp_path: Path) -> None:
    assert scored(stage, "deadly")["deadly"].error_kind == "crashed"
    assert (tmp_path / "deadly").read_text() == "11"


def test_a_child_that_is_killed_between_batches_costs_nobody_a_score(stage: GuardedStage) -> None:
    child = scored(stage, "a")["a"].model_id
    os.kill(int(child or 0), signal.SIGKILL)
    rows = scored(stage, "b", "c")
    assert rows["b"].score == rows["c"].score == 3.0 and rows["b"].model_id != child


def test_a_load_may_take_longer_than_a_batch(tmp_path: Path) -> None:
    slow = replace(deadly(tmp_path), load_seconds=1.0)
    stage = GuardedStage(slow, stall_seconds=0.5)
    stage.setup()
    assert scored(stage, "a", "deadly")["a"].score == 3.0
    stage.close()


def test_rows_that_need_no_model_pass(stage: GuardedStage) -> None:
    row = sample("a").row
    assert list(stage.process([row])) == [row]


def test_a_device_that_is_gone_ends_the_worker_and_not_a_clip(stage: GuardedStage) -> None:
    with pytest.raises(ModelError, match="the device is gone"):
        list(stage.process([sample("lost")]))


def test_a_model_whose_load_kills_is_no_clips_fault(tmp_path: Path) -> None:
    stage = GuardedStage(deadly(tmp_path, loads=1))
    stage.setup()
    with pytest.raises(ChildLostError):
        list(stage.process([sample("deadly"), sample("a")]))
    with pytest.raises(ChildLostError, match="model m: the process that loads it died twice"):
        GuardedStage(deadly(tmp_path, loads=0)).setup()


@pytest.mark.parametrize("variable", guarded.GPUS)
def test_no_module_is_imported_before_the_fork_where_there_is_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """A driver that was asked before the fork works in no child."""
    assert GuardedStage(deadly(tmp_path))._guard._preload
    monkeypatch.setenv(variable, "0")
    assert not GuardedStage(deadly(tmp_path))._guard._preload


def test_models_in_other_processes_have_no_child_of_ours(tmp_path: Path) -> None:
    light = LightStage(student=tmp_path, model_id="m", model_revision="r")
    assert isinstance(StageWorker(deadly(tmp_path))._stage, GuardedStage) and light.preload
    worker = StageWorker(deadly(tmp_path, engine="vllm"))
    assert isinstance(worker._stage, ScoreStage) and guarded._stage is None


def test_the_worker_ends_where_its_model_cannot_be_loaded(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from jobs.ray_executor import StageWorker; "
        f"from tests.jobs.test_guarded import deadly; StageWorker(deadly(Path({str(tmp_path)!r}), loads=0))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "")
