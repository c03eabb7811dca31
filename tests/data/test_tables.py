"""Readers of tables: the same rows from every format, one parser of numbers, errors with file and line."""

import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vqa.data.dialects import number_or_none, parse_number
from vqa.data.tables import read_columns, read_lines, read_rows
from vqa.errors import UsageError

ROWS = [{"path": "a,b.mp4", "score": "3"}, {"path": "new\nline.mp4", "score": ""}]


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('\ufeffpath,score\n"a,b.mp4",3\n"new\nline.mp4"\n', encoding="utf-8")
    (tmp_path / "t.jsonl").write_text("\n\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "t.parquet")
    for suffix in ("csv", "jsonl", "parquet"):
        assert read_rows(tmp_path / f"t.{suffix}") == (("path", "score"), ROWS)
    assert read_rows(tmp_path / "t.parquet", only={"score", "other"})[0] == ("score",)


def test_names_that_are_not_utf8_are_refused_or_kept_as_asked(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"path\ncaf\xe9.mp4\n")
    with pytest.raises(UsageError, match=r"t.csv: not UTF-8 text .*. Save it as UTF-8"):
        read_rows(tmp_path / "t.csv")
    assert read_rows(tmp_path / "t.csv", errors="surrogateescape")[1] == [{"path": "caf\udce9.mp4"}]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("t.jsonl", '{"a": 1}\n{\n', "t.jsonl, line 2: not JSON"),
        ("t.jsonl", "[" * 100_000 + "\n", "t.jsonl, line 1: not JSON"),
        ("t.jsonl", f'{{"a": {"9" * 5000}}}\n', "t.jsonl, line 1: not JSON"),
        ("t.jsonl", "[1]\n", "line 1: holds list\\. Give an object"),
        ("t.csv", 'path\n"a"b\n', "cannot be read as csv"),
        ("t.parquet", "no", "cannot be read as parquet"),
        ("t.parquet", None, "t.parquet: no such file"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, text: str | None, says: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=says):
        read_rows(tmp_path / name)


def test_label_files_and_rows_share_their_readers(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": "line\u2028separator"}\n\n{"b": 2}\n', encoding="utf-8")
    assert read_columns(tmp_path / "t.jsonl") == {"a": ["line\u2028separator", None], "b": [None, 2]}
    assert read_rows(tmp_path / "t.jsonl")[1] == [{"a": "line\u2028separator"}, {"b": 2}]
    (tmp_path / "gbk.csv").write_bytes("name,mos\n\u4e2d.mp4, 3.5\n".encode("gbk"))
    assert read_columns(tmp_path / "gbk.csv") == {"name": ["\u4e2d.mp4"], "mos": ["3.5"]}
    (tmp_path / "lines.txt").write_bytes(b"\xef\xbb\xbf a.mp4 \r\n\r\nb.mp4")
    assert read_lines(tmp_path / "lines.txt") == [" a.mp4 ", "b.mp4"]


@pytest.mark.parametrize(
    ("cell", "value"),
    [("3.5", 3.5), (" 2 ", 2.0), (4, 4.0), ("", None), ("  ", None), (None, None), ("nan", None), (float("inf"), None)],
)
def test_numbers_are_parsed_in_one_way(cell: object, value: float | None) -> None:
    assert parse_number(cell) == number_or_none(cell) == value


def test_what_is_no_number_is_refused_or_none() -> None:
    assert parse_number("3,5", decimal_comma=True) == 3.5
    assert parse_number("-1e15") == -1e15
    for cell in ("3,5", "good", [1], "1e308", -1.1e15):
        assert number_or_none(cell) is None
        with pytest.raises((TypeError, ValueError)):
            parse_number(cell)


@pytest.mark.slow
def test_a_spreadsheet_that_unpacks_to_gigabytes_is_refused_before_it_is(tmp_path: Path) -> None:
    path = tmp_path / "labels.xlsx"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
        packed.open("xl/worksheets/sheet1.xml", "w") as file,
    ):
        for _ in range(9):
            file.write(bytes(1 << 26))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(UsageError, match=r"unpacks to 603979776 bytes, more than 536870912; save it as .csv"):
        read_columns(path)
