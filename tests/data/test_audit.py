"""Audit: each check that can fail does so on real files, is named and counted; a good set fails none."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.support import clips
from vqa.cli.app import app
from vqa.data.audit import check_files, count_by_check, find_shared, map_files, middle_frame
from vqa.data.manifest import Manifest, RatingScale, make_manifest, read_manifest, write_manifest
from vqa.data.sources import Selection
from vqa.errors import ClipError, UsageError


def labels(folder: Path, *names: str, **aspects: dict[str, float]) -> Manifest:
    """A row for each name; `aspects` by the name's stem."""
    rows: list[dict[str, Any]] = [
        {
            "clip_id": f"set/{name}",
            "uri": str(folder / name),
            "dataset": "set",
            "content_id": name,
            "kind": "image" if name.endswith(".png") else "video",
            "mos_raw": 3.0,
            "mos": 3.0,
            "aspects": sorted(aspects.get(Path(name).stem, {}).items()) or None,
        }
        for name in names
    ]
    return make_manifest(rows, scales={"set": RatingScale(low=1, high=5)})


def test_what_a_test_set_shares_with_a_training_set_is_found(tmp_path: Path) -> None:
    """A picture encoded anew under another name, a reference of one name, and pictures that share nothing."""
    random = np.random.default_rng(0)
    for name in ("one", "two", "three"):
        coarse = Image.fromarray(random.integers(0, 256, (7, 9, 3), dtype=np.uint8))
        coarse.resize((128, 96), Image.Resampling.BICUBIC).save(tmp_path / f"{name}.png")
    with Image.open(tmp_path / "one.png") as image:
        image.resize((96, 72)).save(tmp_path / "again.jpg", quality=60)

    def rows(path: Path, **clips_: dict[str, Any]) -> Path:
        table = labels(tmp_path, *[row["file"] for row in clips_.values()]).table.to_pylist()
        for row, (name, more) in zip(table, clips_.items(), strict=True):
            row |= {"clip_id": name, "kind": "image", "split": more["split"], "content_id": f"set/{name}"}
            row["reference_uri"] = more.get("reference")
        write_manifest(path, make_manifest(table, scales={"set": RatingScale(low=1, high=5)}))
        return path

    ours = rows(
        tmp_path / "train.parquet",
        a={"file": "one.png", "split": "train"},
        b={"file": "two.png", "split": "train", "reference": "/refs/I07.png"},
        c={"file": "three.png", "split": "test"},
    )
    theirs = rows(
        tmp_path / "test.parquet",
        x={"file": "again.jpg", "split": "test"},
        y={"file": "three.png", "split": "train", "reference": "/other/i07.bmp"},
    )
    train, test = read_manifest(ours), read_manifest(theirs)
    found = {(one.clip_id, one.detail) for one in find_shared(train, test, other_name="theirs")}
    assert found == {
        ("a", "looks like x (test) of theirs"),
        ("b", "reference i07 (set) of theirs: y (train)"),
        ("c", "looks like y (train) of theirs"),
    }
    report = tmp_path / "found.csv"
    command = ["data", "check", str(ours), "--against", str(theirs), "--parts", "train,test", "--csv", str(report)]
    assert CliRunner().invoke(app, command).exit_code == 3
    with report.open() as file:
        assert [(row["clip_id"], row["check"]) for row in csv.DictReader(file) if row["check"] == "shared"] == [
            ("a", "shared")
        ]
    wrong = CliRunner().invoke(app, [*command[:5], "--parts", "train,val"])
    assert wrong.exit_code != 0 and "no clips of that part. There are test, train" in str(wrong.exception)


def test_references_and_pictures_are_shared_whatever_the_sets_are_called(tmp_path: Path) -> None:
    """Of two sets under different names; names of files mean nothing across them."""
    random = np.random.default_rng(1)
    for name in "abcdefgh":
        coarse = Image.fromarray(random.integers(0, 256, (7, 9, 3), dtype=np.uint8))
        coarse.resize((128, 96), Image.Resampling.BICUBIC).save(tmp_path / f"{name}.png")
    with Image.open(tmp_path / "a.png") as image:
        image.resize((96, 72)).save(tmp_path / "a_again.jpg", quality=60)
    shutil.copy(tmp_path / "c.png", tmp_path / "c_again.png")
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "h.png", tmp_path / "other" / "g.png")

    def written(dataset: str, *rows: tuple[str, str, str | None]) -> Path:
        made = [
            {
                **{"clip_id": f"{dataset}/{name}", "uri": str(tmp_path / file), "dataset": dataset, "kind": "image"},
                **{"content_id": f"{dataset}/{name}", "mos_raw": 3.0, "mos": 3.0},
                "reference_uri": reference and str(tmp_path / reference),
            }
            for name, file, reference in rows
        ]
        path = tmp_path / f"{dataset}.parquet"
        write_manifest(path, make_manifest(made, scales={dataset: RatingScale(low=1, high=5)}))
        return path

    own = written(
        "mine",
        ("same_picture", "a.png", None),
        ("same_reference", "b.png", "c.png"),
        ("is_their_reference", "d.png", None),
        ("reference_is_theirs", "e.png", "f.png"),
        ("gone_reference", "b.png", "gone.png"),
        ("name_alone", "g.png", "g.png"),
    )
    theirs = written(
        "theirs",
        ("x", "a_again.jpg", None),
        ("y", "h.png", "c_again.png"),
        ("z", "h.png", "d.png"),
        ("f", "f.png", None),
        ("gone", "h.png", "gone.png"),
        ("g", "h.png", "other/g.png"),
    )
    found = find_shared(read_manifest(own), read_manifest(theirs), other_name="T")
    assert {(one.clip_id.removeprefix("mine/"), one.detail.replace("theirs/", "")) for one in found} == {
        ("same_picture", "looks like x of T"),
        ("same_reference", "its reference looks like the reference of y of T"),
        ("is_their_reference", "looks like the reference of z of T"),
        ("reference_is_theirs", "its reference looks like f of T"),
        ("gone_reference", "its reference looks like the reference of gone of T"),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("set")
    for seed, name in enumerate(("a", "b")):
        clips.write_video(path / f"{name}.mp4", frames=30, seed=seed, container_options={"movflags": "faststart"})
    clips.write_image(path / "p.png")
    shutil.copy(path / "a.mp4", path / "again.mp4")
    clips.cut_off(path / "b.mp4", 0.6, out=path / "cut.mp4")
    clips.cut_off(path / "b.mp4", 0.1, out=path / "stump.mp4")
    clips.write_text(path / "text.mp4")
    clips.write_video(path / "extra.mp4", frames=5, seed=9)
    return path


def test_a_good_set_agrees(folder: Path) -> None:
    facts = {"frames": 30.0, "duration_seconds": 1.2, "fps": 25.0}
    assert check_files(labels(folder, "a.mp4", "b.mp4", "p.png", a=facts, b=facts), every_frame=True) == []


def test_every_check_that_can_fail_is_named(folder: Path) -> None:
    names = ("a.mp4", "gone.mp4", "text.mp4", "stump.mp4", "cut.mp4", "b.mp4", "again.mp4")
    wrong = {"frames": 25.0, "duration_seconds": 2.0, "fps": 30.0}
    found = check_files(labels(folder, *names, b=wrong), root=folder)
    by_name = {(Path(one.uri).name, one.check): one for one in found}
    assert set(by_name) == {
        ("gone.mp4", "file"),
        ("text.mp4", "file"),
        ("stump.mp4", "file"),
        ("cut.mp4", "decoding"),
        ("b.mp4", "frames"),
        ("b.mp4", "length"),
        ("b.mp4", "rate"),
        ("again.mp4", "duplicate"),
        ("extra.mp4", "unlabelled"),
        ("p.png", "unlabelled"),
    }
    assert by_name["gone.mp4", "file"].detail.startswith("not_found: ")
    assert by_name["text.mp4", "file"].detail.startswith("not_video: ")
    assert by_name["b.mp4", "frames"].detail == "the label is 25, the file has 30"
    assert by_name["again.mp4", "duplicate"].detail == "same content as set/a.mp4"
    assert [one.clip_id for one in found if one.check != "unlabelled"] == [
        *("set/gone.mp4", "set/text.mp4", "set/stump.mp4", "set/cut.mp4"),
        *("set/b.mp4",) * 3,
        "set/again.mp4",
    ]
    assert count_by_check(found)["file"] == 3


def test_an_image_labelled_as_video_and_a_missing_reference_are_reported(folder: Path) -> None:
    manifest = labels(folder, "p.png")
    kind = manifest.table.schema.get_field_index("kind")
    reference = manifest.table.schema.get_field_index("reference_uri")
    table = manifest.table.set_column(kind, manifest.table.schema.field(kind), [["video"]])
    table = table.set_column(reference, table.schema.field(reference), [[str(folder / "original.png")]])
    found = check_files(Manifest(table=table, scales=manifest.scales))
    assert [one.check for one in found] == ["reference", "kind"]


def test_a_root_that_is_no_folder_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        check_files(labels(folder, "a.mp4"), root=folder / "nowhere")


def test_the_command_ends_with_3_and_lists_every_finding(folder: Path, tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.parquet", labels(folder, "a.mp4", "gone.mp4"))
    bad = CliRunner().invoke(app, ["data", "check", str(tmp_path / "m.parquet"), "--csv", str(tmp_path / "d.csv")])
    assert bad.exit_code == 3
    assert "2 clips, 1 failed checks: file 1" in bad.output
    with (tmp_path / "d.csv").open(newline="") as file:
        assert [row["clip_id"] for row in csv.DictReader(file)] == ["set/gone.mp4"]
    write_manifest(tmp_path / "m.parquet", labels(folder, "a.mp4"))
    good = CliRunner().invoke(app, ["data", "check", str(tmp_path / "m.parquet"), "--root", str(tmp_path)])
    assert (good.exit_code, good.stdout) == (0, "1 clips, 0 failed checks\n")


def test_outcomes_come_in_order_whatever_ends_first(folder: Path) -> None:
    uris = [str(folder / name) for name in ("b.mp4", "gone.mp4", "p.png", "a.mp4")]
    found = list(map_files(middle_frame, uris, workers=2, room=(160, 96)))
    assert isinstance(found[1], ClipError)
    numbers = [None if isinstance(one, ClipError) else clips.read_number(one) for one in found]
    assert numbers == [15, None, 0, 15]


def test_accents_of_a_row_and_a_file_may_be_spelled_differently(tmp_path: Path) -> None:
    composed, apart = "Caf\u00e9/\uac00.mp4", "Cafe\u0301/\u1100\u1161.mp4"
    (tmp_path / apart).parent.mkdir()
    clips.write_video(tmp_path / apart, frames=5)
    assert check_files(labels(tmp_path, composed), root=tmp_path) == []
    (tmp_path / "Cafe\u0301").rename(tmp_path / "Caf\u00e9")
    assert check_files(labels(tmp_path, apart), root=tmp_path) == []


def test_what_lies_beside_media_is_not_unlabelled(folder: Path, tmp_path: Path) -> None:
    for name in ("a.mp4", "@eaDir/a.mp4", "old/b.mp4", "c.data"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "a.mp4", tmp_path / name)

    def unlabelled(**patterns: tuple[str, ...]) -> list[str]:
        found = check_files(labels(tmp_path, "a.mp4"), root=tmp_path, selection=Selection(**patterns))
        return [Path(one.uri).name for one in found]

    assert unlabelled() == ["b.mp4"]
    assert unlabelled(exclude=("old",), include=("*.data",)) == ["c.data"]
