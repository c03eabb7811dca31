"""A stage that scores names, for tests of what happens around the stages."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.resume import Work, run_key, stamp
from jobs.stages import Resources
from vqa.data.score_table import ScoreRow


@dataclass(kw_only=True)
class Naming:
    """A stage that scores names, and reaches no file in `away` the first so many times."""

    settings: str = "s"
    batch_size: int | None = None
    away: dict[str, int] = field(default_factory=dict)
    each: Resources = field(default_factory=lambda: Resources(workers=1))

    def resources(self, cluster: Mapping[str, float]) -> Resources:
        return self.each

    def setup(self) -> None:
        pass

    def close(self) -> None:
        pass

    def process(self, items: Sequence[Work]) -> Iterator[ScoreRow]:
        for clip in (item.clip for item in items):
            key = run_key(clip.uri, start_seconds=None, end_seconds=None, settings=self.settings)
            row = {"clip_id": clip.clip_id, "uri": clip.uri, "run_key": key, "fingerprint": clip.uri}
            if Path(clip.uri).exists():  # the row of an existing file is reused
                row |= dict(zip(("source_bytes", "source_mtime_ns"), stamp(clip.uri) or (), strict=False))
            if self.away.get(clip.clip_id, 0):
                self.away[clip.clip_id] -= 1
                yield ScoreRow(**row, error_kind="not_readable", error="away")  # type: ignore[arg-type]
            else:
                yield ScoreRow(**row, status="ok", score=3.0)  # type: ignore[arg-type]
