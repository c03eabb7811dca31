"""Pictures with opinions: the table, the split, and how people saw them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.people import PEOPLE, needs_people
from vqa.config import build, configs_folder
from vqa.data.people import PeopleSet, find_people_set, read_opinions, without_folds
from vqa.data.tables import read_rows
from vqa.errors import UsageError


def people(**changes: Any) -> PeopleSet:
    values = {
        "name": "tiny",
        "table": "t.csv",
        "picture": "file",
        "opinion": "mos",
        "low": 1,
        "high": 5,
        "group": "source",
    }
    values |= {"expected": 3, "terms": "mine", "test_fold": 0, "folds": [["a"], ["b", "c"]], "shown_size": [40, 20]}
    return build(PeopleSet, values | changes, where="test")


def write(folder: Path, text: str) -> Path:
    (folder / "tiny").mkdir()
    (folder / "tiny/t.csv").write_text(text)
    Image.fromarray(np.full((5, 10, 3), 200, np.uint8)).save(folder / "tiny/1.png")
    return folder


def test_a_set_is_read_with_its_split_and_at_the_size_it_was_shown(tmp_path: Path) -> None:
    folder = write(tmp_path, "file,mos,source\n1.png,4.5,a\n2.png,2,c\n")
    found = read_opinions(people(), folder)
    assert [(one.path.name, one.opinion, one.fold) for one in found] == [("1.png", 4.5, 0), ("2.png", 2.0, 1)]
    assert found[0].read().shape == (20, 40, 3)
    assert [one.path.name for one in without_folds(found, [0])] == ["2.png"]
    with pytest.raises(UsageError, match="cannot be read as a picture"):
        found[1].read()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,mos\n1.png,4\n", "no column 'source'"),
        ("file,mos,source\n1.png,good,a\n", "mos 'good' is no number"),
        ("file,mos,source\n1.png,nan,a\n", "mos 'nan' is no number"),
        ("file,mos,source\n1.png,4,new\n", "source 'new' is in no fold"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_opinions(people(), write(tmp_path, text))


def test_a_set_has_one_split() -> None:
    with pytest.raises(UsageError, match="either folds or modulo"):
        people(modulo=3)
    with pytest.raises(UsageError, match="Give one of avt-image-quality, pcuid, or"):
        find_people_set("koniq")


@needs_people
@pytest.mark.parametrize("name", sorted(path.stem for path in (configs_folder() / "people").glob("*.yaml")))
def test_a_published_split_holds_every_picture_once(name: str) -> None:
    people_set = find_people_set(name)
    found = read_opinions(people_set, PEOPLE)
    assert len(found) == people_set.expected == len(read_rows(PEOPLE / name / people_set.table)[1])
    assert {one.fold for one in found} == set(range(5))
    folds = {one.group: one.fold for one in found}
    assert all(folds[one.group] == one.fold for one in found)
    assert all(people_set.low <= one.opinion <= people_set.high and one.path.is_file() for one in found)
