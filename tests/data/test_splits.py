"""Splits: clips of one content stay together, shares are kept, and a seed decides."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqa.data.manifest import Manifest, RatingScale, make_manifest, merge_manifests
from vqa.data.splits import parse_parts, split_manifest
from vqa.errors import UsageError


def manifest(*sizes: int, dataset: str = "set") -> Manifest:
    """As many contents as sizes, each with that many clips."""
    rows = [
        {"clip_id": f"{dataset}/{content}-{at}", "uri": f"/{content}-{at}", "content_id": f"{dataset}/{content}"}
        | {"dataset": dataset, "kind": "video", "mos_raw": 3.0, "mos": 3.0}
        for content, size in enumerate(sizes)
        for at in range(size)
    ]
    return make_manifest(rows, scales={dataset: RatingScale(low=1, high=5)})


def parts_of(made: Manifest, column: str = "split") -> list[str]:
    found: list[str] = made.table.column(column).to_pylist()
    return found


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=40), seed=st.integers(0, 99))
def test_contents_are_never_parted_and_no_part_is_empty(sizes: list[int], seed: int) -> None:
    made = split_manifest(manifest(*sizes), parts={"train": 0.8, "test": 0.2}, seed=seed)
    pairs = set(zip(made.table.column("content_id").to_pylist(), parts_of(made), strict=True))
    assert len(pairs) == len(sizes)
    assert set(parts_of(made)) == {"train", "test"}
    test_share = parts_of(made).count("test") / sum(sizes)
    assert abs(test_share - 0.2) <= (max(sizes) + 1) / sum(sizes) or len(sizes) < 5


def test_ten_splits_are_columns_and_differ() -> None:
    made = split_manifest(manifest(*[1] * 100), parts={"train": 0.8, "test": 0.2}, count=10)
    columns = [parts_of(made, f"split_{number:02d}") for number in range(10)]
    assert all(column.count("test") == 20 for column in columns)
    assert len({tuple(column) for column in columns}) == 10
    assert made.table.column("split").null_count == 100


def test_a_seed_decides_whatever_else_is_in_the_manifest() -> None:
    one, other = manifest(*[1] * 50), manifest(*[2] * 30, dataset="other")
    parts = {"train": 0.6, "val": 0.2, "test": 0.2}
    alone = parts_of(split_manifest(one, parts=parts, seed=3))
    assert parts_of(split_manifest(one, parts=parts, seed=3)) == alone
    assert parts_of(split_manifest(one, parts=parts, seed=4)) != alone
    both = split_manifest(merge_manifests([("a", other), ("b", one)]), parts=parts, seed=3)
    assert parts_of(both)[60:] == alone
    assert [parts_of(both)[:60].count(part) for part in parts] == [36, 12, 12]


def test_splits_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="set has 1 contents for 2 parts"):
        split_manifest(manifest(9), parts={"train": 0.8, "test": 0.2})
    for text in ("train=0.8", "train=0.8,test=0.3", "train=1,test=0", "train"):
        with pytest.raises(UsageError, match="train=0"):
            split_manifest(manifest(1, 1, 1), parts=parse_parts(text))
