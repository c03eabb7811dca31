"""Published lists: who trains and who tests is what a list says, and a clip in none is in neither."""

from pathlib import Path

import pytest

from tests.support.labels import imported, rows, written
from vqa.data.public.specs import load_set
from vqa.errors import UsageError


def koniq(folder: Path, *numbers: int) -> list[dict[str, object]]:
    """Entries of a list in Q-Align's JSON."""
    return [{"image": f"koniq/{number}.jpg", "gt_score": 3.0} for number in numbers]


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Ten pictures in the layout of KonIQ's authors."""
    columns = {"image_name": [f"{n}.jpg" for n in range(10)], "MOS_zscore": [10.0 * n + 5 for n in range(10)]}
    return written(tmp_path / "scores.csv", columns)


def test_files_of_a_list_say_who_trains_and_who_tests(tmp_path: Path, labels: Path) -> None:
    train = written(tmp_path / "train.json", koniq(tmp_path, 0, 1, 2, 3))
    test = written(tmp_path / "test.json", koniq(tmp_path, 8, 9))
    lists = (f"train={train}", f"test={test}")
    done = imported("koniq-10k", labels, split_lists=lists)
    assert done.manifest.table.column("split").to_pylist() == ["train"] * 4 + ["unused"] * 4 + ["test"] * 2
    assert "split: test 2, train 4, unused 4" in done.notes
    assert any("no published list has these counts. Known are official: training 7058" in note for note in done.notes)
    assert {row["split"] for row in rows("koniq-10k", labels)} == {None}  # no list, no split
    other = written(tmp_path / "other.json", koniq(tmp_path, 3, 4))
    with pytest.raises(UsageError, match=r"1 of its clips are in train too, such as 3.jpg"):
        imported("koniq-10k", labels, split_lists=(lists[0], f"test={other}"))
    wrong = written(tmp_path / "wrong.json", koniq(tmp_path, 8, 70, 71))
    with pytest.raises(UsageError, match=r"2 of its 3 clips are not in .*scores.csv: 70.jpg, 71.jpg"):
        imported("koniq-10k", labels, split_lists=(lists[0], f"test={wrong}"))


def test_as_many_as_published_are_told(tmp_path: Path) -> None:
    """All KonIQ's 10,073 pictures by number, and lists of Q-Align's sizes."""
    columns = {"image_name": [f"{n}.jpg" for n in range(10_073)], "MOS_zscore": [n % 90 + 5.0 for n in range(10_073)]}
    labels = written(tmp_path / "scores.csv", columns)
    train = written(tmp_path / "train.json", koniq(tmp_path, *range(7046)))
    test = written(tmp_path / "test.json", koniq(tmp_path, *range(8000, 10_010)))
    done = imported("koniq-10k", labels, split_lists=(f"train={train}", f"test={test}"))
    assert "split: test 2010, train 7046, unused 1017" in done.notes
    assert any(note.startswith("as many as in q-align (Q-Future/Q-Align") for note in done.notes)


def test_koniqs_own_column_is_its_split(tmp_path: Path) -> None:
    columns = {"image_name": ["a.jpg", "b.jpg", "c.jpg"], "c_total": [100] * 3, "MOS": [20.5, 50.0, 71.0]}
    columns |= {"SD": [0.5] * 3, "set": ["training", "validation", "test"]}
    labels = written(tmp_path / "koniq10k_distributions_sets.csv", columns)
    assert [row["split"] for row in rows("koniq-10k", labels)] == ["training", "validation", "test"]


def test_a_list_is_asked_for_by_a_name_that_is_there(labels: Path) -> None:
    with pytest.raises(UsageError, match=r"q-align: its names do not come with vqa. Take the files from Q-Future/Q-A"):
        imported("koniq-10k", labels, split_lists=("q-align",))
    with pytest.raises(UsageError, match=r"--split-list ours: no published list of that name .*official, q-align"):
        imported("koniq-10k", labels, split_lists=("ours",))
    with pytest.raises(UsageError, match="give one name, or PART=FILE"):
        imported("koniq-10k", labels, split_lists=("q-align", "official"))


def test_the_counts_of_the_lists_are_the_published_ones() -> None:
    """From the released lists themselves: Q-Align's, DeQA's, VisualQuality-R1's (and PreResQ-R1's)."""
    counts = {name: {of: one.counts for of, one in load_set(name).lists.items()} for name in ("koniq-10k", "spaq")}
    assert counts["koniq-10k"]["q-align"] == {"train": 7046, "test": 2010}
    assert counts["koniq-10k"]["official"] == {"training": 7058, "validation": 1000, "test": 2015}
    assert counts["spaq"]["q-align"] == {"train": 8897, "test": 2224}
    assert load_set("pipal").lists["deqa"].counts == {"train": 18560, "test": 4640}
    kadid = load_set("kadid-10k").lists["visualquality-r1"]
    assert kadid.counts == {part: 125 * len(contents) for part, contents in kadid.contents.items()}
    assert not load_set("tid2013").lists  # none is public: its split stays empty, and training refuses it
