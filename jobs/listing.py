"""The clips of a job's sources, listed to disk by a thread while the job reads."""

import itertools
import pickle
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import IO

from vqa.data.sources import Listing, Tally
from vqa.types import Clip

CHUNK = 1000  # clips that are written together, at most
CHUNK_SECONDS = 0.5  # for which they are gathered, at most, where clips are found slowly
SETTLE_SECONDS = 10.0  # for which a run waits for the head of its list, once it has clips


def _gathered(clips: Iterator[Clip]) -> Iterator[Clip]:
    """The next CHUNK clips, or those that came within CHUNK_SECONDS."""
    began = time.monotonic()
    for clip in itertools.islice(clips, CHUNK):
        yield clip
        if time.monotonic() - began > CHUNK_SECONDS:
            return


class ClipList:
    """An iterable of clips, as often as wanted, that holds none of them in memory.

    Iteration waits for what is not listed yet, and raises what the listing raises, where it does.
    """

    def __init__(self, clips: Iterator[Clip], tally: Tally) -> None:
        """Start listing; the thread ends with the process. `tally` is what `clips` fills."""
        self._tally = tally
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as this does)
        self._places: list[tuple[int, int]] = []  # of each chunk in the file: where it begins, bytes
        self._news = threading.Condition()
        self._fault: BaseException | None = None
        self.is_complete = False
        threading.Thread(target=self._fill, args=(clips,), daemon=True).start()

    def _fill(self, clips: Iterator[Clip]) -> None:
        try:
            while chunk := list(_gathered(clips)):
                data = pickle.dumps([(one.clip_id, one.uri, one.start_seconds, one.end_seconds) for one in chunk])
                with self._news:
                    self._places.append((self._file.seek(0, 2), self._file.write(data)))
                    self._news.notify_all()
        except BaseException as error:
            self._fault = error
        with self._news:
            self.is_complete = True
            self._news.notify_all()

    def __iter__(self) -> Iterator[Clip]:
        """The clips in the order they were listed."""
        for at in itertools.count():
            if not self._is_there(at):
                return
            yield from self._chunk(at)

    def grouped(self, most: int) -> Iterator[list[Clip]]:
        """The clips in lists of what is listed by then: up to about `most`, at least one."""
        at = 0
        while self._is_there(at):
            group: list[Clip] = []
            while at < len(self._places) and len(group) < most:
                group += self._chunk(at)
                at += 1
            yield group

    def _is_there(self, at: int) -> bool:
        """Wait for a chunk; False at the end of the list. Raises what listing met."""
        with self._news:
            self._news.wait_for(lambda: at < len(self._places) or self.is_complete)
        if at < len(self._places):
            return True
        if self._fault:
            raise self._fault
        return False

    def _chunk(self, at: int) -> Iterator[Clip]:
        with self._news:
            begin, size = self._places[at]
            self._file.seek(begin)
            data = self._file.read(size)
        for clip_id, uri, start, end in pickle.loads(data):  # noqa: S301 (our own bytes)
            yield Clip(clip_id=clip_id, uri=uri, start_seconds=start, end_seconds=end)

    def settle(self, clips: int) -> None:
        """Wait for so many clips, the end of the list, or SETTLE_SECONDS and a clip.

        Raises what listing has met.
        """
        with self._news:
            self._news.wait_for(lambda: self.is_complete or self._tally.listed >= clips, SETTLE_SECONDS)
            self._news.wait_for(lambda: self.is_complete or bool(self._places))
        if self._fault:
            raise self._fault

    def has(self, clip_id: str) -> bool:
        """Whether a clip of this name is listed by now."""
        return self._tally.has(clip_id)

    @property
    def listed(self) -> int:
        """How many clips there are by now."""
        return self._tally.listed

    @property
    def facts(self) -> Listing:
        """What was skipped by now; without the clips."""
        return self._tally.summary([])
