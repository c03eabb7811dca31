"""The scores table: its columns, and a folder of Parquet files with at most one row a clip, whatever is killed when.

out/scores/part-000001.parquet     the rows; a part grows by being written anew and renamed over itself
out/superseded/part-000001-….parquet  rows that a later run replaced; written before they leave scores/
out/videos.parquet                 one row per video where there are windows
"""

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vqa.data.windows import summarise_videos
from vqa.errors import UsageError
from vqa.files import sync_folder, write_parquet

CROP_BOX = pa.struct(
    [("second", pa.float64()), ("x", pa.int32()), ("y", pa.int32()), ("width", pa.int32()), ("height", pa.int32())]
)
SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("uri", pa.string()),
        ("start_seconds", pa.float64()),
        ("end_seconds", pa.float64()),
        ("status", pa.string()),
        ("error_kind", pa.string()),
        ("error", pa.string()),
        ("score", pa.float64()),
        ("score_std", pa.float64()),
        ("score_global", pa.float64()),
        ("score_local", pa.float64()),
        ("mos", pa.float64()),  # by --calibration, like the two ends of its interval
        ("mos_low", pa.float64()),
        ("mos_high", pa.float64()),
        ("answers_parsed", pa.int32()),
        ("answers_total", pa.int32()),
        ("reason", pa.string()),
        ("keyframe_seconds", pa.list_(pa.float64())),
        ("crop_boxes", pa.list_(CROP_BOX)),
        ("frames_decoded", pa.int32()),
        ("frames_planned", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("fps", pa.float64()),
        ("duration_seconds", pa.float64()),
        ("codec", pa.string()),
        ("decode_backend", pa.string()),
        ("model_id", pa.string()),
        ("model_revision", pa.string()),
        ("run_key", pa.string()),
        ("decode_seconds", pa.float64()),
        ("score_seconds", pa.float64()),
        ("source_bytes", pa.int64()),
        ("source_mtime_ns", pa.int64()),
        ("fingerprint", pa.string()),
    ]
)
TIMINGS = ("decode_seconds", "score_seconds")  # the only columns that differ between two runs over the same files
VIDEO_SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("uri", pa.string()),
        ("duration_seconds", pa.float64()),
        *((name, pa.int32()) for name in ("windows", "windows_scored")),
        *((name, pa.float64()) for name in ("score_mean", "score_min", "score_p5", "score_harmonic_mean")),
    ]
)


def read_scores(out: Path, columns: Sequence[str] | None = None, *, folder: str = "scores") -> pa.Table:
    """All rows under `out` (a job's folder), or the given columns of them; an empty table where there are none yet.

    Columns that an older version did not write are null. Raises UsageError for a part that is not Parquet.
    """
    paths = _parts(out / folder)
    names = list(columns) if columns is not None else SCHEMA.names
    if not paths:
        return pa.schema([SCHEMA.field(name) for name in names]).empty_table()
    try:
        return pa.concat_tables([_read_part(path, names) for path in paths])
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(f"{out / folder}: cannot be read ({error}); move that file away") from error


def _read_part(path: Path, names: Sequence[str]) -> pa.Table:
    """Columns of SCHEMA, null where the file has none. Without `read_table`, which imports datasets and pandas."""
    with pq.ParquetFile(path) as file:
        there = set(file.schema_arrow.names)
        rows = file.read([name for name in names if name in there])
        count = file.metadata.num_rows
    fields = [SCHEMA.field(name) for name in names]
    columns = [
        rows.column(one.name).cast(one.type) if one.name in there else pa.nulls(count, one.type) for one in fields
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!.]*.parquet"))


class ScoreTable:
    """The scores of one job's folder, open for writing by one process. Every method leaves the folder whole.

    A clip has at most one row on disk at any moment: a new row is written only once the old one has left `scores/`,
    and an old row leaves only once a copy stands in `superseded/`.
    """

    def __init__(
        self, out: Path, *, folder: str = "scores", rows_per_part: int = 1000, seconds_per_write: float = 10.0
    ) -> None:
        """Takes the folder over: makes it, clears a killed writer's drafts, finds where each clip's row is."""
        self._folder, self._superseded = out / folder, out / "superseded"
        self._folder.mkdir(parents=True, exist_ok=True)
        for leftover in (*self._folder.glob(".*.tmp"), *self._superseded.glob(".*.tmp")):
            leftover.unlink()  # a killed writer's
        self._rows_per_part, self._seconds_per_write = rows_per_part, seconds_per_write
        self._part_of: dict[str, Path] = {}  # clip_id -> where its row is on disk
        for path in _parts(self._folder):
            self._part_of.update(dict.fromkeys(_clip_ids(path), path))
        self._written: pa.Table = SCHEMA.empty_table()  # rows of the part in progress that are on disk
        self._waiting: list[pa.Table] = []
        self._part = self._next_part()
        self._last_write = time.monotonic()

    def _next_part(self) -> Path:
        numbers = [int(path.stem.rpartition("-")[2]) for path in self._folder.glob("part-[0-9]*.parquet")]
        return self._folder / f"part-{max(numbers, default=0) + 1:06d}.parquet"

    def add(self, rows: pa.Table) -> None:
        """Takes rows of SCHEMA; they are on disk after `flush`, which happens here every `seconds_per_write`."""
        if rows.num_rows:
            self._waiting.append(rows)
        if self._waiting and time.monotonic() - self._last_write >= self._seconds_per_write:
            self.flush()

    def flush(self) -> None:
        """Writes what waits. Rows on disk with the same clip_id are superseded first."""
        if not self._waiting:
            return
        new = pa.concat_tables(self._waiting)
        self.supersede(new.column("clip_id").to_pylist())
        self._waiting.clear()
        rows = pa.concat_tables([self._written, new]).combine_chunks()
        write_parquet(self._part, rows)
        self._part_of.update(dict.fromkeys(new.column("clip_id").to_pylist(), self._part))
        self._written = rows
        if rows.num_rows >= self._rows_per_part:
            self._part, self._written = self._next_part(), SCHEMA.empty_table()
        self._last_write = time.monotonic()

    def supersede(self, clip_ids: Collection[str]) -> int:
        """Moves the rows of these clips from `scores/` to `superseded/`; returns how many there were."""
        by_part: dict[Path, list[str]] = defaultdict(list)
        for clip_id in clip_ids:
            if clip_id in self._part_of:
                by_part[self._part_of[clip_id]].append(clip_id)
        for part, names in by_part.items():
            rows = pq.read_table(part, schema=SCHEMA)
            leaves = pc.is_in(rows.column("clip_id"), value_set=pa.array(names, pa.string()))
            old, rest = rows.filter(leaves), rows.filter(pc.invert(leaves))
            self._superseded.mkdir(exist_ok=True)
            # The name follows from the rows: a run killed after this line writes the same file again, not another.
            digest = hashlib.blake2b("\n".join(old.column("run_key").to_pylist()).encode(), digest_size=6).hexdigest()
            write_parquet(self._superseded / f"{part.stem}-{digest}.parquet", old)
            if rest.num_rows:
                write_parquet(part, rest)
            else:
                part.unlink()
                sync_folder(self._folder)
            if part == self._part:
                self._written = rest
            for name in names:
                del self._part_of[name]
        return sum(map(len, by_part.values()))

    def refresh(self, places: Mapping[str, tuple[str, int, int]]) -> None:
        """Notes the new (uri, bytes, mtime_ns) of clips whose file moved or was touched, content unchanged."""
        columns = ("uri", "source_bytes", "source_mtime_ns")
        for part in sorted({self._part_of[clip_id] for clip_id in places if clip_id in self._part_of}):
            rows = pq.read_table(part, schema=SCHEMA).to_pylist()
            for row in rows:
                if row["clip_id"] in places:
                    row.update(zip(columns, places[row["clip_id"]], strict=True))
            write_parquet(part, pa.Table.from_pylist(rows, schema=SCHEMA))

    def supersede_all(self) -> int:
        """Moves every row away (`--fresh`)."""
        return self.supersede(list(self._part_of))


def _clip_ids(path: Path) -> list[str]:
    try:
        return list(pq.read_table(path, columns=["clip_id"]).column("clip_id").to_pylist())
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise UsageError(f"{path}: not a table of scores ({error}); move it away and run again") from error


def rewrite(out: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Writes each part anew, atomically, where `change` (rows of SCHEMA -> rows of SCHEMA) says something else."""
    for path in _parts(out / "scores"):
        rows = pq.read_table(path, schema=SCHEMA)
        changed = change(rows)
        if not changed.equals(rows):
            write_parquet(path, changed)


def write_videos(out: Path) -> int:
    """Writes `out/videos.parquet` from the rows where any of them is a window; returns the number of videos, else 0."""
    columns = ["clip_id", "uri", "score", "duration_seconds", "end_seconds"]
    rows = read_scores(out, columns)
    path = out / "videos.parquet"
    if pc.all(pc.is_null(rows.column("end_seconds")), min_count=0).as_py():
        path.unlink(missing_ok=True)
        return 0
    videos = summarise_videos(rows.to_pylist())
    write_parquet(path, pa.Table.from_pylist(videos, schema=VIDEO_SCHEMA))
    return len(videos)
