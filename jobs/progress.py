"""Progress on stderr: a bar on a terminal, a line every ten seconds elsewhere."""

import sys
import time
from collections.abc import Sequence
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from vqa.console import log
from vqa.data.score_table import TIMINGS, ScoreRow

LINE_SECONDS = 10.0
LOGGED = ("clip_id", "uri", "status", "error_kind", "score", "run_key", *TIMINGS)  # of a clip, in JSON lines
RATE_SECONDS = 3.0  # below this the batches that happened to be ready make up the rate


class JobProgress:
    """Counts of files and clips, and a rate from the first clip on, after start-up."""

    def __init__(
        self,
        files: int,
        *,
        quiet: bool = False,
        as_json: bool = False,
        doing: str = "scoring",
        lacking: str = "without a score",
    ) -> None:
        """Show nothing yet.

        Args:
            files: How many there are to do.
            quiet: Count, but print nothing.
            as_json: Print JSON lines, one for each clip among them.
            doing: What is done to them, for the bar.
            lacking: What a failed clip is called.
        """
        self._doing, self._lacking = doing, lacking
        self.files_total, self.files_done = files, 0.0  # a window adds its share of its file
        self._more = ""  # "+" while files are still listed
        self.clips_done = self.failed = 0
        self._first: tuple[float, int, float] | None = None  # when, clips and files then
        self._last = 0.0
        self._quiet, self._as_json = quiet and not as_json, as_json
        self._next_line = time.monotonic() + LINE_SECONDS
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        if not quiet and not as_json and self._console.is_terminal:
            what, note = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
            self._bar = Progress(what, BarColumn(), TimeElapsedColumn(), note, console=self._console)
            self._task = self._bar.add_task("starting", total=files, note="")

    def __enter__(self) -> Self:
        """Show the bar."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last state on the screen."""
        if self._bar:
            self._bar.stop()

    def advance(self, *, clips: int, failed: int, files: float) -> None:
        """Count finished clips, those without a score, and their files (shares count)."""
        self.clips_done += clips
        self.failed += failed
        self.files_done += files
        self._last = time.monotonic()
        if self._first is None:
            self._first = (time.monotonic(), self.clips_done, self.files_done)
        if self._bar:
            self._bar.update(self._task, completed=self.files_done, description=self._doing, note=self.line())
        elif not self._quiet and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            self.say(self.line(), event="progress")

    def rows(self, rows: Sequence[ScoreRow]) -> None:
        """Print a JSON line for each finished clip, where lines are JSON."""
        for row in rows if self._as_json else ():
            log(
                row.error or row.status,
                event="clip",
                level="warning" if row.status == "failed" else "info",
                **{name: getattr(row, name) for name in LOGGED},
            )

    def expect(self, files: int, is_all: bool) -> None:
        """Set how many files there are to do, as far as they are listed; in any thread."""
        self.files_total, self._more = files, "" if is_all else "+"
        if self._bar:
            self._bar.update(self._task, total=files)

    def extend(self, files: int) -> None:
        """Count more files to do."""
        self.files_total += files
        if self._bar:
            self._bar.update(self._task, total=self.files_total)

    def say(self, text: str, *, event: str = "message") -> None:
        """Print one plain line on stderr, between the bar's redraws."""
        if self._quiet:
            return
        if self._as_json:
            facts: dict[str, Any] = {**self.facts()} if event == "progress" else {}
            log(text, event=event, **facts)
        elif self._bar:
            self._console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    @property
    def clips_per_second(self) -> float | None:
        """The rate from the first clips to the last; None for less than `RATE_SECONDS`."""
        seconds = self._last - self._first[0] if self._first else 0.0
        return (self.clips_done - self._first[1]) / seconds if self._first and seconds >= RATE_SECONDS else None

    @property
    def seconds_left(self) -> float | None:
        """By the rate of files since the first; None before there is one."""
        if self._first is None or self.files_done <= self._first[2]:
            return None
        seconds = (time.monotonic() - self._first[0]) / (self.files_done - self._first[2])
        return seconds * max(0.0, self.files_total - self.files_done)

    def facts(self) -> dict[str, object]:
        """Counts, rate and time left, for run.json."""
        rate, left = self.clips_per_second, self.seconds_left
        return {
            "files_total": self.files_total,
            "is_listed": not self._more,
            "files_done": round(self.files_done, 3),
            "clips_done": self.clips_done,
            "without_score": self.failed,
            "clips_per_second": None if rate is None else round(rate, 3),
            "seconds_left": None if left is None else round(left, 1),
        }

    def line(self) -> str:
        """`120 of 400 files, 2.10 clips/s, 3 without a score, 2 min left`."""
        rate = self.clips_per_second
        parts = [f"{int(self.files_done + 1e-6)} of {self.files_total}{self._more} files"]
        if rate is not None:
            parts.append(f"{rate:.2f} clips/s")
        parts.append(f"{self.failed} {self._lacking}")
        if (left := self.seconds_left) is not None:
            parts.append(f"{duration(left)} left")
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """`45 s`, `3 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
