"""The plan of a job: its arithmetic by hand, and the probe on real clips."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jobs.probe
import jobs.score
from jobs.config import JobConfig
from jobs.plan import RAY_SECONDS, Fleet, Hardware, fleet, forecast, read_hardware
from jobs.planning import PlanRequest, plan
from jobs.probe import Timed, TimedBatch, chosen, probe_job
from jobs.request import ScoreInputs, ScoreRequest, inputs_of
from jobs.resume import Work
from jobs.score import score
from jobs.stages import Resources, Sample
from tests.bench import planning
from tests.support import clips
from tests.support.naming import Naming
from tests.support.plans import EIGHT, EVEN, replace_hardware
from vqa.console import Engine
from vqa.data.score_table import ScoreRow
from vqa.errors import UsageError
from vqa.model.engines.config import EngineConfig
from vqa.types import Clip


def test_a_plan_is_the_slowest_part() -> None:
    on = fleet(EIGHT, JobConfig(), machines=1)
    assert (on.decoders, on.scorers) == (32, 8)
    made = forecast(EVEN, on)
    driver = 0.001 + RAY_SECONDS
    wanted = {"decoding": 32 / 0.5, "scoring": 8 / 0.08, "storage": 1e9 / 8 / 2e6, "driver": 1 / driver}
    assert made.rates == pytest.approx(wanted)
    assert made.limit == "storage"
    assert made.seconds == pytest.approx(100_000 / 62.5 + 30 + 0.6 * (1 - 1 / 32))
    assert made.low_seconds == pytest.approx(made.seconds), "all clips are alike"
    assert made.doubled["storage"] == pytest.approx(100_000 / 64 + 30 + 0.6 * (1 - 1 / 32)), "then decoding limits"
    assert made.doubled["decoding"] == made.seconds
    assert made.read_bytes == pytest.approx(100_000 * 2e6)
    assert made.gpu_hours == pytest.approx(8 * made.seconds / 3600)
    assert made.cost == pytest.approx(20 * made.seconds / 3600)
    assert made.memory_bytes == pytest.approx(32 * 301e6)


def test_windows_and_clips_without_views_count() -> None:
    probe_ = replace(EVEN, clips=np.full(50, 4.0), scored_share=0.5)
    made = forecast(probe_, fleet(replace_hardware(read_gbit=None), JobConfig(), machines=2))
    assert made.clips == 400_000
    assert made.rates["decoding"] == pytest.approx(64 / 0.125)
    assert made.rates["scoring"] == pytest.approx(16 / 0.05)
    assert made.rates["storage"] == math.inf


def test_decoding_and_scoring_share_cores_in_one_process() -> None:
    def on(**changes: Any) -> Fleet:
        return fleet(
            Hardware(cores=2, memory_gb=16, **changes), JobConfig(cpus_per_worker=1.5), machines=1, is_local=True
        )

    busy = replace(EVEN, score_seconds=np.full(40, 0.2))
    made = forecast(busy, on())
    assert made.rates["cores"] == pytest.approx(2 / (0.5 + 0.8 * 0.2 * 1.5))
    assert made.limit == "cores", "decoding alone gets through 4 a second, scoring 6.25"
    assert forecast(busy, on(cards=1)).limit == forecast(busy, on(score_seconds=0.2)).limit == "decoding"


def test_workers_are_those_that_a_job_starts() -> None:
    cpu = Hardware(cores=8, memory_gb=16)
    on = fleet(cpu, JobConfig(), machines=3)
    assert (on.decoders, on.scorers) == (12, 12)
    on = fleet(cpu, JobConfig(), machines=1, is_local=True)
    assert (on.decoders, on.scorers) == (8, 1)
    assert fleet(cpu, JobConfig(sample_workers=9), machines=1, is_local=True).decoders == 9
    on = fleet(EIGHT, JobConfig(gpus_per_worker=0.5, score_workers=10, sample_workers=6), machines=1)
    assert (on.decoders, on.scorers) == (6, 10)
    four = EngineConfig(name="vllm", tensor_parallel=4)
    on = fleet(EIGHT, JobConfig(gpus_per_worker=0.5), machines=3, engine=four)
    assert (on.decoders, on.scorers) == (114, 6), "two models of four GPUs on each machine"
    assert fleet(EIGHT, JobConfig(), machines=1, engine=four.model_copy(update={"name": "transformers"})).scorers == 8
    served = EngineConfig(name="endpoint", endpoints=("http://gpu1:8000/v1",))
    assert fleet(EIGHT, JobConfig(), machines=1, engine=served).scorers == 20, "half the cores, as they need no GPU"
    with pytest.raises(UsageError, match=r"takes 16 GPUs, of which a machine has 8; lower model_engine\.tensor"):
        fleet(EIGHT, JobConfig(), machines=9, engine=four.model_copy(update={"tensor_parallel": 16}))
    with pytest.raises(UsageError, match="8 model workers with 5 cores each leave none of 40 cores a machine"):
        fleet(EIGHT, JobConfig(cpus_per_worker=5), machines=1)


def test_the_probe_is_the_same_clips_each_time_and_spread() -> None:
    many = [Clip(clip_id=f"{n:04d}", uri=f"/{n}") for n in range(1000)]
    found = chosen(many, 100)
    assert found == chosen(list(reversed(many)), 100)
    assert {int(clip.clip_id) // 250 for clip in found} == {0, 1, 2, 3}
    assert len(chosen(many[:3], 100)) == 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips")
    for number in range(5):
        clips.write_video(path / f"{number}.mp4", fps=10, frames=20)
    (path / "bad.mp4").write_bytes(b"no video" * 100)
    return path


@pytest.mark.model
def test_a_probe_of_real_clips(
    folder: Path, model_card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = ScoreRequest(sources=(str(folder),), out=tmp_path, model=str(model_card))
    inputs = inputs_of(job)
    found = probe_job(inputs, chosen(inputs.clips, 200), seconds=300)
    assert found.files == 6
    assert found.scored_share < 1, "one is no video"
    assert len(found.decode_seconds) == len(found.file_bytes) >= 4
    assert 0 < found.decode_per_clip < 60
    assert 0 < found.score_seconds.min() <= found.score_seconds.max() < 60
    assert found.view_bytes > 1000
    assert found.decode_bytes > 2**24
    assert not list(tmp_path.iterdir()), "nothing is written"

    page = tmp_path / "plan.html"
    priced = ("price_per_hour=3600",)
    request = PlanRequest(
        job=replace(job, json_summary=True), hardware_assignments=priced, simulate=(1, 4), page=page, clips=6
    )
    assert plan(request) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["limit"] in ("decoding", "scoring", "cores")
    assert [one["machines"] for one in said["simulation"]] == [1, 4]
    assert said["probe"]["without_score"] == {"not_video": 1}
    assert all(one["worth_from"] > 0 for one in said["simulation"])
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count("<circle") == 2
    assert ">cost</th>" in text
    assert ">worth it from, clips</th>" in text
    assert said["simulation"][1]["cost"] == pytest.approx(4 * said["simulation"][1]["seconds"])
    assert plan(replace(request, job=job, page=None, files=1_000_000)) == 0
    table = capsys.readouterr().out
    assert "1000000 files, about 1,000,000 rows" in table
    assert "Clips per second grow with the machines up to 4." in " ".join(table.split())
    shown = replace(request, job=job, simulate=(), page=None)
    assert plan(shown) == 0
    table = capsys.readouterr().out
    assert "6 files, about 6 rows; 6 files probed" in table
    assert "warning: 1 of 6 rows probed would have no score (not_video 1); e.g. " in table
    assert "twice as much of it saves" in table


@pytest.mark.model
def test_a_probe_without_a_model(folder: Path, model_card: Path, tmp_path: Path) -> None:
    job = ScoreRequest(sources=(str(folder),), out=tmp_path, model=str(model_card))
    inputs = inputs_of(job)
    found = probe_job(inputs, chosen(inputs.clips, 200), seconds=300, score_seconds=0.8)
    assert (found.score_seconds.tolist(), found.load_seconds) == ([0.8], 0.0)
    assert found.score_per_clip == pytest.approx(0.8 * found.scored_share)
    assert found.view_bytes > 1000
    on = fleet(read_hardware(None, ("cores=16", "cards=8", "score_seconds=0.8")), JobConfig(), machines=1)
    assert forecast(found, on).rates["scoring"] == pytest.approx(8 / found.score_per_clip)


class Busy(Naming):
    """A stage that works for a while."""

    def process(self, items: Sequence[Work]) -> Iterator[ScoreRow]:
        until = time.thread_time() + 0.5
        while time.thread_time() < until:
            pass
        yield from super().process(items)


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="Linux tells it")
def test_the_wait_for_a_core_is_no_work() -> None:
    allowed = os.sched_getaffinity(0)
    one_core = {min(allowed)}
    code = f"import os\nos.sched_setaffinity(0, {one_core})\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    os.sched_setaffinity(0, one_core)
    try:
        timed, began = Timed(stage=Busy()), time.perf_counter()
        assert len(list(timed.process([Work(clip=Clip(clip_id="a", uri="/a"))]))) == 1
        took = time.perf_counter() - began
    finally:
        os.sched_setaffinity(0, allowed)
        for other in others:
            other.kill()
            other.wait()
    assert timed.first[0].seconds == pytest.approx(0.5, rel=0.3)
    assert took > 1.0, "by the clock it was more"


def test_what_decoders_wait_for_a_core_is_told_of_the_files_between_two_looks() -> None:
    decoders = jobs.probe._Decoders()
    decoders._begun, decoders._ended = jobs.probe._Look(1, 0, 0.5), jobs.probe._Look(3, 0, 2.0)
    files = [TimedBatch(seconds, [], []) for seconds in (9.0, 2.0, 3.0, 9.0)]
    assert decoders.queued_share(files) == pytest.approx(1.5 / 5.0)
    assert jobs.probe._Decoders().queued_share(files) == 0.0
    decoders._ended = jobs.probe._Look(3, 0, 100.0)
    assert decoders.queued_share(files) < 1, "something is left for work"


@dataclass(kw_only=True)
class Sleeper(Naming):
    """A first stage that takes a known time for each clip, on two workers, whatever else the machine is at."""

    seconds: Sequence[float]
    each: Resources = field(default_factory=lambda: Resources(workers=2))

    def process(self, items: Sequence[Work]) -> Iterator[Sample]:  # type: ignore[override]  # any stage's items
        for row in super().process(items):
            time.sleep(self.seconds[int(Path(row.uri).stem)])
            yield Sample(row=row, views=b"views")


@dataclass(kw_only=True)
class SleepingModel(Naming):
    """A second stage that takes a known time for a batch and for each clip in it."""

    seconds: tuple[float, float]
    batch_size: int | None = 8

    def setup(self) -> None:
        time.sleep(0.3)

    def process(self, items: Sequence[Sample]) -> Iterator[ScoreRow]:  # type: ignore[override]  # any stage's items
        batch, each = self.seconds
        time.sleep(batch + each * len(items))
        yield from (item.row for item in items)


@pytest.mark.full
@pytest.mark.alone
@pytest.mark.parametrize(
    ("decode", "model", "limit"),
    [
        ([0.06], (0.01, 0.005), "decoding"),
        ([0.01], (0.02, 0.025), "scoring"),
        ([0.12, 0.04, 0.04, 0.04], (0.01, 0.005), "decoding"),
    ],
    ids=["decoding", "scoring", "uneven"],
)
def test_a_plan_meets_the_run_where_the_stages_take_a_known_time(
    decode: list[float], model: tuple[float, float], limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole job over 80 clips against its plan from 40 of them: executor, batches, start, table."""
    seconds = decode * (80 // len(decode))
    (tmp_path / "list.csv").write_text("path\n" + "".join(f"{n}.mp4\n" for n in range(80)))
    for n in range(80):
        (tmp_path / f"{n}.mp4").write_bytes(b"x")

    def stages(inputs: ScoreInputs) -> list[Naming]:
        return [Sleeper(settings=inputs.settings, seconds=seconds), SleepingModel(seconds=model)]

    for module in (jobs.score, jobs.probe):
        monkeypatch.setattr(module, "stages_of", stages)
    job = ScoreRequest(sources=(str(tmp_path / "list.csv"),), out=tmp_path / "out", engine=Engine.LOCAL)
    inputs = inputs_of(replace(job, json_summary=True))
    seen = probe_job(inputs, chosen(inputs.clips, 40), seconds=300)
    on = fleet(Hardware(cores=3, memory_gb=8), JobConfig(sample_workers=2), machines=1, is_local=True)
    made = forecast(seen, on)
    assert made.limit == limit
    assert score(replace(job, json_summary=True)) == 0
    ran = json.loads((tmp_path / "out" / "run.json").read_text())
    assert ran["clips"] == 80
    assert made.seconds / ran["seconds"] == pytest.approx(1, abs=planning.WANTED)


@pytest.mark.full
@pytest.mark.alone
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mix", planning.MIXES)
def test_a_plan_is_within_a_quarter_of_the_run(mix: str, tmp_path: Path) -> None:
    sources = [
        clips.write_video(tmp_path / f"{n}.mp4", width=1280, height=720, frames=48, noise=4.0, seed=n) for n in (1, 2)
    ]
    planning.fill(tmp_path / "clips", sources, 24, mix)
    assert planning.pairs_of(tmp_path / "clips", 24, pairs=3, tier="reason") == pytest.approx(1, abs=planning.WANTED)


@pytest.mark.model
def test_that_nothing_can_be_scored_is_said(
    model_card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        (tmp_path / f"{name}.mp4").write_bytes(b"no video" * 100)
    job = ScoreRequest(sources=(str(tmp_path),), out=tmp_path, model=str(model_card))
    assert plan(PlanRequest(job=job, hardware_assignments=("score_seconds=0.8",))) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "warning: nothing that was probed can be scored (not_video 2); e.g. " in said
    assert ".." not in said
    assert "0% of the rows have views" in said
    summary = PlanRequest(
        job=replace(job, json_summary=True), hardware_assignments=("score_seconds=0.8",), simulate=(1,)
    )
    assert plan(summary) == 0
    (one,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["simulation"]
    assert (one["linear"], one["efficiency"]) == (None, None)


def test_one_file_gives_no_interval() -> None:
    single = replace(EVEN, file_bytes=np.full(1, 4e6), clips=np.full(1, 1.0), decode_seconds=np.full(1, 0.5))
    made = forecast(single, fleet(EIGHT, JobConfig(), machines=1))
    assert (made.low_seconds, made.high_seconds) == (None, None)


@pytest.mark.model
def test_the_same_job_is_planned_as_it_runs(
    folder: Path, model_card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.planning.probe_job", lambda inputs, *_, **__: replace(EVEN, files=inputs.clips.listed))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    job = ScoreRequest(sources=(str(folder),), out=tmp_path, model=str(model_card), json_summary=True)
    two = PlanRequest(job=job, hardware_assignments=("cores=2",), simulate=(1, 4))

    def said(**changes: Any) -> dict[str, Any]:
        assert plan(replace(two, **changes)) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    few, many, on_three = said(), said(files=1_000_000), said(machines=3)
    assert (few["decoders"], few["simulation"][0]["shares_cores"]) == (2, True)
    assert (many["decoders"], many["simulation"][0]["shares_cores"]) == (1, False), "more than 64 files go to Ray"
    assert (on_three["machines"], on_three["decoders"]) == (3, 3)
    for one in (few, many):
        assert one["simulation"][0]["clips_per_second"] == pytest.approx(min(_numbers(one["rates"])), rel=0.02)
    assert plan(replace(two, job=replace(job, json_summary=False))) == 0
    table = " ".join(capsys.readouterr().out.split())
    assert table.index("core-hours") < table.index("Simulated")
    assert "of linear ┃ model busy" in table


def _numbers(rates: dict[str, float | None]) -> list[float]:
    return [rate for rate in rates.values() if rate is not None]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({"page": Path("/nowhere/x.html"), "simulate": (1,)}, "/nowhere/x.html: there is no folder /nowhere"),
        ({"page": Path(), "simulate": (1,)}, "is a folder. Give the name of a file"),
        ({"simulate": (50_000,)}, "--simulate 50000: .* simulated at most"),
        ({"hardware_assignments": ("cores=99999999999",)}, "cores = 99999999999: "),
    ],
)
def test_what_is_wrong_is_said_before_the_probe(
    arguments: dict[str, Any], wanted: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ScoreRequest(sources=(str(folder),), out=tmp_path)
    monkeypatch.setattr("jobs.planning.probe_job", lambda *_, **__: pytest.fail("probed"))
    with pytest.raises(UsageError, match=wanted):
        plan(PlanRequest(job=job, **({"hardware_assignments": ("cores=2",)} | arguments)))


@pytest.mark.model
def test_what_cannot_be_planned(folder: Path, model_card: Path, tmp_path: Path) -> None:
    job = ScoreRequest(sources=(str(folder),), out=tmp_path, model=str(model_card))
    with pytest.raises(UsageError, match=r"cores = 0: Input should be greater than 0"):
        read_hardware(None, ("cores=0",))
    with pytest.raises(UsageError, match=r"cards: no GPU is here .*--hardware-set score_seconds=0\.8"):
        read_hardware(None, ("cores=16", "cards=8"))
    with pytest.raises(UsageError, match=r"--page .*: nothing was simulated; give --simulate"):
        plan(PlanRequest(job=job, page=tmp_path / "plan.html"))
    with pytest.raises(UsageError, match="no clip came through in 1e-09 s; give it longer"):
        probe_job(inputs_of(job), [], seconds=1e-9)
