"""The preparing job: a manifest's clips decoded and sampled once, for training.

`python -m jobs.prepare ARGS` is `vqa prepare ARGS`, for launchers that want a module.
"""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
from rich.console import Console

from jobs.config import KEY_VERSION, ScoreConfig, resolve, resolve_values
from jobs.engine import TOO_MANY_FAILED, FailureLimit, JobOptions, choose_engine, run_stages
from jobs.ledger import Ledger
from jobs.progress import JobProgress, duration
from jobs.resume import StoredRow, WorkPlan, digest, plan_work, stored_rows
from jobs.rows import lost_row
from jobs.run_record import RunRecord
from jobs.signals import locked, writing
from jobs.stages import PrepareStage
from jobs.summary import count_table, counts, failure_table
from vqa.config import Values, merge_values, read_yaml
from vqa.console import INTERRUPTED, printable
from vqa.data.dialects import Row
from vqa.data.score_table import read_scores
from vqa.data.view_cache import FILES, prepared_with
from vqa.data.view_cache_writer import PreparedTable, manifest_clips
from vqa.errors import UsageError
from vqa.light.config import student_config
from vqa.media.storage.hosts import allow_private
from vqa.train.recipe import load_recipe, recipe_views
from vqa.types import Clip
from vqa.views import ViewsConfig

MADE = ("clips.parquet", "failed.csv", "run.json", FILES, "pictures", "superseded")  # clips.parquet goes first


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareRequest(JobOptions):
    """The arguments of `vqa prepare`, as given."""

    manifest: Path
    recipe: Path | None = None  # of `vqa train`, whose views are taken
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareInputs:
    """What a request comes to: which files to decode and how to sample them."""

    config: ScoreConfig  # of which the views, limits and job count
    clips: list[Row]  # rows of the manifest
    files: list[Clip]  # each once, however many clips it makes
    sampling: Values  # what decides every pixel that is stored
    settings: str  # its digest


def prepare(request: PrepareRequest) -> int:
    """Run the preparing job; return the exit code. Raises VqaError if it cannot run."""
    limit = FailureLimit.parse(request.max_failed)
    inputs = _inputs_of(request)
    if inputs.config.limits.private_hosts:
        allow_private()
    if request.dry_run:
        plan = _plan(request, inputs)
        forecast = {"engine": choose_engine(request, files=len(plan.work)), **_facts(inputs)}
        forecast |= {"to_inspect": len(plan.work), "rows_reused": len(plan.reused), "failures_retried": plan.retried}
        print(json.dumps(forecast, indent=2, ensure_ascii=False))
        return 0
    with locked(request.out) as before_write, writing(request.out):
        return _prepare(request, inputs, limit, before_write)


def _inputs_of(request: PrepareRequest) -> PrepareInputs:
    """Settle all that can go wrong before anything is written. Raises UsageError."""
    config = _config_of(request)
    clips = manifest_clips(request.manifest)
    if not clips:
        raise UsageError(f"{request.manifest}: holds no clips. Give a manifest with a row per clip.")
    sampling = {"views": config.views.identity(), "seed": request.seed}
    files = [Clip(clip_id=uri, uri=uri) for uri in dict.fromkeys(clip["uri"] for clip in clips)]
    settings = digest(KEY_VERSION, sampling)
    return PrepareInputs(config=config, clips=clips, files=files, sampling=sampling, settings=settings)


def _config_of(request: PrepareRequest) -> ScoreConfig:
    """The settings; those of `--for` lie below --config and --set. Raises UsageError."""
    if request.recipe is None:
        flags = {"model": request.model} if request.model else {}
        return resolve(request.config, assignments=request.assignments, flags=flags)
    if request.model:
        raise UsageError(f"--model {request.model}: the recipe of --for has a model of its own. Give one of the two.")
    if request.recipe.is_file() and student_config(request.recipe):
        raise UsageError(f"--for {request.recipe}: of a student; `vqa distill` decodes by itself. Leave it out.")
    recipe = load_recipe(request.recipe)
    of_recipe = {"model": recipe.card_name, "views": recipe_views(recipe).model_dump(mode="json")}
    values = merge_values(of_recipe, read_yaml(request.config)) if request.config else of_recipe
    return resolve_values(values, assignments=request.assignments, where=str(request.config or request.recipe))


def resolve_views(request: PrepareRequest) -> ViewsConfig:
    """What a request shows of each clip. Raises UsageError."""
    return _config_of(request).views


def _facts(inputs: PrepareInputs) -> Values:
    """What --dry-run and run.json say of a job."""
    sizes = {"clips": len(inputs.clips), "files": len(inputs.files)}
    return {**sizes, "sampling": inputs.sampling, "settings": inputs.settings}


def _clear(out: Path) -> None:
    prepared_with(out)  # raises where the folder is another command's
    for name in MADE:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _refuse_other_sampling(out: Path, sampling: Values) -> None:
    before = prepared_with(out)
    was, now = ({**one.get("views", {}), "seed": one.get("seed")} for one in (before, sampling))
    if before and was != now:
        changed = [f"{name} = {was.get(name)}, now {now[name]}" for name in now if was.get(name) != now[name]]
        raise UsageError(
            f"--out {out}: its clips were prepared with {'; '.join(changed) or 'other keys'}; use another --out, or "
            "--fresh to prepare them anew"
        )


def _plan(request: PrepareRequest, inputs: PrepareInputs) -> WorkPlan:
    rows = stored_rows(read_scores(request.out, StoredRow._fields, folder=FILES))
    return plan_work(inputs.files, rows, settings=inputs.settings, clip_seconds=None)


def _prepare(
    request: PrepareRequest, inputs: PrepareInputs, limit: FailureLimit, before_write: Callable[[], None]
) -> int:
    """Prepare what is not in the folder yet, as the only run in it."""
    out, config = request.out, inputs.config
    if request.fresh:
        _clear(out)
    _refuse_other_sampling(out, inputs.sampling)
    table = PreparedTable(out, seconds_per_write=config.job.seconds_per_write, before_write=before_write)
    plan = _plan(request, inputs)
    table.supersede(plan.stale)
    engine = choose_engine(request, files=len(plan.work))
    facts = {"manifest": printable(str(request.manifest)), **_facts(inputs), "engine": engine}
    record = RunRecord(out / "run.json", facts)
    began = time.monotonic()
    progress = JobProgress(len(plan.work), quiet=request.json_summary, doing="preparing", lacking="failed")
    done = f"{len(plan.reused)} reused, {plan.retried} failures retried, " * bool(plan.reused or plan.stale)
    progress.say(f"{len(inputs.clips)} clips, {len(inputs.files)} files: {done}{len(plan.work)} to decode")
    # One stage: packing takes a tenth of the time that decoding takes.
    stage = PrepareStage(
        views=config.views,
        settings=inputs.settings,
        limits=config.limits,
        seed=request.seed,
        workers=config.job.sample_workers,
        job=config.job,
    )
    ledger = Ledger.of(plan.work, clip_seconds=None)
    with record.failing():
        is_interrupted = run_stages(
            [stage],
            ledger,
            table,
            progress,
            engine=engine,
            ray_address=request.ray_address,
            wait=request.wait,
            stall_seconds=config.job.stall_seconds,
        )
        if not is_interrupted:
            table.add([lost_row(file, settings=inputs.settings) for file in ledger.lost()])
            table.flush()
            table.supersede(ledger.vanished())
    seconds = time.monotonic() - began
    sizes = {"rows_new": progress.clips_done, "rows_reused": len(plan.reused), "views_stored": table.views_stored}
    results: dict[str, object] = {**sizes, "seconds": round(seconds, 3)}
    if is_interrupted:
        code = INTERRUPTED
        record.finish(state="interrupted", exit_code=code, **results)
    else:
        rows = table.write_clips(out, inputs.clips)
        failed = rows.column("part").null_count
        code = TOO_MANY_FAILED if limit.is_exceeded(failed, of=rows.num_rows) else 0
        by_status, by_error = counts(rows, "status"), counts(rows, "error_kind")
        record.finish(state="finished", exit_code=code, **results, counts=by_status, errors=by_error, failed=failed)
        if not request.json_summary:
            console = Console()
            failures = rows.filter(pc.is_null(rows.column("part")))
            if failures.num_rows:
                title = f"Failed ({failures.num_rows}; all of them in {printable(str(out / 'failed.csv'))})"
                console.print(failure_table(failures.slice(0, 5).to_pylist(), title=title))
            console.print(count_table(by_status, by_error))
    if request.json_summary:
        print(json.dumps(record.values | {"out": str(out)}, ensure_ascii=False))
    progress.say(f"{progress.clips_done} files decoded in {duration(seconds)}: {printable(str(out))}")
    if is_interrupted:
        progress.say("interrupted; what was decoded is safe; the same command resumes")
    elif code:
        progress.say(f"{failed} of {rows.num_rows} clips failed, more than --max-failed {limit.text}")
    return code


if __name__ == "__main__":
    import runpy
    import sys

    sys.argv.insert(1, "prepare")
    runpy.run_module("vqa.cli", run_name="__main__")
