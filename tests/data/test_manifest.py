"""A manifest is read back as written, scales map there and back, and rows that contradict themselves are refused."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqa.data.manifest import (
    SCHEMA,
    Manifest,
    RatingScale,
    make_manifest,
    merge_manifests,
    read_manifest,
    write_manifest,
)
from vqa.errors import UsageError

ISSUE = "clip_id uri dataset split content_id kind mos_raw mos mos_std aspects reference_uri"
FINITE = st.floats(-1e3, 1e3)


def row(name: str, raw: float = 50.0, **changes: object) -> dict[str, object]:
    values = {"clip_id": f"set/{name}", "uri": f"/v/{name}", "dataset": "set", "split": "train", "content_id": name}
    return {**values, "kind": "video", "mos_raw": raw, "mos": 1 + raw / 25, "mos_std": 0.5, **changes}


def manifest(*rows: dict[str, object], scale: RatingScale | None = None) -> Manifest:
    return make_manifest(rows, scales={"set": scale or RatingScale(low=0, high=100, source="test")})


def test_the_columns_are_those_promised() -> None:
    assert ISSUE.split() == SCHEMA.names


@given(low=FINITE, width=st.floats(1e-2, 1e3), share=st.floats(0, 1), other=st.floats(0, 1), higher=st.booleans())
def test_a_scale_is_monotone_in_its_direction_and_reversible(
    low: float, width: float, share: float, other: float, higher: bool
) -> None:
    scale = RatingScale(low=low, high=low + width, higher_is_better=higher)
    raw, second = low + share * width, low + other * width
    assert scale.to_raw(scale.to_mos(raw)) == pytest.approx(raw, abs=1e-9 * (abs(low) + width + 1))
    if raw < second:
        assert (scale.to_mos(raw) <= scale.to_mos(second)) == (higher or scale.to_mos(raw) == scale.to_mos(second))


def test_the_ends_of_a_scale_are_1_and_5_and_a_spread_keeps_its_share() -> None:
    up, down = RatingScale(low=0, high=9), RatingScale(low=0, high=1, higher_is_better=False)
    assert (up.to_mos(0), up.to_mos(9), up.to_mos(4.5)) == (1, 5, 3)
    assert (down.to_mos(0), down.to_mos(1), down.to_mos(0.25)) == (5, 1, 4)
    assert (up.to_mos_std(9), down.to_mos_std(0.5)) == (4, 2)


def test_a_written_manifest_comes_back_with_its_scales(tmp_path: Path) -> None:
    made = manifest(row("a", aspects=[("noise", -0.25)]), row("b", 75, mos_std=None, reference_uri="/v/ref.mp4"))
    write_manifest(tmp_path / "new" / "m.parquet", made)
    back = read_manifest(tmp_path / "new" / "m.parquet")
    assert back.table.to_pylist() == made.table.to_pylist()
    assert back.scales == {"set": RatingScale(low=0, high=100, source="test")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mos": 4.0}, r"row 2 \(set/b\): mos_raw = 50, mos = 4 do not fit scale 0-100, higher is better"),
        ({"mos_raw": 120.0, "mos": 5.8}, "mos_raw = 120"),
        ({"kind": "film"}, "kind = 'film' is neither video nor image"),
        ({"mos_std": -1.0}, r"mos_std = -1.0 is no standard deviation"),
        ({"content_id": None}, "1 rows have no content_id"),
        ({"clip_id": "set/a"}, r"1 clip_ids occur more than once \('set/a'\)"),
        ({"dataset": "other"}, "no scale recorded for other"),
    ],
)
def test_a_wrong_row_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        manifest(row("a"), row("b", **changes))  # type: ignore[arg-type]


def test_other_files_are_no_manifest(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    with pytest.raises(UsageError, match="no such file"):
        read_manifest(path)
    with pytest.raises(UsageError, match=r"x.csv: a manifest is a Parquet file. Give a name that ends in .parquet"):
        write_manifest(tmp_path / "x.csv", manifest(row("a")))
    path.write_text("path,mos\n")
    with pytest.raises(UsageError, match="is no manifest"):
        read_manifest(path)
    pq.write_table(pa.table({"clip_id": ["a"]}), path)
    with pytest.raises(UsageError, match="lacks columns uri, dataset"):
        read_manifest(path)
    pq.write_table(manifest(row("a")).table, path)
    with pytest.raises(UsageError, match="lacks the scales"):
        read_manifest(path)


@pytest.mark.parametrize("ends", [(5, 1), (1, 1), (0, float("inf")), (float("nan"), 1)])
def test_a_scale_needs_two_ends(ends: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="the lower first"):
        RatingScale(low=ends[0], high=ends[1])


def test_merging_keeps_every_row_and_refuses_two_scales_for_one_set() -> None:
    first, second = manifest(row("a")), manifest(row("b"))
    merged = merge_manifests([("first", first), ("second", second)])
    assert merged.table.column("clip_id").to_pylist() == ["set/a", "set/b"]
    with pytest.raises(UsageError, match="set has scale 0-50"):
        merge_manifests([("first", first), ("new", manifest(row("c", mos=5.0), scale=RatingScale(low=0, high=50)))])
    with pytest.raises(UsageError, match="more than once"):
        merge_manifests([("first", first), ("first", first)])
