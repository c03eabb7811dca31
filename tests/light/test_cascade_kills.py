"""A cascade on Ray, and one killed in either pass: the rows of an undisturbed run."""

import json
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.request import ScoreRequest
from jobs.score import score
from tests.support import clips, failing
from tests.support.job_runs import Rows, Run, table
from tests.support.scale import FULL
from vqa.console import Engine

FILES = 9  # pictures, beside a text that is none
ASSIGNMENTS = ("job.seconds_per_write=0", "job.rows_per_part=2", "generation.batch_size=1")


@pytest.fixture(scope="module")
def request_(unsure: Path, tmp_path_factory: pytest.TempPathFactory) -> ScoreRequest:
    folder = tmp_path_factory.mktemp("in")
    for n in range(FILES):
        clips.write_image(folder / f"{n}.png", width=96, height=64, seed=n)
    clips.write_text(folder / "text.mp4")
    return ScoreRequest(
        sources=(str(folder),),
        out=tmp_path_factory.mktemp("cascade") / "whole",
        tier="cascade",
        student=unsure,
        reason_share="34%",
        max_failed="1",
        assignments=ASSIGNMENTS,
        engine=Engine.LOCAL,
    )


@pytest.fixture(scope="module")
def whole(request_: ScoreRequest) -> Rows:
    """The rows of a run that nothing disturbs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.request.ScoreStage", failing.FailingScoreStage)
        assert score(request_) == 0
    rows = table(request_.out)
    assert tiers(rows) == {"light": FILES + 1 - 3, "reason": 3}  # of 9 with a score, 34 % are 3
    return rows


def tiers(rows: Rows) -> Counter[str]:
    return Counter(row["tier"] for row in rows.values())


def command(python: Path, request: ScoreRequest, out: Path, engine: Engine) -> Sequence[str]:
    """The same run by `tests.support.failing`, whose reasoner needs no model."""
    options = [word for assignment in request.assignments for word in ("--set", assignment)]
    words = [str(python), "-m", "tests.support.failing", "score", *request.sources, "--out", str(out), *options]
    words += ["--tier", "cascade", "--student", str(request.student), "--reason-share", str(request.reason_share)]
    return [*words, "--engine", engine, "--max-failed", "1", "--json"]


@pytest.mark.ray
@pytest.mark.slow
def test_ray_gives_the_rows_of_this_process(
    request_: ScoreRequest, whole: Rows, local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.request.ScoreStage", failing.FailingScoreStage)
    assert score(replace(request_, engine=Engine.RAY, out=tmp_path)) == 0
    assert table(tmp_path) == whole
    assert json.loads((tmp_path / "run.json").read_text())["engine"] == "ray"


@pytest.mark.slow
@pytest.mark.parametrize("engine", [Engine.LOCAL, pytest.param(Engine.RAY, marks=[pytest.mark.ray, pytest.mark.full])])
def test_a_kill_in_either_pass_changes_nothing(
    request_: ScoreRequest,
    whole: Rows,
    engine: Engine,
    warm_commands: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    words = list(command(warm_commands / "python", request_, out, engine))
    if FULL:
        code, said, heard = Run(words, out, failing.environment(tmp_path / "first", driver=FILES)).end()
        assert (code, said) == (-signal.SIGKILL, ""), heard
    else:  # what such a kill leaves: some rows of the student
        some = tuple(str(Path(request_.sources[0]) / f"{n}.png") for n in range(4))
        assert score(replace(request_, out=out, tier="light", reason_share=None, sources=some)) == 0
    rows = table(out)
    assert 0 < len(rows) < FILES + 1
    assert set(tiers(rows)) == {"light"}

    rest = FILES + 1 - len(rows)
    code, said, heard = Run(words, out, failing.environment(tmp_path / "second", driver=rest + 2)).end()
    assert (code, said) == (-signal.SIGKILL, ""), heard
    rows = table(out)
    assert len(rows) == FILES + 1, "a clip was lost while its row of the reasoner took the place of the student's"
    assert tiers(rows)["reason"] in (1, 2), "the kill came outside the second pass"

    monkeypatch.setattr("jobs.request.ScoreStage", failing.FailingScoreStage)
    assert score(replace(request_, out=out)) == 0
    assert table(out) == whole
    assert json.loads((out / "run.json").read_text())["rows_new"] == 3 - tiers(rows)["reason"]
