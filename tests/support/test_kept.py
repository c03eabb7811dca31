"""Files kept between tests: made once for a recipe, and never damaged by who was given one."""

from pathlib import Path

import pytest

from tests.support.kept import kept


def test_a_file_is_made_once_for_a_recipe_and_each_test_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VQA_TEST_CACHE", str(tmp_path / "cache"))
    made: list[Path] = []

    def make(path: Path) -> None:
        made.append(path)
        path.write_bytes(b"content")

    kept(tmp_path / "a.mp4", make, "one").write_bytes(b"damaged")
    assert kept(tmp_path / "b.mp4", make, "one").read_bytes() == b"content"
    assert len(made) == 1
    kept(tmp_path / "c.mp4", make, "two")
    kept(tmp_path / "c.mkv", make, "two")
    assert len(made) == 3


def test_what_cannot_be_made_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQA_TEST_CACHE", str(tmp_path / "cache"))

    def half(path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        kept(tmp_path / "a.mp4", half, "one")
    assert not list((tmp_path / "cache").iterdir())
    assert not (tmp_path / "a.mp4").exists()


def test_what_is_too_large_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQA_TEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tests.support.kept.LARGEST_BYTES", 3)
    assert kept(tmp_path / "a.mp4", lambda path: path.write_bytes(b"content"), "one").read_bytes() == b"content"
    assert not list((tmp_path / "cache").iterdir())
