"""Sources: every file of every kind of source becomes one clip, with a name that is readable, stable and its own."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vqa.data.sources import list_clips, path_to_uri
from vqa.errors import UsageError
from vqa.media.storage.open import local_path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def ids(*sources: object) -> list[str]:
    return [clip.clip_id for clip in list_clips([str(source) for source in sources]).clips]


def test_a_folder_is_read_to_the_bottom_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.mp4", "a.MKV", "deep/er/c.webm", "deep/d.png", "x.mp4/inside.mov")
    assert ids(tmp_path) == ["a.MKV", "b.mp4", "deep/d.png", "deep/er/c.webm", "x.mp4/inside.mov"]


def test_files_that_are_no_media_are_counted_and_hidden_ones_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "notes.txt", "more.txt", "README", ".hidden.mp4", ".git/b.mp4")
    listing = list_clips([str(tmp_path)])
    assert [clip.clip_id for clip in listing.clips] == ["a.mp4"]
    assert listing.skipped_by_suffix == {".txt": 2, "": 1}


def test_links_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.mp4", "elsewhere/b.mp4")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/dangling.mp4").symlink_to(tmp_path / "nowhere.mp4")
    assert ids(tmp_path / "in") == ["a.mp4", "dangling.mp4", "out/b.mp4"]


def test_two_folders_with_the_same_name_inside_keep_both(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.mp4", "two/a.mp4")
    assert ids(tmp_path / "one", tmp_path / "two") == ["a.mp4", str(tmp_path / "two/a.mp4")]


def test_a_file_named_twice_is_one_clip(tmp_path: Path) -> None:
    touch(tmp_path, "sub/a.mp4")
    listing = list_clips([str(tmp_path), str(tmp_path / "sub/a.mp4"), str(tmp_path / "sub")])
    assert [clip.clip_id for clip in listing.clips] == ["sub/a.mp4"]
    assert listing.repeated == 2


def test_a_single_file_needs_no_known_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "strange.bin")
    assert ids(tmp_path / "strange.bin") == ["strange.bin"]


def test_a_glob_names_clips_below_its_fixed_part(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.mp4", "b/1.mp4", "b/2.txt", "c.dat")
    assert ids(tmp_path / "*/1.mp4") == ["a/1.mp4", "b/1.mp4"]
    assert ids(tmp_path / "**") == ["a/1.mp4", "b/1.mp4"]
    assert ids(tmp_path / "*.dat") == ["c.dat"]
    assert ids(tmp_path / "[ab]") == ["a/1.mp4", "b/1.mp4"]


def test_a_name_that_looks_like_a_glob_is_taken_as_it_stands(tmp_path: Path) -> None:
    touch(tmp_path, "take[1].mp4")
    assert ids(tmp_path / "take[1].mp4") == ["take[1].mp4"]


@pytest.mark.parametrize("source", ["gone", "gone/*.mp4", "gs://bucket/clips"])
def test_a_source_that_is_not_there_is_a_usage_error(tmp_path: Path, source: str) -> None:
    with pytest.raises(UsageError, match=r"gone|gs"):
        list_clips([source if "://" in source else str(tmp_path / source)])


def test_odd_names_are_data(tmp_path: Path) -> None:
    names = ["with space.mp4", "new\nline.mp4", "quo\"te's.mp4", "🎬.mp4", "[bold]x.mp4", "-rf.mp4", "a,b.mp4"]
    touch(tmp_path, *names)
    assert ids(tmp_path) == sorted(names)


def test_names_that_are_not_utf8_come_back_as_the_same_file(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    Path(os.fsdecode(raw)).write_bytes(b"x")
    (clip,) = list_clips([str(tmp_path)]).clips
    assert clip.uri == clip.clip_id == f"file://{tmp_path}/caf%E9.mp4"
    assert local_path(clip.uri).read_bytes() == b"x"


def test_a_file_cannot_pose_as_a_window_of_another(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a.mp4#t=0,10")
    assert ids(tmp_path / "a.mp4#t=0,10") == [f"file://{tmp_path}/a.mp4%23t%3D0%2C10"]


LINES = [
    {"path": "a.mp4"},
    {"path": "sub/b.mp4", "clip_id": "mine", "opinion": "3.5"},
    {"path": "a.mp4", "start_seconds": "1.5", "end_seconds": "4"},
    {"path": "a.mp4", "start_seconds": "4"},
]
WANTED = [("a.mp4", None, None), ("mine", None, None), ("a.mp4#t=1.5,4", 1.5, 4.0), ("a.mp4#t=4,", 4.0, None)]


def write_manifest(path: Path) -> Path:
    if path.suffix == ".csv":
        names = ["path", "clip_id", "start_seconds", "end_seconds", "opinion"]
        rows = [",".join(line.get(name, "") for name in names) for line in LINES]
        path.write_text("\n".join([",".join(names), *rows]), encoding="utf-8-sig")
    elif path.suffix == ".jsonl":
        path.write_text("\n\n".join(map(json.dumps, LINES)), encoding="utf-8")
    else:
        numbers = [{k: float(v) if "seconds" in k else v for k, v in line.items()} for line in LINES]
        names = dict.fromkeys(name for line in numbers for name in line)
        pq.write_table(pa.Table.from_pylist([{name: line.get(name) for name in names} for line in numbers]), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_manifests_of_every_kind_say_the_same(tmp_path: Path, suffix: str) -> None:
    clips = list_clips([str(write_manifest(tmp_path / f"list{suffix}"))]).clips
    assert [(clip.clip_id, clip.start_seconds, clip.end_seconds) for clip in clips] == WANTED
    assert [clip.uri for clip in clips] == [str(tmp_path / name) for name in ("a.mp4", "sub/b.mp4", "a.mp4", "a.mp4")]


def test_a_text_manifest_has_a_path_a_line_missing_ones_too(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"a b.mp4\r\n\n/abs/c.mp4\ncaf\xe9.mp4\ns3://bucket/d.mp4\n")
    clips = list_clips([str(path)]).clips
    assert [clip.uri for clip in clips] == [
        str(tmp_path / "a b.mp4"),
        "/abs/c.mp4",
        f"file://{tmp_path}/caf%E9.mp4",
        "s3://bucket/d.mp4",
    ]


@pytest.mark.parametrize("column", ["uri", "video", "file"])
def test_the_path_may_stand_under_several_names(tmp_path: Path, column: str) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text(json.dumps({"other": 1, column: "a.mp4"}), encoding="utf-8")
    assert ids(path) == ["a.mp4"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("l.csv", "name\na.mp4\n", ": no path"),
        ("l.csv", 'path\n""\n', "is no path of a file"),
        ("l.csv", "path,start_seconds\na.mp4,soon\n", "start_seconds = 'soon'"),
        ("l.csv", "path,start_seconds,end_seconds\na.mp4,5,4\n", "empty or negative"),
        ("l.csv", "path,clip_id\na.mp4,x\nb.mp4,x\n", "occurs twice"),
        ("l.jsonl", "{\n", "not JSON"),
        ("l.jsonl", "[1]\n", "list"),
        ("l.parquet", "text", "l.parquet"),
    ],
)
def test_a_wrong_manifest_is_refused_with_its_place(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=says):
        list_clips([str(tmp_path / name)])


def test_a_path_becomes_absolute_without_following_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "real.mp4")
    (tmp_path / "link.mp4").symlink_to("real.mp4")
    monkeypatch.chdir(tmp_path)
    assert path_to_uri("link.mp4") == str(tmp_path / "link.mp4")
