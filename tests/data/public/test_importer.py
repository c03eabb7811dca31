"""Importing labels: files are looked for, wrong labels say what was expected and found, ladders come in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest import approx

from tests.support.labels import EXCERPTS, cells, imported, rows, written
from vqa.data.manifest import RatingScale, read_manifest, write_manifest
from vqa.data.public.importer import LADDER, import_ladder
from vqa.data.public.layouts import ImportRequest
from vqa.data.public.specs import DIALECTS, set_names
from vqa.errors import UsageError


def test_files_are_searched_and_every_missing_one_counts(tmp_path: Path) -> None:
    labels = EXCERPTS / "fast_vqa_konvid.txt"
    with pytest.raises(UsageError, match=r"none of the 3 labelled files is in .*KoNViD_1k_videos"):
        imported("konvid-1k", labels, str(tmp_path), check=True)
    (tmp_path / "4542323058.mp4").touch()
    some = imported("konvid-1k", labels, str(tmp_path), check=True, skip_missing=True)
    assert some.manifest.table.column("clip_id").to_pylist() == ["konvid-1k/4542323058.mp4"]
    assert "2 of 3 labelled files are missing and left out: 9753414792.mp4, 6935410837.mp4" in some.notes
    with pytest.raises(UsageError, match=r"2 of 3 labelled files are not in .*: 9753414792.mp4, 6935410837.mp4. "):
        imported("konvid-1k", labels, str(tmp_path), check=True)
    for name in ("9753414792.mp4", "6935410837.mp4"):
        (tmp_path / name).touch()
    found = imported("konvid-1k", labels, str(tmp_path), check=True).manifest.table
    assert found.column("uri").to_pylist()[0] == str(tmp_path / "4542323058.mp4")
    with pytest.raises(UsageError, match="files of a store are not checked"):
        imported("konvid-1k", labels, "s3://bucket/konvid", check=True)
    remote = imported("konvid-1k", labels, "s3://bucket/konvid").manifest.table.column("uri").to_pylist()
    assert remote[0] == "s3://bucket/konvid/KoNViD_1k_videos/4542323058.mp4"


def test_a_file_may_have_another_suffix_than_its_label(tmp_path: Path) -> None:
    labels = EXCERPTS / "fast_vqa_konvid.txt"
    for name in ("4542323058.mp4", "9753414792.webm", "9753414792.txt", "6935410837.mkv"):
        (tmp_path / name).touch()
    done = imported("konvid-1k", labels, str(tmp_path), check=True)
    assert done.manifest.table.column("clip_id").to_pylist()[1] == "konvid-1k/9753414792.webm"
    assert any("2 files are spelled otherwise than in their label: 9753414792.mp4 as" in note for note in done.notes)
    (tmp_path / "6935410837.avi").touch()
    with pytest.raises(UsageError, match=r"1 of 3 labelled files are not in .*: 6935410837.mp4. "):
        imported("konvid-1k", labels, str(tmp_path), check=True)


def test_an_unknown_set_lists_those_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        imported("konvid", EXCERPTS / "fast_vqa_konvid.txt")
    assert all(name in str(caught.value) for name in (*set_names(), *DIALECTS, "ladder"))


NAMED_TWICE = {
    "video_folder": cells(*["Test06"] * 2),
    "video_content": cells(*["Talking head"] * 2),
    "video_name": cells(*["Test06_Talking_head_D14"] * 2),
    "video_score": np.array([[71], [71]], np.uint8),
}
GOOD = {"file_name": ["1.mp4"], "MOS": [3]}
WRONG: list[tuple[str, Any, str | None, str]] = [
    ("x.csv", {"file": ["a"], "quality": [3]}, None, r"expected columns file_name, MOS \|.*; found file, quality"),
    ("x.txt", "a.mp4, 1, 2, 3, 4\n", None, r"expected 4 fields separated by comma .*; found 5 fields"),
    ("x.mat", "no mat", None, "cannot be read as mat"),
    ("nowhere.csv", None, None, "no such file"),
    ("x.txt", "\n", None, "expected 4 fields .*; found nothing"),
    ("x.xlsx", None, None, r"ships labels as .*, not xlsx"),
    ("x.csv", {"file_name": [1, 2], "MOS": [3, 6.5]}, None, r"row 2 \(2\): opinion 6.5 is outside the scale 1-5"),
    ("x.csv", {"file_name": [1, 2], "MOS": [3, "good"]}, None, r"row 2 \(2\): MOS = 'good' is no number"),
    ("x.csv", {"file_name": [1, 2, 1], "MOS": [3, 4, 3]}, None, r"'1.mp4' in rows 1, 3. Each clip needs one opinion"),
    *(("x.csv", GOOD, scale, "scale") for scale in ("5", "a,b", "5,1", "1,5,up")),
    ("twice.mat", NAMED_TWICE, "0,100", "1 names occur more than once"),
]


@pytest.mark.parametrize(("file", "content", "scale", "message"), WRONG)
def test_wrong_labels_say_what_was_expected_and_found(
    file: str, content: Any, scale: str | None, message: str, tmp_path: Path
) -> None:
    if file != "nowhere.csv" and content is not None:
        written(tmp_path / file, content)
    with pytest.raises(UsageError, match=message):
        rows("cvd2014" if file == "twice.mat" else "konvid-1k", tmp_path / file, scale=scale)


def test_opinions_in_a_corner_of_the_scale_are_taken_for_those_of_another_set(tmp_path: Path) -> None:
    labels = written(tmp_path / "x.txt", "".join(f"{at}.mp4, -1, -1, {1 + at / 10}\n" for at in range(40)))
    with pytest.raises(UsageError, match=r"40 opinions from 1 to 4.9, but those of live-vqc lie on 0-100.*another set"):
        rows("live-vqc", labels)
    assert rows("live-vqc", labels, scale="0,100")[0]["mos"] == approx(1.04)
    assert rows("konvid-1k", labels)[0]["mos"] == 1


def test_rows_without_an_opinion_are_left_out_and_reported(tmp_path: Path) -> None:
    labels = written(tmp_path / "x.csv", {"file_name": ["1.mp4", "2.mp4"], "MOS": ["3", ""]})
    assert "1 rows without an opinion left out (rows 2 of the labels)" in imported("konvid-1k", labels).notes


def test_the_direction_is_checked_where_names_contain_the_level_of_distortion(tmp_path: Path) -> None:
    names = [f"I{content:02d}_01_{level:02d}.png" for content in range(1, 31) for level in range(1, 6)]
    for good, message in ((True, None), (False, "opinions rise with the level of distortion")):
        opinions = [5.5 - int(name[7:9]) if good else int(name[7:9]) - 0.5 for name in names]
        opinions = [min(5.0, max(1.0, value)) for value in opinions]
        lines = [f"I01.png {name} {value} 0.5" for name, value in zip(names, opinions, strict=True)]
        (tmp_path / "k.txt").write_text("\n".join(lines))
        if message is None:
            assert len(rows("kadid-10k", tmp_path / "k.txt")) == 150
            continue
        with pytest.raises(UsageError, match=message):
            rows("kadid-10k", tmp_path / "k.txt")
        assert len(rows("kadid-10k", tmp_path / "k.txt", scale="1,5,lower")) == 150


def test_a_ladder_becomes_a_manifest_whose_name_says_stand_in(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "clip_id": ["a-1"],
        "uri": ["clips/a-1.mp4"],
        "content_id": ["a"],
        "split": ["train"],
        "opinion": [3.665],
        "distortions": [["noise", "x264"]],
        "severities": [[0.5, 0.25]],
    }
    pq.write_table(pa.table(columns), tmp_path / "ladder.parquet")
    request = ImportRequest(name="ladder", labels=tmp_path / "ladder.parquet", root=str(tmp_path))
    with pytest.raises(UsageError, match="1 of 1 clips are not in"):
        import_ladder(request)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a-1.mp4").touch()
    done = import_ladder(request)
    write_manifest(tmp_path / "m.parquet", done.manifest)
    back = read_manifest(tmp_path / "m.parquet")
    row = back.table.to_pylist()[0]
    assert "stand-in" in LADDER
    assert (row["distortions"], row["severities"]) == (["noise", "x264"], [0.5, 0.25])
    assert (row["dataset"], row["mos"], row["uri"]) == (LADDER, 3.665, str(tmp_path / "clips/a-1.mp4"))
    assert "not rated by people" in back.scales[LADDER].source
    assert back.scales[LADDER] == RatingScale(low=1, high=5, source=back.scales[LADDER].source)
