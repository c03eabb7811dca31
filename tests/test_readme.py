"""What README and CONTRIBUTING name exists: commands, options, make targets, paths."""

import re
from pathlib import Path

import pytest
import typer.main

from vqa.cli import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", "vqa/assets/embedded/README.md"]


def text(page: str) -> str:
    return (ROOT / page).read_text()


def tree() -> dict[str, set[str]]:
    command = typer.main.get_command(app)
    found = {}
    for name, child in command.commands.items():
        for key, leaf in {f"{name} {sub}": c for sub, c in getattr(child, "commands", {}).items()}.items() or [
            (name, child)
        ]:
            found[key] = {option for parameter in leaf.params for option in parameter.opts}
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_option_exists(page: str) -> None:
    commands = tree()
    lines = re.findall(r"(?:^|`)(?:\.venv/bin/)?vqa ((?:(?:data|rewards) )?[a-z]+)([^`#\n]*)", text(page), re.MULTILINE)
    for name, rest in lines:
        assert name in commands, f"{page}: vqa {name}"
        for option in re.findall(r"(?<!\S)--[a-z-]+", rest):
            assert option in commands[name], f"{page}: vqa {name} {option}"
    if page == "README.md":
        missing = {name for name in commands if not any(name == used for used, _ in lines)} - {"data demo", "config"}
        assert not missing, f"README does not show {missing}"


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_exists(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text(page), re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", PAGES)
def test_every_path_exists(page: str) -> None:
    links = [target for target in re.findall(r"\]\(([^)]+)\)", text(page)) if "://" not in target]
    named = re.findall(r"(?<![\w/])((?:vqa|jobs|samplers|configs|tests)/[\w./-]*)", text(page))
    for path in {*links, *named}:
        base = (ROOT / page).parent if path in links else ROOT
        assert (base / path).exists(), f"{page}: {path}"
