"""Comparisons of a set come in as a manifest of pairs, which the commands that read comparisons take."""

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.labels import PEOPLE, imported, written
from vqa.data.manifest import read_manifest, write_manifest
from vqa.data.pair_manifest import read_pair_manifest
from vqa.data.public.comparisons import PairImport, import_pairs, lists_comparisons
from vqa.data.public.layouts import ImportRequest
from vqa.data.subjective.pairs import read_pairs
from vqa.errors import UsageError

Vqa = Callable[..., tuple[int, str, str]]
NAMES = ("a.png", "in/b.png", "c.png", "d.png")


def request(
    name: str, labels: Path, root: Path | str = "/clips", *, check: bool = False, **rest: object
) -> ImportRequest:
    return ImportRequest(name=name, labels=labels, root=str(root), check=check, **rest)  # type: ignore[arg-type]


def read(name: str, labels: Path, root: Path | str = "/clips", **rest: object) -> PairImport:
    wanted = request(name, labels, root, **rest)  # type: ignore[arg-type]
    assert lists_comparisons(wanted)
    return import_pairs(wanted)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Four files, and in pairs.csv each two of them compared by two people, the later name better; a tie."""
    (tmp_path / "in").mkdir()
    for name in NAMES:
        (tmp_path / name).write_bytes(b"")
    lines = [(a, b, -1, who) for a in range(4) for b in range(a + 1, 4) for who in ("ann", "bob")]
    lines[-1] = (2, 3, 0, "bob")
    table = {"first": [NAMES[a] for a, *_ in lines], "second": [NAMES[b] for _, b, *_ in lines]}
    table |= {"result": [result for *_, result, _ in lines], "subject": [who for *_, who in lines]}
    written(tmp_path / "pairs.csv", table)
    return tmp_path


def test_what_is_imported_is_recovered_as_the_table_is(library: Path, vqa: Vqa) -> None:
    made = library / "out/pairs.parquet"
    call = ("data", "import", "hf-videofolder", "--dataset", "mine", "--root", library, "--kind", "image")
    code, _, heard = vqa(*call, "--labels", library / "pairs.csv", "--out", made)
    assert code == 0, heard
    assert "4 clips in 12 comparisons by 2 subjects" in heard
    rows = read_pair_manifest(made).table.to_pylist()
    assert rows[0] == {
        "first": "mine/a.png",
        "second": "mine/in/b.png",
        "dataset": "mine",
        "split": None,
        "result": -1,
        "count": 1.0,
        "subject": "ann",
        "first_uri": str(library / "a.png"),
        "second_uri": str(library / "in/b.png"),
    }
    found = []
    for source in (library / "pairs.csv", made):
        out = library / f"{source.name}.csv"
        code, _, heard = vqa("data", "recover", source, "--out", out, "--method", "bradley-terry", "--resamples", 20)
        assert code == 0, heard
        found.append(out.read_text())
    assert found[0] == found[1] and "in/b.png" in found[0]
    hint = next(line for line in heard.splitlines() if line.startswith("to import: ")).split()[2:]
    assert hint[:3] == ["hf-videofolder", "--dataset", "mine"]
    opinions = ("--root", library, "--kind", "image", "--labels", library / "pairs.parquet.csv")
    code, _, heard = vqa("data", "import", *hint, *opinions, "--out", library / "clips.parquet")
    assert code == 0, heard
    clips = {row["clip_id"]: row["mos"] for row in read_manifest(library / "clips.parquet").table.to_pylist()}
    assert list(clips) == [f"mine/{name}" for name in NAMES]  # the same clip_ids
    against = ("--method", "thurstone", "--resamples", 20, "--against", library / "clips.parquet")
    assert vqa("data", "recover", made, "--out", library / "again.csv", *against)[0] == 0


def test_clips_are_named_and_split_as_in_the_set_s_manifest(tmp_path: Path) -> None:
    ends = [(1, 6, 1), (5, 101, -1), (10, 300, 0), (2, 3, 1)]
    table = {"image1": [a for a, *_ in ends], "image2": [b for _, b, _ in ends], "label": [r for *_, r in ends]}
    done = read("pcuid", written(tmp_path / "pairs.csv", table))
    labels = {"file": ["300-1/图片1.jpg", "300-2/图片101.jpg"], "mos": [50, 60]}
    clips = imported("pcuid", written(tmp_path / "scores.csv", labels)).manifest.table.to_pylist()
    rows = done.manifest.table.to_pylist()
    assert [row["first"] for row in rows] == [f"pcuid/300-1/图片{n}.jpg" for n in (1, 5, 10, 2)]
    assert (rows[0]["first"], rows[0]["first_uri"]) == (clips[0]["clip_id"], clips[0]["uri"])
    assert (rows[1]["second"], rows[1]["second_uri"]) == (clips[1]["clip_id"], clips[1]["uri"])
    assert [row["split"] for row in rows] == ["val", "across", "test", "train"]  # folds 1 1, 0 1, 0 0, 2 3
    assert "split: as published in configs/people/pcuid.yaml" in done.notes
    assert {row["subject"] for row in rows} == {None}
    one = read("pcuid", tmp_path / "pairs.csv", split="train").manifest.table.column("split").to_pylist()
    assert one == ["train"] * 4


def test_comparisons_with_missing_files_are_refused_or_left_out(library: Path) -> None:
    (library / "d.png").unlink()
    call = ("hf-videofolder", library / "pairs.csv", library)
    with pytest.raises(UsageError, match=r"1 of 4 labelled files are not in .*: d\.png\. .* by --skip-missing"):
        read(*call, check=True, dataset="mine")
    done = read(*call, check=True, dataset="mine", skip_missing=True)
    assert done.manifest.table.num_rows == 6
    assert "6 of 12 comparisons are with one of these, and left out" in done.notes
    for name in ("in/b.png", "c.png"):
        (library / name).unlink()
    with pytest.raises(UsageError, match=r"no comparison has both of its clips; 3 of 4 are missing: .* --no-check"):
        read(*call, check=True, dataset="mine", skip_missing=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "0,100"}, r"--scale 0,100: .*pairs\.csv holds comparisons, which have no opinion\. Leave it out"),
        ({"mos_column": "result"}, "--mos-column result: .* holds comparisons"),
        ({"names": Path("names.txt")}, r"--names names\.txt: .* holds comparisons"),
        ({"dataset": None}, "a dialect names no data set"),
    ],
)
def test_options_that_do_not_go_with_comparisons_are_refused(
    options: dict[str, object], message: str, library: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        read("hf-videofolder", library / "pairs.csv", **{"dataset": "mine"} | options)


def test_two_names_of_one_file_are_refused(tmp_path: Path) -> None:
    labels = written(
        tmp_path / "pairs.csv", {"first": ["in/a.png", "b.png"], "second": ["b.png", r"in\a.png"], "result": [1, 0]}
    )
    with pytest.raises(UsageError, match=r"'in/a.png' and 'in\\\\a.png' are both in/a.png. Give each clip one name"):
        read("hf-videofolder", labels, dataset="mine")


def test_opinions_are_not_taken_for_comparisons(tmp_path: Path) -> None:
    labels = written(tmp_path / "o.csv", {"file_name": ["a.png"], "mos": [3]})
    gone, other = tmp_path / "gone.csv", tmp_path / "labels.mat"
    assert not any(lists_comparisons(request("hf-videofolder", one)) for one in (labels, gone, other))


@pytest.mark.skipif(not PEOPLE.is_dir(), reason="the pictures with opinions of people are not beside this checkout")
def test_pcuid_s_comparisons_come_in_as_they_lie(tmp_path: Path, vqa: Vqa) -> None:
    folder, made = PEOPLE / "pcuid", tmp_path / "pairs.parquet"
    call = ("data", "import", "pcuid", "--root", folder, "--labels", folder / "pairs.csv", "--out", made)
    code, _, heard = vqa(*call)
    assert code == 2 and "3 of 300 labelled files are not in" in heard and "--skip-missing" in heard
    code, _, heard = vqa(*call, "--skip-missing")
    assert code == 0 and "297 clips in 43956 comparisons" in heard and "894 of 44850" in heard
    write_manifest(tmp_path / "clips.parquet", imported("pcuid", folder / "scores.csv", str(folder)).manifest)
    table = read_pair_manifest(made).table
    n = {"test": 60, "val": 60, "train": 177}
    counts = Counter(table.column("split").to_pylist())
    assert counts == {part: size * (size - 1) // 2 for part, size in n.items()} | {"across": 60 * 60 + 120 * 177}
    out = tmp_path / "opinions.csv"
    options = ("--method", "bradley-terry", "--resamples", 20, "--split", "train")
    code, _, heard = vqa("data", "recover", made, "--out", out, *options, "--against", tmp_path / "clips.parquet")
    assert code == 0 and "177 clips, 15576 comparisons" in heard
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
        own = {row["file"]: float(row["mos"]) for row in csv.DictReader(file)}
    with out.open(newline="", encoding="utf-8") as file:
        found = {row["file_name"]: float(row["mos"]) for row in csv.DictReader(file)}
    assert np.corrcoef([own[name] for name in found], list(found.values()))[0, 1] > 0.95
    assert len(read_pairs(made).clips) == 297
