"""The student that vqa carries."""

import json
import subprocess
import sys
from pathlib import Path

from jobs.request import ScoreRequest, inputs_of
from tests.support import clips
from vqa.data.score_table import read_scores


def test_the_embedded_student_loads_no_language_model(tmp_path: Path) -> None:
    clips.write_video(tmp_path / "a.mp4", frames=8)
    arguments = ["score", str(tmp_path / "a.mp4"), "--out", str(tmp_path / "out"), "--tier", "light", "--json"]
    code = (
        "import sys; from vqa.cli import main\n"
        f"sys.argv = ['vqa', *{arguments!r}]\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tier"] == "light"
    (row,) = read_scores(tmp_path / "out").to_pylist()
    assert 1 < row["score"] < 5
    assert 0 < row["score_std"] < 4


def test_the_student_is_part_of_the_key(tmp_path: Path, student_folder: Path) -> None:
    clips.write_image(tmp_path / "a.png")
    request = ScoreRequest(sources=(str(tmp_path),), out=tmp_path / "out")
    keys = {inputs_of(request).settings}
    for student in (None, student_folder):
        one = ScoreRequest(sources=request.sources, out=request.out, tier="light", student=student)
        keys.add(inputs_of(one).settings)
    assert len(keys) == 3
