"""A manifest of pairs is read back as written, with its types, and rows that are no comparisons are refused."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vqa.data.manifest import read_manifest
from vqa.data.pair_manifest import (
    PAIR_KEY,
    PAIR_SCHEMA,
    is_pair_manifest,
    make_pair_manifest,
    read_pair_manifest,
    write_pair_manifest,
)
from vqa.data.subjective.pairs import by_file_name, read_pairs
from vqa.errors import UsageError


def pair(first: str, second: str, result: int | None = 1, **changes: object) -> dict[str, object]:
    row = {"first": f"set/{first}", "second": f"set/{second}", "dataset": "set", "result": result, "count": 1.0}
    return row | {"first_uri": f"/v/{first}", "second_uri": f"/v/{second}"} | changes


def test_a_written_manifest_comes_back_with_its_types(tmp_path: Path) -> None:
    path = tmp_path / "new" / "p.parquet"
    rows = [pair("a.png", "x/b.png", split="train", subject="ann"), pair("c.png", "a.png", 0, count=2, subject="bob")]
    made = make_pair_manifest(rows)
    write_pair_manifest(path, made)
    back = read_pair_manifest(path)
    assert is_pair_manifest(path) and back.dataset == "set"
    assert back.table.schema.equals(PAIR_SCHEMA) and back.table.equals(made.table)
    assert (PAIR_SCHEMA.field("result").type, PAIR_SCHEMA.field("count").type) == (pa.int8(), pa.float64())
    pairs = read_pairs(path)
    assert pairs.clips == ("set/a.png", "set/x/b.png", "set/c.png") and pairs.subjects == ("ann", "bob")
    assert (pairs.first.tolist(), pairs.second.tolist(), pairs.result.tolist()) == ([0, 2], [1, 0], [1, 0])
    assert (pairs.count.tolist(), pairs.subject.tolist()) == ([1, 2], [0, 1])
    assert by_file_name(pairs).clips == ("a.png", "x/b.png", "c.png")
    assert read_pairs(path, split="train").clips == ("set/a.png", "set/x/b.png")
    with pytest.raises(UsageError, match=r"--split test: no comparison in .* Its splits are \(none\), train\."):
        read_pairs(path, split="test")
    with pytest.raises(
        UsageError, match=r"is a manifest of pairs, which has no opinions\. Make them with `vqa data rec"
    ):
        read_manifest(path)
    with pytest.raises(UsageError, match=r"Give a name that ends in \.parquet"):
        write_pair_manifest(tmp_path / "p.csv", made)


def test_a_table_is_no_manifest_and_keeps_its_names(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("first,second,result\nset/a,b,1\n")
    assert not is_pair_manifest(path) and not is_pair_manifest(tmp_path / "none.parquet")
    assert by_file_name(read_pairs(path)).clips == ("set/a", "b")
    with pytest.raises(UsageError, match=r"pairs\.csv is no manifest of pairs\. Make one with `vqa data import`"):
        read_pairs(path, split="train")


WRONG = [
    ([pair("a", "b", 2)], "row 1: result = 2, count = 1: give 1, -1 or 0, and a count above 0"),
    ([pair("a", "b"), pair("a", "b", count=0.0)], "row 2: result = 1, count = 0"),
    ([pair("a", "b", count=float("nan"))], "count = nan"),
    ([pair("a", "a")], "compares 'set/a' with 'set/a', which are no two clip_ids of set"),
    ([pair("a", "b") | {"second": "other/b"}], "compares 'set/a' with 'other/b'"),
    ([pair("a", "b", None)], "1 rows have no result"),
    ([pair("a", "b"), pair("a", "b", dataset="other")], r"comparisons of 2 data sets \(other, set\).* on its own"),
    ([], r"comparisons of 0 data sets \(no row\)"),
]


@pytest.mark.parametrize(("rows", "message"), WRONG)
def test_rows_that_are_no_comparisons_are_refused(rows: list[dict[str, object]], message: str, tmp_path: Path) -> None:
    table = pa.Table.from_pylist(rows, schema=PAIR_SCHEMA).replace_schema_metadata({PAIR_KEY: b"{}"})
    pq.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(UsageError, match=message):
        read_pairs(tmp_path / "p.parquet")


def test_a_damaged_manifest_is_refused_in_one_line(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([pair("a", "b")], schema=PAIR_SCHEMA).replace_schema_metadata({PAIR_KEY: b"{}"})
    pq.write_table(table.drop_columns(["count"]), tmp_path / "p.parquet")
    with pytest.raises(
        UsageError, match=r"is no manifest of pairs \(it lacks columns count\)\. Import the comparisons"
    ):
        read_pairs(tmp_path / "p.parquet")
    texts = table.set_column(4, "result", pa.array(["left"]))
    pq.write_table(texts, tmp_path / "p.parquet")
    with pytest.raises(UsageError, match=r"is no manifest of pairs \(.*left"):
        read_pairs(tmp_path / "p.parquet")
