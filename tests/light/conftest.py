"""A student with drawn weights, whose scores mean nothing but hang on every pixel, and a set of opinions."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageFilter

from tests.support import clips
from vqa.light.card import StudentCard
from vqa.light.cascade import Width
from vqa.light.embedding import SIZE
from vqa.light.encoder import EfficientNetLite0
from vqa.light.regression import RadialPart, Regressor
from vqa.light.student import Line, OpinionMap, Student

VIEWS = {"global_kind": "frames", "global_pixels": 320, "keyframes": 4, "spatial": "centre", "local_pictures": 0}


@pytest.fixture(scope="session")
def student() -> Student:
    torch.manual_seed(0)
    drawn = np.random.default_rng(0)
    weights = drawn.standard_normal(SIZE) / 50
    radial = RadialPart(
        centre=np.zeros(SIZE),
        scale=np.ones(SIZE),
        axes=drawn.integers(-8, 9, (SIZE, 3)).astype(np.float32) / 1024,
        centres=drawn.integers(-8, 9, (5, 3)) / 16,
        coefficients=drawn.integers(-8, 9, 5) / 8,
        sharpness=0.3,
    )
    regressor = Regressor(weights=weights, bias=0.1, radial=radial)
    card = StudentCard(name="drawn", views=dict(VIEWS), trained_on=["nothing"])
    return Student(EfficientNetLite0(), Line(regressor=regressor, map=OpinionMap(middle=0.0, gain=0.3)), card)


@pytest.fixture(scope="session")
def student_folder(student: Student, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    student.save(folder)
    return folder


@pytest.fixture(scope="session")
def unsure(student_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn student, with drawn members that disagree."""
    folder = tmp_path_factory.mktemp("unsure")
    for path in student_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    drawn = np.random.default_rng(1).standard_normal((3, SIZE)).astype(np.float32) / 50
    Width(weights=drawn.astype(np.float64), biases=np.zeros(3), scale=0.2).save(folder)
    return folder


@pytest.fixture(scope="module")
def opinions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen pictures of four contents; people like the sharp ones. The config that learns from them."""
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
