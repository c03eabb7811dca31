"""A student with drawn weights: its scores mean nothing, but every pixel of a clip counts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vqa.light.card import StudentCard
from vqa.light.embedding import SIZE
from vqa.light.encoder import EfficientNetLite0
from vqa.light.regression import Direction
from vqa.light.student import Line, OpinionMap, Student

VIEWS = {"global_kind": "frames", "global_pixels": 320, "keyframes": 4, "spatial": "centre", "local_pictures": 0}


@pytest.fixture(scope="session")
def student() -> Student:
    torch.manual_seed(0)
    direction = Direction(weights=np.random.default_rng(0).standard_normal(SIZE) / 50, bias=0.1)
    card = StudentCard(name="drawn", views=dict(VIEWS), trained_on=["nothing"])
    return Student(EfficientNetLite0(), Line(direction=direction, map=OpinionMap(middle=0.0, gain=0.3)), card)


@pytest.fixture(scope="session")
def student_folder(student: Student, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    student.save(folder)
    return folder
