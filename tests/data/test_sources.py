"""Sources: every file of every kind of source becomes one clip, with a name that is readable, stable and its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vqa.data.sources import Selection, list_clips, path_to_uri
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
        ("l.csv", "path,clip_id\na.mp4,x\nb.mp4,x\n", r"l\.csv, row 2: clip_id = 'x' is that of row 1 too\. Give each"),
        ("l.jsonl", '{"path": "a", "clip_id": 1}\n{"path": "b", "clip_id": 1}\n', r"row 2: clip_id = '1' is .* row 1"),
        ("l.csv", "uri,path\na.mp4,b.mp4\n", r"l\.csv, row 1: uri = 'a\.mp4' and path = 'b\.mp4' are two files\. Keep"),
        ("l.jsonl", "{\n", "not JSON"),
        ("l.jsonl", "[1]\n", "list"),
        ("l.parquet", "text", "l.parquet"),
    ],
)
def test_a_wrong_manifest_is_refused_with_its_place(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=says):
        list_clips([str(tmp_path / name)])


def test_the_first_column_that_a_row_fills_names_its_file(tmp_path: Path) -> None:
    rows = ["a.mp4,,x", ",b.mp4,x", f"{tmp_path}/c.mp4,c.mp4,x", ",,d.mp4"]
    path = tmp_path / "l.csv"
    path.write_text("\n".join(["uri,path,video", *rows]), encoding="utf-8")
    assert [Path(clip.uri).name for clip in list_clips([str(path)]).clips] == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]


def test_a_clip_id_that_another_source_has_is_refused_with_its_place(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "l.csv").write_text("path,clip_id\nb.mp4,a.mp4\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"l\.csv, row 1: clip_id = 'a\.mp4' is that of another clip too"):
        list_clips([str(tmp_path / "a.mp4"), str(tmp_path / "l.csv")])


def test_a_path_becomes_absolute_without_following_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "real.mp4")
    (tmp_path / "link.mp4").symlink_to("real.mp4")
    monkeypatch.chdir(tmp_path)
    assert path_to_uri("link.mp4") == str(tmp_path / "link.mp4")


def test_what_is_hidden_is_left_out_and_counted(tmp_path: Path) -> None:
    for name in ("a.mp4", ".b.mp4", "..mp4", ".notes.txt", ".git/c.mp4", "x/._a.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = list_clips([str(tmp_path)])
    assert ([clip.clip_id for clip in found.clips], found.hidden) == (["a.mp4"], 4)
    named = list_clips([str(tmp_path / ".b.mp4"), str(tmp_path / ".git")])
    assert ([clip.clip_id for clip in named.clips], named.hidden) == ([".b.mp4", "c.mp4"], 0)


def test_what_systems_put_beside_media_is_left_out_and_counted(tmp_path: Path) -> None:
    for name in ("a.mp4", "@eaDir/a.mp4/THUMB.jpg", "#recycle/b.mp4", "$RECYCLE.BIN/c.mp4", "x/__MACOSX/d.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = list_clips([str(tmp_path)])
    assert ([clip.clip_id for clip in found.clips], found.litter) == (["a.mp4"], 4)
    taken = list_clips([str(tmp_path)], selection=Selection(include=("#recycle/*",)))
    assert [clip.clip_id for clip in taken.clips] == ["a.mp4", "#recycle/b.mp4"]


def test_patterns_take_and_leave_out(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.dat", "sample/c.mp4", "d.sample.mp4", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = list_clips([str(tmp_path)], selection=Selection(include=("*.dat",), exclude=("sample", "*.sample.*")))
    assert [clip.clip_id for clip in found.clips] == ["a.mp4", "b.dat"]
    assert (found.excluded, found.skipped_by_suffix) == (2, {".txt": 1})


@pytest.mark.parametrize("suffix", ["264", "265", "m2t", "mod", "tod", "insv", "lrv", "jpe", "apng", "mpo", "mk3d"])
def test_suffixes_of_the_field_are_listed(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a.{suffix}").touch()
    assert len(list_clips([str(tmp_path)]).clips) == 1


def test_a_file_has_one_id_under_every_locale(tmp_path: Path) -> None:
    (tmp_path / "\u00dcn\u00ef.mp4").touch()
    code = "import sys; from vqa.data.sources import list_clips as l; print(ascii(l([sys.argv[1]]).clips[0].clip_id))"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for environment in ({"PYTHONUTF8": "1"}, plain):
        command = [sys.executable, "-c", code, str(tmp_path)]
        ran = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
        assert ran.stdout.strip() == ascii("\u00dcn\u00ef.mp4")


def test_accents_in_a_list_name_the_file_as_the_folder_spells_it(tmp_path: Path) -> None:
    (tmp_path / "Cafe\u0301.mp4").write_bytes(b"here")
    (tmp_path / "list.csv").write_text("path\nCaf\u00e9.mp4\n", encoding="utf-8")
    (clip,) = list_clips([str(tmp_path / "list.csv")]).clips
    assert local_path(clip.uri).read_bytes() == b"here"
