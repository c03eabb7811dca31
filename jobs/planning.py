"""`vqa plan`: probe, forecast, simulation, and how they are shown."""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jobs.engine import choose_engine
from jobs.plan import QUANTILES, Fleet, Hardware, Plan, driver_seconds, fleet, forecast, quantiles, read_hardware
from jobs.probe import Probe, chosen, probe_job
from jobs.progress import duration
from jobs.request import ScoreInputs, ScoreRequest, inputs_of
from jobs.simulation import Outcome, fleets, scale
from vqa.console import Engine, counted, printable
from vqa.errors import UsageError
from vqa.files import refuse_unwritable
from vqa.media.storage.hosts import allow_private
from vqa.report.scaling import ScalingPoint, write_scaling

SCALES = 0.9  # of as many times the smallest size, and it still counts as scaling
MEANS = {
    "decoding": "more cores, fewer keyframes, or --snap keyframes",
    "cores": "more of them, fewer keyframes, a smaller k, --tier light",
    "scoring": "more GPUs (or cores without them), a smaller k, --tier light",
    "storage": "storage nearer to the machines, or files of fewer bytes",
    "driver": "several runs over parts of the clips, each with an --out of its own",
    "short": "fewer machines do as well; --files N plans for a longer list than this",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """The arguments of `vqa plan`, as given."""

    job: ScoreRequest
    hardware: Path | None = None
    hardware_assignments: tuple[str, ...] = ()
    machines: int = 1
    clips: int = 200
    seconds: float = 300.0
    simulate: tuple[int, ...] = ()
    page: Path | None = None
    files: int | None = None  # of the job, where `job` names a sample of it


def plan(request: PlanRequest) -> int:
    """Print the plan of a job. Raises VqaError where there can be none."""
    if request.page:
        if not request.simulate:
            raise UsageError(f"--page {request.page}: nothing was simulated; give --simulate 8,64,512 with it")
        refuse_unwritable(request.page)
    hardware = read_hardware(request.hardware, request.hardware_assignments)
    inputs = inputs_of(request.job)
    if inputs.light is not None:
        raise UsageError("--tier cascade: only one pass is planned at a time. Give --tier light, then --tier reason.")
    if inputs.config.limits.private_hosts:
        allow_private()
    wanted = chosen(inputs.clips, request.clips)  # the whole list is read, a few clips are kept
    engine = choose_engine(request.job, files=request.files or inputs.clips.listed)
    is_local = engine is Engine.LOCAL and request.hardware is None
    job, by = inputs.config.job, inputs.config.model_engine
    on = fleet(hardware, job, machines=request.machines, is_local=is_local and request.machines == 1, engine=by)
    # What is wrong with a size is said before the probe.
    fleets(hardware, job, workers=request.simulate, engine=by, is_local=is_local)
    seen = probe_job(inputs, wanted, seconds=request.seconds, score_seconds=hardware.score_seconds)
    if request.files:
        seen = replace(seen, files=request.files)
    made = forecast(seen, on)
    batch = inputs.config.generation.batch_size
    if not request.job.json_summary:  # before the simulation, which may take a minute
        _show(inputs, seen, on, made)
    say = partial(print, file=sys.stderr, flush=True)
    outcomes = scale(
        seen, hardware, job, workers=request.simulate, batch_size=batch, engine=by, is_local=is_local, say=say
    )
    if request.job.json_summary:
        print(json.dumps(_as_json(seen, on, made, outcomes), indent=2))
        if warning := _warning(seen):
            print(warning, file=sys.stderr)
    elif outcomes:
        console = Console()
        console.print()
        console.print(_outcome_table(outcomes, hardware))
        console.print(verdict(outcomes, hardware), markup=False, highlight=False)
    if request.page:
        title = f"{counted(seen.files, 'file')}, {inputs.model_id}: clips per second by the number of {_unit(hardware)}"
        curve = [_curve(one, hardware) for one in outcomes]
        write_scaling(request.page, curve, title=title, verdict=verdict(outcomes, hardware), unit=_unit(hardware))
        print(request.page, file=sys.stderr)
    return 0


def _show(inputs: ScoreInputs, seen: Probe, on: Fleet, made: Plan) -> None:
    console = Console()
    hardware, probed = on.hardware, counted(seen.probed, "file")
    say = partial(console.print, markup=False, highlight=False)
    say(
        f"{counted(seen.files, 'file')}, about {made.clips:,.0f} rows; {probed} probed here in "
        f"{duration(seen.seconds)} with {printable(inputs.model_id)}; {seen.scored_share:.0%} of the rows have views"
    )
    say(f"on {counted(on.machines, 'machine')}: {on.decoders} decoding and {on.scorers} model processes\n")
    console.print(_stage_table(seen, on, made))
    spread = "no interval: one file was timed; give --probe 2 or more"
    if made.low_seconds is not None and made.high_seconds is not None:
        spread = f"{_span(made.low_seconds)} to {_span(made.high_seconds)} by the probe's spread"
    rows = [
        ("time", f"{_span(made.seconds)} ({spread})"),
        ("GPU-hours", f"{made.gpu_hours:,.3g}" if hardware.cards else ""),
        ("core-hours", f"{made.core_hours:,.3g}"),
        ("memory", f"{made.memory_bytes / 1e9:,.3g} of {hardware.memory_gb:,.3g} GB on a machine"),
        ("read", f"{made.read_bytes / 1e9:,.3g} GB"),
        ("cost", f"{made.cost:,.2f}" if made.cost is not None else "(no price_per_hour)"),
        ("limit", f"{made.limit}; {_way_out(made, tier=inputs.config.tier)}"),
    ]
    for name, value in rows:
        if value:
            say(f"{name:<12}{value}")
    if warning := _warning(seen):
        say(f"\n{warning}")
    if made.memory_bytes > hardware.memory_gb * 1e9:
        say(
            f"\nwarning: {made.memory_bytes / 1e9:.3g} GB are needed on a machine with {hardware.memory_gb:.3g}; set "
            "job.sample_workers lower"
        )
    if hardware.score_seconds:
        say(f"\nscoring was not measured: {hardware.score_seconds:g} s for a clip are given")


def _warning(seen: Probe) -> str | None:
    """What of the probe would get no score."""
    if not seen.failed:
        return None
    bad, rows = sum(seen.failed.values()), seen.rows
    kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(seen.failed.items()))
    example = f"; e.g. {printable(seen.example)}" if seen.example else ""
    if bad == rows:
        what = f"nothing that was probed can be scored ({kinds}){example.removesuffix('.')}"
        return f"warning: {what}. The times above are of failing."
    return f"warning: {bad} of {counted(rows, 'row')} probed would have no score ({kinds}){example}"


def _stage_table(seen: Probe, on: Fleet, made: Plan) -> Table:
    table = Table(title="Seconds of one worker for a clip, as measured here", title_justify="left")
    table.add_column("part")
    for name in ("mean", *(f"p{share * 100:g}" for share in QUANTILES), "clips/s alone"):
        table.add_column(name, justify="right", no_wrap=True)
    means = {
        "decoding": (seen.decode_per_clip, quantiles(seen.decode_seconds)),
        "scoring": (seen.score_per_clip, quantiles(seen.score_seconds)),
        "driver": (driver_seconds(seen, on), []),
    }
    for part, rate in made.rates.items():
        mean, spread = means.get(part, (None, []))
        cells = ["" if mean is None else f"{mean:.3g}", *(f"{one:.3g}" for one in spread)]
        cells += [""] * (1 + len(QUANTILES) - len(cells))
        table.add_row(part, *cells, f"{rate:,.3g}" if math.isfinite(rate) else "no limit")
    return table


def _outcome_table(outcomes: Sequence[Outcome], hardware: Hardware) -> Table:
    table = Table(title="Simulated", title_justify="left")
    priced = ("cost",) if hardware.price_per_hour is not None else ()
    for name in (_unit(hardware), "clips/s", "of linear", "model busy", "time", *priced):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("limited by")
    for one in outcomes:
        cost = _cost(one, hardware)
        busy = "-" if one.efficiency is None else f"{one.efficiency:.0%}"
        linear = one.clips_per_second / outcomes[0].clips_per_second * outcomes[0].workers / one.workers
        numbers = (f"{one.workers}", f"{one.clips_per_second:,.3g}", f"{linear:.0%}", busy, _span(one.seconds))
        table.add_row(*numbers, *(f"{cost:,.2f}" for _ in priced), one.why)
    return table


def _cost(one: Outcome, hardware: Hardware) -> float | None:
    price = hardware.price_per_hour
    return None if price is None else price * one.machines * one.seconds / 3600


def verdict(outcomes: Sequence[Outcome], hardware: Hardware) -> str:
    """Up to where it scales, what stops it there, and what would move that."""
    unit, first = _unit(hardware), outcomes[0]

    def times(one: Outcome) -> float:
        return one.clips_per_second / first.clips_per_second

    def held(one: Outcome) -> str:
        return one.held_by + (f" ({MEANS[one.limit]})" if one.limit in MEANS else "")

    stop = next((one for one in outcomes if times(one) < SCALES * one.workers / first.workers), None)
    last = outcomes[-1] if stop is None else outcomes[outcomes.index(stop) - 1]
    words = [f"Clips per second grow with the {unit} up to {last.workers}."]
    if stop is not None:
        words.append(f"At {stop.workers} they are {times(stop):.1f} times those of {first.workers}: {held(stop)}.")
    elif last.efficiency is not None and last.efficiency < SCALES:
        words.append(f"The model waits for {1 - last.efficiency:.0%} of the time: {held(last)}.")
    if short := next((one for one in outcomes if one.is_short), None):
        words.append(f"At {short.workers}: {short.why} ({MEANS['short']}).")
    if len({one.shares_cores for one in outcomes}) > 1:
        words.append("One machine runs without Ray and shares its cores; on more, each process has its own.")
    best = min(outcomes, key=lambda one: one.seconds)
    return " ".join([*words, f"The shortest time is {_span(best.seconds)}, with {best.workers}."])


def _way_out(made: Plan, *, tier: str) -> str:
    gained = made.seconds - made.doubled[made.limit]
    means = MEANS[made.limit] if tier != "light" else MEANS[made.limit].replace(", a smaller k, --tier light", "")
    return f"twice as much of it saves {_span(gained)} ({means})"


def _span(seconds: float) -> str:
    return duration(seconds) if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _unit(hardware: Hardware) -> str:
    return "GPUs" if hardware.cards else "machines"


def _curve(one: Outcome, hardware: Hardware) -> ScalingPoint:
    cost = _cost(one, hardware)
    return ScalingPoint(
        workers=one.workers,
        clips_per_second=one.clips_per_second,
        linear=one.linear,
        time=_span(one.seconds),
        cost=None if cost is None else f"{cost:,.2f}",
        worth_from=one.worth_from,
        busy=dict(one.busy),
        why=one.why,
    )


def _as_json(seen: Probe, on: Fleet, made: Plan, outcomes: Sequence[Outcome]) -> dict[str, object]:
    finite = {part: rate if math.isfinite(rate) else None for part, rate in made.rates.items()}
    stages = {"decoding": quantiles(seen.decode_seconds), "scoring": quantiles(seen.score_seconds)}
    return {
        **asdict(made),
        "rates": finite,
        "probe": {
            "files": seen.probed,
            "without_score": dict(seen.failed),
            "seconds": seen.seconds,
            "clips_with_views": seen.scored_share,
            "load_seconds": seen.load_seconds,
            "quantiles": {stage: dict(zip(map(str, QUANTILES), found, strict=True)) for stage, found in stages.items()},
        },
        "hardware": on.hardware.model_dump(),
        "machines": on.machines,
        "decoders": on.decoders,
        "scorers": on.scorers,
        "simulation": [
            asdict(one)
            | {"linear": None if one.efficiency is None else one.linear, "efficiency": one.efficiency}
            | {"why": one.why, "cost": _cost(one, on.hardware)}
            for one in outcomes
        ],
    }
