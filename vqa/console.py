"""Options that commands share, and how a command ends: exit code and message."""

import atexit
import errno
import gc
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from types import FrameType
from typing import Annotated, NoReturn

import typer

from vqa.errors import UsageError, VqaError
from vqa.machine import shortage

INTERRUPTED = 130
# What a file system answers where a path cannot be what it was given as.
NOT_THERE = {
    *(errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM),
    *(errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP),
}
WAIT_SECONDS = 600.0  # default of --wait


class Engine(StrEnum):
    """Where the stages of a job run."""

    AUTO = "auto"
    LOCAL = "local"
    RAY = "ray"


EngineOption = Annotated[
    Engine, typer.Option(help="local: this process; ray; auto: local up to 64 files without an address of Ray.")
]
RayAddress = Annotated[
    str | None,
    typer.Option(help="A running Ray cluster, or auto; else $RAY_ADDRESS, else a Ray started here."),
]
Wait = Annotated[
    float,
    typer.Option(
        min=0, metavar="SECONDS", help="How long to wait for free cores and GPUs of Ray, or for workers that it kills."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done, write nothing.")]
JsonSummary = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of tables.")]


LogJson = Annotated[
    bool, typer.Option("--log-json", help="Lines on stderr are JSON objects, one for each clip among them.")
]


def assigning(example: str) -> object:
    """`--set KEY=VALUE`."""
    return typer.Option("--set", metavar="KEY=VALUE", help=f"Override one setting: {example}.")


def enter(app: typer.Typer) -> int:
    """Run the command line; return its exit code. No traceback reaches the screen."""
    _note_interrupts()
    try:
        _refuse_empty(sys.argv[1:])
        app(standalone_mode=True)
    except VqaError as error:
        complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        complain("stopped")
        return INTERRUPTED
    except BrokenPipeError:  # `vqa show … | head` has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 1
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NOT_THERE and error.filename is not None:
            complain(f"{error.filename2 or error.filename}: {error.strerror}; give another path")
            return 1
        if what := shortage(error):
            complain(what)
            return 1
        # our own fault: the user gets a sentence, the log gets the traceback
        descriptor, path = tempfile.mkstemp(prefix="vqa-", suffix=".log")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as log:
            traceback.print_exc(file=log)
        text = " ".join(str(error).split())
        short = text if len(text) <= 300 else f"{text[:300]}…"
        complain(f"unexpected {type(error).__name__}: {short} (traceback in {path})")
        return 1
    return 0


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse an empty argument, which as a path would be the folder it runs in.

    Raises UsageError.
    """
    for before, one in pairwise(["", *arguments]):
        if not one or (one.startswith("--") and one.endswith("=")):
            option = one.rstrip("=") or before
            named = f"{option}: " if option.startswith("-") else ""
            raise UsageError(f"{named}the value is empty. Is a shell variable unset? Give a value, or leave it out.")


LAST_WORDS = ("accelerate", "ray")  # libraries that have more to do at the end than they tell atexit


def leave(code: int) -> NoReturn:
    """End the process with this code, without the half second of tearing torch down.

    Functions registered with atexit run, and output is flushed. Where there is more to end (other threads, a profiler,
    a pipe that nobody reads, libraries of LAST_WORDS), Python ends the process as ever.
    """
    others = [one for one in threading.enumerate() if not one.daemon and one is not threading.current_thread()]
    gc.freeze()  # Python collects garbage several times at its end: 2 s among the objects of torch
    if others or sys.getprofile() or not sys.modules.keys().isdisjoint(LAST_WORDS):
        sys.exit(code)
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # as where the command began with it closed
                stream.flush()
    except (OSError, ValueError):
        sys.exit(code)
    os._exit(code)


_interrupts: list[int] = []  # Ctrl-C before a job listens for it: imports of compiled modules may swallow the error


def _note_interrupts() -> None:
    """Note each Ctrl-C beside raising it, until a job installs a handler of its own."""
    _interrupts.clear()
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not so under nohup
    if is_default and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _note)


def _note(number: int, frame: FrameType | None) -> None:
    _interrupts.append(number)
    signal.default_int_handler(number, frame)


def was_interrupted() -> bool:
    """Whether Ctrl-C was pressed since the command began."""
    return bool(_interrupts)


def printable(text: str) -> str:
    """One line of text; line breaks, escapes and direction marks are spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def counted(number: int, noun: str) -> str:
    """`1 clip`, `12 clips`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


class _JsonLines(logging.Handler):
    """Python's own log as JSON lines."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            log(record.getMessage(), level=record.levelname.lower(), logger=record.name)
        except Exception:  # a broken message costs itself
            self.handleError(record)


_json_lines: list[_JsonLines] = []  # one, where lines on stderr are JSON


def log_as_json() -> None:
    """Make every line on stderr from here on a JSON object, warnings and errors too."""
    if not _json_lines:
        _json_lines.append(_JsonLines(logging.WARNING))
        logging.getLogger().addHandler(_json_lines[0])
        logging.captureWarnings(True)


def log(message: str, *, event: str = "message", level: str = "info", **facts: object) -> None:
    """Print JSON on stderr: UTC time, level, event, message, facts that are not None."""
    when = datetime.now(UTC).isoformat(timespec="milliseconds")
    line: dict[str, object] = {"time": when, "level": level, "event": event, "message": message}
    line |= {name: value for name, value in facts.items() if value is not None}
    print(json.dumps(line, ensure_ascii=True, default=str), file=sys.stderr, flush=True)


def complain(message: str) -> None:
    """`vqa: …` on stderr; control characters cannot reach the terminal."""
    if _json_lines:
        log(message, event="error", level="error")
        return
    for line in message.splitlines():
        print(f"vqa: {printable(line)}", file=sys.stderr)
