"""The scoring job, from the command's arguments to table and exit code.

`python -m jobs.score ARGS` is `vqa score ARGS`, for launchers that want a module.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from jobs.cascade import plan_second
from jobs.engine import LOCAL_FILES, TOO_MANY_FAILED, FailureLimit, choose_engine, run_stages
from jobs.ledger import Ledger
from jobs.listing import ClipList
from jobs.metrics import JobMetrics, check_address, serving
from jobs.mirror import mirrored
from jobs.progress import JobProgress, duration
from jobs.request import ScoreInputs, ScoreRequest, inputs_of, score_stage_of, stages_of
from jobs.resume import Planner, StoredRow, StoredRows
from jobs.rows import lost_row
from jobs.run_record import RunRecord
from jobs.signals import as_url, locked, writing
from jobs.stages import WINDOWS_PER_FRAME
from jobs.summary import RANKING, counts, overview
from jobs.waiting import say_on_stderr
from vqa.config import Values
from vqa.console import INTERRUPTED, Engine, counted, log_as_json, printable
from vqa.data.score_table import WITHOUT_SCORE, ScoreTable, no_rows, read_scores, rewrite, write_videos
from vqa.data.windows import video_id
from vqa.errors import first_few
from vqa.evaluate.calibrate import calibrated
from vqa.media.storage.hosts import allow_private

SUMMARY_COLUMNS = ("clip_id", "start_seconds", "duration_seconds", "status", "error_kind", *RANKING, "tier")


def score(request: ScoreRequest) -> int:
    """Run the scoring job; return the exit code. Raises VqaError where it cannot run."""
    if request.log_json:
        log_as_json()
    limit = FailureLimit.parse(request.max_failed)
    check_address(request.metrics)
    choose_engine(request, files=0)  # an address of Ray without use is refused at once
    inputs = inputs_of(request)
    if inputs.config.limits.private_hosts:
        allow_private()
    if url := as_url(request.out):
        with mirrored(url, say=say_on_stderr, is_written=not request.dry_run) as mirror:
            return _run_in(replace(request, out=mirror.folder), inputs, limit, after_write=mirror.push, shown=url)
    return _run_in(request, inputs, limit, after_write=lambda: None, shown=str(request.out))


def _run_in(
    request: ScoreRequest, inputs: ScoreInputs, limit: FailureLimit, *, after_write: Callable[[], None], shown: str
) -> int:
    """Run the job in a folder; `shown`: its name to the user."""
    if request.dry_run:
        print(json.dumps(_forecast(request, inputs), indent=2, ensure_ascii=False))
        return 0
    with locked(request.out) as before_write, writing(request.out):
        return _score(request, inputs, limit, before_write=before_write, after_write=after_write, shown=shown)


def _plan(
    request: ScoreRequest, inputs: ScoreInputs, table: ScoreTable | None = None, progress: JobProgress | None = None
) -> Planner:
    known = StoredRow._fields
    rows = no_rows(known) if request.fresh else read_scores(request.out, known)
    return Planner(
        inputs.clips,
        StoredRows(rows),
        settings=inputs.first.settings,
        clip_seconds=inputs.config.clip_seconds,
        also=inputs.settings if inputs.light else None,
        retire=table.retire if table else None,
        tell=progress.expect if progress else None,
    )


def _forecast(request: ScoreRequest, inputs: ScoreInputs) -> Values:
    """What `--dry-run` prints."""
    plan = _plan(request, inputs)
    for _ in plan:
        pass
    return {
        "engine": choose_engine(request, files=plan.found),
        "files": plan.files,
        "to_inspect": plan.found,
        "rows_reused": plan.reused,
        "rows_superseded": plan.stale,
        "failures_retried": plan.retried,
        "skipped_by_suffix": inputs.clips.facts.skipped_by_suffix,
        "model_id": inputs.model_id,
        "model_revision": inputs.model_revision,
        "settings": inputs.settings,
        "config": inputs.config.model_dump(mode="json"),
    }


def _listed(clips: ClipList) -> Values:
    """What run.json says of the sources."""
    facts = clips.facts
    return {
        "files": clips.listed if clips.is_complete else None,
        "skipped_by_suffix": facts.skipped_by_suffix,
        "unreadable_folders": list(facts.unreadable_folders),
        "duplicates": facts.repeated,
        "hidden": facts.hidden,
    }


def _score(
    request: ScoreRequest,
    inputs: ScoreInputs,
    limit: FailureLimit,
    *,
    before_write: Callable[[], None],
    after_write: Callable[[], None],
    shown: str,
) -> int:
    """Score what has no finished row yet, as the only run in the folder."""
    out, config, clips = request.out, inputs.config, inputs.clips
    table = ScoreTable(
        out,
        rows_per_part=config.job.rows_per_part,
        seconds_per_write=config.job.seconds_per_write,
        before_write=before_write,
        after_write=after_write,
    )
    if request.fresh:
        table.supersede_all()
    progress = JobProgress(0, quiet=request.json_summary, as_json=request.log_json)
    plan = _plan(request, inputs, table, progress)
    engine = choose_engine(request, files=plan.look_ahead(LOCAL_FILES if request.engine is Engine.AUTO else 0))
    table.flush()  # rows that are stale leave before anything else, as far as they are known
    by = score_stage_of(inputs).by
    record = RunRecord(
        out / "run.json",
        {
            "sources": [printable(source) for source in request.sources],
            **_listed(clips),
            "tier": config.tier,
            **(
                {"student": inputs.light.model_id, "student_revision": inputs.light.model_revision}
                if inputs.light
                else {}
            ),
            "model_id": inputs.model_id,
            "model_revision": inputs.model_revision,
            "asked": by.asked,
            "question_digest": by.question_digest,
            "settings": inputs.settings,
            "config": config.model_dump(mode="json"),
            "engine": engine,
        },
    )
    began = time.monotonic()
    _announce(inputs, plan, progress)
    metrics = JobMetrics(price_per_hour=config.job.price_per_hour)
    with (
        record.failing(),
        record.beating(lambda: progress.facts() | metrics.facts()),
        serving(request.metrics, metrics),
    ):
        is_interrupted = _run(request, inputs, plan, table, progress, metrics, engine=engine)
    # At the end and for every row, so that those of earlier runs say the same as the new ones.
    if inputs.calibration or pc.any(pc.is_valid(read_scores(out, ["mos"]).column("mos"))).as_py():
        rewrite(out, lambda rows: calibrated(rows, inputs.calibration))
    videos = write_videos(out)
    rows = _requested_rows(out, clips)
    if config.clip_seconds and (uncut := _uncut(rows, config.clip_seconds)):
        progress.say(
            f"not cut into windows, as there would be more than {WINDOWS_PER_FRAME} for each frame: {first_few(uncut)}"
        )
    missing = _count_without_score(rows)
    too_many = limit.is_exceeded(missing, of=rows.num_rows)
    code = INTERRUPTED if is_interrupted else TOO_MANY_FAILED if too_many else 0
    rate, seconds = progress.clips_per_second, time.monotonic() - began
    record.finish(
        state="interrupted" if is_interrupted else "finished",
        exit_code=code,
        **_listed(clips),
        clips=rows.num_rows,
        counts=counts(rows, "status"),
        errors=counts(rows, "error_kind"),
        tiers=counts(rows, "tier"),
        without_score=missing,
        rows_new=progress.clips_done,
        rows_reused=plan.reused,
        videos=videos,
        seconds=round(seconds, 3),
        clips_per_second=None if rate is None else round(rate, 3),
    )
    if request.json_summary:
        print(json.dumps(record.values | {"out": shown}, ensure_ascii=False))
    elif not is_interrupted:
        Console().print(overview(rows, out=out, place=shown))
    speed = f", {rate:.2f} clips/s" if rate else ""
    # in a cascade a clip of both tiers has had two rows
    noun, done = ("row", "written") if config.tier == "cascade" else ("clip", "scored")
    progress.say(f"{counted(progress.clips_done, noun)} {done} in {duration(seconds)}{speed}")
    if is_interrupted:
        safe = f"{counted(rows.num_rows, 'row')} safe in {printable(shown)}"
        progress.say(f"interrupted; {safe}; the same command resumes")
    elif too_many:
        share = f"{missing} of {rows.num_rows} clips"
        progress.say(f"{share} without a score, more than --max-failed {limit.text}")
    return code


def _run(
    request: ScoreRequest,
    inputs: ScoreInputs,
    plan: Planner,
    table: ScoreTable,
    progress: JobProgress,
    metrics: JobMetrics,
    *,
    engine: Engine,
) -> bool:
    """Fill the table, for a cascade in two passes; True where it was interrupted."""
    first, clip_seconds, limit = inputs.first, inputs.config.clip_seconds, inputs.config.job.unread_limit
    ledger = Ledger.of(plan, clip_seconds=clip_seconds)
    where: dict[str, Any] = {"engine": engine, "ray_address": request.ray_address, "wait": request.wait}
    job = inputs.config.job
    where |= {"store_mb": job.store_mb, "stall_seconds": job.stall_seconds, "metrics": metrics}
    if run_stages(stages_of(first), ledger, table, progress, unread_limit=limit, **where):
        return True
    by = score_stage_of(first).by
    lost = [lost_row(clip, settings=first.settings, by=by) for clip in ledger.lost()]
    progress.rows(lost)
    metrics.rows(lost)
    table.add(lost)
    table.flush()
    table.supersede(plan.unlisted(ledger.vanished()))
    if inputs.light is None:
        return False
    second = plan_second(
        request.out,
        inputs.clips,
        light=inputs.light.settings,
        reason=inputs.settings,
        share=inputs.config.reason_share,
        scale=inputs.scale,
    )
    progress.say(f"{len(second.chosen)} of {counted(second.clips, 'clip')} to the reasoner")
    progress.extend(len(second.work))
    ledger = Ledger.of(second.work, clip_seconds=clip_seconds)
    return run_stages(stages_of(inputs), ledger, table, progress, unread_limit=limit, amend=second.amend, **where)


def _announce(inputs: ScoreInputs, plan: Planner, progress: JobProgress) -> None:
    """Report what was found, what was skipped, what will be done."""
    listing = inputs.clips.facts
    if listing.skipped:
        names = printable(listing.skipped)
        progress.say(f"skipped files that are no video or picture by their name: {names} (--include takes them)")
    if listing.litter:
        progress.say(f"skipped {counted(listing.litter, 'file')} in @eaDir, #recycle, __MACOSX and the like")
    if listing.hidden:
        names = "file or folder" if listing.hidden == 1 else "files and folders"
        progress.say(f"skipped {listing.hidden} hidden {names}, whose names begin with a dot; name one to score it")
    if listing.excluded:
        progress.say(f"left out by --exclude: {counted(listing.excluded, 'file')}")
    for folder in listing.unreadable_folders:
        progress.say(f"warning: folder cannot be read, its clips are not in the table: {printable(folder)}")
    model = inputs.config.model
    if inputs.config.tier == "reason" and model.published and model.asked == "own":
        progress.say(
            f"asked in our own words, not those that {model.name} was trained with: `vqa model fetch-question "
            f"{model.name}` reads them where they were published"
        )
    made = inputs.calibration
    ours = (inputs.model_revision, inputs.settings)
    if made and made.model_id and (made.model_revision, made.settings) != ours:
        progress.say("warning: the calibration was made with another revision or other settings of this model")
    by = score_stage_of(inputs).by
    if by.tier == "light" and by.raw_high is not None and made is None:
        progress.say(
            f"warning: {inputs.model_id} tells severities, no opinions: score is null, score_raw has the number; make "
            "a calibration with `vqa calibrate` and give it as --calibration"
        )
    if inputs.light and inputs.scale is None:
        progress.say(
            f"warning: no file says how scores of {inputs.model_id} stand on the student's scale, so they are not put "
            "on it; make one with `vqa calibrate` and give it as --reason-scale"
        )
    reused = f"{counted(plan.reused, 'row')} reused, " * bool(plan.reused)
    failed = f" ({plan.retried} failed before)" * bool(plan.retried)
    share, reasoner = inputs.config.reason_share, f"{inputs.model_id} at {inputs.model_revision}"
    then = f", up to {share:.4g} of them with {reasoner}" if inputs.light else ""
    stale = f"{plan.stale} superseded{failed}, " * bool(plan.stale)
    more = "" if plan.is_complete else f"{inputs.clips.listed} files are listed by now, of the first "
    progress.say(
        f"{more}{counted(plan.files, 'file')}: {reused}{stale}{plan.found} to score "
        f"with {inputs.first.model_id} at {inputs.first.model_revision}{then}"
    )


def _requested_rows(out: Path, clips: ClipList) -> pa.Table:
    """Rows of the clips asked for (a results folder may hold others), without texts.

    All rows where an interruption came before the clips were listed.
    """
    rows = read_scores(out, SUMMARY_COLUMNS)
    if not clips.is_complete:
        return rows
    names = (name for chunk in rows.column("clip_id").chunks for name in chunk.to_pylist())
    return rows.filter(pa.array([clips.has(name) or clips.has(video_id(name)) for name in names], pa.bool_()))


def _uncut(rows: pa.Table, clip_seconds: float) -> list[str]:
    """Clips with a score and a length of two windows or more that have one row."""
    is_long = pc.greater_equal(rows.column("duration_seconds"), 1.5 * clip_seconds)
    is_scored = pc.invert(pc.is_in(rows.column("status"), value_set=pa.array(WITHOUT_SCORE)))
    is_whole = pc.and_(pc.is_null(rows.column("start_seconds")), is_scored)
    names: list[str] = rows.filter(pc.and_(is_whole, pc.fill_null(is_long, False))).column("clip_id").to_pylist()
    return [printable(name) for name in names]


def _count_without_score(rows: pa.Table) -> int:
    return int(pc.sum(pc.is_in(rows.column("status"), value_set=pa.array(WITHOUT_SCORE))).as_py() or 0)


if __name__ == "__main__":
    import runpy
    import sys

    sys.argv.insert(1, "score")
    runpy.run_module("vqa.cli", run_name="__main__")
