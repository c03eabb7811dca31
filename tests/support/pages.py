"""Pages of README and docs as tests read them: fenced blocks, and the command lines in them."""

import functools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer.main

from vqa.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
HOWTO = sorted((ROOT / "docs" / "howto").glob("*.md"))
DOCS = sorted(path for path in (ROOT / "docs").rglob("*.md") if path.parent.name != "generated")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "vqa" / "assets" / "embedded" / "README.md", *DOCS]
_BLOCK = re.compile(r"^(?:<!-- not run: (.+?) -->\n)?```(\w+)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block: its language, its text, and why it is not run, where it is not."""

    language: str
    text: str
    not_run: str | None


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order; the first match of a fence is its start."""
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Block(language=language, text=text, not_run=reason or None) for reason, language, text in found]


@functools.cache
def commands() -> dict[str, Any]:
    """Every command of `vqa` by its words: "score", "data import"."""
    found: dict[str, Any] = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {f"{name} {sub}": leaf for sub, leaf in inner.items()} if inner else {name: command}
    return found


def command_lines(text: str) -> Iterator[list[str]]:
    """The words behind `vqa` of each line of a shell block that calls it."""
    for line in re.sub(r"\$\([^)]*\)", "X", text.replace("\\\n", " ")).splitlines():
        for part in re.split(r"\|\||&&|[;|]", line):
            if re.match(r"\s*(?:\.venv/bin/)?vqa [a-z]", part):
                yield shlex.split(part, comments=True)[1:]


def parsed(words: list[str]) -> str:
    """Parse a command line as `vqa` would, without running it; returns the command's name. Raises on a wrong one."""
    known = commands()
    count = 2 if " ".join(words[:2]) in known else 1
    name = " ".join(words[:count])
    assert name in known, f"vqa {name}: no such command"
    known[name].make_context(f"vqa {name}", list(words[count:]))
    return name
