"""The commands: files, exit codes, cards, and a calibration that changes no score."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import vqa as vqa_package
from tests.support import opinions
from vqa.cli.config import resolved
from vqa.config import configs_folder
from vqa.data.public.specs import load_set
from vqa.data.score_table import read_scores
from vqa.evaluate.card import load_card
from vqa.evaluate.compare import COMPARED

Command = Callable[..., tuple[int, str, str]]
CARDS = sorted((configs_folder() / "eval").glob("*.yaml"))
SCORES = ("score", "score_std", "score_global", "score_local", "reason")
CLIPS = Path(__file__).resolve().parents[2] / "vqa/assets/clips"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    labels, scores = opinions.clips(60)
    return opinions.write_csv(tmp_path / "s.csv", scores), opinions.write_csv(tmp_path / "l.csv", labels)


def test_evaluate_writes_its_files(vqa: Command, files: tuple[Path, Path], tmp_path: Path) -> None:
    scores, labels = files
    code, out, err = vqa("evaluate", scores, "--labels", labels, "--out", tmp_path / "e", "--resamples", 50)
    assert code == 0
    assert "60 / 60" in out
    assert "60 of 60 expected clips used (ok 60), joined by uri, column score" in err
    assert "set: medians of 10 random parts of 20%: SRCC 0." in err
    metrics = json.loads((tmp_path / "e/metrics.json").read_text(encoding="utf-8"))
    assert metrics["reported"] is True
    assert {"clips.parquet", "unused.csv", "report.html"} <= {path.name for path in (tmp_path / "e").iterdir()}
    code, out, _ = vqa(
        "evaluate",
        scores,
        "--labels",
        labels,
        "--out",
        tmp_path / "e",
        "--resamples",
        0,
        "--split",
        "test",
        "--json",
        "--no-report",
    )
    assert (code, json.loads(out)["counts"]["expected"]) == (0, 30)


def test_gaps_are_exit_code_3_and_wrong_usage_is_2(vqa: Command, files: tuple[Path, Path], tmp_path: Path) -> None:
    scores, labels = files
    scores.write_text("\n".join([*scores.read_text(encoding="utf-8").splitlines()[:-5], "nobody.mp4,3"]))
    arguments = ("evaluate", scores, "--labels", labels, "--out", tmp_path / "e", "--resamples", 0, "--no-report")
    code, out, err = vqa(*arguments)
    assert code == 3
    assert "55 of 60 expected clips have a score" in out
    assert "unmatched, 1 rows of the scores: nobody.mp4" in err
    assert "missing, 5 rows of the labels: set/clip55, set/clip56, set/clip57 and 2 more" in err
    unused = (tmp_path / "e/unused.csv").read_text(encoding="utf-8").splitlines()
    assert unused[:2] == ["side,row,clip,reason", "labels,56,set/clip55,missing"]
    assert unused[6:] == ["scores,56,nobody.mp4,unmatched"]
    assert vqa(*arguments, "--allow-missing")[0] == 0
    assert vqa("compare", scores, scores, "--labels", labels)[0] == 2
    assert vqa("evaluate", "--labels", labels, "--out", tmp_path / "e")[0] == 2
    for wrong, says in ((["--column", "x"], "no column 'x'"), (["--split", "x"], "no row of split 'x'")):
        code, out, err = vqa(*arguments, *wrong)
        assert (code, out) == (2, "")
        assert says in err


def test_compare_and_calibrate_write_json(vqa: Command, files: tuple[Path, Path], tmp_path: Path) -> None:
    scores, labels = files
    other = opinions.write_csv(tmp_path / "other.csv", opinions.clips(60, noise=1.5)[1])
    arguments = ("--labels", labels, "--out", tmp_path / "c.json", "--resamples", 50)
    code, out, _ = vqa("compare", scores, other, *arguments)
    assert code == 0
    assert "meng" in out
    assert all(name in out for name in COMPARED)  # whole, at 80 columns
    assert json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))["used"] == 60
    code, out, err = vqa("calibrate", scores, "--labels", labels, "--coverage", 0.8)
    assert code == 0
    assert "target coverage 80%" in out
    assert str(tmp_path / "s.calibration.json") in err


# Lines of the ground truth files of General-Visual-Quality-RL, and of VQAThinker's where they differ.
RELEASED_COUNTS: dict[str, set[int | None]] = {
    "agiqa-3k": {2982},
    "bid": {586},
    "csiq": {866, 750},
    "kadid-10k": {10_125, 2000},
    "koniq-10k": {10_073, 2010},
    "konvid-1k": {1200},
    "live-c": {1169, 1162},
    "live-vqc": {585},
    "lsvq-1080p": {3573},
    "lsvq-test": {7186, 7182},
    "pipal": {23_200},
    "spaq": {11_125, 2224},
    "tid2013": {3000},
    "youtube-ugc": {1147, 1020},
}


@pytest.mark.parametrize("path", CARDS, ids=[path.stem for path in CARDS])
def test_each_card_resolves_is_named_by_its_model_and_set_and_begins_with_its_command(
    path: Path, tmp_path: Path
) -> None:
    card = load_card(path)
    (tmp_path / "score.yaml").write_text(yaml.safe_dump(card.score), encoding="utf-8")
    asked = resolved(tmp_path / "score.yaml", kind="score")
    model = card.score["model"]
    name = model if isinstance(model, str) else model["name"]
    assert asked["generation"]["max_new_tokens"] == 512
    if name in ("preresiqa-r1", "visualquality-r1-7b"):  # as their released scripts sample
        assert (asked["generation"]["generation"], asked["generation"]["top_k"]) == ("sample", 50)
        if load_set(card.dataset).kind == "image":  # of videos they publish nothing
            assert (asked["model"]["min_pixels"], asked["model"]["max_pixels"]) == (3136, 12_845_056)
    known = card.published.clips
    assert known in RELEASED_COUNTS[card.dataset] | {None}
    assert (configs_folder() / f"models/{name}.yaml").is_file()
    assert path.stem == f"{name}_{card.dataset}"
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# vqa evaluate --card configs/eval/{path.name} --labels {card.dataset}.parquet --out OUT"


def test_a_card_of_another_set_and_paths_that_are_in_the_way_are_refused(
    vqa: Command, files: tuple[Path, Path], tmp_path: Path
) -> None:
    scores, labels = files
    code, _, err = vqa("evaluate", scores, "--card", "preresiqa-r1_konvid-1k", "--labels", labels, "--out", "x")
    assert code == 2
    assert "the card is for konvid-1k, but" in err
    assert "holds set. " in err
    code, _, err = vqa("evaluate", scores, "--labels", labels, "--out", scores)
    assert (code, err) == (2, f"vqa: --out {scores} is a file. Give a folder.\n")
    code, _, err = vqa("evaluate", scores, "--labels", labels, "--out", scores / "below", "--resamples", 0)
    assert (code, err) == (1, f"vqa: {scores}/below: Not a directory; give another path\n")
    code, _, err = vqa("calibrate", scores, "--labels", labels, "--out", tmp_path)
    assert (code, err) == (2, f"vqa: {tmp_path}: is a folder. Give the name of a file.\n")


def test_a_card_that_is_not_there_is_refused_with_those_there_are(vqa: Command, files: tuple[Path, Path]) -> None:
    code, _, err = vqa("evaluate", "--card", "nobody", "--labels", files[1], "--out", "x")
    assert code == 2
    assert "preresiqa-r1_konvid-1k" in err


def test_a_card_whose_question_is_not_kept_is_refused_unless_told(
    vqa: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    labels = opinions.write_csv(tmp_path / "labels.csv", [{"path": "gone.mp4", "mos": 2.0}])
    code, _, err = vqa(
        "evaluate", "--card", "visualquality-r1-7b_koniq-10k", "--labels", labels, "--out", tmp_path / "out"
    )
    assert code == 2
    assert "visualquality-r1-7b would not be asked in the words that it was trained with" in err
    assert "`vqa model fetch-question visualquality-r1-7b` reads them, --own-question asks it in our words" in err
    assert {load_card(path).asked for path in CARDS if path.stem.startswith("qwen")} == {"own"}


@pytest.mark.slow
def test_a_card_scores_and_a_calibration_adds_opinions_without_scoring_again(vqa: Command, tmp_path: Path) -> None:
    clips = [{"path": f"sub/{name}.mp4", "mos": 2.0 + at} for at, name in enumerate("abc")]
    (tmp_path / "sub").mkdir()
    for row, source in zip(clips, [*sorted(CLIPS.glob("*.mp4"))[:2], CLIPS / "README.md"], strict=True):
        shutil.copy(source, tmp_path / str(row["path"]))
    labels = opinions.write_csv(tmp_path / "labels.csv", clips)
    card = tmp_path / "card.yaml"
    published = {"srcc": 0.5, "plcc": 0.4, "source": "s"}
    card.write_text(yaml.safe_dump({"dataset": "d", "score": {"model": "embedded"}, "published": published}))
    out = tmp_path / "out"
    code, _, err = vqa("evaluate", "--card", card, "--labels", labels, "--out", out, "--resamples", 0)
    assert code == 3
    assert "failed 1" in err
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["published"]["srcc"] == 0.5
    assert metrics["join"] == "clip_id"
    before = read_scores(out / "scored")
    first = before.to_pylist()[0]
    alone = vqa_package.Scorer.load("embedded").score_file(first["uri"], clip_id=first["clip_id"])
    assert [first[name] for name in SCORES] == [getattr(alone, name) for name in SCORES]

    rated, scores = opinions.clips(60)
    rival, opinion = opinions.write_csv(tmp_path / "s.csv", scores), opinions.write_csv(tmp_path / "l.csv", rated)
    calibration = tmp_path / "calibration.json"
    assert vqa("calibrate", rival, "--labels", opinion, "--out", calibration, "--coverage", 0.8)[0] == 0
    again = ("score", out / "clips.jsonl", "--out", out / "scored", "--config", out / "score.yaml", "--max-failed", 3)
    assert vqa(*again, "--calibration", calibration)[0] == 0
    after = read_scores(out / "scored")
    assert [(row["mos"] is None) == (row["score"] is None) for row in after.to_pylist()] == [True] * 3
    same = [name for name in before.column_names if name not in ("mos", "mos_low", "mos_high")]
    scored = [row for row in before.select(same).to_pylist() if row["score"] is not None]
    assert scored == [row for row in after.select(same).to_pylist() if row["score"] is not None]
    assert vqa(*again)[0] == 0
    assert read_scores(out / "scored").column("mos").null_count == 3
    foreign = json.loads(calibration.read_text(encoding="utf-8")) | {"model_id": "other/model"}
    calibration.write_text(json.dumps(foreign), encoding="utf-8")
    code, _, err = vqa(*again, "--calibration", calibration)
    assert code == 2
    assert "made for other/model" in err
