"""`vqa prepare`: every clip of a manifest decoded and sampled once, on Ray, into a folder that training reads."""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from jobs.config import KEY_VERSION, ScoreConfig, looking, resolve
from jobs.execution import TOO_MANY_FAILED, Asked, Limit, Line, carry_out, work_off
from jobs.progress import JobProgress, duration
from jobs.resume import Known, Plan, digest, known_rows, make_plan
from jobs.run_record import header, now
from jobs.stages import SampleStage, seen_status
from jobs.summary import count_table, counts, failure_table
from vqa.console import INTERRUPTED, printable
from vqa.data.score_table import read_scores
from vqa.data.view_cache import FILES, LOOKED_AT, pack, prepared_with
from vqa.data.view_cache_writer import PreparedTable, manifest_clips
from vqa.errors import UsageError
from vqa.files import write_json
from vqa.types import Clip

if TYPE_CHECKING:
    from jobs.ray_executor import Pool

OURS = ("clips.parquet", "failed.csv", "run.json", FILES, "pictures", "superseded")  # clips.parquet goes first


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Asked):
    """The arguments of `vqa prepare`, as given."""

    manifest: Path
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A request worked out."""

    request: Request
    config: ScoreConfig  # of which the views, limits and job count
    clips: list[dict[str, Any]]  # rows of the manifest
    files: list[Clip]  # each once, however many clips it makes
    looks: dict[str, Any]  # what decides every pixel that is stored
    settings: str  # its digest


class PrepareStage(SampleStage):
    """Files to rows with their looks packed."""

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """A batch of WORK_SCHEMA to one row of LOOKED_AT at a time."""
        for sample in self.each(batch):
            row = dict(sample.row)
            if sample.views is not None:
                row |= pack(sample.views) | {"status": seen_status(sample.views)}
            yield pa.Table.from_pylist([row], schema=LOOKED_AT)


def run(request: Request) -> int:
    """Does what the command asks; returns the exit code. Raises VqaError where the job cannot run."""
    limit = Limit.parse(request.max_failed)
    job = prepare(request)
    return carry_out(request, foretell=partial(_foretell, job), work=partial(_run, job, limit=limit))


def prepare(request: Request) -> Job:
    """Settles everything that can go wrong before anything is written. Raises UsageError."""
    flags = {"model": request.model} if request.model else {}
    config = resolve(request.config, assignments=request.assignments, flags=flags)
    clips = manifest_clips(request.manifest)
    if not clips:
        raise UsageError(f"{request.manifest}: holds no clips")
    looks = {"views": config.views.identity(), "seed": request.seed}
    files = [Clip(clip_id=uri, uri=uri) for uri in dict.fromkeys(clip["uri"] for clip in clips)]
    settings = digest(KEY_VERSION, looks)
    return Job(request=request, config=config, clips=clips, files=files, looks=looks, settings=settings)


def _clear(out: Path) -> None:
    prepared_with(out)  # raises where the folder is another command's
    for name in OURS:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _refuse_other_settings(job: Job) -> None:
    out, before = job.request.out, prepared_with(job.request.out)
    was, now_ = ({**looks.get("views", {}), "seed": looks.get("seed")} for looks in (before, job.looks))
    if before and was != now_:
        changed = [f"{name} = {was.get(name)}, now {now_[name]}" for name in now_ if was.get(name) != now_[name]]
        raise UsageError(
            f"--out {out}: its clips were prepared with {'; '.join(changed) or 'other keys'}; use another --out, or "
            "--fresh to prepare them anew"
        )


def _plan(job: Job) -> Plan:
    rows = known_rows(read_scores(job.request.out, Known._fields, folder=FILES))
    return make_plan(job.files, rows, settings=job.settings, clip_seconds=None)


def _foretell(job: Job) -> dict[str, Any]:
    plan = _plan(job)
    return _facts(job) | {"to_look_at": len(plan.work), "kept": len(plan.kept), "failures_retried": plan.retried}


def _facts(job: Job) -> dict[str, Any]:
    return {"clips": len(job.clips), "files": len(job.files), "looks": job.looks, "settings": job.settings}


def _run(job: Job, *, limit: Limit) -> int:
    out = job.request.out
    if job.request.fresh:
        _clear(out)
    _refuse_other_settings(job)
    record = header() | {"manifest": printable(str(job.request.manifest))} | _facts(job)
    write_json(out / "run.json", record)
    table = PreparedTable(out, seconds_per_write=job.config.job.seconds_per_write)
    plan = _plan(job)
    table.supersede(plan.stale)
    began = time.monotonic()
    progress = JobProgress(len(plan.work), quiet=job.request.json_summary, doing="preparing", lacking="failed")
    done = f"{len(plan.kept)} kept, {plan.retried} failures tried again, " * bool(plan.kept or plan.stale)
    progress.say(f"{len(job.clips)} clips, {len(job.files)} files: {done}{len(plan.work)} to look at")
    line = Line(pools=partial(_pools, job), settings=job.settings, ray_address=job.request.ray_address)
    try:
        interrupted = work_off(plan, table, progress, line=line)
    except BaseException as error:
        write_json(out / "run.json", record | {"state": "failed", "error": str(error), "ended": now()})
        raise
    record |= {"looked_at_now": progress.clips_done, "kept": len(plan.kept), "stored": table.looks}
    record |= {"ended": now(), "seconds": round(time.monotonic() - began, 3)}
    if interrupted:
        record |= {"state": "interrupted", "exit_code": INTERRUPTED}
    else:
        rows = table.write_clips(out, job.clips)
        failed = rows.column("part").null_count
        code = TOO_MANY_FAILED if limit.is_exceeded(failed, of=rows.num_rows) else 0
        found = {"counts": counts(rows, "status"), "errors": counts(rows, "error_kind"), "failed": failed}
        record |= {"state": "finished", "exit_code": code, **found}
    write_json(out / "run.json", record)
    _report(job, record, rows=None if interrupted else rows, progress=progress, limit=limit)
    return int(record["exit_code"])


def _pools(job: Job, resources: Mapping[str, float]) -> list["Pool"]:
    """One stage, as many workers as there are cores: packing takes a tenth of the time that looking takes."""
    from jobs.ray_executor import Pool

    arguments = looking(job.config, settings=job.settings, clip_seconds=None) | {"seed": job.request.seed}
    return [Pool(stage=PrepareStage, arguments=arguments, workers=job.config.job.sample_workers)]


def _report(job: Job, record: dict[str, Any], *, rows: pa.Table | None, progress: JobProgress, limit: Limit) -> None:
    out = job.request.out
    if job.request.json_summary:
        print(json.dumps(record | {"out": str(out)}, ensure_ascii=False))
    elif rows is not None:
        console = Console()
        failures = rows.filter(pc.is_null(rows.column("part")))
        if failures.num_rows:
            title = f"Failed ({failures.num_rows}; all of them in {printable(str(out / 'failed.csv'))})"
            console.print(failure_table(failures.slice(0, 5).to_pylist(), title=title))
        console.print(count_table(record["counts"], record["errors"]))
    progress.say(f"{record['looked_at_now']} files looked at in {duration(record['seconds'])}: {printable(str(out))}")
    if rows is None:
        progress.say("stopped; what was looked at is safe: the same command goes on from there")
    elif record["exit_code"]:
        progress.say(f"{record['failed']} of {rows.num_rows} clips failed, more than --max-failed {limit.text}")
