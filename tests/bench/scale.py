"""Driver memory, time to the first row, to resume and to plan of a job over very many clips, and the driver on Ray.

    python -m tests.bench.scale --rows 1000000 --folder DIR                     a run, and a resume of it
    python -m tests.bench.scale --rows 1000000 --folder DIR --measure first     `vqa score --tier light` to a first row
    python -m tests.bench.scale --rows 1000000 --folder DIR --measure plan      `vqa plan --tier light`
    python -m tests.bench.scale --rows 20000 --folder DIR --measure driver      two cheap stages on Ray

The clips are a few tiny files under as many names as a list gives them. A run and a resume have a stage that writes a
row for each without opening it: what is measured is the driver, not the decoders or the model. Where it is the command
itself, the files are videos of 8 frames, which it decodes. Each run is a process of its own.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
import jobs.score
from jobs.probe import DRIVER_ROWS, _driver_seconds
from jobs.request import ScoreInputs, ScoreRequest, inputs_of
from jobs.resume import Work, run_key, stamp
from jobs.score import score
from jobs.stages import Resources, Sample
from tests.support import clips
from vqa.console import Engine
from vqa.data.score_table import ScoreRow, read_scores

FILES = 200
VIDEOS = 20  # of these, where they are decoded
START_ROWS = 2000  # of a run on Ray that stands for its start
VIEWS = bytes(2**16)  # of a clip, in place of pictures
COMMAND = (sys.executable, "-c", "from vqa.cli import main; main()")


@dataclass(kw_only=True)
class NamingStage:
    """A row of plausible size for each file, from its name and stamp."""

    settings: str
    batch_size: int | None = None

    def resources(self, cluster: dict[str, float]) -> Resources:
        return Resources(workers=1)

    def setup(self) -> None:
        pass

    def close(self) -> None:
        pass

    def process(self, items: Sequence[Work]) -> Iterator[ScoreRow]:
        for work in items:
            clip, (size, changed) = work.clip, stamp(work.clip.uri) or (0, 0)
            yield ScoreRow(
                clip_id=clip.clip_id,
                uri=clip.uri,
                status="ok",
                score=3.0,
                reason="A few words on what was seen, as long as models write them. " * 3,
                keyframe_seconds=tuple(n / 4 for n in range(16)),
                run_key=run_key(clip.uri, start_seconds=None, end_seconds=None, settings=self.settings),
                fingerprint=clip.uri,
                source_bytes=size,
                source_mtime_ns=changed,
            )


@dataclass(kw_only=True)
class ViewsStage(NamingStage):
    """As a decoder: a sample for each file, with a few bytes as its views."""

    # NamingStage gives rows; stages take what the one before gives
    def process(self, items: Sequence[Work]) -> Iterator[Sample]:  # type: ignore[override]
        yield from (Sample(row=row, views=VIEWS) for row in super().process(items))


@dataclass(kw_only=True)
class PassingStage(NamingStage):
    """As a model: the row of each sample, in batches."""

    batch_size: int | None = 8

    # as above
    def process(self, items: Sequence[Sample]) -> Iterator[ScoreRow]:  # type: ignore[override]
        yield from (one.row for one in items)


def one_stage(inputs: ScoreInputs) -> list[NamingStage]:
    return [NamingStage(settings=inputs.settings)]


def two_stages(inputs: ScoreInputs) -> list[NamingStage]:
    return [ViewsStage(settings=inputs.settings), PassingStage(settings=inputs.settings)]


def write_list(folder: Path, rows: int, *, videos: bool = False) -> Path:
    """A list of so many clips by name, which share FILES files."""
    folder = folder / ("videos" if videos else "texts")
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(FILES):
        path = folder / f"{n:04}.mp4"
        if not videos:
            clips.write_text(path)
        elif n < VIDEOS:
            clips.write_video(path, frames=8, seed=n)
        else:
            path.unlink(missing_ok=True)
            path.hardlink_to(folder / f"{n % VIDEOS:04}.mp4")
    path = folder / f"list{rows}.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("path,clip_id\n")
        file.writelines(f"{n % FILES:04}.mp4,library/{n // 1000:05}/clip_{n:08}.mp4\n" for n in range(rows))
    return path


def run(path: Path, out: Path, engine: str, *, two: bool) -> None:
    """One run in this process; its measures as JSON."""
    # other stages where the job looks its own up, in this process alone
    jobs.score.stages_of = two_stages if two else one_stage  # type: ignore[attr-defined, assignment]
    began, first = time.monotonic(), [0.0]

    def watch() -> None:
        while not has_rows(out):
            time.sleep(0.2)
        first[0] = time.monotonic() - began

    threading.Thread(target=watch, daemon=True).start()
    request = ScoreRequest(sources=(str(path),), out=out, engine=Engine(engine), json_summary=False)
    code = score(request)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    facts = {
        "code": code,
        "seconds": time.monotonic() - began,
        "cpu_seconds": time.process_time(),
        "first_row_seconds": first[0],
        "peak_mb": peak,
    }
    parts = len(list((out / "scores").glob("*.parquet")))
    print("MEASURED " + json.dumps(facts | {"parts": parts}))


def has_rows(out: Path) -> bool:
    return any((out / "scores").glob("part-*.parquet"))


def measured(what: str, given: argparse.Namespace, path: Path, out: Path) -> Mapping[str, float]:
    """A run in a process of its own; printed too."""
    options = ["--engine", given.engine, "--measure", given.measure, "--one", str(path), "--out", str(out)]
    command = [sys.executable, "-m", "tests.bench.scale", *options]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    line = next((one for one in said.stdout.splitlines() if one.startswith("MEASURED")), None)
    if line is None:
        raise SystemExit(said.stderr[-2000:])
    print(f"{what:7}{line.removeprefix('MEASURED ')}", flush=True)
    found: dict[str, float] = json.loads(line.removeprefix("MEASURED "))
    return found


def run_and_resume(given: argparse.Namespace) -> None:
    """A run, and a second one that finds nothing to do."""
    path = write_list(given.folder, given.rows)
    out = given.folder / f"out-{given.engine}-{given.rows}"
    for what in ("run", "resume"):
        measured(what, given, path, out)
    print(read_scores(out, ["clip_id"]).num_rows, "rows")


def driver(given: argparse.Namespace) -> None:
    """Processor seconds of the driver on Ray for a clip, and how many of them are ledger's and table's."""
    given.engine, found = "ray", []
    for rows in (START_ROWS, given.rows):
        path = write_list(given.folder, rows)
        with tempfile.TemporaryDirectory(dir=given.folder) as out:
            found.append(measured(f"{rows:<7}", given, path, Path(out))["cpu_seconds"])
    each = (found[1] - found[0]) / (given.rows - START_ROWS)
    items = [Work(clip=clip) for clip in inputs_of(ScoreRequest(sources=(str(path),), out=Path())).clips]
    rows_ = list(NamingStage(settings="s").process(items[:DRIVER_ROWS]))
    began = time.process_time()
    _driver_seconds(rows_)
    own = (time.process_time() - began) / DRIVER_ROWS
    print(f"driver: {1e3 * each:.3g} ms of processors for a clip, {1e3 * own:.3g} of them ledger and table")


def first_row(given: argparse.Namespace) -> None:
    """The command from its start to the first row on disk, by the clock; then it is interrupted."""
    path = write_list(given.folder, given.rows, videos=True)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        out = Path(folder) / "out"
        words = ("score", str(path), "--out", str(out), "--tier", "light", "--engine", given.engine)
        began = time.monotonic()
        with subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as job:
            while not has_rows(out) and job.poll() is None:
                time.sleep(0.05)
            took = time.monotonic() - began
            if job.poll() is None:
                os.kill(job.pid, signal.SIGINT)
            said = job.communicate()[1]
        rows = read_scores(out, ["status"])["status"].to_pylist() if has_rows(out) else []
    if not rows:
        raise SystemExit(said[-2000:])
    counts = {status: rows.count(status) for status in sorted(set(rows))}
    print(f"first row after {took:.1f} s; {counts} when it was stopped, exit code {job.returncode}")


def plan(given: argparse.Namespace) -> None:
    """`vqa plan` of the list, and of as many clips as its probe takes."""
    for rows in (FILES, given.rows):
        path = write_list(given.folder, rows, videos=True)
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        words = ("plan", str(path), "--tier", "light", "--probe", str(FILES), "--json")
        done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        took, used = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        peak = used.ru_maxrss / 1024
        print(f"plan of {rows} rows: {took:.1f} s, {spent:.1f} of processors, peak {peak:.0f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "vqa-scale")
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    parser.add_argument("--measure", choices=["runs", "driver", "first", "plan"], default="runs")
    parser.add_argument("--one", type=Path, help="only this list, in this process")
    parser.add_argument("--out", type=Path, help="with --one: where its rows go")
    given = parser.parse_args()
    if given.one:
        run(given.one, given.out, given.engine, two=given.measure == "driver")
        return
    {"runs": run_and_resume, "driver": driver, "first": first_row, "plan": plan}[given.measure](given)


if __name__ == "__main__":
    main()
