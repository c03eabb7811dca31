"""Whole runs of `vqa score` as tests see them: the table they leave, what it has to be, and a run to be killed."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa

from jobs.request import ScoreRequest, inputs_of, stages_of
from jobs.resume import Work
from jobs.stages import ScoreStage
from tests.support.kept import ROOT
from vqa.data.score_table import TIMINGS, ScoreRow, read_scores, to_table

PATIENCE_SECONDS = 500.0
Rows = dict[str, dict[str, Any]]


def table(out: Path) -> Rows:
    """Rows by clip_id, without what differs between two runs over the same files."""
    rows = read_scores(out).to_pylist()
    assert len({row["clip_id"] for row in rows}) == len(rows), "a clip twice"
    return {row["clip_id"]: {name: value for name, value in row.items() if name not in TIMINGS} for row in rows}


def as_bytes(out: Path) -> bytes:
    """The whole table in Arrow's format, by clip_id, without what differs between two runs over the same files."""
    rows = read_scores(out).drop_columns(list(TIMINGS)).sort_by("clip_id").combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, rows.schema) as file:
        file.write_table(rows)
    return sink.getvalue().to_pybytes()


def plain_loop(request: ScoreRequest, *, score_stage: type[ScoreStage] = ScoreStage) -> Rows:
    """The same stages one after another in this process: what a run has to come to."""
    inputs = inputs_of(request)
    sampler, scorer = stages_of(inputs)
    scorer = score_stage(**{one.name: getattr(scorer, one.name) for one in fields(scorer) if one.init})
    for stage in (sampler, scorer):
        stage.setup()
    samples = list(sampler.process([Work(clip=clip) for clip in inputs.clips]))
    sampler.close()
    rows = [row for n in range(0, len(samples), 8) for row in scorer.process(samples[n : n + 8])]
    found = to_table([row for row in rows if isinstance(row, ScoreRow)]).to_pylist()
    return {row["clip_id"]: {name: value for name, value in row.items() if name not in TIMINGS} for row in found}


class Run:
    """One start of the command, in a process group of its own, as a shell gives it."""

    def __init__(self, command: list[str], out: Path, environment: Mapping[str, str] | None = None) -> None:
        self.out = out
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))  # for Ray's workers too
        variables = os.environ | {"PYTHONPATH": paths} | dict(environment or {})
        self.process = subprocess.Popen(command, env=variables, start_new_session=True, **streams)

    def wait_for_rows(self, count: int) -> None:
        self.wait_until(lambda: read_scores(self.out, ["clip_id"]).num_rows >= count)

    def wait_until(self, is_true: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_true():
            assert self.process.poll() is None, f"ended early: {self.process.communicate()}"
            assert time.monotonic() < deadline, "nothing happened for minutes"
            time.sleep(0.02)

    def kill(self, kind: str, *, delay_seconds: float = 0.0) -> None:
        """SIGKILL to a worker of a stage, or to the process that decodes for one."""
        stage = "ScoreStage" if kind == "scorer" else "SampleStage"
        at_work = 2 if stage == "SampleStage" else 0  # its fork server and the child that decodes
        found: list[psutil.Process] = []

        def is_there() -> bool:
            for one in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    is_worker = f"MapWorker(MapBatches({stage}))" in " ".join(one.cmdline())
                    family = one.children(recursive=True) if is_worker else []
                    if is_worker and len(family) >= at_work:
                        found[:] = [one, *family]
            return bool(found)

        self.wait_until(is_there)
        time.sleep(delay_seconds)
        found[-1 if kind == "decoder" else 0].kill()

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, out, err
