"""Driver memory, time to the first row and time to resume of a job over very many clips.

    python -m tests.bench.scale --rows 1000000 --folder /tmp/scale

The clips are a few tiny files under as many names as a list gives them, and the stage writes a row for each without
opening it: what is measured is the driver, not the decoders or the model. Each run is a process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
import jobs.score
from jobs.request import ScoreInputs, ScoreRequest
from jobs.resume import Work, run_key, stamp
from jobs.score import score
from jobs.stages import Resources
from tests.support import clips
from vqa.console import Engine
from vqa.data.score_table import ScoreRow, read_scores

FILES = 200


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


def one_stage(inputs: ScoreInputs) -> list[NamingStage]:
    return [NamingStage(settings=inputs.settings)]


def write_list(folder: Path, rows: int) -> Path:
    """A list of so many clips by name, which share FILES files."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(FILES):
        clips.write_text(folder / f"{n:04}.mp4")
    path = folder / f"list{rows}.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("path,clip_id\n")
        file.writelines(f"{n % FILES:04}.mp4,library/{n // 1000:05}/clip_{n:08}.mp4\n" for n in range(rows))
    return path


def run(path: Path, out: Path, engine: str) -> None:
    """One run in this process; its measures as JSON."""
    jobs.score.stages_of = one_stage  # type: ignore[assignment]
    began, first = time.monotonic(), [0.0]

    def watch() -> None:
        while not any((out / "scores").glob("part-*.parquet")):
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "vqa-scale")
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    parser.add_argument("--one", type=Path, help="only this list, in this process")
    given = parser.parse_args()
    out = given.folder / f"out-{given.engine}-{given.rows}"
    if given.one:
        run(given.one, out, given.engine)
        return
    path = write_list(given.folder, given.rows)
    for what in ("run", "resume"):
        options = ["--rows", str(given.rows), "--folder", str(given.folder), "--engine", given.engine]
        command = [sys.executable, "-m", "tests.bench.scale", *options, "--one", str(path)]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        line = next((one for one in said.stdout.splitlines() if one.startswith("MEASURED")), said.stderr[-2000:])
        print(f"{what:7}{line.removeprefix('MEASURED ')}", flush=True)
    print(read_scores(out, ["clip_id"]).num_rows, "rows")


if __name__ == "__main__":
    main()
