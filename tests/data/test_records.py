"""Rows of tables that people hand over: the same from every format, or a sentence that names file and line."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vqa.data.records import read_records
from vqa.errors import UsageError

ROWS = [{"path": "a,b.mp4", "score": "3"}, {"path": "new\nline.mp4", "score": ""}]


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('\ufeffpath,score\n"a,b.mp4",3\n"new\nline.mp4"\n', encoding="utf-8")
    (tmp_path / "t.jsonl").write_text("\n\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "t.parquet")
    for suffix in ("csv", "jsonl", "parquet"):
        assert read_records(tmp_path / f"t.{suffix}") == (("path", "score"), ROWS)
    assert read_records(tmp_path / "t.parquet", only={"score", "other"})[0] == ("score",)


def test_names_that_are_not_utf8_are_refused_or_kept_as_asked(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"path\ncaf\xe9.mp4\n")
    with pytest.raises(UsageError, match=r"t.csv: not UTF-8 text .*; save it as UTF-8"):
        read_records(tmp_path / "t.csv")
    assert read_records(tmp_path / "t.csv", errors="surrogateescape")[1] == [{"path": "caf\udce9.mp4"}]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("t.jsonl", '{"a": 1}\n{\n', "t.jsonl, line 2: not JSON"),
        ("t.jsonl", "[1]\n", "line 1: holds list, wanted an object"),
        ("t.csv", 'path\n"a"b\n', "cannot be read as csv"),
        ("t.parquet", "no", "cannot be read as parquet"),
        ("t.parquet", None, "t.parquet: no such file"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, text: str | None, says: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=says):
        read_records(tmp_path / name)
