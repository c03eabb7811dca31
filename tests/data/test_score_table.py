"""The scores table: at most one row a clip on disk at every moment, and nothing is lost, whatever is killed when."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support.scale import full
from vqa.data import score_table
from vqa.data.export import export
from vqa.data.score_table import SCHEMA, ScoreRow, ScoreTable, read_scores, to_table, write_videos
from vqa.errors import UsageError
from vqa.files import replacing
from vqa.types import CropBox

CONTRACT = """
clip_id uri start_seconds end_seconds status error_kind error score score_std score_global score_local
score_raw raw_low raw_high score_expected mos mos_low mos_high light_score light_std
reason_score answers_parsed answers_total prompt_tokens answer_tokens
reason description keyframe_seconds crop_boxes frames_decoded frames_planned width height fps
duration_seconds codec decode_backend tier model_id model_revision asked question_digest readout run_key
decode_seconds score_seconds source_bytes source_mtime_ns fingerprint
"""


def rows(*names: str, key: str = "k1", score: float | None = 3.0, end: float | None = None) -> list[ScoreRow]:
    return [
        ScoreRow(clip_id=name, uri=f"/{name}", status="ok", run_key=f"{key}-{name}", score=score, end_seconds=end)
        for name in names
    ]


def keys(out: Path) -> list[str]:
    return sorted(read_scores(out, ["run_key"]).column("run_key").to_pylist())


def superseded(out: Path) -> list[str]:
    return sorted(
        key for path in (out / "superseded").glob("*.parquet") for key in pq.read_table(path)["run_key"].to_pylist()
    )


def test_the_columns_are_the_contract() -> None:
    assert SCHEMA.names == CONTRACT.split()


def test_parts_that_have_shrunk_are_filled_again(tmp_path: Path) -> None:
    names = [f"{n:03}" for n in range(80)]
    table = ScoreTable(tmp_path, rows_per_part=10, seconds_per_write=0)
    for n in range(0, 80, 10):
        table.add(rows(*names[n : n + 10]))
    table.supersede([name for name in names if int(name) % 10 > 1])
    files = sorted((tmp_path / "scores").iterdir())
    assert [pq.read_metadata(path).num_rows for path in files] == [2] * 8
    table = ScoreTable(tmp_path, rows_per_part=10, seconds_per_write=0)
    for n in range(0, 60, 2):
        table.add(rows(f"new{n}", f"new{n + 1}"))
    assert sorted((tmp_path / "scores").iterdir()) == files
    assert len(keys(tmp_path)) == len(set(keys(tmp_path))) == 16 + 60


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    box = {"second": 1.5, "x": 1, "y": 2, "width": 3, "height": 4}
    seen = {"keyframe_seconds": (0.0, 1 / 3), "crop_boxes": (CropBox(**box),)}
    row = ScoreRow(clip_id="a\n🎬", uri="/a", run_key="k", source_mtime_ns=2**60, **seen)
    table = ScoreTable(tmp_path)
    table.add([row])
    table.flush()
    wanted = {"clip_id": "a\n🎬", "uri": "/a", "status": "failed", "run_key": "k", "source_mtime_ns": 2**60}
    wanted |= {"keyframe_seconds": [0.0, 1 / 3], "crop_boxes": [box]}
    assert read_scores(tmp_path).to_pylist() == [dict.fromkeys(SCHEMA.names) | wanted]


def test_a_part_grows_to_its_size_and_the_next_begins(tmp_path: Path) -> None:
    table = ScoreTable(tmp_path, rows_per_part=2)
    for name in "abcde":
        table.add(rows(name))
        table.flush()
    sizes = {path.name: pq.read_table(path).num_rows for path in (tmp_path / "scores").iterdir()}
    assert sizes == {"part-000001.parquet": 2, "part-000002.parquet": 2, "part-000003.parquet": 1}


def test_rows_reach_the_disk_when_their_time_has_come(tmp_path: Path) -> None:
    hurried, patient = (
        ScoreTable(tmp_path / "h", seconds_per_write=0.0),
        ScoreTable(tmp_path / "p", seconds_per_write=60),
    )
    hurried.add(rows("a"))
    patient.add(rows("a"))
    assert keys(tmp_path / "h") == ["k1-a"]
    assert keys(tmp_path / "p") == []


def test_a_new_row_takes_the_place_of_the_old_and_the_old_is_kept_aside(tmp_path: Path) -> None:
    first = ScoreTable(tmp_path)
    first.add(rows("a", "b", "c"))
    first.flush()
    second = ScoreTable(tmp_path)
    second.add(rows("b", "d", key="k2"))
    second.flush()
    assert keys(tmp_path) == ["k1-a", "k1-c", "k2-b", "k2-d"]
    assert superseded(tmp_path) == ["k1-b"]


def test_superseding_all_leaves_an_empty_table(tmp_path: Path) -> None:
    table = ScoreTable(tmp_path, rows_per_part=2)
    for names in ("ab", "cd", "e"):
        table.add(rows(*names))
        table.flush()
    assert ScoreTable(tmp_path).supersede_all() == 5
    assert keys(tmp_path) == []
    assert superseded(tmp_path) == [f"k1-{name}" for name in "abcde"]


def test_superseding_what_is_not_there_does_nothing(tmp_path: Path) -> None:
    assert ScoreTable(tmp_path).supersede(["nobody"]) == 0
    assert not (tmp_path / "superseded").exists()


def test_a_touched_file_gets_its_new_stamp_and_keeps_its_score(tmp_path: Path) -> None:
    table = ScoreTable(tmp_path)
    table.add(rows("a", "b"))
    table.flush()
    ScoreTable(tmp_path).refresh({"b": ("/moved/b", 7, 9)})
    found = {row["clip_id"]: row for row in read_scores(tmp_path).to_pylist()}
    assert (found["b"]["uri"], found["b"]["source_bytes"], found["b"]["source_mtime_ns"]) == ("/moved/b", 7, 9)
    assert (found["b"]["score"], found["a"]["uri"]) == (3.0, "/a")


def test_drafts_of_a_killed_writer_are_never_read_and_are_cleared(tmp_path: Path) -> None:
    table = ScoreTable(tmp_path)
    table.add(rows("a"))
    table.flush()
    draft = tmp_path / "scores/.part-000002.parquet.tmp"
    draft.write_bytes(b"half a file")
    assert keys(tmp_path) == ["k1-a"]
    ScoreTable(tmp_path)
    assert not draft.exists()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as draft:
        draft.write_text("ne")
        raise RuntimeError
    assert path.read_text() == "old"


def test_an_older_table_without_a_column_is_read_with_nulls(tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    pq.write_table(
        to_table(rows("a")).drop_columns(["fingerprint", "score_std"]), tmp_path / "scores/part-000001.parquet"
    )
    assert read_scores(tmp_path).schema == SCHEMA
    ScoreTable(tmp_path).supersede(["a"])
    assert superseded(tmp_path) == ["k1-a"]


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores/part-000001.parquet").write_bytes(b"nonsense")
    with pytest.raises(UsageError, match="part-000001"):
        ScoreTable(tmp_path)
    with pytest.raises(UsageError, match="scores"):
        read_scores(tmp_path)


# A writer that rewrites all clips round after round, superseding the rows of the round before; killed at any moment.
WRITER = """
    import sys
    from pathlib import Path
    from vqa.data.score_table import ScoreRow, ScoreTable
    out, names = Path(sys.argv[1]), [f"clip{n}" for n in range(12)]
    for turn in range(10_000):
        table = ScoreTable(out, rows_per_part=5, seconds_per_write=0.0)
        for start in range(0, 12, 3):
            table.add([ScoreRow(clip_id=name, uri="", run_key=f"{turn}-{name}") for name in names[start:start + 3]])
        print(turn, flush=True)
"""


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_each_clip_once_or_about_to_come(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    for trial in range(full(6, gate=3)):
        out = tmp_path / str(trial)
        command = [sys.executable, "-c", textwrap.dedent(WRITER), str(out)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()  # the first round is complete
            time.sleep(rng.uniform(0.0, 0.25))
            writer.send_signal(signal.SIGKILL)
        table = read_scores(out, ["clip_id", "run_key"]).to_pylist()
        names = [row["clip_id"] for row in table]
        assert len(names) == len(set(names)), "a clip twice"
        assert len(names) >= 9, "more than the three rows in flight are gone"
        everywhere = {row["run_key"] for row in table} | set(superseded(out))
        assert {f"0-clip{n}" for n in range(12)} <= everywhere, "a row that was there is nowhere now"


def test_videos_are_written_where_there_are_windows_and_only_there(tmp_path: Path) -> None:
    table = ScoreTable(tmp_path)
    table.add(rows("a.mp4"))
    table.flush()
    assert write_videos(tmp_path) == 0
    assert not (tmp_path / "videos.parquet").exists()
    table.add([*rows("b.mp4#t=0,10", end=10.0), *rows("b.mp4#t=10,20", end=20.0)])
    table.flush()
    assert write_videos(tmp_path) == 2
    assert pq.read_table(tmp_path / "videos.parquet").column("video_id").to_pylist() == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_an_export_holds_every_row_sorted(kind: str) -> None:
    table = to_table(rows('b,"x"\n.mp4', "a.mp4", score=None))
    file = io.StringIO(newline="")
    assert export(table, file, kind=kind) == 2  # type: ignore[arg-type]
    file.seek(0)
    if kind == "jsonl":
        read = [json.loads(line) for line in file]
        assert read == table.sort_by("clip_id").to_pylist()
    else:
        import csv

        read = list(csv.DictReader(file))
        assert [row["clip_id"] for row in read] == ["a.mp4", 'b,"x"\n.mp4']
        assert read[0]["score"] == ""
        assert os.linesep not in read[0]["uri"]


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOENT, errno.EIO])
def test_a_part_that_is_replaced_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch, number: int) -> None:
    """As on NFS, where the file that was open is gone; what is broken otherwise is said."""
    table = ScoreTable(tmp_path)
    table.add([ScoreRow(clip_id="a", uri="a", run_key="k")])
    table.flush()
    read, tries = score_table._read_part, iter((True, True, False))

    def fails(*given: Any) -> Any:
        if next(tries):
            raise OSError(number, os.strerror(number))
        return read(*given)

    monkeypatch.setattr(score_table, "_read_part", fails)
    if number == errno.EIO:
        with pytest.raises(UsageError, match=r"Input/output error.*move that file away"):
            read_scores(tmp_path)
    else:
        assert read_scores(tmp_path, ["clip_id"]).to_pylist() == [{"clip_id": "a"}]
        monkeypatch.setattr(score_table, "_read_part", lambda *_: fails_always(number))
        with pytest.raises(UsageError, match="move that file away"):
            read_scores(tmp_path)


def fails_always(number: int) -> None:
    raise OSError(number, os.strerror(number))
