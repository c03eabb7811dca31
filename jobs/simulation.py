"""Discrete-event simulation of a scoring job on many machines, from a probe."""

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import simpy

from jobs.config import JobConfig
from jobs.plan import Fleet, Hardware, driver_seconds, fleet, score_speed
from jobs.probe import Probe
from vqa.console import counted
from vqa.errors import UsageError
from vqa.model.engines.config import EngineConfig

CLIPS = 2000  # simulated at least;
ROUNDS = 24  # for each model worker, and
DECODE_ROUNDS = 3  # for each decoding worker
MOST_PROCESSES = 20_000  # of decoders and models: a minute of simulation
MANY_CLIPS = 20_000  # simulated: a few seconds, which are announced
STREAMS = 64  # clips that the storage serves at once, each with its share of the bandwidth
BUSY = 0.9  # a part that is at work for this share of the time is what limits
EDGES = 0.1  # start and end of the job are a reason where they take more of its time than this
PARTS = ("decoding", "scoring", "storage", "driver")
LIMITS = {
    "cores": "the cores, which decoding and scoring share",
    "decoding": "decode cores",
    "scoring": "nothing but the model: it scales",
    "storage": "storage bandwidth",
    "driver": "the driver",
    "batches": "uneven clips: workers wait for full batches",
}

Events = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A simulated job on one fleet."""

    workers: int  # GPUs, or machines that have none
    machines: int
    clips: int  # simulated
    clips_per_second: float  # once running, of a job of as many clips as it takes
    linear: float  # what its model processes would do if none ever waited; infinite where nothing was scored
    seconds: float  # of the whole job
    edge_seconds: float  # of them loading, filling, and at the end waiting for stragglers
    worth_from: int  # clips from which on these take a tenth of the time or less
    busy: dict[str, float]  # share of the time, by part, once running
    limit: str  # what keeps it from more, once running: a part, or "batches"
    is_short: bool  # whether start and end take more than a tenth of the time
    shares_cores: bool  # one process without Ray, in which decoding and scoring take turns on all cores

    @property
    def efficiency(self) -> float | None:
        """Share of the time that the model works; None where nothing was scored."""
        return min(1.0, self.clips_per_second / self.linear) if math.isfinite(self.linear) else None

    @property
    def held_by(self) -> str:
        """What keeps it from more once it is running, in words."""
        return LIMITS[self.limit]

    @property
    def why(self) -> str:
        """What keeps this job from more."""
        if not self.is_short:
            return self.held_by
        share = self.edge_seconds / self.seconds
        later = f"from {self.worth_from:,} clips on {self.held_by}"
        return f"few clips: start and stragglers take {share:.0%} of the time; {later}"


def scale(
    probe: Probe,
    hardware: Hardware,
    job: JobConfig,
    *,
    workers: tuple[int, ...],
    batch_size: int,
    seed: int = 0,
    engine: EngineConfig | None = None,
    is_local: bool = False,
    say: Callable[[str], None] | None = None,
) -> list[Outcome]:
    """Simulate the job on fleets with so many GPUs (without GPUs: machines).

    Args:
        probe: Stage times of the job.
        hardware: Of each machine.
        job: How many of what each worker takes.
        workers: GPUs, or machines where these have none.
        batch_size: Clips that a model worker takes at once.
        seed: Of the draws.
        engine: Of the model; None: transformers.
        is_local: The job runs without Ray where it has one machine.
        say: Is told what a simulation of some seconds is at.

    Raises:
        UsageError: a number of GPUs that no number of such machines has, or more than are simulated.
    """
    found = []
    for on in fleets(hardware, job, workers=workers, engine=engine, is_local=is_local):
        simulation = Simulation(probe, on, batch_size=batch_size, seed=seed)
        if say and simulation.clips > MANY_CLIPS:
            say(f"simulating {simulation.clips:,} clips on {counted(on.machines, 'machine')} ...")
        found.append(_outcome(simulation, probe, on, batch_size=batch_size, seed=seed))
    return found


def fleets(
    hardware: Hardware,
    job: JobConfig,
    *,
    workers: tuple[int, ...],
    engine: EngineConfig | None = None,
    is_local: bool = False,
) -> list[Fleet]:
    """The fleets that `scale` simulates. Arguments and errors as of it."""
    each = hardware.cards or 1
    found = []
    for number in workers:
        if number < 1 or number % each:
            raise UsageError(f"--simulate {number}: a machine has {each} GPUs; give multiples of that")
        machines = number // each
        on = fleet(hardware, job, machines=machines, engine=engine, is_local=is_local and machines == 1)
        if (processes := on.decoders + on.scorers) > MOST_PROCESSES:
            most = max(1, MOST_PROCESSES * machines // processes) * each
            raise UsageError(
                f"--simulate {number}: {processes:,} processes, of which {MOST_PROCESSES:,} are simulated at most; "
                f"give numbers up to {most}"
            )
        found.append(on)
    return found


def _outcome(simulation: "Simulation", probe: Probe, on: Fleet, *, batch_size: int, seed: int) -> Outcome:
    """Rate and limit of a long enough job; time of this one, simulated if shorter."""
    steady = simulation.run()
    total, rate = max(1, round(probe.clip_count)), steady.clips_per_second
    edges = steady.end_seconds - steady.clips / rate
    whole = total / rate + edges
    if total < steady.clips:
        whole = Simulation(probe, on, batch_size=batch_size, clips=total, seed=seed).run().end_seconds
        edges = max(0.0, whole - total / rate)
    return Outcome(
        workers=on.hardware.cards * on.machines or on.machines,
        machines=on.machines,
        clips=steady.clips,
        clips_per_second=rate,
        linear=steady.linear,
        seconds=whole,
        edge_seconds=edges,
        worth_from=math.ceil((steady.end_seconds - steady.clips / rate) * rate * (1 / EDGES - 1)),
        busy=steady.busy,
        limit=_limit(steady.busy),
        is_short=edges > EDGES * whole,
        shares_cores=bool(on.score_cores),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a simulated job went."""

    clips: int
    clips_per_second: float  # between start and end
    linear: float
    end_seconds: float  # when the last row was there, loading included
    busy: dict[str, float]


class Simulation:
    """A job: clips are read, decoded, queued (bounded), scored in batches, recorded.

    Models are loaded before; the time for that is added to the job's.
    """

    def __init__(self, probe: Probe, on: Fleet, *, batch_size: int, clips: int | None = None, seed: int = 0) -> None:
        """Draw every clip's times; nothing runs yet.

        Args:
            probe: Stage times, drawn from with replacement.
            on: Machines and workers.
            batch_size: Clips that a model worker takes at once.
            clips: How many are simulated; None: as many as settle the rate, also where the job has fewer.
            seed: Of the draws.
        """
        self._on, self._batch_size = on, batch_size
        settling = max(CLIPS, ROUNDS * on.scorers, DECODE_ROUNDS * on.decoders)
        self.clips = clips or settling
        self._streams = min(STREAMS, on.decoders)
        random, hardware = np.random.default_rng(seed), on.hardware
        files = random.integers(len(probe.clips), size=self.clips)
        each = probe.clips[files]  # a file with many windows stands for as many clips of its mean
        self._decode = probe.decode_seconds[files] / each / hardware.core_speed
        bandwidth = on.read_bytes_per_second / self._streams
        self._read = probe.file_bytes[files] / each * probe.read_share / bandwidth
        self._score = (
            random.choice(probe.score_seconds, self.clips) / score_speed(hardware)
            if len(probe.score_seconds)
            else files * 0.0
        )
        self._score *= random.random(self.clips) < probe.scored_share
        self._load = probe.load_seconds / hardware.core_speed
        self._driver = driver_seconds(probe, on) / hardware.core_speed
        self._busy = dict.fromkeys((*PARTS, *(("cores",) if on.score_cores else ())), 0.0)
        self._done: list[float] = []

    def run(self) -> Course:
        """Run the job to its end."""
        world = simpy.Environment()
        room = 2 * self._batch_size * self._on.scorers
        self._storage = simpy.Resource(world, self._streams)
        self._views, self._results = simpy.Store(world, capacity=room), simpy.Store(world, capacity=room)
        # Decoders and a model of one process take turns on its cores, of which there are fewer than they could use.
        self._cores = simpy.Container(world, init=self._on.hardware.cores) if self._on.score_cores else None
        world.process(self._drive(world))
        work = iter(range(self.clips))
        for _ in range(min(self._on.decoders, self.clips)):
            world.process(self._decoder(world, work))
        taken = count()
        for _ in range(self._on.scorers):
            world.process(self._scorer(world, taken))
        world.run()
        return self._course()

    def _decoder(self, world: simpy.Environment, work: Iterator[int]) -> Events:
        for clip in work:
            if self._read[clip]:
                with self._storage.request() as turn:
                    yield turn
                    yield self._spent(world, "storage", self._read[clip])
            yield from self._worked(world, "decoding", max(0.0, self._decode[clip]), cores=1.0)
            yield self._views.put(clip)

    def _scorer(self, world: simpy.Environment, taken: Iterator[int]) -> Events:
        while next(taken) < self.clips:
            batch = [(yield self._views.get())]
            while self._views.items and len(batch) < self._batch_size and next(taken) < self.clips:
                batch.append((yield self._views.get()))
            yield from self._worked(world, "scoring", float(self._score[batch].sum()), cores=self._on.score_cores)
            for clip in batch:
                yield self._results.put(clip)

    def _drive(self, world: simpy.Environment) -> Events:
        while True:
            yield self._results.get()
            yield self._spent(world, "driver", self._driver)
            self._done.append(world.now)

    def _worked(self, world: simpy.Environment, part: str, seconds: float, *, cores: float) -> Events:
        """Spend the seconds, with so many cores where they are shared."""
        if self._cores is None or not seconds:
            yield self._spent(world, part, seconds)
            return
        yield self._cores.get(cores)
        self._busy["cores"] += float(cores * seconds)
        yield self._spent(world, part, seconds)
        yield self._cores.put(cores)

    def _spent(self, world: simpy.Environment, part: str, seconds: float) -> simpy.Timeout:
        self._busy[part] += float(seconds)
        return world.timeout(seconds)

    def _course(self) -> Course:
        on, done = self._on, self._done
        # Between three tenths and seven of the clips: the start is over, and no worker has run out of work.
        low, high = int(0.3 * self.clips), int(0.7 * self.clips)
        # A line through them: batches of many workers end at once, and a window's ends fall between two or on one.
        each = float(np.polyfit(np.arange(low, high), done[low:high], 1)[0]) if high > low + 1 else 0.0
        rate = 1 / each if each > 0 else self.clips / done[-1]
        servers = {"decoding": on.decoders, "scoring": on.scorers, "storage": self._streams, "driver": 1}
        servers["cores"] = on.hardware.cores
        demand = {part: seconds / self.clips for part, seconds in self._busy.items()}
        busy = {part: min(1.0, rate * each / servers[part]) for part, each in demand.items()}
        return Course(
            clips=self.clips,
            clips_per_second=rate,
            linear=on.scorers / demand["scoring"] if demand["scoring"] else math.inf,
            end_seconds=float(self._load + max(done[-1], self.clips / rate)),
            busy=busy,
        )


def _limit(busy: dict[str, float]) -> str:
    part = max(busy, key=lambda name: busy[name])
    return part if busy[part] >= BUSY else "batches"
