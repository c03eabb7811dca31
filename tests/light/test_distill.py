"""From opinions to a student to a row: the commands, on a few drawn pictures."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image, ImageFilter

from jobs.score import ScoreRequest, inputs_of, score
from tests.support import clips
from tests.support.job_runs import table
from vqa.config import load
from vqa.console import Engine
from vqa.errors import ModelError, UsageError
from vqa.light.card import student_digest
from vqa.light.distill import PACKAGE, DistillConfig, distill


@pytest.fixture(scope="module")
def opinions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of three contents; people like the sharp ones. The config that learns from them."""
    folder = tmp_path_factory.mktemp("opinions")
    (folder / "people/tiny").mkdir(parents=True)
    (folder / "photographs").mkdir()
    rows = ["file,mos,source"]
    for content in range(4):
        whole = Image.fromarray(clips.picture(0, width=256, height=192, seed=content, noise=20.0))
        for level in range(4):
            whole.filter(ImageFilter.GaussianBlur(level * 1.5)).save(folder / f"people/tiny/{content}{level}.png")
            rows.append(f"{content}{level}.png,{4.5 - level},{content}")
    (folder / "people/tiny/t.csv").write_text("\n".join(rows))
    people = {"name": "tiny", "table": "t.csv", "picture": "file", "opinion": "mos", "low": 1, "high": 5}
    people |= {"group": "source", "expected": 16, "terms": "mine", "test_fold": 0, "modulo": 2}
    (folder / "people.yaml").write_text(yaml.safe_dump(people))
    for n in range(2):
        clips.write_image(folder / f"photographs/{n}.png", width=300, height=200, seed=10 + n)
    config = {
        "name": "tiny",
        "folder": str(folder / "people"),
        "opinions": [{"people": str(folder / "people.yaml")}],
        "ladders": {"sources": [str(folder / "photographs")], "kinds": 2, "levels": 2, "shortest": 96, "longest": 128},
        "cache": str(folder / "cache"),
        "keyframes": 2,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_a_student_is_trained_scores_and_is_named_in_every_row(
    opinions: Path, tmp_path: Path, vqa: Callable[..., tuple[int, str, str]]
) -> None:
    pytest.importorskip(PACKAGE)
    out = tmp_path / "student"
    code, said, heard = vqa("distill", opinions / "config.yaml", "--out", out)
    assert code == 0, heard
    assert student_digest(out) in said
    assert sum(path.stat().st_size for path in out.iterdir()) < 20_000_000
    assert yaml.safe_load((out / "student.yaml").read_text())["trained_on"][1:] == [
        "tiny: 16 of 16 pictures (mine)",
        "ladders: 10 pictures of 2 contents, in order of severity",
    ]

    (tmp_path / "in").mkdir()
    clips.write_text(tmp_path / "in/broken.mp4")
    for level in range(4):
        Image.open(opinions / f"people/tiny/0{level}.png").save(tmp_path / f"in/{level}.png")
    request = ScoreRequest(
        sources=(str(tmp_path / "in"),), out=tmp_path / "out", tier="light", student=out, engine=Engine.LOCAL
    )
    assert score(request) == 3  # broken.mp4
    rows = table(tmp_path / "out")
    found = [rows[f"{level}.png"]["score"] for level in range(4)]
    assert found == sorted(found, reverse=True)
    assert all(1 <= one <= 5 for one in found)
    for row in rows.values():
        assert (row["tier"], row["model_id"], row["model_revision"]) == ("light", "tiny", student_digest(out))
    row = rows["0.png"]
    assert (row["status"], row["answers_parsed"], row["answers_total"], row["reason"]) == ("ok", 0, 0, None)
    assert score(request) == 3
    assert table(tmp_path / "out") == rows


def test_folds_that_are_left_out_are_not_looked_at(opinions: Path, tmp_path: Path) -> None:
    pytest.importorskip(PACKAGE)
    config = load(opinions / "config.yaml", DistillConfig, [f"cache={tmp_path}", "ladders=null"])
    one = config.opinions[0].model_copy(update={"without_folds": [0, 1]})
    with pytest.raises(UsageError, match="0 pictures are left"):
        distill(config.model_copy(update={"opinions": [one]}), lambda _: None)
    half = config.opinions[0].model_copy(update={"without_folds": [1]})
    with pytest.raises(UsageError, match="8 pictures are left"):
        distill(config.model_copy(update={"opinions": [half]}), lambda _: None)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"model": "embedded"}, UsageError, "--model embedded: not used by --tier light"),
        ({"k": 3}, UsageError, "--k 3: not used by --tier light"),
        ({"tier": "reason", "student": Path("x")}, UsageError, "--student x: not used by --tier reason"),
        ({"student": Path("gone")}, ModelError, "student gone: no student.yaml"),
        ({"assignments": ("views.global_kind=mosaic",)}, UsageError, "views.global_kind = 'mosaic': the student"),
    ],
)
def test_what_the_light_tier_cannot_use_is_refused(
    tmp_path: Path, student_folder: Path, change: dict[str, object], error: type[Exception], said: str
) -> None:
    clips.write_image(tmp_path / "a.png")
    values = {"sources": (str(tmp_path),), "out": tmp_path / "out", "tier": "light", "student": student_folder} | change
    if "tier" not in change and "student" in change:
        values["student"] = change["student"]
    with pytest.raises(error, match=said):
        inputs_of(ScoreRequest(**values))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
