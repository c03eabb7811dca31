"""What README, CONTRIBUTING, the model card and docs name exists: commands, options, make targets, paths, links."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.pages import PAGES, ROOT, blocks, command_lines, commands, parsed

MENTION = re.compile(r"`vqa ((?:(?:data|model|rewards) )?[a-z][a-z-]*)([^`\n]*)`")
named = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@named
def test_every_command_line_parses(page: Path) -> None:
    for block in blocks(page):
        if block.language in ("shell", ""):
            for words in command_lines(block.text):
                if "..." not in words:
                    parsed(words)


@named
def test_every_command_and_option_named_in_a_sentence_exists(page: Path) -> None:
    known = commands()
    for name, rest in MENTION.findall(page.read_text(encoding="utf-8")):
        assert name in known, f"{page}: vqa {name}"
        options = {option for parameter in known[name].params for option in parameter.opts}
        for option in re.findall(r"(?<!\S)--[a-z-]+", rest):
            assert option in options, f"{page}: vqa {name} {option}"


def test_every_command_is_shown_somewhere() -> None:
    lines = [words for page in PAGES for block in blocks(page) for words in command_lines(block.text)]
    shown = {parsed(words) for words in lines if "..." not in words}
    mentioned = {name for page in PAGES for name, _ in MENTION.findall(page.read_text(encoding="utf-8"))}
    assert not set(commands()) - shown - mentioned


@named
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)) <= targets


@named
def test_every_path_and_link_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = {urlsplit(target).path for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in target}
    for link in links:
        assert (page.parent / link).exists(), f"{page}: {link}"
    for path in set(re.findall(r"(?<![\w/.-])((?:vqa|jobs|samplers|configs|tests|docs)/[\w./-]*\w/?)", text)):
        made_by_build = path.startswith("docs/generated")
        assert made_by_build or (ROOT / path).exists(), f"{page}: {path}"


def test_pages_keep_their_length() -> None:
    limits = {"README.md": 150, "vqa/assets/embedded/README.md": 120}
    for page, most in limits.items():
        assert len((ROOT / page).read_text(encoding="utf-8").splitlines()) <= most, page


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "docs" / "images").glob("*.png"))
    assert len(pictures) >= 4
    assert not [path.name for path in pictures if path.stat().st_size > 300_000]


def test_the_floor_plan_is_the_tree() -> None:
    page = (ROOT / "docs" / "project" / "architecture.md").read_text(encoding="utf-8")
    planned = set(re.findall(r"^((?:vqa|samplers|jobs|configs|docs|tests)/\S*) ", page, re.MULTILINE))
    folders = {path.parent.relative_to(ROOT).as_posix() + "/" for path in (ROOT / "vqa").rglob("__init__.py")}
    assert folders - {"vqa/"} <= planned, "rooms that the floor plan leaves out"
    assert all((ROOT / path).exists() for path in planned)


def test_no_page_names_a_machine() -> None:
    for page in PAGES:
        assert not re.search(r"/(?:tmp|home|root|work)/", page.read_text(encoding="utf-8")), page
