"""One run of the scoring job: from the command's arguments to the table on disk and the exit code."""

import contextlib
import json
import time
from collections.abc import Generator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.book import Book
from jobs.door import INTERRUPTED
from jobs.plan import Known, Plan, known_rows, make_plan
from jobs.progress import JobProgress
from jobs.record import Job, Request, announce, now, opening, report
from jobs.settings import identify, pinned_card, resolve, settings_digest
from jobs.signals import Stop, locked
from jobs.stages import KEPT, crashed_row
from jobs.summary import counts
from vqa.data.scores import SCHEMA, ScoreTable, read_scores, rewrite, write_json, write_videos
from vqa.data.sources import list_clips
from vqa.data.windows import video_id
from vqa.errors import UsageError
from vqa.evaluate.calibrate import calibrated, load_calibration

TOO_MANY_FAILED = 3
LOST = "its worker process died each time it was tried; run the same command to try again"


def run(request: Request) -> int:
    """Does what the command asks; returns the exit code. Raises VqaError where the job cannot run."""
    limit = parse_limit(request.max_failed)
    job = prepare(request)
    if request.dry_run:
        return _dry_run(job)
    request.out.mkdir(parents=True, exist_ok=True)
    with locked(request.out):
        return _run(job, limit=limit)


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
        skipped = ", ".join(
            f"{count} {suffix or 'without suffix'}" for suffix, count in listing.skipped_by_suffix.items()
        )
        raise UsageError(
            f"no video or picture in {', '.join(request.sources)}" + (f" (skipped: {skipped})" * bool(skipped))
        )
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


def parse_limit(text: str) -> tuple[float, bool]:
    """`5%` -> (5.0, True), `12` -> (12.0, False). Raises UsageError."""
    is_share = text.strip().endswith("%")
    try:
        number = float(text.strip().removesuffix("%"))
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf") or (is_share and number > 100) or (not is_share and number % 1):
        raise UsageError(f"--max-failed {text!r}: wanted a share like 5% or a count like 12")
    return number, is_share


def _plan(job: Job) -> Plan:
    rows = [] if job.request.fresh else known_rows(read_scores(job.request.out, Known._fields))
    return make_plan(job.listing.clips, rows, settings=job.settings, clip_seconds=job.config.clip_seconds)


def _dry_run(job: Job) -> int:
    plan = _plan(job)
    facts = {
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
    print(json.dumps(facts, indent=2, ensure_ascii=False))
    return 0


def _run(job: Job, *, limit: tuple[float, bool]) -> int:
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
        interrupted = bool(plan.work) and _work(job, plan, table, progress)
    except BaseException as error:
        write_json(out / "run.json", record | {"state": "failed", "error": str(error), "ended": now()})
        raise
    # At the end and for every row, so that those kept from earlier runs say the same as the new ones.
    if job.calibration or pc.any(pc.is_valid(read_scores(out, ["mos"]).column("mos"))).as_py():
        rewrite(out, lambda rows: calibrated(rows, job.calibration))
    videos = write_videos(out)
    rows = _asked_rows(job)
    missing = sum(status in ("unparsed", "failed") for status in rows.column("status").to_pylist())
    number, is_share = limit
    exceeded = missing > (number / 100 * rows.num_rows if is_share else number)
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


def _work(job: Job, plan: Plan, table: ScoreTable, progress: JobProgress) -> bool:
    """Runs the pipeline and fills the table; True where it was stopped before the end."""
    from jobs import pipeline  # Ray: seconds that a run with nothing to do is spared

    book = Book.of(plan.work, clip_seconds=job.config.clip_seconds)
    places: dict[str, tuple[str, int, int]] = {}
    stop = Stop()
    stop.arm()
    try:
        with contextlib.ExitStack() as session:
            with stop.waiting():
                resources = session.enter_context(pipeline.ray_session(job.request.ray_address))
            stop.arm()
            session.enter_context(progress)
            batches = session.enter_context(contextlib.closing(_batches(book, _spread(job, resources))))
            while True:
                with stop.waiting():
                    batch = next(batches, None)
                if batch is None:
                    break
                fresh, files = book.take(batch)
                is_kept = pc.equal(fresh.column("status"), KEPT)
                for row in fresh.filter(is_kept).to_pylist():
                    places[row["clip_id"]] = (row["uri"], row["source_bytes"], row["source_mtime_ns"])
                new = fresh.filter(pc.invert(is_kept))
                progress.advance(clips=new.num_rows, failed=new.column("score").null_count, files=files)
                table.add(new)
    except KeyboardInterrupt:
        pass
    except Exception:
        if not stop.asked:  # Ctrl-C reaches Ray's processes too, and their end may be heard first
            raise
    finally:
        stop.disarm()
        table.flush()
    table.refresh({name: place for name, place in places.items() if None not in place})
    if not stop.asked:
        model = {"model_id": job.model_id, "model_revision": job.model_revision}
        lost = [crashed_row(clip, settings=job.settings, message=f"{clip.uri}: {LOST}") for clip in book.lost()]
        table.add(pa.Table.from_pylist([row | model for row in lost], schema=SCHEMA))
        table.flush()
        table.supersede(book.vanished())
    return stop.asked


def _batches(book: Book, spread: dict[str, Any]) -> Generator[pa.Table]:
    """Everything once; then what was lost with a worker (its neighbours in a batch are lost too) once more, alone."""
    from jobs import pipeline

    yield from pipeline.stream(list(book.work.values()), **spread)
    if again := book.unfinished():
        yield from pipeline.stream(again, **spread, is_second_try=True)


def _spread(job: Job, resources: dict[str, float]) -> dict[str, Any]:
    """The pipeline's arguments for a machine or cluster with these resources ("CPU", "GPU")."""
    spread, limits = job.config.job, job.config.limits
    gpus = spread.gpus_per_worker if resources.get("GPU", 0) else 0.0
    # Each pool grows while Ray has room; without GPUs the model may take half the cores, the decoders feed it.
    by_cores = max(1, int(resources.get("CPU", 2) / 2 / spread.cpus_per_worker))
    return {
        "sample": {
            "views": job.config.views.model_dump(),
            "settings": job.settings,
            "clip_seconds": job.config.clip_seconds,
            "deadline_seconds": limits.deadline_seconds,
            "memory_bytes": limits.memory_mb and limits.memory_mb * 2**20,
        },
        "score": {
            "model_id": job.model_id,
            "model_revision": job.model_revision,
            "card": pinned_card(job.config, revision=job.model_revision),
            "generation": job.config.generation.model_dump(),
        },
        "batch_size": job.config.generation.batch_size,
        "sample_workers": spread.sample_workers,
        "score_workers": spread.score_workers or (None if gpus else by_cores),
        "score_cpus": spread.cpus_per_worker,
        "score_gpus": gpus,
    }


def _asked_rows(job: Job) -> pa.Table:
    """The rows of the clips asked for (a folder of results may hold others)."""
    rows = read_scores(job.request.out)
    asked = {clip.clip_id for clip in job.listing.clips}
    names = rows.column("clip_id").to_pylist()
    return rows.filter(pa.array([name in asked or video_id(name) in asked for name in names], pa.bool_()))
