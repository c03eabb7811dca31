"""The commands of the how-to pages run as they stand, each page in a folder of its own, on the demo clips.

`vqa` is a warm command (tests/support/warm.py); on the pages of COLD it is the installed one.
"""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.pages import HOWTO, ROOT, Block, blocks, command_lines, parsed
from tests.support.scale import FULL
from vqa.data.score_table import read_scores
from vqa.data.synthetic.demo import DISTORTED
from vqa.light.student import Student
from vqa.media import probe
from vqa.types import Clip, Score
from vqa.views import ViewsConfig, look

MANY = 60  # clips of the made-up KoNViD-1k
FIRST = "score_a_folder"
OVER_MANY = {"calibrate", "evaluate", "your_viewers"}  # pages whose `out` holds scores of those
LISTED = {"big_buck_bunny": 71.5, "compressed": 48.0, "noisy": 30.2}  # the clips of `mine`
COLD = {"recover_mos"}
# What pages after the first one find in `clips`, small: the demo's size is only asked of the first page's scores.
KEPT = ("big_buck_bunny", "big_buck_bunny_end", "compressed", "noisy", "cut_off", "not_a_video")
MILD = ("compressed", "blurred", "noisy")  # of the copies, each of which takes a second to look at
RUN = {"shell": ["bash", "-euo", "pipefail", "-c"], "python": ["python", "-c"]}


def run_page(page: str, folder: Path, warm: Path) -> int:
    """Run the blocks of a page; returns how many there were."""
    found = [block for block in blocks(ROOT / "docs" / "howto" / f"{page}.md") if block.language in RUN]
    runnable = [block for block in found if block.not_run is None]
    for block in runnable:
        run(block, folder, Path(sys.executable).parent if page in COLD else warm)
    return len(runnable)


def run(block: Block, folder: Path, commands: Path) -> None:
    environment = os.environ | {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "120",
    }
    done = subprocess.run(
        [*RUN[block.language], block.text], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory, warm_commands: Path) -> Path:
    """What the pages take for granted: the first page's `clips` and `out`, a small KoNViD-1k, and tables of labels."""
    base = tmp_path_factory.mktemp("howto")
    run_page(FIRST, base, warm_commands)
    make_small(base / "clips", base / "small")
    make_sets(base, warm_commands)
    return base


def make_small(clips: Path, folder: Path) -> None:
    """Copies of KEPT at a quarter of their size, frame by frame; what cannot be decoded stays as it is."""
    folder.mkdir()
    for path in (clips / f"{name}.mp4" for name in KEPT):
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-vf", "scale=iw/4:ih/4"]
        command += ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "20", str(folder / path.name)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            shutil.copy(path, folder)


def make_sets(base: Path, warm: Path) -> None:
    """Beside `small` and `out`: a KoNViD-1k of hard links to the clips, its scores in `out-many`, and other labels."""
    rows_of = {Path(row["uri"]).stem: row for row in read_scores(base / "out").to_pylist()}
    scored = [rows_of[name] for name in KEPT if rows_of[name]["score"] is not None]
    videos = base / "videos" / "KoNViD_1k_videos"
    videos.mkdir(parents=True)
    random = np.random.default_rng(0)
    rows, labels, rivals = [], [], []
    for place in range(MANY):
        like, video = scored[place % len(scored)], videos / f"{1000 + place}.mp4"
        os.link(base / "small" / like["clip_id"], video)
        score = float(np.clip(like["score"] + random.normal(0, 0.2), 1, 5))
        rows.append(like | {"clip_id": f"KoNViD_1k_videos/{video.name}", "uri": str(video), "score": score})
        opinion = float(np.clip(1.5 + 0.7 * (score - 1) + random.normal(0, 0.2), 1, 5))
        labels.append({"flickr_id": 1000 + place, "mos": f"{opinion:.3f}"})
        rivals.append({"path": str(video), "score": f"{random.normal(opinion, 1):.3f}"})
    (base / "out-many" / "scores").mkdir(parents=True)
    table = pa.Table.from_pylist(rows, schema=read_scores(base / "out").schema)
    pq.write_table(table, base / "out-many" / "scores" / "part-000001.parquet")
    shutil.copy(base / "out" / "run.json", base / "out-many" / "run.json")
    write(base / "KoNViD_1k_attributes.csv", labels)
    make_votes(base, {str(row["clip_id"]): float(label["mos"]) for row, label in zip(rows, labels, strict=True)})
    write(base / "rival.csv", rivals)
    votes = {f"clip{place}": mean for place, mean in enumerate(np.linspace(1.5, 4.5, 16))}
    write(
        base / "ratings.csv",
        [
            {"clip": f"{clip}.mp4", "subject": f"s{subject}", "rating": round(np.clip(random.normal(mean, 0.6), 1, 5))}
            for subject in range(12)
            for clip, mean in votes.items()
        ],
    )
    seen = [
        (one, other, votes[one] - votes[other] + random.normal()) for one in votes for other in votes if one < other
    ]
    write(
        base / "pairs.csv",
        [{"first": one, "second": other, "result": 1 if gap > 0 else -1} for one, other, gap in seen],
    )
    (base / "labels.txt").write_text("".join(f"{name}.mp4,5.28,25,{mos}\n" for name, mos in LISTED.items()))
    imports = (
        "vqa data import konvid-1k --root videos --labels KoNViD_1k_attributes.csv --out konvid-1k.parquet\n"
        "vqa data import fast-vqa-txt --dataset mine --root small --labels labels.txt --scale 0,100 --kind video "
        "--out mine.parquet\n"
    )
    run(Block(language="shell", text=imports, not_run=None), base, warm)


def make_votes(base: Path, opinions: dict[str, float]) -> None:
    """Comparisons of `vqa rate` over the made-up KoNViD-1k, and the opinions of six of its clips."""
    random = np.random.default_rng(1)
    votes: list[dict[str, object]] = []
    for first in opinions:
        for second in random.choice([name for name in opinions if name != first], 8, replace=False):
            gap = opinions[first] - opinions[second] + random.normal(0, 0.3)
            votes.append({"first": first, "second": second, "result": 1 if gap > 0 else -1, "subject": "ann"})
    write(base / "votes.csv", votes)
    known = sorted(opinions, key=lambda name: opinions[name])[:: len(opinions) // 5]
    write(base / "known.csv", [{"file_name": name, "mos": opinions[name]} for name in known])


def write(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.slow
@pytest.mark.parametrize("page", [FIRST, *(page.stem for page in HOWTO if page.stem != FIRST)])
def test_the_commands_of_a_page_run(page: str, material: Path, warm_commands: Path, tmp_path: Path) -> None:
    if page == FIRST:
        assert (material / "scores.csv").is_file(), "the last command of the page that the others build on"
        return
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "videos").symlink_to(material / "videos")
    shutil.copytree(material / "small", tmp_path / "clips")
    shutil.copytree(material / ("out-many" if page in OVER_MANY else "out"), tmp_path / "out")
    for name in (
        "KoNViD_1k_attributes.csv",
        "rival.csv",
        "ratings.csv",
        "pairs.csv",
        "votes.csv",
        "known.csv",
        "konvid-1k.parquet",
        "mine.parquet",
    ):
        shutil.copy(material / name, tmp_path)
    if not run_page(page, tmp_path, warm_commands):
        pytest.skip("nothing on this page can run here")


@pytest.mark.slow
def test_the_first_page_gets_answers_with_reasons_and_ranks_plain_damage(material: Path) -> None:
    """What the embedded model promises of the demo clips."""
    rows = {Path(row["uri"]).stem: row for row in read_scores(material / "out").to_pylist()}
    assert len(rows) == 12
    assert {"cut_off", "not_a_video", "frozen", "big_buck_bunny"} <= rows.keys()
    assert all(path.stat().st_size for path in (material / "clips").iterdir())
    for name in rows.keys() - {"cut_off", "not_a_video"}:
        assert rows[name]["status"] == "ok" and rows[name]["reason"], name
        assert 1 <= rows[name]["score"] <= 5, name
    for clean in ("big_buck_bunny", "reference"):  # the first table of `make score` is right
        assert all(rows[copy]["score"] < rows[clean]["score"] for copy in DISTORTED)
    assert {name for name, row in rows.items() if re.search("freez|frozen", row["reason"] or "")} == {"frozen"}


@pytest.mark.slow
def test_copies_of_one_reference_at_its_size_score_below_it_and_the_original_by_the_light_tier(material: Path) -> None:
    copies = tuple(DISTORTED) if FULL else MILD
    whole = {name: str(material / "clips" / f"{name}.mp4") for name in ("big_buck_bunny", "reference", *copies)}
    assert {(info.width, info.height) for info, _ in map(probe, whole.values())} == {(1280, 720)}
    student = Student.load()
    views = ViewsConfig.model_validate(student.card.views)
    found = student.score([look(Clip(clip_id=name, uri=path), views) for name, path in whole.items()])
    scores = {name: one.score or 0.0 for name, one in zip(whole, found, strict=True) if isinstance(one, Score)}
    for clean in ("big_buck_bunny", "reference"):
        assert all(scores[clean] > scores[copy] for copy in copies), scores


def test_blocks_that_are_not_run_say_why_and_their_commands_parse() -> None:
    skipped = [(page.stem, block) for page in HOWTO for block in blocks(page) if block.not_run]
    for page, block in skipped:
        print(f"{page}: {block.not_run}")
        for words in command_lines(block.text):
            parsed(words)
    assert len(skipped) == 20
    assert {block.language for page in HOWTO for block in blocks(page)} <= {*RUN, "text"}
