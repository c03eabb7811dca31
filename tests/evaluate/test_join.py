"""Joining: every clip and every row is accounted for; nothing is guessed and nothing is dropped in silence."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support import opinions
from vqa.errors import UsageError
from vqa.evaluate.inputs import read_table
from vqa.evaluate.join import Joined, join


def joined(folder: Path, labels: opinions.Rows, scores: opinions.Rows, **options: Any) -> Joined:
    label_file = opinions.write_csv(folder / "labels.csv", labels)
    score_file = opinions.write_csv(folder / "scores.csv", scores)
    return join(read_table(score_file), read_table(label_file), **options)


def unused(found: Joined) -> list[tuple[str, int, str, str]]:
    return [(row.side, row.row, row.clip, row.reason) for row in found.unused]


def test_every_clip_is_paired_with_its_own_score(tmp_path: Path) -> None:
    labels, scores = opinions.clips(20)
    found = joined(tmp_path, labels, scores[::-1])
    assert found.key == "uri"
    assert [(one.clip_id, one.mos, one.score) for one in found.pairings] == [
        (label["clip_id"], label["mos"], score["score"]) for label, score in zip(labels, scores, strict=True)
    ]
    assert not found.unused


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("set/clip{}", "clip_id"),
        ("set/clip{}.mp4", "uri"),
        ("/data/set/clip{}.mp4", "folder_and_name"),
        ("D:\\data\\set\\clip{}.MP4", "folder_and_name"),
        ("s3://bucket/set/clip{}.webm", "folder_and_name"),
        ("elsewhere/clip{}", "name"),
    ],
)
def test_the_key_is_the_strictest_that_matches(tmp_path: Path, path: str, key: str) -> None:
    labels, scores = opinions.clips(5)
    found = joined(tmp_path, labels, [row | {"path": path.format(at)} for at, row in enumerate(scores)])
    assert found.key == key
    assert found.counts()["used"] == 5


def test_what_has_no_partner_is_counted_and_listed(tmp_path: Path) -> None:
    labels, scores = opinions.clips(6)
    labels[4]["mos"] = ""
    scores[1]["score"] = "nan"
    del scores[0]
    found = joined(tmp_path, labels, [*scores, {"path": "set/nobody.mp4", "score": 3}])
    assert [one.status for one in found.pairings] == ["missing", "unscored", "ok", "ok", "ok"]
    assert found.counts() == {
        "expected": 5,
        "used": 3,
        "by_status": {"ok": 3, "missing": 1, "unscored": 1},
        "unmatched_scores": 1,
        "duplicate_scores": 0,
        "labels_without_opinion": 1,
    }
    assert unused(found) == [
        ("labels", 5, "set/clip4", "no opinion"),
        ("labels", 1, "set/clip0", "missing"),
        ("labels", 2, "set/clip1", "unscored"),
        ("scores", 6, "set/nobody.mp4", "unmatched"),
    ]


def test_rows_that_agree_count_once_and_rows_that_contradict_not_at_all(tmp_path: Path) -> None:
    labels, scores = opinions.clips(4)
    found = joined(tmp_path, labels, [*scores, scores[0], scores[1] | {"score": 1.5}])
    assert [one.status for one in found.pairings] == ["ok", "duplicate", "ok", "ok"]
    assert found.pairings[1].score is None
    assert unused(found) == [
        ("scores", 5, "set/clip0.mp4", "duplicate"),
        ("labels", 2, "set/clip1", "duplicate"),
        ("scores", 2, "set/clip1.mp4", "duplicate"),
        ("scores", 6, "set/clip1.mp4", "duplicate"),
    ]


def test_failed_rows_of_our_own_folder_keep_their_kind(tmp_path: Path) -> None:
    labels, scores = opinions.clips(3)
    rows = [{"uri": f"/videos/{row['path']}", "score": row["score"]} for row in scores]
    rows[1] |= {"score": None, "status": "failed", "error_kind": "corrupt", "error": "broken"}
    rows[2] |= {"score": None, "status": "unparsed"}
    out = opinions.write_scores(tmp_path / "out", rows)
    found = join(read_table(out), read_table(opinions.write_csv(tmp_path / "labels.csv", labels)))
    assert [one.status for one in found.pairings] == ["ok", "failed", "unparsed"]
    assert found.pairings[1].row["error_kind"] == "corrupt"


def test_a_base_name_that_stands_for_two_clips_is_refused(tmp_path: Path) -> None:
    labels, scores = opinions.clips(3)
    elsewhere = [row | {"path": f"/x{row['path']}".replace("set", "a")} for row in scores]
    with pytest.raises(UsageError, match="'clip0' matches several clips"):
        joined(tmp_path, labels, [*elsewhere, {"path": "/b/clip0.mp4", "score": 1}])
    twice = [*labels, labels[0] | {"clip_id": "other", "uri": "other/clip0.mp4"}]
    with pytest.raises(UsageError, match="matches several clips"):
        joined(tmp_path, twice, elsewhere)


def test_where_some_names_agree_in_full_the_others_are_missing(tmp_path: Path) -> None:
    labels, scores = opinions.clips(4)
    found = joined(tmp_path, labels, [*scores[:2], *(row | {"path": f"b{row['path']}"} for row in scores[2:])])
    assert found.key == "uri"
    assert [one.status for one in found.pairings] == ["ok", "ok", "missing", "missing"]
    assert found.counts()["unmatched_scores"] == 2


def test_one_file_in_two_sets_gets_its_score_in_both(tmp_path: Path) -> None:
    labels, scores = opinions.clips(3)
    both = [*labels, *(row | {"clip_id": f"again{at}", "dataset": "b"} for at, row in enumerate(labels))]
    assert joined(tmp_path, both, scores).counts()["used"] == 6


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda labels, scores: labels.append(labels[0]), "more than once"),
        (lambda labels, scores: [row.update(mos="") for row in labels], "no row has an opinion"),
        (lambda labels, scores: [row.update(path=f"x{at}") for at, row in enumerate(scores)], "no clip of"),
        (lambda labels, scores: scores[1].update(score="good"), "'good' is no number"),
        (lambda labels, scores: labels[1].update(mos=1e308), r"mos = '?1e\+?308'? is no number of at most 1e\+15"),
        (lambda labels, scores: scores[1].update(path=""), "path is empty"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, change: Any, says: str) -> None:
    labels, scores = opinions.clips(4)
    change(labels, scores)
    with pytest.raises(UsageError, match=says):
        joined(tmp_path, labels, scores)


def test_wrong_columns_are_named_with_those_there_are(tmp_path: Path) -> None:
    labels, scores = opinions.clips(4)
    for options in ({"column": "scor"}, {"mos_column": "moss"}):
        with pytest.raises(UsageError, match=r"no column '(scor|moss)'; it has .*(score|mos)"):
            joined(tmp_path, labels, scores, **options)
    with pytest.raises(UsageError, match="no column 'mos'"):
        joined(tmp_path, [{"path": "a", "quality": 1}], scores)
    with pytest.raises(UsageError, match="which column is the score"):
        joined(tmp_path, labels, [{"path": row["path"], "a": 1, "b": 2} for row in scores])
    with pytest.raises(UsageError, match="no column names the clips"):
        joined(tmp_path, labels, [{"a": 1, "b": 2}])


def test_all_kinds_of_file_hold_the_same(tmp_path: Path) -> None:
    labels, scores = opinions.clips(4)
    label_file = opinions.write_csv(tmp_path / "labels.csv", labels)
    pq.write_table(pa.Table.from_pylist(scores), tmp_path / "s.parquet")
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, scores)), encoding="utf-8")
    (tmp_path / "s.txt").write_text("\n".join(f"{row['path']}, {row['score']}" for row in scores), encoding="utf-8")
    (tmp_path / "blank.txt").write_text("\n".join(f"{row['path']} {row['score']}" for row in scores), encoding="utf-8")
    opinions.write_csv(tmp_path / "s.csv", scores)
    for name in ("s.parquet", "s.jsonl", "s.txt", "blank.txt", "s.csv"):
        found = join(read_table(tmp_path / name), read_table(label_file))
        assert [one.score for one in found.pairings] == [row["score"] for row in scores], name


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("s.json", b"[]", "is no table. Give a folder of scores"),
        ("s.csv", b"path,score\n", "holds no rows"),
        ("s.csv", b"path,score\n\xff\xfe,1\n", "not UTF-8"),
        ("s.parquet", b"path,score\n", "cannot be read as parquet"),
        ("s.jsonl", b"{]\n", "line 1: not JSON"),
        ("s.jsonl", b"[1]\n", "line 1: holds list"),
        ("s.txt", b"a 1\nb 2 3\n", "line 2: 3 fields"),
    ],
)
def test_files_that_cannot_be_read_say_why(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=says):
        read_table(tmp_path / name)
    with pytest.raises(UsageError):
        read_table(tmp_path / "gone.csv")
    with pytest.raises(UsageError, match="holds no scores"):
        read_table(tmp_path)


def test_windows_of_long_videos_point_to_the_table_of_videos(tmp_path: Path) -> None:
    labels, _ = opinions.clips(2)
    rows = [{"uri": f"/v/film{at}.mp4", "clip_id": f"film{at}.mp4#t={at},9", "score": 2.0} for at in range(2)]
    out = opinions.write_scores(tmp_path / "out", rows)
    with pytest.raises(UsageError, match=r"videos.parquet --column score_mean"):
        join(read_table(out), read_table(opinions.write_csv(tmp_path / "labels.csv", labels)))
