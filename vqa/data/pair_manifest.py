"""Manifest of pairs: Parquet, a row per comparison of two clips of a data set.

    first      string  clip_id of one clip, as in the data set's manifest of `vqa data import`
    second     string  clip_id of the other
    dataset    string  one for the whole manifest
    split      string  of both clips, `across` where they are in different ones, or null where none is published
    result     int8    1: the first is better, -1: the second, 0: a tie
    count      double  how often it was judged so
    subject    string  who judged, or null where nobody is named
    first_uri  string  path or URL of the first clip's file
    second_uri string  of the second's

Metadata key `vqa.pairs`: JSON {schema}.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vqa.errors import UsageError
from vqa.files import write_parquet

PAIR_KEY = b"vqa.pairs"
ACROSS = "across"  # split of a pair whose clips are in different ones: of neither
PAIR_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("first", "second", "dataset", "split")),
        ("result", pa.int8()),
        ("count", pa.float64()),
        *((name, pa.string()) for name in ("subject", "first_uri", "second_uri")),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairManifest:
    """Rows of PAIR_SCHEMA, and the data set that all of them are of."""

    table: pa.Table
    dataset: str


def make_pair_manifest(rows: Iterable[Mapping[str, object]]) -> PairManifest:
    """Make and check a manifest of pairs from rows of PAIR_SCHEMA. Raises UsageError."""
    return _checked(pa.Table.from_pylist([dict(row) for row in rows], schema=PAIR_SCHEMA), where="manifest of pairs")


def write_pair_manifest(path: Path, manifest: PairManifest) -> None:
    """Write a .parquet manifest of pairs atomically. Raises UsageError."""
    if path.suffix != ".parquet":
        raise UsageError(f"--out {path}: a manifest of pairs is a Parquet file. Give a name that ends in .parquet.")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(path, manifest.table.replace_schema_metadata({PAIR_KEY: json.dumps({"schema": 1}).encode()}))


def is_pair_manifest(path: Path) -> bool:
    """Whether a file is Parquet that says it is a manifest of pairs."""
    try:
        return PAIR_KEY in (pq.read_schema(path).metadata or {})
    except (OSError, ValueError):  # not there, or not Parquet: pyarrow's ArrowInvalid is a ValueError
        return False


def read_pair_manifest(path: Path) -> PairManifest:
    """Read and check a manifest of pairs. Raises UsageError if it is damaged."""
    try:
        table = pq.read_table(path)
        missing = [name for name in PAIR_SCHEMA.names if name not in table.column_names]
        if missing:
            raise ValueError(f"it lacks columns {', '.join(missing)}")
        table = table.select(PAIR_SCHEMA.names).cast(PAIR_SCHEMA)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no manifest of pairs ({error}). Import the comparisons again.") from error
    return _checked(table, where=str(path))


def _checked(table: pa.Table, *, where: str) -> PairManifest:
    for name in ("first", "second", "dataset", "result", "count"):
        if table.column(name).null_count:
            raise UsageError(f"{where}: {table.column(name).null_count} rows have no {name}. Every row needs one.")
    datasets = sorted(set(table.column("dataset").to_pylist()))
    if len(datasets) != 1:
        raise UsageError(
            f"{where}: holds comparisons of {len(datasets)} data sets ({', '.join(datasets) or 'no row'}). Clips are "
            "compared within one data set; import each on its own."
        )
    columns = (table.column(name).to_pylist() for name in ("first", "second", "result", "count"))
    for number, (first, second, result, count) in enumerate(zip(*columns, strict=True), start=1):
        row = f"{where}, row {number}"
        other = next((name for name in (first, second) if not name.startswith(f"{datasets[0]}/")), None)
        if other is not None or first == second:
            raise UsageError(
                f"{row}: compares {first!r} with {second!r}, which are no two clip_ids of {datasets[0]}. Import the "
                "comparisons again."
            )
        if result not in (1, -1, 0) or not count > 0:
            raise UsageError(
                f"{row}: result = {result}, count = {count:g}: give 1, -1 or 0, and a count above 0. Import the "
                "comparisons again."
            )
    return PairManifest(table=table, dataset=datasets[0])
