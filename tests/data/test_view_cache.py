"""The prepared cache: pixels come back to the bit, one row at a time, and a row is never without its pictures."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support.samples import random_views
from vqa.data.score_table import SCHEMA, read_scores
from vqa.data.view_cache import PreparedClip, PreparedRow, pack, prepared_with, read_prepared, unpack
from vqa.data.view_cache_writer import PreparedTable
from vqa.errors import UsageError
from vqa.types import Clip, CropBox, Views


def views(uri: str, *, seed: int, height: int = 40) -> Views:
    rng = np.random.default_rng(seed)
    pictures = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for width in (64, 33, 1)]
    plain = random_views(uri, pictures)
    facts = {"height": 40, "rotation_degrees": 90, "fps": 23.976, "duration_seconds": 1.1, "frame_count": 27}
    return replace(
        plain,
        info=replace(plain.info, **facts),
        keyframe_seconds=(0.0, 0.1 + 0.2),
        crop_boxes=(CropBox(second=0.3, x=1, y=2, width=33, height=40),),
        frames_planned=3,
        frames_decoded=2,
        decode_seconds=0.125,
    )


def row(uri: str, *, key: str, seen: Views | None) -> PreparedRow:
    packed = pack(seen) if seen else None
    return PreparedRow(clip_id=uri, uri=uri, status="ok" if seen else "failed", run_key=key, views=packed)


def clip(name: str, uri: str, **more: Any) -> dict[str, Any]:
    facts = {"dataset": "set", "split": "train", "content_id": name, "opinion": 3.5}
    return {"clip_id": name, "uri": uri} | facts | more


def same(one: Views, other: Views) -> bool:
    pairs = zip(one.pictures, other.pictures, strict=True)
    bare = [replace(views, global_pictures=(), local_pictures=()) for views in (one, other)]
    facts = [{name: getattr(views, name) for name in Views.__dataclass_fields__} for views in bare]
    return facts[0] == facts[1] and all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs)


def prepared(out: Path) -> list[PreparedClip]:
    store = PreparedTable(out)
    store.add([row("a", key="A", seen=views("a", seed=1)), row("b", key="A", seen=views("b", seed=1))])
    store.flush()
    store.add([row("c", key="C", seen=views("c", seed=2)), row("bad", key="X", seen=None)])
    store.flush()
    manifest = [clip("1", "c", distortions=["noise", "x264"], severities=[0.1, 0.9]), clip("2", "a"), clip("3", "b")]
    store.write_clips(out, [*manifest, clip("4", "bad"), clip("5", "a", reason="sharp", opinion=None)])
    return read_prepared(out)


@pytest.mark.parametrize("height", [40, 20_000])  # WebP ends at 16383 pixels a side
def test_views_come_back_to_the_bit(height: int) -> None:
    one = views("a", seed=3, height=height)
    assert same(unpack(pack(one), one.clip), one)


def test_every_clip_finds_its_own_pictures_and_twins_share_them(tmp_path: Path) -> None:
    clips = prepared(tmp_path)
    assert [one.clip_id for one in clips] == ["1", "2", "3", "5"], "the manifest's order, without what failed"
    for one, seed in zip(clips, (2, 1, 1, 1), strict=True):
        wanted = views(one.uri, seed=seed)
        assert same(
            pickle.loads(pickle.dumps(one)).load(), replace(wanted, clip=Clip(clip_id=one.clip_id, uri=one.uri))
        )
    assert (clips[0].distortions, clips[0].severities) == (("noise", "x264"), (0.1, 0.9))
    assert (clips[3].reason, clips[3].opinion) == ("sharp", None)
    stored = [pq.ParquetFile(path).metadata for path in sorted((tmp_path / "pictures").iterdir())]
    assert [part.num_rows for part in stored] == [1, 1], "the same content once"
    assert (tmp_path / "failed.csv").read_text().splitlines()[1:] == ["4,bad,set,,"]


def test_loading_reads_one_row_of_a_part(tmp_path: Path) -> None:
    store = PreparedTable(tmp_path)
    store.add([row(f"{n}", key=f"{n}", seen=views(f"{n}", seed=n)) for n in range(9)])
    store.flush()
    store.write_clips(tmp_path, [clip(f"{n}", f"{n}") for n in range(9)])
    path = tmp_path / "pictures" / "part-000001.parquet"
    clips = read_prepared(tmp_path)
    data = bytearray(path.read_bytes())
    group = pq.ParquetFile(path).metadata.row_group(4)
    data[group.column(2).data_page_offset + 400] ^= 1  # one bit in a picture of clip 4
    path.write_bytes(data)
    for n in (0, 3, 5, 8):
        assert same(clips[n].load(), views(f"{n}", seed=n))
    with pytest.raises(UsageError, match=r"clip 4: its pictures in .*part-000001.parquet, row 4.* again"):
        clips[4].load()


def test_a_row_without_its_pictures_is_made_again(tmp_path: Path) -> None:
    prepared(tmp_path)
    (tmp_path / "pictures" / "part-000001.parquet").unlink()
    PreparedTable(tmp_path)
    assert sorted(read_scores(tmp_path, folder="files").column("clip_id").to_pylist()) == ["bad", "c"]


def test_pictures_whose_rows_were_lost_are_not_stored_twice(tmp_path: Path) -> None:
    prepared(tmp_path)
    for path in (tmp_path / "files").iterdir():
        path.unlink()  # as if killed between the two writes
    assert [one.clip_id for one in prepared(tmp_path)] == ["1", "2", "3", "5"]
    assert len(list((tmp_path / "pictures").iterdir())) == 2
    assert read_scores(tmp_path, folder="files").schema == SCHEMA


def test_much_is_written_before_its_time(tmp_path: Path) -> None:
    store = PreparedTable(tmp_path, bytes_per_part=1)
    store.add([row("a", key="A", seen=views("a", seed=1))])
    assert store.views_stored == 1
    assert read_scores(tmp_path, folder="files").num_rows == 1


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"clips.parquet does not exist; give a folder that `vqa prepare`"):
        read_prepared(tmp_path)
    (tmp_path / "clips.parquet").write_text("no table")
    with pytest.raises(UsageError, match=r"cannot be read"):
        read_prepared(tmp_path)
    assert prepared_with(tmp_path) == {}
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(UsageError, match="not written by `vqa prepare`"):
        prepared_with(tmp_path)
    PreparedTable(tmp_path)
    (tmp_path / "pictures" / "part-000003.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"part-000003.parquet: cannot be read .* remove it"):
        PreparedTable(tmp_path)
