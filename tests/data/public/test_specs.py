"""Public data sets: excerpts of real files and every layout and dialect import with the names and numbers they hold."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pytest import approx
from scipy.io import savemat

from tests.support.labels import EXCERPTS, Row, cells, rows, written
from vqa.config import configs_folder
from vqa.data.public.specs import load_set, set_names
from vqa.errors import UsageError


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
    with pytest.raises(UsageError, match="--names FILE, a text file with the 3 files"):
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
AVT = "Dancers.avi_1frame_crf_07_height_0208"  # of a source in the last fold
AVT_LAB = {"image_name": [AVT, AVT.replace("07", "09")], "mos": [2, 3.4], "ci": ["", 0.5], "std": [0.5, 0.6]}
AVT_VOTES = {
    "rating": [3, 1, 2],
    "user_ID": [1, 2, 1],
    "video_name": [f"['.\\\\selection\\\\{AVT}.png']"] * 2 + [f"{AVT[:-4]}0544.png"],
}
AVT_CROWD = {
    "user_ID": [1, 1, 2],
    "stimuli_file": [f"./images/{AVT}_{corner}.png" for corner in ("tl", "br", "tl")],
    "rating": [1, 2, 3],
}
AVT_SHARED = {
    "file": [f"images/{AVT}.webp"],
    "source": ["Dancers.avi_1frame"],
    "crf": [7],
    "height": [208],
    "mos_lab": [2.0],
    "std_lab": [0.5],
}
AVT_SHARED |= {"mos_crowd": [1.6], "std_crowd": [0.6], "vmaf_from_repo": [20.1], "user1": [2]}
AVT_ROW = {"content_id": "avt-image-quality/dancers.avi_1frame", "split": "train", "fold": 4, "shown_size": "2160x2160"}
LAYOUTS = [
    layout(
        "avt-image-quality", ".csv", AVT_LAB, {"mos": 2, "mos_std": 0.5, "uri": f"/clips/images/{AVT}.png"}, AVT_ROW
    ),
    layout(
        "avt-image-quality",
        ".csv",
        AVT_VOTES,
        {"mos": 2, "mos_std": approx(2**0.5), "aspects": {"votes": 2}},
        {"mos_std": None},
    ),
    layout(
        "avt-image-quality", ".csv", AVT_CROWD, AVT_ROW | {"mos": 2, "mos_std": 1, "uri": f"/clips/images/{AVT}.png"}
    ),
    layout("avt-image-quality", ".csv", AVT_SHARED, AVT_ROW | {"mos": 2, "uri": f"/clips/images/{AVT}.webp"}),
    layout(
        "pcuid",
        ".csv",
        {"file": ["300-1/图片7.jpg"], "mos": [75]},
        {"mos": 4, "content_id": "pcuid/7", "split": "train", "fold": 2},
    ),
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
    layout("kadid-10k", ".csv", KADID, KADID_ROW | {"split": "val"}),
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
    with pytest.raises(UsageError, match=r"a dialect names no data set\. Give --dataset NAME"):
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
        with pytest.raises(
            UsageError, match=r"rating scale is not documented .*here range from 3 to 3\.5.*--scale LOW,HIGH"
        ):
            rows(kind, tmp_path / "x.txt", dataset=name)
        assert [row["mos"] for row in rows(kind, tmp_path / "x.txt", dataset=name, scale="observed")] == [1, 5]
    else:
        assert spec.scale.source
        assert "NOT FOUND; add --scale" not in first


def test_the_cards_of_configs_eval_name_known_sets() -> None:
    cards = {path.stem: yaml.safe_load(path.read_text()) for path in (configs_folder() / "eval").glob("*.yaml")}
    assert cards
    for name, card in cards.items():
        assert card["dataset"] in set_names(), name
        assert name.endswith(f"_{card['dataset']}")


def test_every_set_of_the_issue_can_be_imported() -> None:
    videos = "lsvq-train lsvq-test lsvq-1080p konvid-1k konvid-150k-a konvid-150k-b live-vqc youtube-ugc cvd2014 "
    videos += "live-qualcomm live-yt-gaming lbvd maxwell-train maxwell-val vdpve t2vqa-db"
    images = "kadid-10k koniq-10k spaq pipal live-c agiqa-3k csiq tid2013 bid avt-image-quality pcuid"
    kinds = {name: load_set(name).kind for name in set_names()}
    assert kinds == dict.fromkeys(videos.split(), "video") | dict.fromkeys(images.split(), "image")
