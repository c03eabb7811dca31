"""Every docstring of the three packages begins with one short sentence on a line of its own."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LONGEST = 79  # characters of a first line, quotes and indent not counted


def _first_lines(source: str) -> Iterator[tuple[int, str]]:
    """Where each docstring begins, and its first line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            text := ast.get_docstring(node)
        ):
            yield node.body[0].lineno, text.partition("\n")[0]


def _faults(source: str) -> list[str]:
    found = []
    for line, first in sorted(_first_lines(source)):
        if len(first) > LONGEST:
            found.append(f"{line}: {len(first)} characters, at most {LONGEST}: {first}")
        elif not first.endswith("."):
            found.append(f"{line}: no full stop at the end of its {len(first)} characters: {first}")
    return found


def test_first_lines_are_short_sentences() -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{fault}"
        for package in ("jobs", "samplers", "vqa")
        for path in sorted((ROOT / package).rglob("*.py"))
        for fault in _faults(path.read_text(encoding="utf-8"))
    ]
    assert not faults, "\n".join(faults)


def test_faults_name_line_and_length() -> None:
    source = f"'{'a' * 79}.'\nclass A:\n    'A sentence\\non two lines.'\n    def b():\n        '{'b' * 78}.'\n"
    assert _faults(source) == [
        f"1: 80 characters, at most 79: {'a' * 79}.",
        "3: no full stop at the end of its 10 characters: A sentence",
    ]
