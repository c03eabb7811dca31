"""What the page on safety promises: its tests exist, no secret is written, no link is written through."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from jobs import signals
from jobs.lease import FilePlace
from jobs.request import ScoreRequest
from jobs.score import score
from tests.support import clips
from tests.support.kept import ROOT
from vqa import files
from vqa.cli.app import app
from vqa.console import Engine
from vqa.data.score_table import read_scores
from vqa.errors import UsageError
from vqa.files import replacing
from vqa.rate.journal import Journal
from vqa.train.metrics_log import MetricsLog

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


def tree(folder: Path, *, but: Path) -> dict[Path, tuple[int, bytes] | None]:
    return {
        path: (path.lstat().st_mtime_ns, path.read_bytes()) if path.is_file() else None
        for path in folder.rglob("*")
        if not path.is_relative_to(but)
    }


def test_a_clip_id_that_leads_out_of_the_folder_is_only_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = tmp_path / "top/next/below"
    (below / "a").mkdir(parents=True)
    out, listed = below / "out", below / "clips.jsonl"
    names = ["../../x", "../x.jpg", "/etc/x", "a/../../b", f"{tmp_path}/absolute", "..", "x\\..\\..\\y", "a/b"]
    for number in range(len(names)):
        clips.write_image(below / f"{number}.png", width=96, height=64)
    listed.write_text("".join(json.dumps({"clip_id": name, "uri": f"{n}.png"}) + "\n" for n, name in enumerate(names)))
    for name in ("top/x", "top/next/x.jpg", "top/next/b", "absolute"):
        (tmp_path / name).write_text("precious")
    monkeypatch.chdir(below)
    there = tree(tmp_path, but=out)
    assert score(ScoreRequest(sources=(str(listed),), out=out, tier="light", engine=Engine.LOCAL)) == 0
    csv, jsonl = out / "rows.csv", out / "rows.jsonl"
    for command in (["export", "--csv", str(csv)], ["export", "--jsonl", str(jsonl)], ["report"]):
        done = CliRunner().invoke(app, [command[0], str(out), *command[1:]])
        assert done.exit_code == 0, done.output
    assert sorted(json.loads(line)["clip_id"] for line in jsonl.read_text().splitlines()) == sorted(names)
    assert all(name in csv.read_text() for name in names) and (out / "report.html").is_file()
    assert sorted(row["clip_id"] for row in read_scores(out).to_pylist()) == sorted(names)
    assert tree(tmp_path, but=out) == there
    assert not Path("/etc/x").exists()


def test_a_link_in_the_place_of_a_file_or_its_draft_is_replaced_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "out.json"
    path.symlink_to(victim)
    (tmp_path / ".out.json.tmp").symlink_to(victim)
    with replacing(path) as draft:
        draft.write_text("new")
    assert (victim.read_text(), path.read_text(), path.is_symlink()) == ("precious", "new", False)


@pytest.mark.parametrize("swap", ["before", "while made", "while written"])
def test_a_link_put_in_the_place_of_a_draft_at_any_moment_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: str
) -> None:
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    out.mkdir()
    path, place = out / "run.json", out / ".run.json.tmp"
    for name in (path.name, place.name):
        (elsewhere / name).write_text("precious")
    if swap == "before":
        place.symlink_to(elsewhere)
    if swap == "while made":
        free = files.discard
        monkeypatch.setattr(files, "discard", lambda there: (free(there), place.symlink_to(elsewhere)))
        with pytest.raises(FileExistsError), replacing(path):
            pytest.fail("a draft is given where a link is")
    else:
        with replacing(path) as draft:
            if swap == "while written":
                place.rename(out / "aside")
                place.symlink_to(elsewhere)
            draft.write_text("new")
        assert path.read_text() == "new"
    assert {one.name: one.read_text() for one in elsewhere.iterdir()} == {
        path.name: "precious",
        place.name: "precious",
    }


def lock(out: Path) -> object:
    with signals.locked(out):
        return pytest.fail("a link is taken for a lock")


def journal(out: Path) -> object:
    return Journal(out / "votes.csv", mode="acr", seed=0, clips={})


IN_PLACE: dict[str, Callable[[Path], object]] = {
    ".lock": lock,
    ".lock.held": lock,
    "votes.journal.jsonl": journal,
    "log.jsonl": lambda out: MetricsLog(out / "log.jsonl", "rank").write(1, 2),
    "beat": lambda out: FilePlace(out / "beat").write("x"),
}


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("is_there", [True, False], ids=["of a file", "of nothing"])
def test_a_link_in_the_place_of_a_file_that_is_written_where_it_is_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_there: bool
) -> None:
    monkeypatch.setattr(signals, "is_shared", lambda folder: True)  # `.held` too
    victim, out = tmp_path / "victim", tmp_path / "out"
    out.mkdir()
    if is_there:
        victim.write_text("precious")
    (out / name).symlink_to(victim)
    with pytest.raises(UsageError) as refused:
        IN_PLACE[name](out)
    assert f"{out / name}: is a link to {victim}, and links are not written through. Delete it" in str(refused.value)
    assert "precious" not in str(refused.value)
    assert (victim.exists() and victim.read_text()) == (is_there and "precious")


def test_a_link_that_comes_in_the_place_of_a_lock_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "is_shared", lambda folder: True)
    victim, held = tmp_path / "victim", tmp_path / "out/.lock.held"
    with signals.locked(tmp_path / "out") as before_write:
        before_write()
        victim.write_text(held.read_text())  # even of the very words
        held.unlink()
        held.symlink_to(victim)
        with pytest.raises(UsageError, match=r"lock\.held: is a link"):
            before_write()
    assert held.is_symlink() and victim.exists()
