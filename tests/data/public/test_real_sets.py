"""The real label files of public sets, where they lie beside the project: counts, scales there and back, two files of
one set beside each other."""

import functools
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from tests.support.labels import PEOPLE, REAL, imported
from vqa.data.public.importer import Import
from vqa.data.public.specs import load_set
from vqa.data.subjective.mos import recover
from vqa.data.subjective.ratings import read_ratings

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


def test_contents_and_splits_of_the_real_sets_are_as_published(tmp_path: Path) -> None:
    if not REAL.is_dir():
        pytest.skip("the real label files are not here")
    kadid = imported("kadid-10k", REAL / "kadid-10k/KADID-10K_mos.txt").manifest.table.to_pylist()
    parts = {part: [row for row in kadid if row["split"] == part] for part in ("train", "val", "test")}
    assert {part: len(of_part) for part, of_part in parts.items()} == {"train": 6125, "val": 2000, "test": 2000}
    labels = REAL / "kadid-10k/KADID-10K_mos.txt"
    of_q_align = imported("kadid-10k", labels, split_lists=("q-align",)).manifest.table
    counts = Counter(of_q_align.column("split").to_pylist())
    assert counts == {"train": 8125, "test": 2000}  # 19 of its 65 references' pictures are not in its list of 8,106
    tested = {row["content_id"] for row in of_q_align.to_pylist() if row["split"] == "test"}
    of_parts = [{row["content_id"] for row in parts[part]} for part in ("train", "test")]
    assert [len(tested & one) for one in of_parts] == [6, 7]  # the two divisions leak into each other
    listed = (REAL / "kadid-10k/KADID-10K_train_set.txt").read_text().split("\n")
    assert {row["clip_id"] for row in parts["train"]} == {f"kadid-10k/{line.split()[1]}" for line in listed if line}
    contents = [{row["content_id"] for row in of_part} for of_part in parts.values()]
    assert not (contents[0] & contents[1] or contents[0] & contents[2] or contents[1] & contents[2])
    for name, file, wanted in (
        ("koniq-10k", "koniq-10k/GT_KonIQ.txt", {"train": 7046, "test": 2010, "unused": 1017}),
        ("spaq", "spaq/GT_SPAQ.txt", {"train": 8897, "test": 2224, "unused": 4}),
    ):
        assert Counter(imported_for_real(name, file, None).manifest.table.column("split").to_pylist()) == wanted
    scenes = imported("live-qualcomm", REAL / "fast-vqa-txt/LIVE_Qualcomm/labels.txt", scale="0,100").manifest.table
    assert len(set(scenes.column("content_id").to_pylist())) == 54


@pytest.mark.skipif(not PEOPLE.is_dir(), reason="the pictures with opinions of people are not beside this checkout")
def test_sets_with_their_pictures_come_in_as_they_lie() -> None:
    folder = PEOPLE / "avt-image-quality"
    lab = imported("avt-image-quality", folder / "scores.csv", str(folder), check=True).manifest.table
    parts = Counter(lab.column("split").to_pylist())
    assert sum(parts.values()) == 324 and set(parts) == {"train", "val", "test"}
    sources = {(row["content_id"], row["fold"]) for row in lab.to_pylist()}
    assert len(sources) == 38 == len({content for content, _ in sources})  # a source is in one fold
    votes = read_ratings(folder / "scores.csv")
    assert (len(votes.clips), len(votes.subjects), len(votes.value)) == (324, 21, 6804)
    np.testing.assert_allclose(
        recover(votes, method="mean").mos, lab.column("mos").to_numpy(), atol=0.07
    )  # two of theirs count a vote twice
    crowd = imported("avt-image-quality", folder / "crowd_ratings_acr.csv", str(folder), check=True, skip_missing=True)
    own = {row["clip_id"]: dict(row["aspects"])["mos_crowd"] for row in lab.to_pylist()}
    found = {row["clip_id"]: row["mos"] for row in crowd.manifest.table.to_pylist()}
    assert found == pytest.approx(own)
    folder = PEOPLE / "pcuid"
    pcuid = imported("pcuid", folder / "scores.csv", str(folder), check=True).manifest.table
    assert all(int(row["content_id"].split("/")[1]) % 5 == row["fold"] for row in pcuid.to_pylist())
    assert Counter(pcuid.column("split").to_pylist()) == {"test": 60, "val": 60, "train": 177}
