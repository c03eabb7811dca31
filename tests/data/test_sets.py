"""Public data sets: real files and excerpts of them import with the names, numbers and counts that they hold; wrong
ones are refused with what was expected and found."""

import csv
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import yaml
from openpyxl import Workbook
from pytest import approx
from scipy.io import savemat

from vqa.config import configs_folder
from vqa.data.imports import LADDER, Import, import_labels, import_ladder
from vqa.data.layouts import Request
from vqa.data.manifest import Scale, read_manifest, write_manifest
from vqa.data.sets import DIALECTS, load_set, set_names
from vqa.errors import UsageError

EXCERPTS = Path(__file__).parent / "excerpts"
REAL = Path(__file__).parents[3] / "shared" / "labels"
Row = dict[str, Any]


def imported(name: str, labels: Path, root: str = "/clips", *, check: bool = False, **options: Any) -> Import:
    return import_labels(Request(name=name, labels=labels, root=root, check=check, **options))


def rows(name: str, labels: Path, **options: Any) -> list[Row]:
    found: list[Row] = imported(name, labels, **options).manifest.table.to_pylist()
    return [row | {"aspects": dict(row["aspects"] or [])} for row in found]


def written(path: Path, content: Any) -> Path:
    """A label file by its suffix: text, columns (csv, mat), lines (xlsx) or entries (json, jsonl); None: no file."""
    if isinstance(content, str):
        path.write_text(content)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([content, *zip(*content.values(), strict=True)])
    elif path.suffix == ".mat":
        savemat(path, content)
    elif path.suffix == ".xlsx" and content:
        book = Workbook()
        for line in content:
            book.active.append(line)
        book.save(path)
    elif content:
        path.write_text(json.dumps(content))
    return path


def cells(*names: str) -> Any:
    """A MATLAB cell array, a column."""
    array = np.empty((len(names), 1), object)
    array[:, 0] = names
    return array


def numbers(*values: float) -> Any:
    return np.array(values, np.float64)[:, None]


def picked(found: Sequence[Row], wanted: Sequence[Row]) -> list[Row]:
    return [{key: row[key] for key in one} for row, one in zip(found, wanted, strict=True)]


def test_lsvq_brings_its_patches_and_the_opinions_of_its_split() -> None:
    first, *_ = found = rows("lsvq-test", EXCERPTS / "lsvq_test.csv")
    assert len(found) == 4
    assert first["clip_id"] == "lsvq-test/yfcc-batch1/747.mp4"
    assert first["uri"] == "/clips/yfcc-batch1/747.mp4"
    assert (first["mos_raw"], first["mos"], first["split"], first["kind"]) == (67.75, 3.71, "test", "video")
    assert first["aspects"]["patch2"] == approx(64.5428571428571)
    assert [first["aspects"][f"patch1_{side}"] for side in ("left", "right", "top", "bottom", "start", "end")] == [
        *(15, 527, 421, 709, 0, 200)
    ]
    with pytest.raises(UsageError, match="no row of lsvq-train among 4"):
        rows("lsvq-train", EXCERPTS / "lsvq_test.csv")


def test_lsvq_is_read_in_the_other_encoding_too(tmp_path: Path) -> None:
    text = (EXCERPTS / "lsvq_1080p.csv").read_text().replace("yfcc-batch1/722", "批次/722")
    (tmp_path / "x.csv").write_bytes(text.encode("gbk"))
    assert rows("lsvq-1080p", tmp_path / "x.csv")[0]["clip_id"] == "lsvq-1080p/批次/722.mp4"


FAST_VQA = {"duration_seconds": 8.008, "fps": approx(29.97, abs=1e-3)}
FIRST_ROWS = [
    ("konvid-1k", "fast_vqa_konvid.txt", {"mos_raw": 3.22, "mos": approx(3.22), "aspects": FAST_VQA}),
    ("konvid-1k", "r1_konvid.txt", {"clip_id": "konvid-1k/4542323058.mp4", "mos_raw": 3.22, "mos": approx(3.22)}),
    ("lsvq-test", "q_align_lsvq.json", {"clip_id": "lsvq-test/yfcc-batch1/747.mp4", "mos_raw": 67.75, "mos": 3.71}),
    ("live-c", "q_align_livec.json", {"clip_id": "live-c/t1.bmp", "mos_raw": (raw := 63.963406174124174)}),
    ("live-c", "q_align_livec.json", {"mos": approx(1 + 4 * (raw - 1) / 99)}),
    ("kadid-10k", "r1_kadid.jsonl", {"clip_id": "kadid-10k/I01_01_01.png", "mos": approx(4.633587786259543)}),
    ("tid2013", "r1_tid2013.txt", {"clip_id": "tid2013/I01_01_1.bmp", "mos_raw": 4.0247, "mos": approx(4.0247)}),
    ("cvd2014", "fast_vqa_cvd2014.txt", {"uri": "/clips/Test3/City/Test03_City_D12.avi", "mos_raw": 20.65}),
    ("konvid-150k-b", "k150kb_scores.csv", {"clip_id": "konvid-150k-b/orig_10007436115_540_5s.mp4", "mos": 3.53}),
    # A spread stays on its own scale where only the opinions were mapped.
    ("kadid-10k", "r1_kadid.txt", {"mos_std": approx(0.7042726744663603)}),
    ("koniq-10k", "r1_koniq.txt", {"mos_std": approx(0.527277894494)}),
    ("spaq", "r1_spaq.txt", {"mos_std": approx(4 * 17.5539983235403 / 99)}),
]


@pytest.mark.parametrize(("name", "file", "first"), FIRST_ROWS)
def test_dialects_are_recognised(name: str, file: str, first: Row) -> None:
    scale = {"cvd2014": "-10,100", "konvid-150k-b": "1,5"}.get(name)
    assert picked(rows(name, EXCERPTS / file, scale=scale)[:1], [first]) == [first]


def test_references_and_contents_of_kadid_never_part() -> None:
    found = rows("kadid-10k", EXCERPTS / "r1_kadid.txt")
    assert {row["reference_uri"] for row in found} == {"/clips/images/I01.png"}
    assert {(row["content_id"], row["split"]) for row in found} == {("kadid-10k/i01", "train")}


def test_maxwell_brings_all_axes_and_needs_the_names_of_its_files(tmp_path: Path) -> None:
    labels = EXCERPTS / "maxwell_val.csv"
    with pytest.raises(UsageError, match="--names FILE, a txt with the 3 files"):
        rows("maxwell-val", labels, scale="1,5")
    by_csv = rows("maxwell-val", labels, scale="1,5", names=EXCERPTS / "divide_val.txt")
    by_text = rows("maxwell-val", EXCERPTS / "divide_val.txt", scale="1,5")
    assert [row["clip_id"] for row in by_csv] == [row["clip_id"] for row in by_text]
    assert [row["mos"] for row in by_csv] == [row["mos"] for row in by_text]
    for one, other in zip(by_csv, by_text, strict=True):
        assert len(one["aspects"]) == 15
        assert one["aspects"].items() >= other["aspects"].items()  # technical comes before aesthetic in the text
    (tmp_path / "names.txt").write_text("a.mp4\n")
    with pytest.raises(UsageError, match="1 names for the 3 rows"):
        rows("maxwell-val", labels, scale="1,5", names=tmp_path / "names.txt")


def layout(name: str, suffix: str, content: Any, *wanted: Row, scale: str | None = None) -> Any:
    """Of a set: a label file, what is in it, the rows that it comes to."""
    return pytest.param(name, suffix, content, scale, list(wanted), id=f"{name}{suffix}")


KONVID = {"video_names": cells("8536919744_original_8s.mp4", "1.mp4"), "scores": numbers(1.22, 3)}
K150KA = {"video_name": ["orig_1_5s.mp4"], "video_score": [3.4]}
GAMING = {"video_list": cells("ARK-001", "ARK-002"), "MOS": numbers(68.5, 80)}
QUALCOMM_FILES = {
    "vidNames": cells("0912_CheerLeader1_GS5_1.yuv", "0912_Cheerleader1_Note4_2.yuv"),
    "distortionType": np.array([[2], [1]], np.uint8),
    "distortionNames": cells("Artifacts", "Color"),
}
QUALCOMM_OPINIONS = {"unBiasedMOS": numbers(52.5, 57), "biasedMOS": numbers(59, 60)}
QUALCOMM = {"qualcommVideoData": QUALCOMM_FILES, "qualcommSubjectiveData": QUALCOMM_OPINIONS}
CHEERLEADER = {"content_id": "live-qualcomm/cheerleader1"}
PLAIN = {"video_names": cells("A001.mp4", "A002.mp4"), "scores": numbers(2, 3)}
LIVE_VQC = {"video_list": PLAIN["video_names"], "mos": PLAIN["scores"]}
AGIQA = {"name": ["a.jpg", "b.jpg"], "prompt": ["a Cat", "a cat"], "mos_quality": [1, 4], "std_quality": [0.5, 0]}
AGIQA |= {"mos_align": [1, 2], "std_align": [0, 1]}
KADID = {"dist_img": ["I07_01_01.png"], "ref_img": ["I07.png"], "dmos": [4.5], "var": [0.25]}
KADID_ROW = {"mos": 4.5, "mos_std": 0.5, "reference_uri": "/clips/images/I07.png"}
CVD2014 = "File_name;Content;Realignment MOS\nTest01_City_D01;City;-6,50\n"
SPAQ = [("Image name", "MOS", "Brightness"), ("00001.jpg", 50.5, 3), ("00002.jpg", 100, 4)]
CSIQ = "1600.AWGN.1.png 0.062\n1600.AWGN.5.png 0.75\n"
TID2013 = "5.51429 I01_01_1.bmp\n5.56757 i01_01_2.bmp\n"
T2VQA = "1/a.mp4|A cat, walking|50\n2/a.mp4|a cat, walking|75\n"
VDPVE = "A0023_01.mp4, -1, -1, 43.9\n"
VQATHINKER = {"annotations": [{"image_id": "KoNViD_1k_videos/1.mp4", "ann_type": "score", "score": "24.4"}]}
R1_PICTURES = [f"yfcc-batch6/4134_{number}.png" for number in range(4)]  # of one video
R1_JSON = [{"image": R1_PICTURES, "conversations": [{"from": "gpt", "value": 3.5}]}]
R1_JSONL = {"image": ["a/1.mp4"], "conversations": [{"x": 1}, {"gpt": 2.5}]}
LAYOUTS = [
    layout("konvid-1k", ".mat", KONVID, {"clip_id": "konvid-1k/8536919744.mp4"}, {"clip_id": "konvid-1k/1.mp4"}),
    layout("live-yt-gaming", ".mat", GAMING, {"uri": "/clips/ARK-001.mp4"}, {"mos": 4.2}, scale="0,100"),
    layout("live-yt-gaming", ".mat", GAMING, *[{"content_id": "live-yt-gaming/ark"}] * 2, scale="0,100"),
    layout(
        "live-qualcomm",
        ".mat",
        QUALCOMM,
        CHEERLEADER | {"uri": "/clips/Color/0912_CheerLeader1_GS5_1.yuv"},
        CHEERLEADER | {"uri": "/clips/Artifacts/0912_Cheerleader1_Note4_2.yuv"},
        scale="0,100",
    ),
    layout("live-vqc", ".mat", LIVE_VQC, {"clip_id": "live-vqc/A001.mp4", "mos": 2}, {"mos": 3}, scale="1,5"),
    layout("youtube-ugc", ".mat", PLAIN, {"clip_id": "youtube-ugc/A001.mp4", "mos": 2}, {"mos": 3}, scale="1,5"),
    layout("lbvd", ".mat", PLAIN, {"clip_id": "lbvd/A001.mp4", "mos": 2}, {"mos": 3}, scale="1,5"),
    layout("konvid-150k-a", ".csv", K150KA, {"uri": "/clips/k150ka/orig_1_5s.mp4", "mos": 3.4}, scale="1,5"),
    layout("bid", ".txt", "DatabaseImage0001.JPG 3.25\nDatabaseImage0002.JPG 1.5\n", {"mos": 3.25}, {"mos": 1.5}),
    layout("koniq-10k", ".csv", {"image_name": ["1.jpg"], "MOS": [3.5], "MOS_zscore": [50.5]}, {"mos": 3}),
    # Not one of the 49 published training references.
    layout("kadid-10k", ".csv", KADID, KADID_ROW | {"split": "test"}),
    layout("agiqa-3k", ".csv", AGIQA, *[{"content_id": "agiqa-3k/a cat"}] * 2, scale="0,5"),
    layout("agiqa-3k", ".csv", AGIQA, {"mos_std": 0.4}, {"mos_std": 0}, scale="0,5"),
    layout("cvd2014", ".csv", CVD2014, {"uri": "/clips/Test1/City/Test01_City_D01.avi", "mos": 1}, scale="-6.5,93.5"),
    layout("spaq", ".xlsx", SPAQ, {"uri": "/clips/TestImage/00001.jpg", "mos": 3}, {"mos": 5}),
    layout("csiq", ".txt", CSIQ, {"mos": approx(4.752)}, {"mos": approx(2)}),  # a low dmos is a good picture
    layout("csiq", ".txt", CSIQ, *[{"content_id": "csiq/1600"}] * 2),
    layout("tid2013", ".txt", TID2013, {"mos_raw": 5.51429}, {"mos_raw": 5.56757, "content_id": "tid2013/i01"}),
    layout("t2vqa-db", ".txt", T2VQA, *[{"content_id": "t2vqa-db/a cat, walking"}] * 2, scale="0,100"),
    layout("t2vqa-db", ".txt", T2VQA, {"mos": 3}, {"mos": 4, "clip_id": "t2vqa-db/2/a.mp4"}, scale="0,100"),
    layout("vdpve", ".txt", VDPVE, {"content_id": "vdpve/a0023", "aspects": {}}, scale="0,100"),
    layout("konvid-1k", ".json", VQATHINKER, {"mos_raw": 24.4, "mos": approx(1.22)}),  # keeps the set's own scale
    layout("lsvq-train", ".json", R1_JSON, {"clip_id": "lsvq-train/yfcc-batch6/4134.mp4"}),
    layout("lsvq-train", ".jsonl", R1_JSONL, {"mos": 2.5}),
]


@pytest.mark.parametrize(("name", "suffix", "content", "scale", "wanted"), LAYOUTS)
def test_every_layout_is_read_as_its_authors_meant_it(
    name: str, suffix: str, content: Any, scale: str | None, wanted: list[Row], tmp_path: Path
) -> None:
    assert picked(rows(name, written(tmp_path / f"labels{suffix}", content), scale=scale), wanted) == wanted


def test_live_c_leaves_its_training_pictures_out_and_needs_both_files(tmp_path: Path) -> None:
    savemat(tmp_path / "AllMOS_release.mat", {"AllMOS_release": np.arange(10.0, 20.0)[None]})
    with pytest.raises(UsageError, match=r"expected AllImages_release.mat beside it"):
        rows("live-c", tmp_path / "AllMOS_release.mat")
    names = cells(*(f"{at}.bmp" for at in range(10)))
    savemat(tmp_path / "AllImages_release.mat", {"AllImages_release": names})
    found = rows("live-c", tmp_path / "AllMOS_release.mat")
    assert [(row["clip_id"], row["mos_raw"]) for row in found] == [(f"live-c/{at}.bmp", 10.0 + at) for at in (7, 8, 9)]


def test_a_dialect_serves_any_set_under_its_name(tmp_path: Path) -> None:
    metadata = written(tmp_path / "metadata.csv", {"file_name": ["train/a.mp4"], "quality": [7], "mos": [2]})
    row = rows("hf-videofolder", metadata, dataset="mine", scale="0,10", mos_column="quality", split="train")[0]
    assert (row["clip_id"], row["mos"], row["split"]) == ("mine/train/a.mp4", 3.8, "train")
    image = rows("r1-txt", EXCERPTS / "r1_koniq.txt", dataset="mine", kind="image")[0]
    assert (image["dataset"], image["kind"], image["mos"]) == ("mine", "image", 4.478899486428679)
    known = rows("fast-vqa-txt", EXCERPTS / "fast_vqa_konvid.txt", dataset="konvid-1k")[0]
    assert (known["clip_id"], known["mos"]) == ("konvid-1k/4542323058.mp4", 3.22)
    with pytest.raises(UsageError, match="a dialect tells no set; say --dataset NAME"):
        rows("r1-txt", EXCERPTS / "r1_koniq.txt")


@pytest.mark.parametrize("name", set_names())
def test_a_set_is_described_and_without_a_scale_it_asks_for_one(name: str, tmp_path: Path) -> None:
    spec = load_set(name)
    first = (configs_folder() / "data" / f"{name}.yaml").read_text().splitlines()[0]
    assert first.startswith(f"# vqa data import {name} --root FOLDER --labels ")
    assert spec.counts
    (tmp_path / "x.txt").write_text("x.mp4, -1, -1, 3\ny.mp4, -1, -1, 3.5\n")
    kind = "fast-vqa-txt"
    if spec.scale is None:
        with pytest.raises(UsageError, match=r"NOT FOUND in what range.*here 3 to 3\.5.*--scale LOW,HIGH"):
            rows(kind, tmp_path / "x.txt", dataset=name)
        assert [row["mos"] for row in rows(kind, tmp_path / "x.txt", dataset=name, scale="observed")] == [1, 5]
    else:
        assert spec.scale.source
        assert "NOT FOUND; add --scale" not in first


REAL_FILES = [
    ("lsvq-test", "lsvq/LSVQ_whole_test.csv", 7220, None),
    ("lsvq-test", "lsvq/LSVQ_test_labels_normalized.txt", 7186, None),
    ("lsvq-test", "q-align-json/test_lsvq.json", 7186, None),
    ("lsvq-test", "fast-vqa-txt/LSVQ/labels_test.txt", 7186, None),
    ("lsvq-1080p", "lsvq/LSVQ_whole_test_1080p.csv", 3561, None),
    ("lsvq-1080p", "lsvq/LSVQ_labels_1080p_normalized.txt", 3573, None),
    ("lsvq-1080p", "q-align-json/test_lsvq_1080p.json", 3573, None),
    ("lsvq-1080p", "fast-vqa-txt/LSVQ/labels_1080p.txt", 3573, None),
    ("konvid-1k", "konvid-1k/KoNViD-1k_data.mat", 1200, None),
    ("konvid-1k", "konvid-1k/KoNViD_labels_cleaned.txt", 1200, None),
    ("konvid-1k", "fast-vqa-txt/KoNViD/labels.txt", 1200, None),
    ("konvid-150k-b", "konvid-150k/k150kb_scores.csv", 1576, "1,5"),
    ("live-vqc", "live-vqc/LIVE_VQC_data.mat", 585, None),
    ("live-vqc", "fast-vqa-txt/LIVE_VQC/labels.txt", 585, None),
    ("youtube-ugc", "youtube-ugc/youtube_ugc_data.mat", 1142, None),
    ("youtube-ugc", "fast-vqa-txt/YouTubeUGC/labels.txt", 1147, None),
    ("cvd2014", "cvd2014/CVD2014_data.mat", 234, "observed"),
    ("cvd2014", "fast-vqa-txt/CVD2014/labels.txt", 234, "observed"),
    ("live-qualcomm", "live-qualcomm/LIVE-Qualcomm_qualcommSubjectiveData.mat", 208, "0,100"),
    ("live-qualcomm", "fast-vqa-txt/LIVE_Qualcomm/labels.txt", 208, "0,100"),
    ("live-yt-gaming", "live-yt-gaming/LIVEYTGaming.mat", 600, "0,100"),
    ("lbvd", "lbvd/LBVD_data.mat", 1013, "1,5"),
    ("maxwell-train", "maxwell/MaxWell_train.csv", 3634, "1,5"),
    ("maxwell-val", "maxwell/MaxWell_val.csv", 909, "1,5"),
    ("maxwell-val", "fast-vqa-txt/DIVIDE_MaxWell/val_labels.txt", 909, "1,5"),
    ("kadid-10k", "kadid-10k/KADID-10K_mos.txt", 10125, None),
    ("kadid-10k", "kadid-10k/KADID-10K_train_set.txt", 6125, None),
    ("koniq-10k", "koniq-10k/GT_KonIQ.txt", 10073, None),
    ("spaq", "spaq/GT_SPAQ.txt", 11125, None),
    ("pipal", "pipal/GT_PIPAL.txt", 23200, None),
    ("live-c", "live-c/GT_CLIVE.txt", 1169, None),
    ("live-c", "q-align-json/livec.json", 1169, None),
    ("agiqa-3k", "agiqa-3k/GT_AGIQA.txt", 2982, None),
    ("tid2013", "tid2013/GT_TID2013.txt", 3000, None),
]


@functools.cache
def imported_for_real(name: str, file: str, scale: str | None) -> Import:
    if not (REAL / file).is_file():
        pytest.skip("the real label files are not here")
    if not file.startswith("maxwell/"):
        return imported(name, REAL / file, scale=scale)
    # Which files these are: those of the text of DOVER, and all others up to 4542.
    text = (REAL / "fast-vqa-txt/DIVIDE_MaxWell/val_labels.txt").read_text()
    val = [line.split(",")[0] for line in text.splitlines()]
    train = sorted({f"{number:04d}.mp4" for number in range(4543)} - set(val))
    with TemporaryDirectory() as folder:
        (names := Path(folder, "names.txt")).write_text("\n".join(val if name == "maxwell-val" else train))
        return imported(name, REAL / file, scale=scale, names=names)


@pytest.mark.parametrize(("name", "file", "count", "scale"), REAL_FILES, ids=[file for _, file, *_ in REAL_FILES])
def test_real_files_import_with_their_counts(name: str, file: str, count: int, scale: str | None) -> None:
    done = imported_for_real(name, file, scale)
    table = done.manifest.table
    assert table.num_rows == count
    assert count in load_set(name).counts
    raw, mos = table.column("mos_raw").to_numpy(), table.column("mos").to_numpy()
    assert (mos >= 1).all()
    assert (mos <= 5).all()
    assert (np.diff(mos[np.argsort(raw, kind="stable")]) >= 0).all()
    back = [done.manifest.scales[name].to_raw(value) for value in mos]
    np.testing.assert_allclose(back, raw, rtol=0, atol=1e-10 * max(1, abs(raw).max()))


# Which clips of a set only one of two files knows, and where the two disagree on the others.
SOURCES = [
    ("lsvq-test", "lsvq/LSVQ_whole_test.csv", "fast-vqa-txt/LSVQ/labels_test.txt", (48, 14)),
    ("lsvq-test", "q-align-json/test_lsvq.json", "fast-vqa-txt/LSVQ/labels_test.txt", (0, 0)),
    ("lsvq-1080p", "lsvq/LSVQ_whole_test_1080p.csv", "fast-vqa-txt/LSVQ/labels_1080p.txt", (0, 12)),
    ("lsvq-1080p", "q-align-json/test_lsvq_1080p.json", "fast-vqa-txt/LSVQ/labels_1080p.txt", (0, 0)),
    ("konvid-1k", "konvid-1k/KoNViD-1k_data.mat", "fast-vqa-txt/KoNViD/labels.txt", (0, 0)),
    ("konvid-1k", "konvid-1k/KoNViD_labels_cleaned.txt", "fast-vqa-txt/KoNViD/labels.txt", (0, 0)),
    ("live-vqc", "live-vqc/LIVE_VQC_data.mat", "fast-vqa-txt/LIVE_VQC/labels.txt", (0, 0)),
    ("youtube-ugc", "youtube-ugc/youtube_ugc_data.mat", "fast-vqa-txt/YouTubeUGC/labels.txt", (0, 5)),
    (
        "live-qualcomm",
        "live-qualcomm/LIVE-Qualcomm_qualcommSubjectiveData.mat",
        "fast-vqa-txt/LIVE_Qualcomm/labels.txt",
        (0, 0),
    ),
]


@pytest.mark.parametrize(
    ("name", "one", "other", "alone"), SOURCES, ids=[f"{one} {other}" for _, one, other, _ in SOURCES]
)
def test_two_files_of_one_set_hold_the_same_opinions(name: str, one: str, other: str, alone: tuple[int, int]) -> None:
    scales = {file: scale for _, file, _, scale in REAL_FILES}
    first, second = (
        dict(zip(table["clip_id"].to_pylist(), table["mos_raw"].to_pylist(), strict=True))
        for table in (imported_for_real(name, file, scales[file]).manifest.table for file in (one, other))
    )
    assert (len(first.keys() - second.keys()), len(second.keys() - first.keys())) == alone
    common = sorted(first.keys() & second.keys())
    np.testing.assert_allclose([first[key] for key in common], [second[key] for key in common], rtol=0, atol=1e-4)


def test_opinions_that_others_stretched_keep_their_order() -> None:
    for name, mapped, own in (
        ("lsvq-test", "lsvq/LSVQ_test_labels_normalized.txt", "fast-vqa-txt/LSVQ/labels_test.txt"),
        ("lsvq-1080p", "lsvq/LSVQ_labels_1080p_normalized.txt", "fast-vqa-txt/LSVQ/labels_1080p.txt"),
        ("kadid-10k", "kadid-10k/KADID-10K_train_set.txt", "kadid-10k/KADID-10K_mos.txt"),
    ):
        tables = [imported_for_real(name, file, None).manifest.table for file in (mapped, own)]
        raw = [dict(zip(t["clip_id"].to_pylist(), t["mos_raw"].to_pylist(), strict=True)) for t in tables]
        common = sorted(raw[0].keys() & raw[1].keys())
        line = np.array([[one[key] for key in common] for one in raw])
        assert np.corrcoef(line)[0, 1] > 1 - 1e-6


def test_whole_numbers_of_cvd2014_are_told_to_be_others() -> None:
    done = imported_for_real("cvd2014", "cvd2014/CVD2014_data.mat", "observed")
    assert any("not the realigned opinions" in note for note in done.notes)


def test_the_cards_of_configs_eval_name_known_sets() -> None:
    cards = {path.stem: yaml.safe_load(path.read_text()) for path in (configs_folder() / "eval").glob("*.yaml")}
    assert cards
    for name, card in cards.items():
        assert card["dataset"] in set_names(), name
        assert name.endswith(f"_{card['dataset']}")


def test_every_set_of_the_issue_can_be_imported() -> None:
    videos = "lsvq-train lsvq-test lsvq-1080p konvid-1k konvid-150k-a konvid-150k-b live-vqc youtube-ugc cvd2014 "
    videos += "live-qualcomm live-yt-gaming lbvd maxwell-train maxwell-val vdpve t2vqa-db"
    images = "kadid-10k koniq-10k spaq pipal live-c agiqa-3k csiq tid2013 bid"
    kinds = {name: load_set(name).kind for name in set_names()}
    assert kinds == dict.fromkeys(videos.split(), "video") | dict.fromkeys(images.split(), "image")


def test_contents_and_splits_of_the_real_sets_are_as_published(tmp_path: Path) -> None:
    if not REAL.is_dir():
        pytest.skip("the real label files are not here")
    kadid = imported("kadid-10k", REAL / "kadid-10k/KADID-10K_mos.txt").manifest.table.to_pylist()
    parts = {part: [row for row in kadid if row["split"] == part] for part in ("train", "val", "test")}
    assert {part: len(of_part) for part, of_part in parts.items()} == {"train": 6125, "val": 2000, "test": 2000}
    listed = (REAL / "kadid-10k/KADID-10K_train_set.txt").read_text().split("\n")
    assert {row["clip_id"] for row in parts["train"]} == {f"kadid-10k/{line.split()[1]}" for line in listed if line}
    contents = [{row["content_id"] for row in of_part} for of_part in parts.values()]
    assert not (contents[0] & contents[1] or contents[0] & contents[2] or contents[1] & contents[2])
    scenes = imported("live-qualcomm", REAL / "fast-vqa-txt/LIVE_Qualcomm/labels.txt", scale="0,100").manifest.table
    assert len(set(scenes.column("content_id").to_pylist())) == 54


def test_files_are_looked_for_and_every_missing_one_counts(tmp_path: Path) -> None:
    labels = EXCERPTS / "fast_vqa_konvid.txt"
    with pytest.raises(UsageError, match=r"none of the 3 labelled files is in .*KoNViD_1k_videos"):
        imported("konvid-1k", labels, str(tmp_path), check=True)
    (tmp_path / "4542323058.mp4").touch()
    with pytest.raises(UsageError, match=r"2 of 3 labelled files are not in .*: 9753414792.mp4, 6935410837.mp4;"):
        imported("konvid-1k", labels, str(tmp_path), check=True)
    for name in ("9753414792.mp4", "6935410837.mp4"):
        (tmp_path / name).touch()
    found = imported("konvid-1k", labels, str(tmp_path), check=True).manifest.table
    assert found.column("uri").to_pylist()[0] == str(tmp_path / "4542323058.mp4")
    with pytest.raises(UsageError, match="a store is not looked through"):
        imported("konvid-1k", labels, "s3://bucket/konvid", check=True)
    remote = imported("konvid-1k", labels, "s3://bucket/konvid").manifest.table.column("uri").to_pylist()
    assert remote[0] == "s3://bucket/konvid/KoNViD_1k_videos/4542323058.mp4"


def test_a_file_may_have_another_ending_than_its_label(tmp_path: Path) -> None:
    labels = EXCERPTS / "fast_vqa_konvid.txt"
    for name in ("4542323058.mp4", "9753414792.webm", "9753414792.txt", "6935410837.mkv"):
        (tmp_path / name).touch()
    done = imported("konvid-1k", labels, str(tmp_path), check=True)
    assert done.manifest.table.column("clip_id").to_pylist()[1] == "konvid-1k/9753414792.webm"
    assert any("2 files are there under another ending: 9753414792.mp4 as" in note for note in done.notes)
    (tmp_path / "6935410837.avi").touch()
    with pytest.raises(UsageError, match=r"1 of 3 labelled files are not in .*: 6935410837.mp4;"):
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
    ("x.txt", "a.mp4, 1, 2, 3, 4\n", None, r"expected 4 fields parted by comma .*; found 5 fields"),
    ("x.mat", "no mat", None, "cannot be read as mat"),
    ("nowhere.csv", None, None, "cannot be read as csv"),
    ("x.xlsx", None, None, r"ships labels as .*, not xlsx"),
    ("x.csv", {"file_name": [1, 2], "MOS": [3, 6.5]}, None, r"row 2 \(2\): opinion 6.5 is outside the scale 1-5"),
    ("x.csv", {"file_name": [1, 2], "MOS": [3, "good"]}, None, r"row 2 \(2\): MOS = 'good'; wanted a number"),
    ("x.csv", {"file_name": [1, 2, 1], "MOS": [3, 4, 3]}, None, r"'1.mp4' in rows 1, 3; each clip needs one opinion"),
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


def test_rows_without_an_opinion_are_left_out_and_told(tmp_path: Path) -> None:
    labels = written(tmp_path / "x.csv", {"file_name": ["1.mp4", "2.mp4"], "MOS": ["3", ""]})
    assert "1 rows without an opinion left out (rows 2 of the labels)" in imported("konvid-1k", labels).notes


def test_the_direction_is_checked_where_names_tell_the_damage(tmp_path: Path) -> None:
    names = [f"I{content:02d}_01_{level:02d}.png" for content in range(1, 31) for level in range(1, 6)]
    for good, message in ((True, None), (False, "opinions rise with the strength of the damage")):
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
    request = Request(name="ladder", labels=tmp_path / "ladder.parquet", root=str(tmp_path))
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
    assert "no person was asked" in back.scales[LADDER].source
    assert back.scales[LADDER] == Scale(low=1, high=5, source=back.scales[LADDER].source)
