"""`vqa score`: score videos and pictures. Light to import."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vqa.cli.options import DecimalOption, DelimiterOption, Exclude, Include
from vqa.console import WAIT_SECONDS, DryRun, Engine, EngineOption, JsonSummary, LogJson, RayAddress, Wait, assigning


def score(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="Files, folders, globs in quotes, or manifests (txt, csv, jsonl, parquet)."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the results, or a URL such as s3://bucket/scores; the same again resumes.")
    ],
    config: Annotated[Path | None, typer.Option(help="YAML settings, e.g. configs/score/preresq_video.yaml.")] = None,
    assignments: Annotated[list[str] | None, assigning("generation.k=6")] = None,
    tier: Annotated[
        Literal["light", "reason", "cascade"] | None,
        typer.Option(
            help="light: a small student of people's opinions, without a language model; cascade: the light tier, and "
            "the model for the clips that it is least sure of. [default: reason]"
        ),
    ] = None,
    student: Annotated[
        Path | None,
        typer.Option(help="With --tier light or cascade: a folder of `vqa distill`. [default: the embedded one]"),
    ] = None,
    reason_share: Annotated[
        str | None, typer.Option(help="With --tier cascade: share of the clips for the model, at most. [default: 10%]")
    ] = None,
    reason_scale: Annotated[
        Path | None,
        typer.Option(help="With --tier cascade: file of `vqa calibrate`, from the model's to the student's scale."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A card's name (configs/models), a folder, or a Hugging Face id. [default: embedded]"),
    ] = None,
    model_engine: Annotated[
        Literal["transformers", "vllm", "endpoint"] | None,
        typer.Option(help="What runs the model: transformers or vllm here, or servers. [default: transformers]"),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL[,URL]", help="Servers with OpenAI's chat interface that run it: http://HOST:8000/v1."
        ),
    ] = None,
    served_model: Annotated[
        str | None, typer.Option(help="The model's name on the servers. [default: its hub id or folder]")
    ] = None,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic", help="One clip at a time, logits in float32: no neighbour changes a score; slower."
        ),
    ] = False,
    question: Annotated[
        Path | None, typer.Option(help="Ask the model what this text file says, in place of its card's question.")
    ] = None,
    system: Annotated[Path | None, typer.Option(help="With a system turn of the words in this text file.")] = None,
    describe: Annotated[
        bool, typer.Option("--describe", help="Ask a second time, for words without a score: column description.")
    ] = False,
    k: Annotated[
        int | None, typer.Option("--k", min=1, help="Answers per clip; their spread is the certainty.")
    ] = None,
    snap: Annotated[
        str | None, typer.Option(help="keyframes: decode intra frames only, far cheaper. [default: none]")
    ] = None,
    clip_seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Cut long videos into windows of this length, one row each.")
    ] = None,
    on_damage: Annotated[
        str | None,
        typer.Option(help="fail, or score in part, a clip that lost some of the frames asked for. [default: partial]"),
    ] = None,
    min_decoded_share: Annotated[
        float | None, typer.Option(help="With less of the frames asked for, it fails in any case. [default: 0.5]")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="File of `vqa calibrate`: adds mos, mos_low and mos_high to every row.")
    ] = None,
    include: Include = None,
    exclude: Exclude = None,
    allow_private_hosts: Annotated[
        bool,
        typer.Option("--allow-private-hosts", help="URLs and their redirects may lead into private networks."),
    ] = False,
    delimiter: DelimiterOption = None,
    decimal: DecimalOption = None,
    engine: EngineOption = Engine.AUTO,
    ray_address: RayAddress = None,
    wait: Wait = WAIT_SECONDS,
    fresh: Annotated[bool, typer.Option("--fresh", help="Move earlier rows aside and score everything again.")] = False,
    max_failed: Annotated[
        str, typer.Option(help="Exit with 3 where more clips than this (5% or a count) end without a score.")
    ] = "5%",
    dry_run: DryRun = False,
    json_summary: JsonSummary = False,
    log_json: LogJson = False,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Serve metrics for Prometheus there while the run lasts; PORT: only here."
        ),
    ] = None,
) -> None:
    """Score videos and pictures: one row per clip in OUT/scores/*.parquet.

    The same command again resumes.

    Exit codes: 0 all good; 1 the job could not run; 2 wrong usage; 3 finished, but too many clips have no score;
    130 interrupted by Ctrl-C, SIGTERM or SIGUSR1 (finished rows are on disk).
    """
    from jobs.request import ScoreRequest
    from jobs.score import score as run  # Arrow, pydantic: not for --help
    from vqa.data.dialects import Dialect

    request = ScoreRequest(
        sources=tuple(sources),
        out=out,
        config=config,
        assignments=tuple(assignments or ()),
        tier=tier,
        student=student,
        reason_share=reason_share,
        reason_scale=reason_scale,
        model=model,
        model_engine=model_engine,
        endpoint=endpoint,
        served_model=served_model,
        deterministic=deterministic,
        question=question,
        system=system,
        describe=describe,
        k=k,
        snap=snap,
        clip_seconds=clip_seconds,
        on_damage=on_damage,
        min_decoded_share=min_decoded_share,
        calibration=calibration,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        allow_private_hosts=allow_private_hosts,
        dialect=Dialect(delimiter=delimiter, decimal=decimal),
        engine=engine,
        ray_address=ray_address,
        wait=wait,
        fresh=fresh,
        max_failed=max_failed,
        dry_run=dry_run,
        json_summary=json_summary,
        log_json=log_json,
        metrics=metrics,
    )
    raise typer.Exit(run(request))
