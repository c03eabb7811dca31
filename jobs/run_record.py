"""run.json: what a run was asked, with which versions, and how it ended."""

import contextlib
import platform
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vqa import machine
from vqa.files import write_json

BEAT_SECONDS = 5.0  # a running job writes its progress this often
PACKAGES = ("vqa", "torch", "transformers", "ray", "av", "pyarrow", "numpy")


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


class RunRecord:
    """The run.json of one run, on disk from the start."""

    def __init__(self, path: Path, facts: Mapping[str, object]) -> None:
        """Write the head: state, host, versions, and the facts."""
        self._path = path
        self._lock = threading.Lock()
        host = {"name": socket.gethostname(), "platform": platform.platform(), "cores": machine.cores()}
        head = {"state": "running", "started": now(), "ended": None, "host": host, "versions": versions()}
        self.values: dict[str, object] = {**head, **facts}
        write_json(path, self.values)

    def finish(self, *, state: str, **results: object) -> None:
        """Write the state that the run ended in and what came of it."""
        self._write({"state": state, "ended": now(), **results})

    def _write(self, facts: Mapping[str, object]) -> None:
        with self._lock:
            self.values |= facts
            write_json(self._path, self.values)

    @contextlib.contextmanager
    def beating(self, progress: Callable[[], Mapping[str, object]]) -> Iterator[None]:
        """Write `progress` every few seconds, which tells a slow run from a killed one."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT_SECONDS):
                with contextlib.suppress(OSError):  # a full disk or a lost mount ends the run where it writes rows
                    self._write({"progress": dict(progress())})

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.values["progress"] = dict(progress())  # on disk with the end of the run

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """Note an exception as the state `failed`, and pass it on."""
        try:
            yield
        except BaseException as error:
            with contextlib.suppress(OSError):  # such as a full disk, which may be the very error
                self.finish(state="failed", error=str(error))
            raise
