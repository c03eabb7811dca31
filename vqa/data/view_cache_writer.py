"""Writer of the view cache: nothing torn, nothing twice, whatever is killed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vqa.data.dialects import Row
from vqa.data.export import export
from vqa.data.manifest import read_manifest
from vqa.data.public.importer import import_ladder
from vqa.data.public.layouts import ImportRequest
from vqa.data.score_table import ScoreRow, ScoreTable, read_scores
from vqa.data.view_cache import CLIPS, FILES, PICTURES, PackedViews, PreparedRow
from vqa.errors import UsageError
from vqa.files import discard, replacing, write_parquet


class PreparedTable(ScoreTable):
    """A table of files without scores; a row with views is written after its views."""

    def __init__(
        self,
        out: Path,
        *,
        seconds_per_write: float = 30.0,
        bytes_per_part: int = 2**27,
        before_write: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the folder over; supersede rows whose pictures are gone, to be made again.

        Raises UsageError for a part that is not Parquet.
        """
        super().__init__(out, folder=FILES, seconds_per_write=seconds_per_write, before_write=before_write)
        self._packed: dict[str, PackedViews] = {}  # run_key -> views that are not on disk yet
        self._pictures, self._bytes_per_part = out / "pictures", bytes_per_part
        self._pictures.mkdir(exist_ok=True)
        for leftover in self._pictures.glob(".*.tmp"):
            discard(leftover)  # a killed writer's
        self._places: dict[str, tuple[str, int]] = {}  # run_key -> part and row
        for path in sorted(self._pictures.glob("part-[0-9]*.parquet")):
            self._remember(path.name, _keys(path))
        known = read_scores(out, ["clip_id", "run_key", "status"], folder=FILES).to_pylist()
        seen = (row for row in known if row["status"] != "failed")
        self.supersede([row["clip_id"] for row in seen if row["run_key"] not in self._places])

    def _remember(self, part: str, keys: Iterable[str]) -> None:
        self._places |= {key: (part, row) for row, key in enumerate(keys)}

    def add(self, rows: Sequence[ScoreRow]) -> None:
        """Take rows, with views in a `PreparedRow`; `flush`, called if due, writes both."""
        for row in rows:
            if isinstance(row, PreparedRow) and row.views is not None and row.run_key not in self._places:
                self._packed.setdefault(row.run_key, row.views)
        super().add(rows)
        if sum(map(_size, self._packed.values())) >= self._bytes_per_part:
            self.flush()

    def flush(self) -> None:
        """Write the views that are not on disk yet as one new part, then the rows."""
        self._store()
        super().flush()

    def _store(self) -> None:
        if not self._packed:
            return
        stored = [{"run_key": key} | asdict(views) for key, views in self._packed.items()]
        numbers = [int(path.stem.rpartition("-")[2]) for path in self._pictures.glob("part-[0-9]*.parquet")]
        path = self._pictures / f"part-{max(numbers, default=0) + 1:06d}.parquet"
        self._before_write()
        with replacing(path) as draft:
            pq.write_table(
                pa.Table.from_pylist(stored, schema=PICTURES),
                draft,
                row_group_size=1,  # a clip's pictures are read alone
                compression="none",
                use_dictionary=False,
                write_statistics=False,
                write_page_checksum=True,
            )
        self._remember(path.name, self._packed)
        self._packed.clear()

    @property
    def views_stored(self) -> int:
        """How many different views are on disk."""
        return len(self._places)

    def write_clips(self, out: Path, manifest: Sequence[Mapping[str, object]]) -> pa.Table:
        """Write clips.parquet and failed.csv for a manifest's clips (`manifest_clips`).

        Returns the rows of CLIPS, one per clip.
        """
        files = {row["clip_id"]: row for row in read_scores(out, folder=FILES).to_pylist()}
        rows = []
        for clip in manifest:
            file = files[clip["uri"]]
            part, row = self._places[file["run_key"]] if file["status"] != "failed" else (None, None)
            found = {name: file[name] for name in ("status", "error_kind", "error", "run_key")}
            rows.append({**clip, **found, "part": part, "row": row})
        table = pa.Table.from_pylist(rows, schema=CLIPS)
        write_parquet(out / "clips.parquet", table)
        failed = table.filter(pc.is_null(table.column("part")))
        failed = failed.select(["clip_id", "uri", "dataset", "error_kind", "error"])
        with replacing(out / "failed.csv") as draft, draft.open("w", encoding="utf-8", newline="") as file:
            export(failed, file, kind="csv")
        return table


def _size(views: PackedViews) -> int:
    return sum(map(len, (*views.global_pictures, *views.local_pictures)))


def _keys(path: Path) -> list[str]:
    try:
        return list(pq.read_table(path, columns=["run_key"]).column("run_key").to_pylist())
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"{path}: cannot be read ({error}); remove it and run again: its clips are prepared anew"
        ) from error


def manifest_clips(path: Path) -> list[Row]:
    """Clips of a manifest or ladder (`vqa data synth`: folder or file) as CLIPS rows.

    A manifest's columns `distortions`, `severities` and `reason` are taken along. Raises UsageError.
    """
    path = path / "ladder.parquet" if path.is_dir() else path
    if _is_ladder(path):
        request = ImportRequest(name="ladder", labels=path, root=str(path.parent), check=False)
        table = import_ladder(request).manifest.table
    else:
        table = read_manifest(path).table
    rows = table.select([name for name in CLIPS.names if name in table.column_names]).to_pylist()
    rows = [row | {"opinion": mos} for row, mos in zip(rows, table.column("mos").to_pylist(), strict=True)]
    try:
        pa.Table.from_pylist(rows, schema=CLIPS)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UsageError(
            f"{path}: distortions, severities or reason are of another kind ({error}). Make it by `vqa data synth`."
        ) from error
    return rows


def _is_ladder(path: Path) -> bool:
    try:
        return "vmaf" in pq.read_schema(path).names
    except (OSError, ValueError):
        return False  # reading it as a manifest raises the error that names it
