"""The commands: one clear line for what goes wrong, the right exit code, and help that does not make anybody wait."""

import csv
import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml
from PIL import Image

from jobs.signals import locked
from tests.support import clips
from vqa.cli.train import train
from vqa.config import configs_folder
from vqa.console import enter
from vqa.data.score_table import ScoreRow, ScoreTable
from vqa.errors import UsageError

Command = Callable[..., tuple[int, str, str]]
OTHERS = ("accelerate", "studies")  # of accelerate itself, and of tests/bench/studies.py (tests/train/test_studies.py)
CONFIGS = sorted(path for path in configs_folder().rglob("*.yaml") if path.parent.name not in OTHERS)


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    names = [f"clip{n}.mp4" for n in range(12)]
    rows = [
        ScoreRow(clip_id=name, uri=f"/{name}", status="ok", score=1.0 + n / 4, run_key=str(n))
        for n, name in enumerate(names)
    ]
    rows.append(ScoreRow(clip_id="bad\n[b].mp4", uri="/bad", run_key="b", error_kind="corrupt", error="e"))
    table = ScoreTable(out)
    table.add(rows)
    table.flush()
    return out


@pytest.mark.alone
def test_help_and_version_come_at_once() -> None:
    command = [sys.executable, "-c", "from vqa.cli import main; main()", "--help"]
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5 * (1 + (_load() > 2)), "processor time; cores shared with other work do less in a second"
    for name in ("score", "show", "export", "views", "doctor", "config", "data"):
        assert name in done.stdout


def _load() -> float:
    return float(Path("/proc/loadavg").read_text().split()[0])


def test_help_loads_nothing_heavy() -> None:
    heavy = ("torch", "ray", "pyarrow", "numpy", "pydantic", "av")
    code = f"import sys, vqa.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["score"], "SOURCE"),
        (["score", "a.mp4"], "--out"),
        (["score", "a.mp4", "--out", ""], "--out: the value is empty. Is a shell variable unset?"),
        (["score", "", "--out", "/nowhere"], "vqa: the value is empty"),
        (["show", "/nowhere", "--worst="], "--worst: the value is empty"),
        (["nonsense"], "nonsense"),
        (["show", "/nowhere"], "holds no scores"),
        (["export", "/nowhere"], "--csv"),
        (["config", "/nowhere/score/x.yaml"], "cannot be read"),
        (["config", "/nowhere/what/x.yaml"], "--kind"),
        (["score", "/nowhere", "--out", "/nowhere", "--model", "nobody"], "no card of that name"),
        (["score", "/nowhere.mp4", "--out", "/nowhere"], "does not exist"),
        (["score", "/nowhere.mp4", "--out", "/nowhere", "--max-failed", "some"], "--max-failed"),
        (["score", "/nowhere.mp4", "--out", "/nowhere", "--set", "views.nothing=1"], "views.nothing"),
        *(
            ([*command, "--out", "/nowhere", option, value], f"'{option}'")
            for command in (["evaluate", "a", "--labels", "b"], ["compare", "a", "b", "--labels", "c"])
            for option, value in (("--seed", "-1"), ("--resamples", "1000001"))
        ),
        *(
            ([*command, "--out", "/nowhere", "--seed", "-1"], "'--seed'")
            for command in (
                *(["calibrate", "a", "--labels", "b"], ["rate", "a"], ["data", "synth", "a"]),
                *(["data", "split", "a"], ["data", "recover", "a"]),
            )
        ),
    ],
)
def test_wrong_usage_is_exit_code_2_and_one_clear_message(vqa: Command, arguments: list[str], says: str) -> None:
    code, out, err = vqa(*arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert "Traceback" not in err


def test_show_has_the_best_and_the_worst(vqa: Command, scored: Path) -> None:
    code, out, _ = vqa("show", scored)
    assert code == 0
    assert "3.75" in out
    assert "bad\\n[b].mp4" in out
    _, worst, _ = vqa("show", scored, "--worst", 2)
    assert "clip0.mp4" in worst
    assert "clip1.mp4" in worst
    assert "clip2.mp4" not in worst
    _, best, _ = vqa("show", scored, "--best", 1)
    assert "clip11.mp4" in best
    assert "clip10.mp4" not in best


def test_export_goes_to_a_file_or_to_stdout(vqa: Command, scored: Path, tmp_path: Path) -> None:
    code, out, err = vqa("export", scored, "--csv", tmp_path / "scores.csv")
    assert (code, out) == (0, "")
    assert "13 rows" in err
    with (tmp_path / "scores.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["clip_id"] == "bad\n[b].mp4"
    _, out, _ = vqa("export", scored, "--jsonl", "-")
    assert len([json.loads(line) for line in out.splitlines()]) == 13
    assert vqa("export", scored, "--jsonl", "a", "--csv", "b")[0] == 2
    code, _, err = vqa("export", scored, "--csv", tmp_path / "gone" / "scores.csv")
    assert code == 2
    assert f"there is no folder {tmp_path / 'gone'}. Make it first" in " ".join(err.split())


def test_views_draws_a_picture(vqa: Command, tmp_path: Path) -> None:
    clip = clips.write_video(tmp_path / "a b.mp4", frames=20)
    code, _, _ = vqa("views", clip, "--out", tmp_path / "seen.png", "--set", "views.keyframes=4", "--end-seconds", 0.5)
    assert code == 0
    with Image.open(tmp_path / "seen.png") as image:
        assert image.width > 1000


def test_views_of_a_bad_file_is_one_line_and_exit_code_1(vqa: Command, tmp_path: Path) -> None:
    code, out, err = vqa("views", clips.write_text(tmp_path / "a.mp4"), "--out", tmp_path / "seen.png")
    assert (code, out) == (1, "")
    assert err.startswith("vqa: ")
    assert not (tmp_path / "seen.png").exists()


@pytest.mark.parametrize("path", CONFIGS, ids=[str(path.relative_to(configs_folder())) for path in CONFIGS])
def test_every_config_resolves_and_begins_with_its_command(vqa: Command, path: Path) -> None:
    code, out, err = vqa("config", path)
    assert (code, err) == (0, "")
    assert yaml.safe_load(out)
    if path.parent.name in ("score", "train"):
        name = path.relative_to(configs_folder().parent)
        assert path.read_text().startswith(f"# vqa {path.parent.name} ")
        assert str(name) in path.read_text().splitlines()[0]


def test_config_refuses_what_it_does_not_know(vqa: Command, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("viws: {}\n")
    code, _, err = vqa("config", tmp_path / "x.yaml", "--kind", "score")
    assert code == 2
    assert "unknown key 'viws'" in err
    assert "x.yaml" in err


def entered(error: Exception, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a command that raises."""
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def fail() -> None:
        raise error

    monkeypatch.setattr("sys.argv", ["fail"])
    return enter(app)


def test_a_fault_of_ours_is_a_sentence_and_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert entered(ZeroDivisionError("two\nlines \x1b[31m"), monkeypatch) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("vqa: unexpected ZeroDivisionError: two lines \\x1b[31m (traceback in ")
    (log,) = tmp_path.iterdir()
    assert "Traceback" in log.read_text()
    assert str(log) in captured.err


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENAMETOOLONG])
def test_a_path_that_the_system_refuses_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    assert entered(OSError(number, os.strerror(number), "out/.lock"), monkeypatch) == 1
    assert capsys.readouterr().err == f"vqa: out/.lock: {os.strerror(number)}; give another path\n"


def test_a_reader_that_has_seen_enough_is_no_error(scored: Path) -> None:
    shell = f'"{sys.executable}" -m vqa.cli export {scored} --jsonl - | head -n 1'
    done = subprocess.run(["bash", "-o", "pipefail", "-c", shell], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert json.loads(done.stdout)["clip_id"]


@pytest.mark.parametrize(
    ("before", "stdout", "code"),
    [
        ("", "row, end, at once", 3),
        ("threading.Thread(target=lambda: (time.sleep(0.1), print(', more', end=''))).start()", "row, more, end", 3),
        ("sys.modules['ray'] = sys", "row, end", 3),
        ("os.dup2(os.open('/dev/full', os.O_WRONLY), 1)", "", 120),  # as Python does where output is lost
    ],
)
def test_a_command_leaves_at_once_and_nothing_is_lost(before: str, stdout: str, code: int) -> None:
    ending = f"""
import atexit, os, sys, threading, time
from vqa.console import leave
quick = os._exit
os._exit = lambda code: (os.write(1, b", at once"), quick(code))
atexit.register(print, ", end", end="")
print("row", end="")
{before}
leave(3)
"""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", ending]
    done = subprocess.run(command, env=buffered, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == (stdout, code)


def test_a_second_training_in_the_folder_is_refused_and_changes_nothing(tmp_path: Path, monkeypatch) -> None:
    recipe = str(configs_folder() / "train" / "embedded.yaml")
    with locked(tmp_path), pytest.raises(UsageError, match=r"another run .* is writing there"):
        train(Path(recipe), out=tmp_path, workers=None)
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}
    monkeypatch.setenv("RANK", "1")  # of a launcher whose first process holds the folder
    with locked(tmp_path), pytest.raises(UsageError, match="no data"):
        train(Path(recipe), out=tmp_path, workers=None)
