"""The pictures of README and docs: written only where they show something else, and Chromium is asked for by name."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image, ImageDraw

PLACE = Path(__file__).resolve().parents[2] / "docs" / "pictures.py"


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("pictures", PLACE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "IMAGES", tmp_path)
    return module


def drawn(text: str) -> Image.Image:
    picture = Image.new("RGB", (760, 1278), "white")
    ImageDraw.Draw(picture).text((300, 300), text, fill="black")
    return picture


def test_a_picture_is_written_where_it_shows_something_else(
    pictures: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, said = tmp_path / "views.png", []
    for text in ("decoding 0.30 s", "decoding 0.63 s", "another text that is much longer"):
        before = path.read_bytes() if path.exists() else b""
        pictures.save(drawn(text), "views")
        said.append((path.read_bytes() != before, capsys.readouterr().out))
    assert said == [(True, f"{path}\n"), (False, ""), (True, f"{path}\n")]


def test_a_missing_chromium_is_named(pictures: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"needs a Chromium, and none of chromium, .* is on the PATH"):
        pictures.find_browser()


def test_what_chromium_says_is_shown_only_where_no_picture_came(
    pictures: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    browser = tmp_path / "chromium"
    browser.write_text("#!/bin/sh\necho Failed to connect to the bus >&2\nexit 3\n", encoding="utf-8")
    browser.chmod(0o755)
    run = pictures.subprocess.run
    monkeypatch.setattr(
        pictures.subprocess, "run", lambda command, **how: command[0] == str(browser) and run(command, **how)
    )
    with pytest.raises(SystemExit, match=r"no picture came of file:.*exit code 3\): Failed to connect to the bus"):
        pictures.page(tmp_path, str(browser))
    assert capfd.readouterr().err == ""
