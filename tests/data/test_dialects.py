"""Text tables of the field: separators, decimal commas, encodings; recognised or refused, nothing dropped."""

from pathlib import Path

import numpy as np
import pytest

from vqa.data.dialects import Dialect
from vqa.data.sources import list_clips
from vqa.data.subjective.ratings import read_ratings
from vqa.data.tables import read_columns, read_rows
from vqa.errors import UsageError
from vqa.evaluate.evaluation import EvaluationConfig, read_and_join

CLIPS = [f"A{n:03}.mp4" for n in range(12)]
MOS = [1.25 + 0.3 * n for n in range(12)]


def table(path: Path, *, mark: str = ",", decimal: str = ".", first: str = "", encoding: str = "utf-8") -> Path:
    lines = [first + f"name{mark}mos"]
    lines += [f"{clip}{mark}{f'{mos:.2f}'.replace('.', decimal)}" for clip, mos in zip(CLIPS, MOS, strict=True)]
    path.write_bytes(("\r\n".join(lines) + "\r\n").encode(encoding))
    return path


def values(path: Path, **dialect: str) -> list[float]:
    columns = read_columns(path, dialect=Dialect(**dialect))
    names, rows = read_rows(path, dialect=Dialect(**dialect))
    assert tuple(columns) == names == ("name", "mos") and [row["name"] for row in rows] == CLIPS
    assert [row["mos"] for row in rows] == columns["mos"]
    return list(map(float, columns["mos"]))


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"mark": ";"},
        {"mark": ";", "decimal": ","},
        {"mark": "\t"},
        {"mark": "\t", "decimal": ","},
        {"mark": ";", "decimal": ",", "first": "sep=;\r\n"},
        {"encoding": "utf-8-sig"},
        {"mark": ";", "encoding": "utf-16"},
    ],
)
def test_a_dialect_is_recognised(tmp_path: Path, written: dict[str, str]) -> None:
    np.testing.assert_allclose(values(table(tmp_path / "a.csv", **written)), MOS)


def test_an_unquoted_decimal_comma_is_refused_by_line_and_counts(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", decimal=",")
    for read in (read_rows, read_columns):
        with pytest.raises(UsageError, match=r"a\.csv, line 2: 3 cells where the header names 2.*--decimal"):
            read(path)
    with pytest.raises(UsageError, match="line 2: 3 cells"):
        read_and_join(EvaluationConfig(scores=table(tmp_path / "s.csv"), labels=path, column="mos"))
    with pytest.raises(UsageError, match="line 2: 3 cells"):
        read_ratings(path)
    path.write_text("path,start_seconds,end_seconds\nx.mp4,0,5,1,0\n")
    with pytest.raises(UsageError, match="line 2: 5 cells where the header names 3"):
        list_clips([str(path)])


def test_a_quoted_decimal_comma_is_a_number_unless_it_may_part_thousands(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('name,mos\na,"3,5"\nb,"80,23"\n')
    assert read_columns(path)["mos"] == ["3.5", "80.23"]
    path.write_text('name,mos\na,"4,642"\nb,"1,100"\n')
    with pytest.raises(UsageError, match=r"column mos: '4,642' may have a decimal comma or separated thousands"):
        read_columns(path)
    assert read_columns(path, dialect=Dialect(decimal="comma"))["mos"] == ["4.642", "1.100"]
    assert read_columns(path, dialect=Dialect(decimal="point"))["mos"] == ["4,642", "1,100"]


def test_names_with_the_separator_and_short_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('name,mos\n"a,b.mp4",3\nc.mp4\nd.mp4,4,,\n')
    assert read_columns(path) == {"name": ["a,b.mp4", "c.mp4", "d.mp4"], "mos": ["3", "", "4"]}
    path.write_text("name,mos\na,b.mp4,3\n")
    with pytest.raises(UsageError, match="a separator in a name"):
        read_rows(path)


@pytest.mark.parametrize(
    ("text", "names", "cells"),
    [
        ("my clip.mp4\t3.5\nother.mp4\t4.0\n", ("1", "2"), ["my clip.mp4", "3.5"]),
        ("name\tmos\na b.mp4\t3.5\nc.mp4\t4.5\n", ("name", "mos"), ["a b.mp4", "3.5"]),
        ("a.mp4;3,5\nb.mp4;4,25\n", ("1", "2"), ["a.mp4", "3.5"]),
        ("a.mp4, 3.5\nb.mp4, 4.5\n", ("1", "2"), ["a.mp4", "3.5"]),
        ("a.mp4 3.5\nb.mp4 4.5\n", ("1", "2"), ["a.mp4", "3.5"]),
    ],
)
def test_lines_of_text(tmp_path: Path, text: str, names: tuple[str, ...], cells: list[str]) -> None:
    path = tmp_path / "a.txt"
    path.write_text(text)
    found, rows = read_rows(path)
    assert (found, list(rows[0].values())) == (names, cells)


def test_a_line_that_can_be_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("clip 3,5\nclip 4,25\n")
    with pytest.raises(UsageError, match="'clip 3,5' may be separated by its blank, with a decimal comma, or by its"):
        read_rows(path)
    assert read_rows(path, dialect=Dialect(delimiter="comma"))[1][0] == {"1": "clip 3", "2": "5"}
    assert read_rows(path, dialect=Dialect(delimiter="blank", decimal="comma"))[1][0] == {"1": "clip", "2": "3.5"}


# --- ratings ----------------------------------------------------------------------------------------------------------


def ratings(path: Path, *, mark: str = ",", decimal: str = ".", last: str = "3") -> Path:
    rows = [f"c{n}{mark}{f'{n + 0.5}'.replace('.', decimal)}{mark}{last if n == 2 else '2'}" for n in (1, 2, 3)]
    path.write_text("\n".join([f"clip{mark}s1{mark}s2", *rows]) + "\n")
    return path


def test_ratings_with_a_decimal_comma_are_those_with_a_point(tmp_path: Path) -> None:
    plain = read_ratings(ratings(tmp_path / "a.csv"))
    other = read_ratings(ratings(tmp_path / "b.csv", mark=";", decimal=","))
    np.testing.assert_array_equal(plain.value, other.value)


@pytest.mark.parametrize("mark", ["99", "-1", "999"])
def test_a_mark_for_no_answer_is_refused(tmp_path: Path, mark: str) -> None:
    path = ratings(tmp_path / "a.csv", last=mark)
    with pytest.raises(UsageError, match=rf"{mark} among ratings from 1\.5 to 3\.5.*--scale LOW,HIGH"):
        read_ratings(path)
    with pytest.raises(UsageError, match=rf"c2, s2 = {mark} is not on the scale 1 to 5"):
        read_ratings(path, scale=(1, 5))


def test_a_rating_without_a_clip_or_subject_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for row in ("c1,,3", ",s1,3"):
        path.write_text(f"clip,subject,rating\nc0,s0,2\n{row}\n")
        with pytest.raises(UsageError, match="row 2: clip or subject is empty"):
            read_ratings(path)


# --- names ------------------------------------------------------------------------------------------------------------


def test_accents_are_matched_across_their_two_spellings(tmp_path: Path) -> None:
    composed, apart = "Caf\u00e9 \uac00.mp4", "Cafe\u0301 \u1100\u1161.mp4"
    (tmp_path / "scores.csv").write_text(f"name,score\n{apart},3\nb.mp4,2\nc.mp4,4\n")
    (tmp_path / "labels.csv").write_text(f"name,mos\n{composed},3\nb.mp4,2\nc.mp4,4\n")
    *_, joined = read_and_join(EvaluationConfig(scores=tmp_path / "scores.csv", labels=tmp_path / "labels.csv"))
    assert joined.counts()["used"] == 3 and not joined.unused


def test_a_label_file_of_text_is_read_in_the_dialect_it_has(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for text in ("A, 1.mp4;2,67\nB.mp4;3,5\n", "A, 1.mp4\t2,67\nB.mp4\t3,5\n"):
        path.write_text(text)
        assert read_columns(path) == {"1": ["A, 1.mp4", "B.mp4"], "2": ["2.67", "3.5"]}
    path.write_text("A.mp4 2,67\nB.mp4 3,5\n")
    with pytest.raises(UsageError, match=r"may be separated by its blank.*--delimiter blank --decimal comma"):
        read_columns(path)
    assert read_columns(path, dialect=Dialect(delimiter="blank", decimal="comma"))["2"] == ["2.67", "3.5"]
    assert read_columns(path, dialect=Dialect(delimiter="comma"))["2"] == ["67", "5"]


@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
def test_utf16_is_known_by_its_mark_and_refused_without(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes("\ufeffname\tmos\r\né.mp4\t2,67\r\nb.mp4\t3,5\r\n".encode("utf-16-le"))
    assert read_rows(path)[1][0] == {"name": "é.mp4", "mos": "2.67"}
    path.write_bytes(path.read_bytes()[2:])
    with pytest.raises(UsageError, match="zero bytes, as UTF-16 without its mark does"):
        read_rows(path)


def test_a_list_of_files_may_be_utf16(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("é.mp4\nb.mp4\n", encoding="utf-16")
    assert [clip.clip_id for clip in list_clips([str(path)]).clips] == ["é.mp4", "b.mp4"]


@pytest.mark.parametrize("text", ["SEP=;\r\nname;mos\r\na.mp4;2,67\r\n", "name|mos\na.mp4|2.67\n"])
def test_separators_told_or_seen(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    assert read_rows(path) == (("name", "mos"), [{"name": "a.mp4", "mos": "2.67"}])
