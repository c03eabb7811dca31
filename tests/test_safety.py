"""What the page on safety promises: its tests exist, no secret is written, no link is written through."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.request import ScoreRequest
from jobs.score import score
from tests.support import clips
from tests.support.kept import ROOT
from vqa.console import Engine
from vqa.files import replacing

PAGE = ROOT / "docs" / "concepts" / "safety.md"
SECRETS = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "OPENAI_API_KEY", "VQA_SECRET_OF_A_TEST")
CANARY = "canary-5f2c81"


def test_every_line_of_the_page_names_tests_that_exist() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    assert len(lines) > 20
    for line in lines:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", line)
        assert named, f"no test: {line}"
        for path, test in named:
            assert (ROOT / path).is_file(), path
            assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8") if test else True, f"{path}::{test}"


def test_no_secret_of_the_environment_reaches_rows_records_or_the_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, CANARY)
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    clips.write_image(folder / "a.png", width=96, height=64)
    clips.write_text(folder / "b.mp4")
    request = ScoreRequest(sources=(str(folder),), out=out, tier="light", engine=Engine.LOCAL, max_failed="1")
    assert score(request) == 0
    said = "".join(capfd.readouterr())
    for path in filter(Path.is_file, out.rglob("*")):
        said += str(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" else path.read_text(encoding="utf-8")
    assert "a.png" in said
    assert CANARY not in said


def test_a_link_in_the_place_of_a_file_or_its_draft_is_replaced_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "out.json"
    path.symlink_to(victim)
    (tmp_path / ".out.json.tmp").symlink_to(victim)
    with replacing(path) as draft:
        draft.write_text("new")
    assert (victim.read_text(), path.read_text(), path.is_symlink()) == ("precious", "new", False)
