"""Double entry for a run: which clips each file should give, and which came back. Nothing twice, nothing missing."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from jobs.resume import Work
from vqa.data.windows import video_id, windows
from vqa.types import Clip


@dataclass(slots=True)
class Book:
    """Kept by the driver while rows come in."""

    clip_seconds: float | None
    work: dict[str, Work] = field(default_factory=dict)
    _seen: dict[str, set[str]] = field(default_factory=dict)  # by the id of the work
    _duration_seconds: dict[str, float] = field(default_factory=dict)
    _counts: dict[str, tuple[float | None, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, work: Iterable[Work], *, clip_seconds: float | None) -> "Book":
        """An empty book over the work."""
        return cls(clip_seconds=clip_seconds, work={item.clip.clip_id: item for item in work})

    def take(self, rows: pa.Table) -> tuple[pa.Table, float]:
        """The rows that come for the first time (a task tried again may repeat some); how many files they make up."""
        first_time: list[bool] = []
        files = 0.0
        columns = (rows.column(name).to_pylist() for name in ("clip_id", "duration_seconds"))
        for clip_id, seconds in zip(*columns, strict=True):
            owner = clip_id if clip_id in self.work else video_id(clip_id)
            if seconds is not None:
                self._duration_seconds[owner] = seconds
            seen = self._seen.setdefault(owner, set())
            first_time.append(clip_id not in seen)
            if first_time[-1]:
                files += 1 / self._parts(owner, seconds) if clip_id != owner else 1.0
            seen.add(clip_id)
        return rows.filter(pa.array(first_time, pa.bool_())), files

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
        """Rows of earlier runs whose file was looked at and no longer has such a part."""
        return [row for owner, item in self.work.items() for row in item.rows if row not in self._seen.get(owner, ())]
