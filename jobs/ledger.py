"""Ledger of a run: which clips each file should give, and which came back; nothing twice, nothing missing."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from jobs.resume import Work
from jobs.stages import Result
from vqa.data.windows import video_id, windows
from vqa.types import Clip


@dataclass(slots=True)
class Ledger:
    """Kept by the driver while rows come in."""

    clip_seconds: float | None
    work: dict[str, Work] = field(default_factory=dict)
    _seen: dict[str, set[str]] = field(default_factory=dict)  # by the id of the work
    _duration_seconds: dict[str, float] = field(default_factory=dict)
    _counts: dict[str, tuple[float | None, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, work: Iterable[Work], *, clip_seconds: float | None) -> "Ledger":
        """An empty ledger over the work."""
        return cls(clip_seconds=clip_seconds, work={item.clip.clip_id: item for item in work})

    def take(self, results: Sequence[Result]) -> tuple[list[Result], float]:
        """The results that come for the first time (a retried task may repeat some); how many files they make up."""
        new: list[Result] = []
        files = 0.0
        for one in results:
            owner = one.clip_id if one.clip_id in self.work else video_id(one.clip_id)
            if one.duration_seconds is not None:
                self._duration_seconds[owner] = one.duration_seconds
            seen = self._seen.setdefault(owner, set())
            if one.clip_id not in seen:
                new.append(one)
                files += 1 / self._parts(owner, one.duration_seconds) if one.clip_id != owner else 1.0
            seen.add(one.clip_id)
        return new, files

    def _parts(self, owner: str, seconds: float | None) -> int:
        """How many windows a file has, worked out once."""
        if (known := self._counts.get(owner)) is None or known[0] != seconds:
            known = self._counts[owner] = (seconds, len(self._expected(owner)))
        return known[1]

    def _expected(self, owner: str) -> list[Clip]:
        seconds = self._duration_seconds.get(owner)
        return windows(self.work[owner].clip, duration_seconds=seconds, clip_seconds=self.clip_seconds)

    def _missing(self) -> Iterator[tuple[Work, Clip]]:
        for owner, item in self.work.items():
            seen = self._seen.get(owner, set())
            if owner not in seen:  # a file's single row (it failed as a whole) stands for all its windows
                yield from ((item, clip) for clip in self._expected(owner) if clip.clip_id not in seen)

    def lost(self) -> list[Clip]:
        """The clips that never came back."""
        return [clip for _, clip in self._missing()]

    def unfinished(self) -> list[Work]:
        """The work of which something never came back, once each."""
        return list({item.clip.clip_id: item for item, _ in self._missing()}.values())

    def vanished(self) -> list[str]:
        """Rows of earlier runs whose file was inspected and no longer has such a window."""
        return [row for owner, item in self.work.items() for row in item.rows if row not in self._seen.get(owner, ())]
