"""A student of severity: no score until a calibration makes opinions of its numbers, in every command."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs.request import ScoreRequest, inputs_of
from jobs.score import score
from tests.support import clips
from tests.support.job_runs import Rows, table
from vqa.console import Engine
from vqa.errors import ModelError
from vqa.evaluate.calibrate import load_calibration
from vqa.light.card import CALIBRATION, read_card, student_digest, write_card
from vqa.light.student import Student
from vqa.metrics.correlation import srcc
from vqa.types import Clip
from vqa.views import ViewsConfig, look

pytestmark = pytest.mark.slow
COUNT = 48
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def severe(unsure: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn student, said to have learnt from ladders alone."""
    folder = tmp_path_factory.mktemp("severe")
    for path in unsure.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    write_card(folder, read_card(unsure).model_copy(update={"scale": "severity"}))
    return folder


@pytest.fixture(scope="module")
def request_(severe: Path, tmp_path_factory: pytest.TempPathFactory) -> ScoreRequest:
    """Pictures, a video of two windows and a file that holds neither, scored without a calibration."""
    folder = tmp_path_factory.mktemp("in")
    for n in range(COUNT):
        clips.write_image(folder / f"{n:02d}.png", width=72, height=64, seed=n)
    clips.write_video(folder / "long.mp4", frames=48, fps=24)
    clips.write_text(folder / "broken.mp4")
    asked = ScoreRequest(
        sources=(str(folder),),
        out=folder.with_name("raw"),
        tier="light",
        student=severe,
        clip_seconds=1.0,
        engine=Engine.LOCAL,
        max_failed="5%",
    )
    assert score(asked) == 0  # one file is broken; rows without a score are no failures
    return asked


@pytest.fixture(scope="module")
def raw(request_: ScoreRequest) -> Rows:
    return table(request_.out)


@pytest.fixture
def labels(raw: Rows, tmp_path: Path) -> Path:
    """Opinions of the pictures on 0 to 100, which rise with the student's numbers but for noise."""
    generator = np.random.default_rng(0)
    numbers = {name: row["score_raw"] for name, row in raw.items() if name.endswith(".png")}
    middle, spread = np.mean(list(numbers.values())), np.std(list(numbers.values()))
    opinions = {name: 50 + 15 * (one - middle) / spread + generator.normal() for name, one in numbers.items()}
    rows = [f"{name},{mos:.3f}" for name, mos in opinions.items()]
    (tmp_path / "labels.csv").write_text("\n".join(["clip_id,mos", *rows]))
    return tmp_path / "labels.csv"


def test_without_a_calibration_the_number_is_raw_and_the_row_is_ok(
    raw: Rows, request_: ScoreRequest, severe: Path, vqa: Command
) -> None:
    student = Student.load(severe)
    (found,) = student.score([look(Clip(clip_id="a", uri=raw["00.png"]["uri"]), ViewsConfig(**student.card.views))])
    assert (found.score, found.score_raw) == (None, pytest.approx(raw["00.png"]["score_raw"]))  # type: ignore[union-attr]
    for name, row in raw.items():
        ends = (row["score"], row["mos"], row["raw_low"], row["raw_high"])
        assert ends == (None, None, 1.0, 5.0)
        is_broken = name == "broken.mp4"
        assert (row["status"], row["score_raw"] is None) == ("failed" if is_broken else "ok", is_broken)
    record = json.loads((request_.out / "run.json").read_text())
    assert (record["without_score"], record["counts"]) == (1, {"ok": COUNT + 2, "failed": 1})

    code, said, _ = vqa("show", request_.out)
    assert code == 0 and "raw" in said and "Without a score" in said and "broken.mp4" in said
    failures = said[said.index("Without a score") :]
    assert "00.png" not in failures and "no score" not in failures
    _, said, _ = vqa("show", request_.out, "--worst", 1)
    assert min(raw, key=lambda name: raw[name]["score_raw"] or 9) in said
    assert vqa("report", request_.out)[0] == 0
    assert f"{COUNT + 2} of {COUNT + 3} clips scored" in (page := (request_.out / "report.html").read_text())
    assert "numbers are score_raw" in page


def test_a_run_says_that_it_gives_no_scores_and_once_calibrated_does(
    raw: Rows, request_: ScoreRequest, severe: Path, labels: Path, tmp_path: Path, vqa: Command
) -> None:
    copy = tmp_path / "student"
    copy.mkdir()
    for path in severe.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    command = ["score", *request_.sources, "--tier", "light", "--student", copy, "--set", "clip_seconds=1"]
    command += ["--engine", "local", "--max-failed", "5%", "--out", request_.out]

    code, _, heard = vqa(*command)
    assert code == 0 and "0 to score" in heard.replace("1 to score", "0 to score")
    assert "tells severities, no opinions: score is null" in heard
    code, said, _ = vqa("evaluate", request_.out, "--labels", labels, "--out", tmp_path / "figures")
    assert code == 0, said
    metrics = json.loads((tmp_path / "figures/metrics.json").read_text())
    assert metrics["scores"]["column"] == "score_raw"
    assert metrics["all"]["statistics"]["srcc"]["value"] > 0.9

    # As the user does: the file lies in the student's folder, by its default place.
    code, _, heard = vqa("calibrate", request_.out, "--labels", labels, "--scale", 0, 100)
    assert code == 0 and str(copy / CALIBRATION) in heard
    made = load_calibration(copy / CALIBRATION)
    assert (made.model_id, made.model_revision) == ("drawn", student_digest(severe))
    assert vqa(*command)[0] == 0
    rows = table(request_.out)
    for name, row in rows.items():
        before = raw[name]
        assert {"run_key": row["run_key"], "raw": row["score_raw"]} == {
            "run_key": before["run_key"],
            "raw": before["score_raw"],
        }
        if row["status"] == "ok":
            mos = made.mos(np.array([row["score_raw"]]))[0][0]
            assert (row["mos"], row["score"]) == (pytest.approx(mos), pytest.approx(1 + mos / 25))
    known = [name for name in rows if name.endswith(".png")]
    assert srcc(*(np.array([rows[one][key] for one in known]) for key in ("score", "score_raw"))) > 0.99

    # Made anew of the calibrated rows, it is the same curve: over the student's own numbers.
    again = tmp_path / "again.json"
    assert vqa("calibrate", request_.out, "--labels", labels, "--scale", 0, 100, "--out", again)[0] == 0
    assert load_calibration(again).parameters == made.parameters
    # One made for another student is none for this one; the rows lose their scores with it.
    (copy / CALIBRATION).write_text(made.model_copy(update={"model_revision": "blake2b:0"}).model_dump_json())
    assert vqa(*command)[0] == 0
    assert table(request_.out) == raw
    # Given by name it holds.
    assert vqa(*command, "--calibration", again)[0] == 0
    assert table(request_.out) == rows


def test_a_cascade_needs_a_student_of_opinions(request_: ScoreRequest, severe: Path) -> None:
    with pytest.raises(ModelError, match=r"tells severities, no opinions .*; give a student trained on") as found:
        inputs_of(replace(request_, tier="cascade"))
    assert str(severe) in str(found.value) and "\n" not in str(found.value)
