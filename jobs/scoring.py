"""One run of the scoring job: from the command's arguments to the table on disk and the exit code."""

import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.config import identify, looking, pinned_card, resolve, settings_digest
from jobs.execution import TOO_MANY_FAILED, Limit, Line, carry_out, count_without, work_off
from jobs.progress import JobProgress
from jobs.resume import Known, Plan, known_rows, make_plan
from jobs.run_record import Job, Request, announce, now, opening, report
from jobs.stages import SampleStage, ScoreStage
from jobs.summary import counts
from vqa.console import INTERRUPTED
from vqa.data.score_table import ScoreTable, read_scores, rewrite, write_videos
from vqa.data.sources import list_clips
from vqa.data.windows import video_id
from vqa.errors import UsageError
from vqa.evaluate.calibrate import calibrated, load_calibration
from vqa.files import write_json

if TYPE_CHECKING:
    from jobs.ray_executor import Pool


def run(request: Request) -> int:
    """Does what the command asks; returns the exit code. Raises VqaError where the job cannot run."""
    limit = Limit.parse(request.max_failed)
    job = prepare(request)
    return carry_out(request, foretell=partial(_foretell, job), work=partial(_run, job, limit=limit))


def prepare(request: Request) -> Job:
    """Settles everything that can go wrong before anything is written. Raises UsageError, ModelError."""
    views = {"snap": request.snap, "on_damage": request.on_damage, "min_decoded_share": request.min_decoded_share}
    flags: dict[str, Any] = {
        "model": request.model,
        "clip_seconds": request.clip_seconds,
        "calibration": request.calibration,
        "generation": {"k": request.k} if request.k is not None else None,
        "views": {name: value for name, value in views.items() if value is not None} or None,
    }
    config = resolve(
        request.config,
        assignments=request.assignments,
        flags={name: value for name, value in flags.items() if value is not None},
    )
    calibration = load_calibration(config.calibration) if config.calibration else None
    listing = list_clips(request.sources)
    if not listing.clips:
        skipped = f" (skipped: {listing.skipped})" * bool(listing.skipped)
        raise UsageError(f"no video or picture in {', '.join(request.sources)}{skipped}")
    model_id, revision = identify(config)
    if calibration and calibration.model_id not in (None, model_id):
        raise UsageError(f"calibration {config.calibration}: made for {calibration.model_id}, this run uses {model_id}")
    return Job(
        request=request,
        config=config,
        listing=listing,
        model_id=model_id,
        model_revision=revision,
        settings=settings_digest(config, model_id=model_id, model_revision=revision),
        calibration=calibration,
    )


def _plan(job: Job) -> Plan:
    rows = [] if job.request.fresh else known_rows(read_scores(job.request.out, Known._fields))
    return make_plan(job.listing.clips, rows, settings=job.settings, clip_seconds=job.config.clip_seconds)


def _foretell(job: Job) -> dict[str, Any]:
    plan = _plan(job)
    return {
        "files": len(job.listing.clips),
        "to_look_at": len(plan.work),
        "rows_kept": len(plan.kept),
        "rows_superseded": len(plan.stale),
        "failures_retried": plan.retried,
        "skipped_by_suffix": job.listing.skipped_by_suffix,
        "model_id": job.model_id,
        "model_revision": job.model_revision,
        "settings": job.settings,
        "config": job.config.model_dump(mode="json"),
    }


def _run(job: Job, *, limit: Limit) -> int:
    out, settings = job.request.out, job.config.job
    record = opening(job)
    write_json(out / "run.json", record)
    table = ScoreTable(out, rows_per_part=settings.rows_per_part, seconds_per_write=settings.seconds_per_write)
    if job.request.fresh:
        table.supersede_all()
    plan = _plan(job)
    table.supersede(plan.stale)
    began = time.monotonic()
    progress = JobProgress(len(plan.work), quiet=job.request.json_summary)
    announce(job, plan, progress)
    try:
        interrupted = work_off(plan, table, progress, line=_line(job))
    except BaseException as error:
        write_json(out / "run.json", record | {"state": "failed", "error": str(error), "ended": now()})
        raise
    # At the end and for every row, so that those kept from earlier runs say the same as the new ones.
    if job.calibration or pc.any(pc.is_valid(read_scores(out, ["mos"]).column("mos"))).as_py():
        rewrite(out, lambda rows: calibrated(rows, job.calibration))
    videos = write_videos(out)
    rows = _asked_rows(job)
    missing = count_without(rows)
    exceeded = limit.is_exceeded(missing, of=rows.num_rows)
    code = INTERRUPTED if interrupted else TOO_MANY_FAILED if exceeded else 0
    rate = progress.clips_per_second
    record |= {
        "state": "interrupted" if interrupted else "finished",
        "ended": now(),
        "exit_code": code,
        "clips": rows.num_rows,
        "counts": counts(rows, "status"),
        "errors": counts(rows, "error_kind"),
        "without_score": missing,
        "scored_now": progress.clips_done,
        "kept": len(plan.kept),
        "videos": videos,
        "seconds": round(time.monotonic() - began, 3),
        "clips_per_second": None if rate is None else round(rate, 3),
    }
    write_json(out / "run.json", record)
    report(job, record, rows, progress)
    return code


def _line(job: Job) -> Line:
    return Line(
        pools=partial(_pools, job),
        settings=job.settings,
        clip_seconds=job.config.clip_seconds,
        ray_address=job.request.ray_address,
        columns={"model_id": job.model_id, "model_revision": job.model_revision},
    )


def _pools(job: Job, resources: Mapping[str, float]) -> list["Pool"]:
    """The workers on a machine or cluster with these resources ("CPU", "GPU")."""
    from jobs.ray_executor import Pool

    config, spread = job.config, job.config.job
    gpus = spread.gpus_per_worker if resources.get("GPU", 0) else 0.0
    # Each pool grows while Ray has room; without GPUs the model may take half the cores, the decoders feed it.
    by_cores = max(1, int(resources.get("CPU", 2) / 2 / spread.cpus_per_worker))
    look = looking(config, settings=job.settings, clip_seconds=config.clip_seconds)
    score = {
        "model_id": job.model_id,
        "model_revision": job.model_revision,
        "card": pinned_card(config, revision=job.model_revision),
        "generation": config.generation.model_dump(),
    }
    return [
        Pool(stage=SampleStage, arguments=look, workers=spread.sample_workers),
        Pool(
            stage=ScoreStage,
            arguments=score,
            workers=spread.score_workers or (None if gpus else by_cores),
            batch_size=config.generation.batch_size,
            cpus=spread.cpus_per_worker,
            gpus=gpus,
        ),
    ]


def _asked_rows(job: Job) -> pa.Table:
    """The rows of the clips asked for (a folder of results may hold others)."""
    rows = read_scores(job.request.out)
    asked = {clip.clip_id for clip in job.listing.clips}
    names = rows.column("clip_id").to_pylist()
    return rows.filter(pa.array([name in asked or video_id(name) in asked for name in names], pa.bool_()))
