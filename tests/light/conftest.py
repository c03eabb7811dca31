"""A student with drawn weights: its scores mean nothing, but every pixel of a clip counts."""

from pathlib import Path

import numpy as np
import pytest
import torch

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
    Width(weights=drawn.astype(np.float64), biases=np.zeros(3), floor=0.1, scale=0.2).save(folder)
    return folder
