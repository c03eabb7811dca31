"""`vqa plan`: what a scoring job will take, before it starts. Light to import."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vqa.cli.options import DecimalOption, DelimiterOption, Exclude, Include
from vqa.console import Engine, JsonSummary, assigning
from vqa.errors import UsageError

DIGITS = 9  # of a number of GPUs


def plan(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="As of `vqa score`.")],
    hardware: Annotated[
        Path | None,
        typer.Option(help="YAML file of a type of machine, e.g. configs/hardware/h200x8.yaml. [default: this one]"),
    ] = None,
    hardware_assignments: Annotated[
        list[str] | None,
        typer.Option("--hardware-set", metavar="KEY=VALUE", help="Override one of its keys: price_per_hour=25."),
    ] = None,
    machines: Annotated[int, typer.Option(min=1, max=100_000, help="How many of them.")] = 1,
    probe: Annotated[
        int, typer.Option("--probe", min=1, max=1_000_000, help="Files that are decoded and scored here.")
    ] = 200,
    probe_seconds: Annotated[float, typer.Option(min=1, max=86_400, help="For this long at most.")] = 300.0,
    files: Annotated[
        int | None,
        typer.Option(min=1, max=10**12, help="Plan for so many files like these, where SOURCE is a sample of the job."),
    ] = None,
    simulate: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Simulate the job on so many GPUs (without GPUs: machines), as 8,64,512."),
    ] = None,
    page: Annotated[Path | None, typer.Option(help="With --simulate: write the plot to this HTML file.")] = None,
    config: Annotated[Path | None, typer.Option(help="As of `vqa score`.")] = None,
    assignments: Annotated[list[str] | None, assigning("job.gpus_per_worker=0.5")] = None,
    tier: Annotated[Literal["light", "reason"] | None, typer.Option(help="As of `vqa score`.")] = None,
    model: Annotated[str | None, typer.Option(help="As of `vqa score`.")] = None,
    k: Annotated[int | None, typer.Option("--k", min=1, help="Answers per clip.")] = None,
    snap: Annotated[str | None, typer.Option(help="As of `vqa score`.")] = None,
    clip_seconds: Annotated[float | None, typer.Option(min=0.1, help="As of `vqa score`.")] = None,
    include: Include = None,
    exclude: Exclude = None,
    delimiter: DelimiterOption = None,
    decimal: DecimalOption = None,
    json_summary: JsonSummary = False,
) -> None:
    """Print hours, cost, memory and the bottleneck of a scoring job, from a probe.

    Stage times are measured on this machine; what other machines make of them is as its file says.
    """
    from jobs.planning import PlanRequest
    from jobs.planning import plan as run
    from jobs.request import ScoreRequest
    from vqa.data.dialects import Dialect

    job = ScoreRequest(
        sources=tuple(sources),
        out=Path(),
        config=config,
        assignments=tuple(assignments or ()),
        tier=tier,
        model=model,
        k=k,
        snap=snap,
        clip_seconds=clip_seconds,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        dialect=Dialect(delimiter=delimiter, decimal=decimal),
        engine=Engine.AUTO,
        json_summary=json_summary,
    )
    request = PlanRequest(
        job=job,
        hardware=hardware,
        hardware_assignments=tuple(hardware_assignments or ()),
        machines=machines,
        clips=probe,
        seconds=probe_seconds,
        simulate=_numbers(simulate),
        page=page,
        files=files,
    )
    raise typer.Exit(run(request))


def _numbers(text: str | None) -> tuple[int, ...]:
    parts = text.split(",") if text else []
    if not all(part.strip().isdecimal() and len(part) <= DIGITS and int(part) for part in parts):
        raise UsageError(f"--simulate {text}: wanted numbers of GPUs from 1 on with commas between, as 8,64,512")
    return tuple(sorted({int(part) for part in parts}))
