"""The scores table: a row per clip, in Parquet files that any kill leaves whole.

out/scores/part-000001.parquet        the rows; a part grows by being written anew and renamed over itself
out/superseded/part-000001-….parquet  rows that a later run replaced; written before they leave scores/
out/videos.parquet                    one row per video where there are windows
"""

import hashlib
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vqa.data.windows import summarise_videos
from vqa.errors import ErrorKind, UsageError
from vqa.files import discard, reread, sync_folder, write_parquet
from vqa.types import CropBox

Status = Literal["ok", "partial", "unparsed", "failed"]
WITHOUT_SCORE: tuple[Status, ...] = ("unparsed", "failed")
Tier = Literal["light", "reason"]
Int64 = Annotated[int, pa.int64()]  # a plain int is a column of 32 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRow:
    """Row of the scores table; its fields, in this order, are the table's columns."""

    clip_id: str
    uri: str
    start_seconds: float | None = None
    end_seconds: float | None = None
    status: Status = "failed"  # until a score, or at least an answer, is there
    error_kind: ErrorKind | None = None
    error: str | None = None
    score: float | None = None  # 1-5
    score_std: float | None = None
    score_global: float | None = None
    score_local: float | None = None
    score_raw: float | None = None  # on the model's own scale, whose ends follow; no score alone: a student's severity
    raw_low: float | None = None
    raw_high: float | None = None
    score_expected: float | None = None  # 1-5; beside a score that is read as the released script does
    mos: float | None = None  # by --calibration, like the two ends of its interval
    mos_low: float | None = None
    mos_high: float | None = None
    light_score: float | None = None  # of a clip that a cascade gave to the reasoner: the student's, and
    light_std: float | None = None  # the error to expect of it; and the reasoner's own score,
    reason_score: float | None = None  # of which `score` is the one on the student's scale
    answers_parsed: int | None = None
    answers_total: int | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    reason: str | None = None
    description: str | None = None
    keyframe_seconds: tuple[float, ...] | None = None
    crop_boxes: tuple[CropBox, ...] | None = None
    frames_decoded: int | None = None
    frames_planned: int | None = None
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    duration_seconds: float | None = None
    codec: str | None = None
    decode_backend: str | None = None
    tier: Tier | None = None  # null in rows of versions that had one tier only
    model_id: str | None = None
    model_revision: str | None = None
    asked: Literal["published", "own"] | None = None  # null in rows of versions that did not say
    question_digest: str | None = None
    readout: Literal["answer", "expected", "published"] | None = None  # how answers were read
    run_key: str
    decode_seconds: float | None = None
    score_seconds: float | None = None
    source_bytes: Int64 | None = None
    source_mtime_ns: Int64 | None = None
    fingerprint: str | None = None


def schema_of(kind: type) -> pa.Schema:
    """The Arrow schema of a dataclass: a column per field, by its annotation."""
    return pa.schema([(name, _arrow_type(hint)) for name, hint in get_type_hints(kind, include_extras=True).items()])


def _arrow_type(hint: object) -> pa.DataType:
    origin, parts = get_origin(hint), [part for part in get_args(hint) if part is not type(None)]
    if origin is Annotated:
        return parts[1]
    if origin is Literal:
        return pa.string()
    if origin is tuple:
        return pa.list_(_arrow_type(parts[0]))
    if parts:  # a union with None
        return _arrow_type(parts[0])
    if is_dataclass(hint):
        return pa.struct(list(schema_of(hint)))  # type: ignore[arg-type]  # an instance is a dataclass too
    plain: dict[object, pa.DataType] = {str: pa.string(), bytes: pa.binary(), float: pa.float64(), int: pa.int32()}
    return plain[hint]


SCHEMA = schema_of(ScoreRow)


def to_table(rows: Sequence[ScoreRow]) -> pa.Table:
    """The rows as an Arrow table of SCHEMA."""
    columns = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names}  # asdict copies every value deeply
    columns["crop_boxes"] = [boxes and [asdict(box) for box in boxes] for boxes in columns["crop_boxes"]]
    return pa.Table.from_pydict(columns, schema=SCHEMA)


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


def no_rows(columns: Sequence[str] = SCHEMA.names) -> pa.Table:
    """Empty table of these columns; Schema.empty_table would import pandas (0.5 s)."""
    fields = [SCHEMA.field(name) for name in columns]
    return pa.Table.from_arrays([pa.nulls(0, one.type) for one in fields], schema=pa.schema(fields))


def read_scores(
    out: Path,
    columns: Sequence[str] | None = None,
    *,
    folder: str = "scores",
    clip_ids: Collection[str] | None = None,
) -> pa.Table:
    """Read all rows, or columns of them, of a job's folder; empty where none are yet.

    With `clip_ids` the rows of these clips only; they are all that is held of many parts.

    Columns that an older version did not write are null. Raises UsageError for a part that is not Parquet.
    """
    names = list(columns) if columns is not None else SCHEMA.names
    wanted = None if clip_ids is None else pa.array(sorted(clip_ids), pa.string())

    def read() -> pa.Table:
        parts = (_read_part(path, names) for path in _parts(out / folder))
        if wanted is not None:
            parts = (part.filter(pc.is_in(part.column("clip_id"), value_set=wanted)) for part in parts)
        return pa.concat_tables([no_rows(names), *parts])

    try:
        return reread(read)
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(f"{out / folder}: cannot be read ({error}); move that file away") from error


def _read_part(path: Path, names: Sequence[str] = SCHEMA.names) -> pa.Table:
    """Columns of SCHEMA, null where missing; `read_table` imports pandas, datasets."""
    with pq.ParquetFile(path) as file:
        there = set(file.schema_arrow.names)
        rows = file.read([name for name in names if name in there])
        count = file.metadata.num_rows
    fields = [SCHEMA.field(name) for name in names]
    columns = [
        rows.column(one.name).cast(one.type) if one.name in there else pa.nulls(count, one.type) for one in fields
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def existing_scores(out: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows, or columns, of a job that has begun.

    Raises UsageError unless `out` is its folder.
    """
    if not (out / "scores").is_dir():
        raise UsageError(f"{out}: holds no scores; give the --out folder of an earlier `vqa score`")
    return read_scores(out, columns)


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!.]*.parquet"))


class ScoreTable:
    """The scores of a job's folder, open to one writer; every method leaves it whole.

    A clip has at most one row on disk at any moment: a new row is written only once the old one has left `scores/`,
    and an old row leaves only once a copy stands in `superseded/`.
    """

    def __init__(
        self,
        out: Path,
        *,
        folder: str = "scores",
        rows_per_part: int = 5000,
        seconds_per_write: float = 10.0,
        before_write: Callable[[], None] = lambda: None,
        after_write: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the folder over: make it, clear a killed writer's drafts, index the rows.

        Args:
            out: Folder of the job.
            folder: Of the table, in it.
            rows_per_part: In a file, at least but for the last.
            seconds_per_write: Rows wait so long for others.
            before_write: Called before rows are written; raises where this process may not.
            after_write: Called when they are.
        """
        self._before_write, self._after_write = before_write, after_write
        self._folder, self._superseded = out / folder, out / "superseded"
        self._folder.mkdir(parents=True, exist_ok=True)
        for leftover in (*self._folder.glob(".*.tmp"), *self._superseded.glob(".*.tmp")):
            discard(leftover)  # a killed writer's
        self._rows_per_part, self._seconds_per_write = rows_per_part, seconds_per_write
        self._part_of: dict[str, Path] = {}  # clip_id -> where its row is on disk
        self._roomy: list[Path] = []  # parts less than half full, and the last one before it is full
        paths = _parts(self._folder)
        for path in paths:
            names = _clip_ids(path)
            self._part_of.update(dict.fromkeys(names, path))
            if path.stem.startswith("part-") and len(names) < rows_per_part / (1 if path == paths[-1] else 2):
                self._roomy.append(path)
        self._written: pa.Table = no_rows()  # rows of the part in progress that are on disk
        self._waiting: list[ScoreRow] = []
        self._leaving: deque[str] = deque()
        self._begin_part()
        self._last_write = time.monotonic()

    def _begin_part(self) -> None:
        """Fill a part that has room, else begin one, so that short runs make few parts."""
        while self._roomy:
            path = self._roomy.pop()
            if path.exists():  # all its rows may have left
                self._part, self._written = path, _read_part(path)
                return
        self._part, self._written = self._next_part(), no_rows()

    def _next_part(self) -> Path:
        numbers = [int(path.stem.rpartition("-")[2]) for path in self._folder.glob("part-[0-9]*.parquet")]
        return self._folder / f"part-{max(numbers, default=0) + 1:06d}.parquet"

    def add(self, rows: Sequence[ScoreRow]) -> None:
        """Take rows; `flush`, called here every `seconds_per_write`, puts them on disk."""
        self._waiting.extend(rows)
        if self._waiting and time.monotonic() - self._last_write >= self._seconds_per_write:
            self.flush()

    def retire(self, clip_ids: Collection[str]) -> None:
        """Have these rows superseded by the next write; in any thread."""
        self._leaving.extend(clip_ids)

    def flush(self) -> None:
        """Supersede retired rows and those of the same clip_id, then write what waits."""
        leaving = [self._leaving.popleft() for _ in range(len(self._leaving))]
        if not self._waiting and not leaving:
            return
        self._before_write()
        self._write(leaving)
        self._after_write()

    def _write(self, leaving: Sequence[str]) -> None:
        clip_ids = [row.clip_id for row in self._waiting]
        self.supersede({*leaving, *clip_ids})
        if not self._waiting:
            return
        rows = pa.concat_tables([self._written, to_table(self._waiting)]).combine_chunks()
        self._waiting.clear()
        write_parquet(self._part, rows)
        self._part_of.update(dict.fromkeys(clip_ids, self._part))
        self._written = rows
        if rows.num_rows >= self._rows_per_part:
            self._begin_part()
        self._last_write = time.monotonic()

    def supersede(self, clip_ids: Collection[str]) -> int:
        """Move rows of these clips from `scores/` to `superseded/`; return how many."""
        by_part: dict[Path, list[str]] = defaultdict(list)
        for clip_id in clip_ids:
            if clip_id in self._part_of:
                by_part[self._part_of[clip_id]].append(clip_id)
        for part, names in by_part.items():
            rows = _read_part(part)
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
        """Update (uri, bytes, mtime_ns) of clips with a moved or touched, unchanged file."""
        columns = ("uri", "source_bytes", "source_mtime_ns")
        for part in sorted({self._part_of[clip_id] for clip_id in places if clip_id in self._part_of}):
            rows = _read_part(part).to_pylist()
            for row in rows:
                if row["clip_id"] in places:
                    row.update(zip(columns, places[row["clip_id"]], strict=True))
            write_parquet(part, pa.Table.from_pylist(rows, schema=SCHEMA))

    def supersede_all(self) -> int:
        """Move every row away (`--fresh`)."""
        return self.supersede(list(self._part_of))


def _clip_ids(path: Path) -> list[str]:
    try:
        with pq.ParquetFile(path) as file:
            return list(file.read(["clip_id"]).column("clip_id").to_pylist())
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise UsageError(f"{path}: not a table of scores ({error}); move it away and run again") from error


def rewrite(out: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Rewrite atomically each part whose rows `change` (SCHEMA -> SCHEMA) changes."""
    for path in _parts(out / "scores"):
        rows = _read_part(path)
        changed = change(rows)
        if not changed.equals(rows):
            write_parquet(path, changed)


def write_videos(out: Path) -> int:
    """Write `out/videos.parquet` if any row is a window's; return how many videos."""
    columns = ["clip_id", "uri", "score", "duration_seconds", "end_seconds"]
    rows = read_scores(out, columns)
    path = out / "videos.parquet"
    if pc.all(pc.is_null(rows.column("end_seconds")), min_count=0).as_py():
        path.unlink(missing_ok=True)
        return 0
    videos = summarise_videos(rows.to_pylist())
    write_parquet(path, pa.Table.from_pylist(videos, schema=VIDEO_SCHEMA))
    return len(videos)
