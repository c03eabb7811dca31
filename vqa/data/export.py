"""The scores table as CSV or JSON lines, for tools that read no Parquet."""

import json
from typing import Literal, TextIO

import pyarrow as pa
import pyarrow.compute as pc

from vqa.data.cells import SafeWriter

ExportFormat = Literal["csv", "jsonl"]


def export(rows: pa.Table, file: TextIO, *, kind: ExportFormat) -> int:
    """Write rows sorted by clip_id, count them; in CSV lists are JSON, nulls empty."""
    table = rows.take(pc.sort_indices(rows, sort_keys=[("clip_id", "ascending")]))  # sort_by imports pandas
    writer = SafeWriter(file)
    if kind == "csv":
        writer.writerow(table.column_names)
    for batch in table.to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            if kind == "csv":
                writer.writerow(map(_cell, row.values()))
            else:
                file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
    return int(table.num_rows)


def _cell(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
