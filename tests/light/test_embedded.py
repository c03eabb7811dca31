"""The student that vqa carries."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.request import ScoreRequest, inputs_of
from tests.support import clips
from vqa.data.score_table import read_scores
from vqa.evaluate.calibrate import load_calibration
from vqa.light.card import EMBEDDED_STUDENT, LINK, student_digest
from vqa.light.student import Student
from vqa.types import Clip, Score
from vqa.views import ViewsConfig, look


def test_the_embedded_student_loads_no_language_model(tmp_path: Path) -> None:
    clips.write_video(tmp_path / "a.mp4", frames=8)
    arguments = ["score", str(tmp_path / "a.mp4"), "--out", str(tmp_path / "out"), "--tier", "light", "--json"]
    code = (
        "import sys; from vqa.cli import main\n"
        f"sys.argv = ['vqa', *{arguments!r}]\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "assert 'transformers' not in sys.modules\n"
        "from jobs.stages import LightStage\nfrom importlib import import_module\n"  # as the student's process does
        "from vqa.light.card import EMBEDDED_STUDENT\n"
        "student = [import_module(name) for name in LightStage.preload][0].Student.load(EMBEDDED_STUDENT)\n"
        "assert 'torch' in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tier"] == "light"
    (row,) = read_scores(tmp_path / "out").to_pylist()
    assert 1 < row["score"] < 5
    assert 0 < row["score_std"] < 4


def test_the_scale_that_the_student_carries_is_of_both_embedded_models(tmp_path: Path) -> None:
    if not (EMBEDDED_STUDENT / LINK).is_file():
        pytest.skip("none is carried; tests/bench/link.py makes it")
    made = load_calibration(EMBEDDED_STUDENT / LINK)
    assert made.labels == f"light {student_digest(EMBEDDED_STUDENT)}", (
        "made of another student; run tests/bench/link.py"
    )
    clips.write_image(tmp_path / "a.png")
    inputs = inputs_of(ScoreRequest(sources=(str(tmp_path),), out=tmp_path / "out", tier="cascade"))
    assert inputs.scale == made, "made of another reasoner; run tests/bench/link.py"


def test_the_student_is_part_of_the_key(tmp_path: Path, student_folder: Path) -> None:
    clips.write_image(tmp_path / "a.png")
    request = ScoreRequest(sources=(str(tmp_path),), out=tmp_path / "out")
    keys = {inputs_of(request).settings}
    for student in (None, student_folder):
        one = ScoreRequest(sources=request.sources, out=request.out, tier="light", student=student)
        keys.add(inputs_of(one).settings)
    assert len(keys) == 3


def test_the_embedded_student_s_score_of_a_picture_stays(tmp_path: Path) -> None:
    y, x, channel = np.mgrid[:360, :640, :3]
    texture = np.random.default_rng(0).normal(size=(360, 640, 1)) * (x > y) * 12
    picture = np.clip(128 + 70 * np.sin(x / 37 + channel) * np.cos(y / 23) + texture, 0, 255).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "drawn.png")
    student = Student.load()
    views = ViewsConfig.model_validate(student.card.views)
    (score,) = student.score([look(Clip(clip_id="drawn", uri=str(tmp_path / "drawn.png")), views)])
    assert isinstance(score, Score)
    assert (score.score, score.score_std) == (pytest.approx(1.58820, abs=1e-4), pytest.approx(0.26792, abs=1e-4))
