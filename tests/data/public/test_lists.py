"""Published lists: who trains and who tests is what a list says, and a clip in none is in neither."""

from collections import Counter
from pathlib import Path

import pytest

from tests.support.labels import imported, rows, written
from vqa.data.public.specs import load_set
from vqa.errors import UsageError

QUESTION = {"from": "human", "value": "How would you rate the quality of this image?\n<|image|>"}
ANSWER = {"from": "gpt", "value": "The quality of the image is fair."}


def q_align(folder: str, *names: str) -> list[dict[str, object]]:
    """Entries as in train_koniq.json, train_spaq.json and their test lists."""
    return [
        {"id": f"{name}->53.5", "image": f"{folder}/{name}", "conversations": [QUESTION, ANSWER], "gt_score": 53.5}
        for name in names
    ]


def deqa(folder: str, *names: str) -> list[dict[str, object]]:
    """Entries as in the train lists of zhiyuanyou/Data-DeQA-Score, by its build_soft_labels/gen_soft_label.py."""
    levels = {"level_probs_org": [0.0, 0.1, 0.6, 0.2, 0.1], "level_probs": [0.0, 0.1, 0.6, 0.2, 0.1]}
    return [
        {"id": f"{name.rpartition('/')[2]}->53.5", "image": f"{folder}/{name}", "gt_score": 53.5, "gt_score_norm": 3.1}
        | levels
        | {"std": 0.5, "std_norm": 0.1, "conversations": [QUESTION, ANSWER]}
        for name in names
    ]


def koniq(folder: Path, *numbers: int) -> list[dict[str, object]]:
    return q_align("koniq", *(f"{number}.jpg" for number in numbers))


@pytest.fixture
def unlisted(tmp_path: Path) -> Path:
    """Ten pictures of PIPAL, whose lists do not come with vqa."""
    return written(tmp_path / "scores.txt", "".join(f"A{n:04}_00_00.bmp {1 + n / 3}\n" for n in range(10)))


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
    assert any(
        "no split, so that vqa train refuses them" in note and "train_koniq.json and test_koniq.json" in note
        for note in imported("koniq-10k", labels).notes
    )
    other = written(tmp_path / "other.json", koniq(tmp_path, 3, 4))
    with pytest.raises(UsageError, match=r"1 of its clips are in train too, such as 3.jpg"):
        imported("koniq-10k", labels, split_lists=(lists[0], f"test={other}"))
    wrong = written(tmp_path / "wrong.json", koniq(tmp_path, 8, 70, 71))
    with pytest.raises(UsageError, match=r"2 of its 3 clips are not in .*scores.csv: 70.jpg, 71.jpg"):
        imported("koniq-10k", labels, split_lists=(lists[0], f"test={wrong}"))


LISTED = [  # by set: labels, and the train list of each project with its first clip
    ("koniq-10k", "1.jpg 2.5 0.5\n2.jpg 3.5 0.5\n", q_align("koniq", "1.jpg")),
    ("koniq-10k", "1.jpg 2.5 0.5\n2.jpg 3.5 0.5\n", deqa("KONIQ/images", "1.jpg")),
    ("spaq", "00001.jpg 2.5 15.5\n00002.jpg 3.5 15.5\n", q_align("spaq", "00001.jpg")),
    ("spaq", "00001.jpg 2.5 15.5\n00002.jpg 3.5 15.5\n", deqa("SPAQ/images", "00001.jpg")),
    ("pipal", "A0001_00_00.bmp 3.6\nA0001_00_01.bmp 3.2\n", deqa("PIPAL/images/Distortion_1", "A0001_00_00.bmp")),
    ("kadid-10k", "I01.png I01_01_01.png 4.5 0.5\nI01.png I01_01_02.png 4 0.5\n", q_align("kadid10k", "I01_01_01.png")),
    (
        "kadid-10k",
        "I01.png I01_01_01.png 4.5 0.5\nI01.png I01_01_02.png 4 0.5\n",
        deqa("KADID10K/images", "I01_01_01.png"),
    ),
]


@pytest.mark.parametrize(("name", "text", "listed"), LISTED)
def test_a_list_may_name_its_files_in_folders_of_its_project(
    tmp_path: Path, name: str, text: str, listed: list[dict[str, object]]
) -> None:
    train = written(tmp_path / "train.json", listed)
    found = rows(name, written(tmp_path / "labels.txt", text), split_lists=(f"train={train}",))
    assert [row["split"] for row in found] == ["train", "unused"]


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        (
            "koniq-10k",
            "10004473376.jpg 4.5 0.5\n10007357496.jpg 4.1 0.6\n10043785683.jpg 4.0 0.5\n",
            ["train", "test", "unused"],
        ),
        ("spaq", "00002.jpg 2.9 17.5\n05638.jpg 3.6 23.7\n07248.jpg 4.2 17.4\n", ["train", "test", "unused"]),
    ],
)
def test_names_that_come_with_vqa_need_no_files(tmp_path: Path, name: str, text: str, parts: list[str]) -> None:
    labels = written(tmp_path / "labels.txt", text)
    for lists in (("q-align",), ()):
        assert [row["split"] for row in rows(name, labels, split_lists=lists)] == parts
    assert {row["split"] for row in rows(name, labels, split="mine")} == {"mine"}


def test_a_file_name_that_two_clips_have_finds_neither(tmp_path: Path) -> None:
    labels = written(tmp_path / "labels.txt", "a/1.mp4, -1, -1, 2.5\nb/1.mp4, -1, -1, 3.5\nb/2.mp4, -1, -1, 4.5\n")
    options = {"dataset": "mine", "scale": "1,5", "kind": "video"}
    listed = written(tmp_path / "list.txt", "c/2.mp4, -1, -1, 4.5\na/1.mp4, -1, -1, 4.5\n")
    found = rows("fast-vqa-txt", labels, split_lists=(f"train={listed}",), **options)
    assert [row["split"] for row in found] == ["train", "unused", "train"]
    for text in ("c/1.mp4, -1, -1, 2.5\n", "c/2.mp4, -1, -1, 4.5\nd/2.mp4, -1, -1, 4.5\n"):
        unclear = written(tmp_path / "list.txt", text)
        with pytest.raises(UsageError, match=r"of its \d clips are not in .*labels.txt: c/\d.mp4"):
            rows("fast-vqa-txt", labels, split_lists=(f"train={unclear}",), **options)


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


def test_a_list_is_asked_for_by_a_name_that_is_there(labels: Path, unlisted: Path) -> None:
    with pytest.raises(UsageError, match=r"deqa: its names do not come with vqa. Take the files from hub zhiyuanyou/D"):
        imported("pipal", unlisted, split_lists=("deqa",))
    with pytest.raises(UsageError, match=r"q-align: it names none of the 10 clips in .*scores.csv, such as 0.jpg, 1.j"):
        imported("koniq-10k", labels, split_lists=("q-align",))
    with pytest.raises(
        UsageError, match=r"official: .* Take the file metadata/koniq10k_distrib.*, and give it as --labels"
    ):
        imported("koniq-10k", labels, split_lists=("official",))
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
    for listed in (load_set(name).lists["q-align"] for name in ("koniq-10k", "spaq")):
        assert Counter(listed.part_of().values()) == listed.counts
    assert not load_set("tid2013").lists  # none is public: its split stays empty, and training refuses it
