"""Ledger of a run: which clips each file should give, and which came back."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from jobs.resume import Work
from jobs.stages import Result
from vqa.data.windows import video_id, windows
from vqa.types import Clip


@dataclass(slots=True)
class Ledger:
    """The files handed out and not yet done, in the driver, however large the job."""

    source: Iterable[Work]
    clip_seconds: float | None
    work: dict[str, Work] = field(default_factory=dict)  # handed out, not done
    _seen: dict[str, set[str]] = field(default_factory=dict)  # by the id of the work
    _duration_seconds: dict[str, float] = field(default_factory=dict)
    _counts: dict[str, tuple[float | None, int]] = field(default_factory=dict)
    _vanished: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, work: Iterable[Work], *, clip_seconds: float | None) -> "Ledger":
        """An empty ledger over work that nobody has taken yet."""
        return cls(source=work, clip_seconds=clip_seconds)

    def hand_out(self) -> Iterator[Work]:
        """The work, each entered as it is taken; in any thread."""
        for item in self.source:
            self.work[item.clip.clip_id] = item
            yield item

    def take(self, results: Sequence[Result]) -> tuple[list[Result], float]:
        """New results (a retried task may repeat some), and how many files they make up."""
        new: list[Result] = []
        files = 0.0
        for one in results:
            owner = one.clip_id if one.clip_id in self.work else video_id(one.clip_id)
            if owner not in self.work:
                continue  # of a file that is done
            if one.duration_seconds is not None:
                self._duration_seconds[owner] = one.duration_seconds
            seen = self._seen.setdefault(owner, set())
            if one.clip_id not in seen:
                seen.add(one.clip_id)
                new.append(one)
                files += 1 / self._parts(owner, one.duration_seconds) if one.clip_id != owner else 1.0
                # A file's single row (it failed as a whole) stands for all its windows.
                if one.clip_id == owner or (len(seen) >= self._parts(owner, None) and not list(self._lacking(owner))):
                    self._close(owner)
        return new, files

    def _close(self, owner: str) -> None:
        """Forget a file that is done, but for earlier rows that it no longer has."""
        seen = self._seen.pop(owner, set())
        self._vanished.extend(row for row in self.work.pop(owner).rows if row not in seen)
        self._duration_seconds.pop(owner, None)
        self._counts.pop(owner, None)

    def _parts(self, owner: str, seconds: float | None) -> int:
        """How many windows a file has, worked out once."""
        known = self._counts.get(owner)
        if known is None or (seconds is not None and known[0] != seconds):
            known = self._counts[owner] = (seconds, len(self._expected(owner)))
        return known[1]

    def _expected(self, owner: str) -> list[Clip]:
        seconds = self._duration_seconds.get(owner)
        return windows(self.work[owner].clip, duration_seconds=seconds, clip_seconds=self.clip_seconds)

    def _lacking(self, owner: str) -> Iterator[Clip]:
        seen = self._seen.get(owner, set())
        return (clip for clip in self._expected(owner) if clip.clip_id not in seen)

    def lost(self) -> list[Clip]:
        """The clips that never came back."""
        return [clip for owner in self.work for clip in self._lacking(owner)]

    def unfinished(self) -> list[Work]:
        """The work of which something never came back, once each."""
        return list(self.work.values())

    def vanished(self) -> list[str]:
        """Rows of earlier runs whose file was inspected and no longer has such a window."""
        open_rows = (
            row for owner, item in self.work.items() for row in item.rows if row not in self._seen.get(owner, ())
        )
        return [*self._vanished, *open_rows]
