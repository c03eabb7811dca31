"""Plan of a job from its probe and machines: time, memory, bytes, cost, limit."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import Field

from jobs.config import JobConfig, gpus_of_worker
from jobs.probe import Numbers, Probe
from vqa import machine
from vqa.config import Strict, load_config
from vqa.errors import UsageError
from vqa.model.engines.config import EngineConfig

RESAMPLES = 500
QUANTILES = (0.5, 0.9, 0.99)
RAY_SECONDS = 0.002  # docs/benchmarks/planning.md


class Hardware(Strict):
    """A type of machine, of which a job may have several."""

    cores: int = Field(gt=0, le=10_000, description="cores of a machine that the job may use")
    memory_gb: float = Field(gt=0, le=1e6, description="memory of a machine")
    cards: int = Field(0, ge=0, le=1000, description="GPUs of a machine; 0: the model runs on its cores")
    core_speed: float = Field(
        1.0, ge=0.001, le=1000, description="of a core, in those of the machine that makes the plan"
    )
    score_seconds: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="of one model worker for a clip, as `vqa top` shows after a run; null = measured",
    )
    read_gbit: float | None = Field(None, ge=0.001, description="Gbit/s that a machine reads; null = no limit")
    store_gbit: float | None = Field(None, ge=0.001, description="Gbit/s that the storage gives all; null = no limit")
    driver_seconds: float = Field(
        RAY_SECONDS, ge=0, le=1000, description="of the driver for a clip on Ray, beside ledger and table"
    )
    price_per_hour: float | None = Field(None, ge=0, le=1e9, description="of a machine, in your currency")


def this_machine() -> Hardware:
    """The machine that makes the plan, as a run on it would use it."""
    import torch  # the probe needs it too

    return Hardware(cores=machine.cores(), memory_gb=machine.memory_bytes() / 1e9, cards=torch.cuda.device_count())


def read_hardware(path: Path | None, assignments: tuple[str, ...] = ()) -> Hardware:
    """Hardware of a file (None: this machine) with assignments. Raises UsageError."""
    given = load_config(
        path,
        Hardware,
        assignments,
        base=this_machine().model_dump() if path is None else None,
        option="--hardware-set",
        example="price_per_hour=25",
    )
    if given.cards and given.score_seconds is None and not this_machine().cards:
        raise UsageError(
            f"{path or 'cards'}: no GPU is here to measure scoring on. Make the plan where one is, or give the seconds "
            "that a model worker takes for a clip (--hardware-set score_seconds=0.8; `vqa top` shows them after a run)"
        )
    return given


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Machines, and how many workers of each kind run on them."""

    hardware: Hardware
    machines: int
    decoders: int  # on all machines together
    scorers: int
    is_local: bool  # `--engine local`: one process, without Ray
    score_cores: float = 0.0  # of those that decode, taken while a clip is scored

    @property
    def read_bytes_per_second(self) -> float:
        """Of all machines together; infinite where nothing limits it."""
        each, all_ = self.hardware.read_gbit, self.hardware.store_gbit
        return min(each * self.machines if each else math.inf, all_ or math.inf) * 1e9 / 8


def fleet(
    hardware: Hardware, job: JobConfig, *, machines: int, is_local: bool = False, engine: EngineConfig | None = None
) -> Fleet:
    """The workers that a job starts on so many machines, as the executors do.

    Args:
        hardware: Of each machine.
        job: How many of what each worker takes.
        machines: How many.
        is_local: All in one process, without Ray.
        engine: Of the model: GPUs that share one are one worker's; None: transformers.

    Raises:
        UsageError: the machine has no core left for decoding, or fewer GPUs than a worker takes.
    """
    gpus = gpus_of_worker(job, engine or EngineConfig())
    if is_local:
        own = hardware.cards or hardware.score_seconds
        shared = 0.0 if own else min(job.cpus_per_worker, float(hardware.cores))
        decoders = job.sample_workers or hardware.cores
        return Fleet(hardware=hardware, machines=1, decoders=decoders, scorers=1, is_local=True, score_cores=shared)
    if hardware.cards and gpus:
        scorers = int(hardware.cards / gpus)
        if not scorers:
            raise UsageError(
                f"a model worker takes {gpus:g} GPUs, of which a machine has {hardware.cards}; lower "
                "model_engine.tensor_parallel or job.gpus_per_worker, or take machines with more"
            )
    else:
        scorers = max(1, int(hardware.cores / 2 / job.cpus_per_worker))
    scorers = min(scorers * machines, job.score_workers or scorers * machines)
    decoders = int(hardware.cores * machines - scorers * job.cpus_per_worker)
    if decoders < 1:
        raise UsageError(
            f"{scorers} model workers with {job.cpus_per_worker:g} cores each leave none of {hardware.cores} cores a "
            "machine for decoding; lower job.cpus_per_worker or take machines with more cores"
        )
    decoders = min(decoders, job.sample_workers or decoders)
    return Fleet(hardware=hardware, machines=machines, decoders=decoders, scorers=scorers, is_local=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a job comes to on a fleet."""

    clips: float
    seconds: float
    low_seconds: float | None  # 90 % interval by the choice of the files probed, None of one: it has no spread
    high_seconds: float | None  # it is not by what the hardware's file assumes
    rates: Mapping[str, float]  # clips/s that each part could do alone
    limit: str  # the part with the lowest
    start_seconds: float
    memory_bytes: float  # on a machine
    read_bytes: float
    gpu_hours: float
    core_hours: float
    cost: float | None
    doubled: Mapping[str, float]  # seconds of the job if that part were twice as fast


def rates(probe: Probe, on: Fleet) -> dict[str, float]:
    """Clips/s that decoding, scoring, storage and driver could each do alone.

    Where decoding and scoring share cores, also what these could do.
    """
    found = {
        "decoding": on.decoders * on.hardware.core_speed / probe.decode_per_clip,
        "scoring": on.scorers * score_speed(on.hardware) / probe.score_per_clip if probe.score_per_clip else math.inf,
        "storage": on.read_bytes_per_second / max(probe.read_per_clip, 1.0),
        "driver": on.hardware.core_speed / driver_seconds(probe, on),
    }
    if on.score_cores:
        both = probe.decode_per_clip + on.score_cores * probe.score_per_clip
        found["cores"] = on.hardware.cores * on.hardware.core_speed / both
    return found


def score_speed(hardware: Hardware) -> float:
    """Speed of a model worker relative to the probe; 1 for GPUs and given seconds."""
    return 1.0 if hardware.cards or hardware.score_seconds else hardware.core_speed


def driver_seconds(probe: Probe, on: Fleet) -> float:
    """Seconds of the driver for a clip."""
    return probe.driver_seconds + (0.0 if on.is_local else on.hardware.driver_seconds)


def forecast(probe: Probe, on: Fleet, *, seed: int = 0) -> Plan:
    """Compute what a job comes to.

    The time is that of the slowest part over all clips, plus loading the model, plus the slowest of a last round of
    clips (the 99th percentile of both stages), in which most workers wait.
    """
    each = rates(probe, on)
    limit = min(each, key=lambda name: each[name])
    speed = on.hardware.core_speed
    last = _quantile(probe.decode_seconds, 0.99) / speed
    last += _quantile(probe.score_seconds, 0.99) / score_speed(on.hardware)
    start = max(probe.load_seconds / speed, last / 2)
    around = start + last * (1 - 1 / max(on.decoders, on.scorers))

    def seconds(rate: float) -> float:
        return probe.clip_count / rate + around

    spread = [min(rates(one, on).values()) for one in _resampled(probe, np.random.default_rng(seed))]
    ends = [float(rate) for rate in np.quantile(spread, [0.95, 0.05])] if len(probe.clips) > 1 else None
    hours = seconds(each[limit]) / 3600
    hardware = on.hardware
    memory = on.decoders * (probe.decode_bytes + probe.view_bytes) / on.machines
    if not hardware.cards or on.is_local:
        memory += on.scorers * probe.score_bytes / on.machines
    return Plan(
        clips=probe.clip_count,
        seconds=seconds(each[limit]),
        low_seconds=seconds(ends[0]) if ends else None,
        high_seconds=seconds(ends[1]) if ends else None,
        rates=each,
        limit=limit,
        start_seconds=start,
        memory_bytes=memory,
        read_bytes=probe.clip_count * probe.read_per_clip,
        gpu_hours=hours * hardware.cards * on.machines,
        core_hours=hours * hardware.cores * on.machines,
        cost=None if hardware.price_per_hour is None else hours * on.machines * hardware.price_per_hour,
        doubled={
            name: seconds(min(rate * 2 if other == name else rate for other, rate in each.items())) for name in each
        },
    )


def _resampled(probe: Probe, generator: np.random.Generator) -> list[Probe]:
    """The probe as other choices of as many clips might have had it."""

    def again(values: Numbers) -> Numbers:
        return generator.choice(values, len(values)) if len(values) else values

    drawn = []
    for _ in range(RESAMPLES):
        files = generator.integers(len(probe.clips), size=len(probe.clips))
        drawn.append(
            replace(
                probe,
                clips=probe.clips[files],
                file_bytes=probe.file_bytes[files],
                decode_seconds=probe.decode_seconds[files],
                score_seconds=again(probe.score_seconds),
            )
        )
    return drawn


def _quantile(values: Numbers, share: float) -> float:
    return float(np.quantile(values, share)) if len(values) else 0.0


def quantiles(values: Numbers) -> list[float]:
    """Those of QUANTILES."""
    return [_quantile(values, share) for share in QUANTILES]
