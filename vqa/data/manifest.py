"""Manifest of a data set with opinions: Parquet, a row per clip, and the scales.

    clip_id       string  unique; `vqa data import` makes it of the data set and the path below its folder
    uri           string  path or URL of the file
    dataset       string  clips are compared within one data set only
    split         string  as published, or null
    content_id    string  shared by clips of the same scene, which a split never separates
    kind          string  video or image
    mos_raw       double  the opinion as published
    mos           double  the opinion on 1-5, higher is better, by the data set's `RatingScale`
    mos_std       double  standard deviation of the ratings on the 1-5 scale, or null
    aspects       map     other published numbers of the clip by name, as published (not mapped to 1-5)
    reference_uri string  the undistorted original, or null

More columns may follow (`vqa data split` adds split_00, ...). Metadata key `vqa.manifest`: JSON {schema, scales}.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from vqa.data.pair_manifest import PAIR_KEY
from vqa.errors import UsageError
from vqa.files import write_parquet

MediaKind = Literal["video", "image"]
KEY = b"vqa.manifest"
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("clip_id", "uri", "dataset", "split", "content_id", "kind")),
        *((name, pa.float64()) for name in ("mos_raw", "mos", "mos_std")),
        ("aspects", pa.map_(pa.string(), pa.float64())),
        ("reference_uri", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingScale:
    """Rating scale of a data set, and its linear map to 1-5 and back."""

    low: float
    high: float
    higher_is_better: bool = True
    source: str = ""  # where it is documented

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise UsageError(f"scale {self.low:g},{self.high:g}: give two finite numbers, the lower first.")

    def to_mos(self, raw: float) -> float:
        """Map an opinion on this scale to 1-5, higher is better."""
        share = (raw - self.low) / (self.high - self.low)
        return 1 + 4 * (share if self.higher_is_better else 1 - share)

    def to_raw(self, mos: float) -> float:
        """Map an opinion on 1-5 to this scale: the inverse of `to_mos`."""
        share = (mos - 1) / 4
        return self.low + (self.high - self.low) * (share if self.higher_is_better else 1 - share)

    def to_mos_std(self, raw_std: float) -> float:
        """Map a standard deviation on this scale to the 1-5 scale."""
        return 4 * raw_std / (self.high - self.low)

    def __str__(self) -> str:
        return f"{self.low:g}-{self.high:g}, {'higher' if self.higher_is_better else 'lower'} is better"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Rows of SCHEMA (more columns may follow), and the scale by data set."""

    table: pa.Table
    scales: dict[str, RatingScale]


def make_manifest(rows: Iterable[Mapping[str, object]], *, scales: Mapping[str, RatingScale]) -> Manifest:
    """Make and check a manifest from rows of SCHEMA. Raises UsageError."""
    manifest = Manifest(table=pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA), scales=dict(scales))
    check_manifest(manifest, where="manifest")
    return manifest


def check_manifest(manifest: Manifest, *, where: str) -> None:
    """Check that the rows fit the schema and their scale.

    Args:
        manifest: What to check.
        where: Name of the manifest, for messages.

    Raises:
        UsageError: If a required cell is null, a clip_id repeats, a data set has no scale, or a number contradicts it.
    """
    table = manifest.table
    for name in ("clip_id", "uri", "dataset", "content_id", "kind", "mos_raw", "mos"):
        if table.column(name).null_count:
            raise UsageError(f"{where}: {table.column(name).null_count} rows have no {name}. Every row needs one.")
    repeated = [name for name, count in Counter(table.column("clip_id").to_pylist()).items() if count > 1]
    if repeated:
        names = ", ".join(repr(name) for name in repeated[:5])
        raise UsageError(f"{where}: {len(repeated)} clip_ids occur more than once ({names}). Each clip needs one row.")
    unscaled = set(table.column("dataset").to_pylist()) - set(manifest.scales)
    if unscaled:
        raise UsageError(f"{where}: no scale recorded for {', '.join(sorted(unscaled))}. Import it again.")
    columns = (table.column(name).to_pylist() for name in ("clip_id", "dataset", "kind", "mos_raw", "mos", "mos_std"))
    for number, (clip_id, dataset, kind, raw, mos, std) in enumerate(zip(*columns, strict=True), start=1):
        row = f"{where}, row {number} ({clip_id})"
        if kind not in ("video", "image"):
            raise UsageError(f"{row}: kind = {kind!r} is neither video nor image. Import it again.")
        if not 1 <= mos <= 5 or abs(manifest.scales[dataset].to_mos(raw) - mos) > 1e-6:
            raise UsageError(
                f"{row}: mos_raw = {raw:g}, mos = {mos:g} do not fit scale {manifest.scales[dataset]}. Import it again."
            )
        if std is not None and not 0 <= std < math.inf:
            raise UsageError(f"{row}: mos_std = {std} is no standard deviation. Give 0 or more, or nothing.")


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a .parquet manifest atomically, creating folders. Raises UsageError."""
    if path.suffix != ".parquet":
        raise UsageError(f"--out {path}: a manifest is a Parquet file. Give a name that ends in .parquet.")
    facts = {"schema": 1, "scales": {name: asdict(scale) for name, scale in sorted(manifest.scales.items())}}
    table = manifest.table.replace_schema_metadata({KEY: json.dumps(facts, ensure_ascii=False).encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(path, table)


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest. Raises UsageError if it is missing or is none."""
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file. Make a manifest with `vqa data import`.") from error
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise UsageError(f"{path} is no manifest ({error}). Make one with `vqa data import`.") from error
    if PAIR_KEY in (table.schema.metadata or {}):
        raise UsageError(
            f"{path} is a manifest of pairs, which has no opinions. Make them with `vqa data recover {path} --method "
            "bradley-terry`, then `vqa data import`."
        )
    facts = (table.schema.metadata or {}).get(KEY)
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if facts is None or missing:
        lacks = f"columns {', '.join(missing)}" if missing else "the scales of its opinions"
        raise UsageError(f"{path} is no manifest: it lacks {lacks}. Make one with `vqa data import`.")
    scales = {name: RatingScale(**scale) for name, scale in json.loads(facts)["scales"].items()}
    extra = [field for field in table.schema if field.name not in SCHEMA.names]
    table = table.select([*SCHEMA.names, *(field.name for field in extra)]).cast(pa.schema([*SCHEMA, *extra]))
    manifest = Manifest(table=table, scales=scales)
    check_manifest(manifest, where=str(path))
    return manifest


def merge_manifests(manifests: Sequence[tuple[str, Manifest]]) -> Manifest:
    """Concatenate manifests; a column that one of them lacks is null in its rows.

    Args:
        manifests: Pairs of name (for messages) and manifest.

    Raises:
        UsageError: If a clip_id occurs twice, or the same data set has different scales.
    """
    scales: dict[str, RatingScale] = {}
    for name, manifest in manifests:
        for dataset, scale in manifest.scales.items():
            known = scales.setdefault(dataset, scale)
            if (known.low, known.high, known.higher_is_better) != (scale.low, scale.high, scale.higher_is_better):
                raise UsageError(f"{name}: {dataset} has scale {scale}, but {known} before. Import both with the same.")
    tables = [manifest.table.replace_schema_metadata(None) for _, manifest in manifests]
    merged = Manifest(table=pa.concat_tables(tables, promote_options="default"), scales=scales)
    check_manifest(merged, where="merge")
    return merged
