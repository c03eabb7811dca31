"""What workers on Ray wait for, in words, and an end to waiting."""

import contextlib
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Self

from jobs import _compat
from jobs.config import ACCELERATOR
from jobs.stages import Resources
from vqa.console import complain
from vqa.errors import VqaError

SAY_SECONDS = 10.0  # until the first word on what is missing
START_SECONDS = 30.0  # in which the first process of Ray starts on a busy machine as well
REPEAT_SECONDS = 60.0  # between two words where nothing has changed
CHECK_SECONDS = 2.0
LOST_WORKERS = 3  # so many in a row, without a result between them, are worth a word

Amounts = Mapping[str, float]


def needed(shares: Sequence[Resources]) -> dict[str, float]:
    """What the least workers of all stages take; with less no clip is finished."""
    sums = Counter[str]()
    for share in shares:
        sums.update({unit: amount * share.least for unit, amount in share.amounts().items()})
    return {unit: float(amount) for unit, amount in sums.items()}


def missing(need: Amounts, has: Amounts, free: Amounts) -> str:
    """What a cluster lacks for the least workers of each stage, in words, or empty.

    Args:
        need: Of `needed`.
        has: Ray's totals.
        free: What of them is free.
    """
    faults = []
    for unit, amount in need.items():
        total, rest = has.get(unit, 0.0), free.get(unit, 0.0)
        if unit.startswith(ACCELERATOR):
            if total < amount:
                kinds = sorted(one.removeprefix(ACCELERATOR) for one in has if one.startswith(ACCELERATOR))
                faults.append(
                    f"a node with {unit.removeprefix(ACCELERATOR)} is needed, Ray has {', '.join(kinds) or 'none'}"
                )
        elif total < amount:
            faults.append(f"{amount:g} {_plural(unit)} are needed, Ray has {total:g}")
        elif rest < amount:
            faults.append(f"{amount:g} {_plural(unit)} are needed, {rest:g} of Ray's {total:g} are free")
    return "; ".join(faults)


def _plural(unit: str) -> str:
    return f"{unit}s" if unit in ("CPU", "GPU") else f"of the resource {unit!r}"


def too_large(shares: Sequence[Resources], nodes: Sequence[Amounts]) -> str:
    """The worker that no node could hold even if empty, in words; empty for none.

    Args:
        shares: What each worker takes.
        nodes: The totals of each node.
    """
    for share in shares:
        need = share.amounts()
        if not any(all(node.get(unit, 0.0) >= amount for unit, amount in need.items()) for node in nodes):
            words = " and ".join(f"{amount:g} {_plural(unit)}" for unit, amount in need.items())
            most = ", ".join(
                f"{max((node.get(unit, 0.0) for node in nodes), default=0):g} {_plural(unit)}" for unit in need
            )
            return f"a worker takes {words} of one node, and no node has that (at most {most}, not all on the same)"
    return ""


def wait_for_room(
    shares: Sequence[Resources],
    *,
    wait_seconds: float,
    say: Callable[[str], None],
    less: str = "job.cpus_per_worker, job.gpus_per_worker, job.score_workers_min",
) -> None:
    """Wait until all workers have room on the cluster at once; say what is missing.

    Args:
        shares: What each worker takes: one of each stage, or all of a group.
        wait_seconds: How long to wait at most.
        say: Prints a line.
        less: The settings or options by which the user asks for less.

    Raises:
        VqaError: there was no room in that time.
    """
    import ray
    from ray.util import placement_group, remove_placement_group

    need = needed(shares)
    bundles = [share.amounts() for share in shares for _ in range(share.least)]
    room = placement_group(bundles)  # has them when all are free at once
    try:
        began = time.monotonic()
        said, next_word = "", began + SAY_SECONDS
        while not room.wait(timeout_seconds=1):
            # Ray gives these two functions no types.
            has, free = ray.cluster_resources(), ray.available_resources()  # type: ignore[no-untyped-call]
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
            what = missing(need, has, free) or too_large(shares, nodes) or "no node has room for a worker"
            if time.monotonic() - began >= wait_seconds:
                raise VqaError(
                    f"no worker could start within {wait_seconds:g} s: {what}. Give Ray more, end what holds it, ask "
                    f"for less ({less}), or wait longer (--wait)."
                )
            if time.monotonic() >= next_word and (what != said or time.monotonic() >= next_word + REPEAT_SECONDS):
                say(f"waiting for workers: {what} (--wait {wait_seconds:g})")
                said, next_word = what, time.monotonic()
    finally:
        remove_placement_group(room)


def wait_for_process(*, wait_seconds: float, say: Callable[[str], None]) -> None:
    """Wait until a process of Ray lives long enough to answer. Raises VqaError."""
    import psutil
    import ray

    answer = ray.remote(num_cpus=0, max_retries=-1)(lambda: None).remote()
    began, said, is_over = time.monotonic(), False, False
    try:
        while not (is_over := bool(ray.wait([answer], timeout=1)[0])):
            used = psutil.virtual_memory().percent
            what = (
                "no process of Ray has lived long enough to answer. Ray kills them where more of the memory is used "
                f"than RAY_memory_usage_threshold allows (by default 0.95); here {used / 100:.2f} is used. "
                f"Ray's logs: {_compat.log_folder()}"
            )
            if time.monotonic() - began >= wait_seconds:
                raise VqaError(f"after {wait_seconds:g} s {what}")
            if not said and time.monotonic() - began >= START_SECONDS:
                say(f"waiting for workers: {what} (--wait {wait_seconds:g})")
                said = True
    finally:
        if not is_over:  # the driver aborted in Ray 2.60's task_manager.cc while ended tasks were cancelled too
            ray.cancel(answer, force=True)


class HeadGoneError(VqaError):
    """Ray's head is gone, and whatever Ray is asked for waits until it ends this."""


class LossWatch:
    """Watch for workers lost again and again without a result; ends the wait.

    Also ends it where the head is gone, before Ray does so without a word.
    """

    def __init__(
        self,
        *,
        wait_seconds: float,
        say: Callable[[str], None],
        losses: Callable[[], int] = _compat.lost_workers,
        head: Callable[[], tuple[str, int]] = _compat.head_address,
    ) -> None:
        """Nothing is watched yet.

        Args:
            wait_seconds: How long no result may come while workers are lost.
            say: Prints a line.
            losses: How many workers were lost so far.
            head: Host and port of the head.
        """
        self._wait_seconds, self._say, self._losses = wait_seconds, say, losses
        self._head, self._gone_since = head(), 0.0
        self._head_seconds = _compat.head_patience_seconds() / 2
        self._over = threading.Event()
        self._is_pulling, self._pulls = False, 0
        self._verdict: VqaError | None = None

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._is_main = threading.current_thread() is threading.main_thread()
        self._before = signal.signal(signal.SIGUSR2, self._end) if self._is_main else None
        # Two, as what Ray is asked for waits for a head that goes at this very moment, until Ray ends this process.
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._watch_head, self._watch_losses)]
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the watch."""
        self._over.set()
        for one in self._threads:
            one.join(2 * CHECK_SECONDS)  # it may be about to send its signal, which would end this process
        if self._is_main:
            signal.signal(signal.SIGUSR2, self._before)

    @contextlib.contextmanager
    def pulling(self) -> Iterator[None]:
        """The wait for one result. Raises VqaError in the main thread if it has no end."""
        self._pulls += 1
        self._is_pulling = self._is_main
        try:
            if self._verdict:
                raise self._verdict
            yield
        finally:
            self._is_pulling = False

    def _watch_head(self) -> None:
        while not self._over.wait(CHECK_SECONDS):
            if not self._is_head_there() and time.monotonic() - self._gone_since >= self._head_seconds:
                error = HeadGoneError(
                    f"Ray's head at {self._head[0]}:{self._head[1]} has not answered for {self._head_seconds:g} s. The "
                    "rows that were written are safe; when the cluster is back, the same command resumes."
                )
                # Ray may hold the main thread, or what tidies up, until it ends this process: then this says why, and
                # says it twice where tidying up was but slow.
                last = threading.Timer(self._head_seconds / 3, complain, [str(error)])
                last.daemon = True
                last.start()
                self._give_up(error)
                return

    def _watch_losses(self) -> None:
        pull, began, first, said = 0, 0.0, 0, False
        while not self._over.wait(CHECK_SECONDS):
            if self._gone_since:
                continue
            with contextlib.suppress(Exception):  # a head that goes at this very moment
                lost, now = self._losses(), time.monotonic()
                if pull != self._pulls:
                    pull, began, first, said = self._pulls, now, lost, False
                if lost - first < LOST_WORKERS:
                    continue
                text = (
                    f"{lost - first} workers were lost before a result came. Ray kills them where more of the memory "
                    "is used than RAY_memory_usage_threshold allows (0.95)"
                )
                if not said:
                    self._say(f"{text}; Ray's logs: {_compat.log_folder()}")
                    said = True
                if now - began >= self._wait_seconds:
                    logs = _compat.log_folder()
                    self._give_up(VqaError(f"{text}. Free memory or give fewer workers; Ray's logs: {logs}"))
                    return

    def _is_head_there(self) -> bool:
        """Whether something listens at the head's address; notes since when it does not."""
        try:
            socket.create_connection(self._head, timeout=CHECK_SECONDS).close()
        except OSError:
            self._gone_since = self._gone_since or time.monotonic()
            return False
        self._gone_since = 0.0
        return True

    def _give_up(self, verdict: VqaError) -> None:
        self._verdict = verdict
        if self._is_pulling:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)

    def _end(self, number: int, frame: FrameType | None) -> None:
        if self._is_pulling and self._verdict:
            raise self._verdict


def say_on_stderr(text: str) -> None:
    """Print a line where progress goes."""
    print(text, file=sys.stderr, flush=True)
