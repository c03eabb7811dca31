"""The simulation of a job on many machines, where the answer is known by hand, and the verdict on it."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from jobs.config import JobConfig
from jobs.plan import RAY_SECONDS, fleet, forecast
from jobs.planning import verdict
from jobs.simulation import scale
from tests.support.plans import EIGHT, EVEN, TWO, replace_hardware
from vqa.errors import UsageError
from vqa.model.engines.config import EngineConfig


def test_gpus_that_share_a_model_are_one_worker_of_a_simulation() -> None:
    quick = replace(EVEN, decode_seconds=np.full(50, 0.01))
    job, hardware = JobConfig(), replace_hardware(read_gbit=None)
    shared = EngineConfig(name="vllm", tensor_parallel=4)
    alone, by_four = (scale(quick, hardware, job, workers=(8,), batch_size=4, engine=one)[0] for one in (None, shared))
    assert by_four.linear == pytest.approx(alone.linear / 4)
    assert by_four.clips_per_second == pytest.approx(alone.clips_per_second / 4, rel=0.1)


def test_simulation_agrees_with_arithmetic_where_nothing_varies() -> None:
    (one,) = scale(EVEN, replace_hardware(read_gbit=None), JobConfig(), workers=(8,), batch_size=4)
    assert one.clips_per_second == pytest.approx(64, rel=0.03), "32 decoders, half a second each"
    assert one.why == "decode cores"
    assert one.busy["scoring"] == pytest.approx(64 / 100, rel=0.05)
    made = forecast(EVEN, fleet(replace_hardware(read_gbit=None), JobConfig(), machines=1))
    assert one.seconds == pytest.approx(made.seconds, rel=0.03)


@pytest.mark.parametrize(
    ("changes", "why", "rate"),
    [
        ({"store_gbit": 1.0, "read_gbit": None}, "storage bandwidth", 62.5),
        ({"cores": 400, "read_gbit": None}, "the driver", 1 / (0.001 + RAY_SECONDS)),
        ({"cores": 400, "read_gbit": None, "score_seconds": 10.0}, "nothing but the model: it scales", 8.0),
    ],
)
def test_simulation_names_what_stops_it(changes: dict[str, Any], why: str, rate: float) -> None:
    probe_ = replace(EVEN, score_seconds=np.full(40, changes.get("score_seconds", 0.1)))
    (one,) = scale(probe_, replace_hardware(**changes), JobConfig(), workers=(64,), batch_size=4)
    assert one.why == why
    assert one.clips_per_second == pytest.approx(rate, rel=0.05)
    assert one.efficiency == pytest.approx(one.clips_per_second / one.linear, rel=0.01)


def test_where_nothing_was_scored_no_worker_waits() -> None:
    (one,) = scale(replace(EVEN, score_seconds=np.zeros(40)), EIGHT, JobConfig(), workers=(8,), batch_size=4)
    assert (one.linear, one.efficiency) == (math.inf, None)
    assert "waits" not in verdict([one], EIGHT)


def test_simulation_of_a_job_that_is_short_for_so_many() -> None:
    tail = np.r_[np.full(49, 0.5), 60.0]
    short = replace(EVEN, files=2000, decode_seconds=tail)
    (one,) = scale(short, replace_hardware(read_gbit=None, cores=200), JobConfig(), workers=(64,), batch_size=4)
    assert "stragglers" in one.why
    assert one.edge_seconds > 30, "loading, and the last clip"
    with pytest.raises(UsageError, match="--simulate 12: a machine has 8 GPUs"):
        scale(EVEN, EIGHT, JobConfig(), workers=(12,), batch_size=4)


@pytest.mark.parametrize(
    ("changes", "files", "wanted"),
    [
        (
            {"cores": 400, "score_seconds": 10.0},
            10**7,
            "Clips per second grow with the GPUs up to 64. The shortest time",
        ),
        (
            {"cores": 400},
            10**7,
            "Clips per second grow with the GPUs up to 8. At 64 they are 3.4 times those of 8: the driver (several",
        ),
        (
            {"driver_seconds": 0.0},
            10**7,
            "Clips per second grow with the GPUs up to 64. The model waits for 35% of the time: decode cores (more",
        ),
        (
            {"cores": 400},
            100,
            "Clips per second grow with the GPUs up to 8. At 64 they are 3.4 times those of 8: the driver (several "
            "runs over parts of the clips, each with an --out of its own). At 8: few clips: start and stragglers take",
        ),
    ],
)
def test_the_verdict_on_scaling(changes: dict[str, Any], files: int, wanted: str) -> None:
    hardware = replace_hardware(read_gbit=None, **changes)
    probe_ = replace(EVEN, files=files, score_seconds=np.full(40, changes.get("score_seconds", 0.1)))
    outcomes = scale(probe_, hardware, JobConfig(), workers=(8, 64), batch_size=4)
    assert verdict(outcomes, hardware).startswith(wanted)
    few = [one.worth_from for one in outcomes]
    assert few[0] < few[1], "more GPUs need more clips"


def test_a_plan_and_its_simulation_count_the_same_cores() -> None:
    busy = replace(EVEN, decode_seconds=np.full(50, 1.36), score_seconds=np.full(40, 0.533), scored_share=1.0)
    for is_local, wanted in ((True, 2 / (1.36 + 0.533)), (False, 1 / 1.36)):
        made = forecast(busy, fleet(TWO, JobConfig(), machines=1, is_local=is_local))
        one, four = scale(busy, TWO, JobConfig(), workers=(1, 4), batch_size=4, is_local=is_local)
        assert min(made.rates.values()) == pytest.approx(wanted)
        assert one.clips_per_second == pytest.approx(wanted, rel=0.02)
        assert one.busy["scoring"] == pytest.approx(wanted * 0.533, rel=0.03)
        assert (one.shares_cores, four.shares_cores) == (is_local, False)
        assert four.clips_per_second == pytest.approx(4 / 1.36, rel=0.02), "several machines are on Ray"
        assert ("cores" in one.busy, one.limit) == ((True, "cores") if is_local else (False, "decoding"))
        assert ("without Ray and shares its cores" in verdict([one, four], TWO)) is is_local


def test_more_cores_for_a_model_than_there_are() -> None:
    made = forecast(EVEN, fleet(TWO, JobConfig(cpus_per_worker=8), machines=1, is_local=True))
    assert made.rates["cores"] == pytest.approx(2 / (0.5 + 2 * 0.08))
    (one,) = scale(EVEN, TWO, JobConfig(cpus_per_worker=8), workers=(1,), batch_size=4, is_local=True)
    assert one.clips_per_second == pytest.approx(made.rates["cores"], rel=0.1)


def test_a_simulation_has_a_limit_and_says_what_it_is_at() -> None:
    wanted = "--simulate 50000: 100,000 processes, of which 20,000 are simulated at most; give numbers up to 10000$"
    with pytest.raises(UsageError, match=wanted):
        scale(EVEN, TWO, JobConfig(), workers=(1, 50_000), batch_size=4)
    said: list[str] = []
    scale(EVEN, EIGHT, JobConfig(), workers=(8, 1000), batch_size=4, say=said.append)
    assert said == ["simulating 24,000 clips on 125 machines ..."]
