"""Words a checkpoint is asked: its published question if fetched, else our own.

The sentences of others are not shipped. A card names the public file that holds them (`QuestionSource`);
`vqa model fetch-question` reads it and keeps the words in the user's config folder. Imports no torch.
"""

import ast
import hashlib
import json
import re
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Literal

import typer

from vqa.config import Values
from vqa.errors import ModelError, UsageError
from vqa.files import write_json
from vqa.model.card import GenerationConfig, ModelCard, QuestionSource
from vqa.prompt import PROMPTS, THINK

RAW = "https://raw.githubusercontent.com"
PLACE = "{answer_format}"  # of our sentence on the answer's form, in a question given by hand
DESCRIBE = "Describe in a few sentences how good this looks: what damages it, where, how much. Give words, no score."
_WORDS = ("question", "system", "intro", "description")  # keys of what is kept
_MOST_BYTES = 4 * 2**20
_SECONDS = 30.0
_BLOCK = re.compile(r"^[ \t]*```[^\n]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_SPAN = rf"{_NUMBER}\s*(?:\band\b|\bto\b|-|\u2013)\s*{_NUMBER}"
_RANGE = re.compile(rf"\b(?:between|from|scale\s+of|scale:)\s+{_SPAN}\b|\b{_SPAN}\s+scale\b", re.IGNORECASE)


def with_words(card: ModelCard) -> ModelCard:
    """Settle what a model is asked: the published words if kept, else the card's.

    Returns:
        The card with `asked` set, and its question's place for our sentence on the answer's form filled.

    Raises:
        UsageError: the card demands published words that are not kept, or were read elsewhere than it says now.
    """
    if card.published and card.question is None and card.asked != "own":
        kept = _kept(card)
        if kept is not None:
            return card.model_copy(update={**kept, "asked": "published"})
        if card.asked == "published":
            raise UsageError(
                f"model {card.name}: its published question is not kept here; `vqa model fetch-question {card.name}` "
                "reads it where it was published"
            )
    asked = card.asked or "own"
    question = card.question and card.question.replace(PLACE, _answer_format(card))
    return card.model_copy(update={"question": question, "asked": asked})


def words_digest(card: ModelCard) -> str:
    """Digest (`blake2b:...`) of system turn, question and words before a comparison."""
    words = [card.system, card.question or PROMPTS[card.prompt].question, card.intro]
    return f"blake2b:{hashlib.blake2b(json.dumps(words).encode(), digest_size=16).hexdigest()}"


def read_words(path: Path) -> str:
    """Read a question or system turn given by hand; UsageError if empty or no text."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text in UTF-8"
        raise UsageError(f"{path}: cannot be read ({reason}). Give a text file.") from error
    if not text:
        raise UsageError(f"{path}: no words in it; write the question")
    return text


def check_askable(card: ModelCard, *, task: Literal["score", "comparison"] = "score") -> None:
    """Refuse, before anything is loaded, a card that cannot be asked.

    Raises:
        UsageError: it cannot be run here, is for another task, has no question, or one that says nothing of the form
            of the answer or names another scale than the card.
    """
    is_hub_id = card.source.count("/") == 1 and card.source.endswith(f"/{card.name}")
    where = f"model {card.source if is_hub_id else card.name or card.source}"
    if card.unsupported:
        raise UsageError(f"{where}: {card.unsupported}")
    if card.task != task:
        way = "vqa compare-clips runs it" if card.task == "comparison" else "name a model that compares"
        raise UsageError(f"{where}: its task is {card.task}, not {task}; {way}")
    if card.question is None:
        if task == "score" and "prompt" in card.model_fields_set:
            return  # our own, which fits
        fetch = f"`vqa model fetch-question {card.name}` reads it where it was published, " if card.published else ""
        preset = ", --set model.prompt=NAME asks a preset" if task == "score" else ""
        raise UsageError(f"{where}: no question is known for it; {fetch}--question FILE gives one by hand{preset}")
    words = f"{card.system or ''} {card.question}"
    if "<answer>" not in words:
        raise UsageError(
            f"{where}: its question says nothing of the form of the answer, neither <answer> nor {PLACE}; "
            f"write {PLACE} where our sentence on it is to stand"
        )
    own = words.replace(_answer_format(card), "")  # our sentence names the card's scale, whatever the others say
    ranges = [(float(a or c), float(b or d)) for a, b, c, d in _RANGE.findall(own)]
    scale = (card.answer.low, card.answer.high)
    if task == "score" and ranges and scale not in ranges:
        low, high = ranges[0]
        raise UsageError(
            f"{where}: its question asks for {low:g} to {high:g}, its card reads {scale[0]:g} to {scale[1]:g}; "
            f"--set model.answer.low={low:g} --set model.answer.high={high:g} reads those"
        )


def check_readout(card: ModelCard, generation: GenerationConfig) -> None:
    """Raise UsageError for readout "published" on a card that names no such reading."""
    if generation.readout == "published" and card.answer.published_reading is None:
        raise UsageError(
            f"model {card.name or card.source}: its card does not say how its released script reads answers; "
            "set readout to answer or expected"
        )


def _answer_format(card: ModelCard) -> str:
    span = f"from {card.answer.low:g} to {card.answer.high:g}"
    if card.answer.choices:
        return f"{THINK}, which holds one of these alone: {', '.join(card.answer.choices)}."
    if card.answer.keys:
        pairs = ", ".join(f'"{key}": <number {span}>' for key in card.answer.keys)
        return f"{THINK}, which holds JSON alone: {{{pairs}}}."
    if card.dimensions == 1:
        return f"{THINK}, which holds one number {span} alone."
    return f"{THINK}, which holds {card.dimensions} numbers {span}, one per line."


# --- the user's config folder -----------------------------------------------------------------------------------------


def kept_path(name: str) -> Path:
    """Where the published words of a card are kept."""
    return Path(typer.get_app_dir("vqa")) / "questions" / f"{name}.json"


def _sources(card: ModelCard) -> Values:
    return card.model_dump(mode="json", include={"source", "published", "published_description"})


def _kept(card: ModelCard) -> Values | None:
    path = kept_path(card.name or "")
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        words = {key: kept["words"].get(key) for key in _WORDS}
        is_same = kept["from"] == _sources(card)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(f"{path}: not written by `vqa model fetch-question` ({error!r}); remove it") from error
    if not is_same:
        raise UsageError(
            f"{path}: read elsewhere than the card {card.name} says now; `vqa model fetch-question {card.name}` again"
        )
    return words


def fetch_question(card: ModelCard, *, base: str | None = None) -> tuple[ModelCard, Path]:
    """Fetch a checkpoint's published words, check and keep them in the config folder.

    Args:
        card: that names the files.
        base: a folder with a copy of the repository, or the URL under which OWNER/NAME/REVISION/PATH lie; None: GitHub
            and the Hugging Face hub.

    Returns:
        The card with the words, and the file that keeps them.

    Raises:
        UsageError: the card names no source, or the file holds no such name.
        ModelError: the file cannot be had.
    """
    if card.published is None:
        raise UsageError(f"model {card.name}: its card names no public file with a question; --question FILE takes one")
    words = _words_of(card, card.published, base)
    if card.published_description:
        words["description"] = _words_of(card, card.published_description, base)["question"]
    asking = card.model_copy(update={**words, "asked": "published"})
    check_askable(asking.model_copy(update={"unsupported": None}), task=card.task)
    path = kept_path(card.name or "")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"from": _sources(card), "digest": words_digest(asking), "words": words})
    return asking, path


def _words_of(card: ModelCard, source: QuestionSource, base: str | None) -> dict[str, str]:
    where, text = _download(card, source, base)
    code = _Code(text, where=where, after=source.after, is_code=source.path.endswith(".py"))
    fields = {field: code.text(name) for field, name in source.filled.items()}
    found = {}
    for key in ("question", "system", "intro"):
        if name := getattr(source, key):
            found[key] = code.text(name)
            for field, value in fields.items():
                found[key] = found[key].replace(f"{{{field}}}", value)
    return found


def _download(card: ModelCard, source: QuestionSource, base: str | None) -> tuple[str, str]:
    """Where the file is, and its text."""
    name, revision = (source.repository, source.revision) if source.repository else (card.source, card.revision)
    is_url = base is not None and base.startswith(("http://", "https://"))
    where = f"{base or RAW if base or source.repository else 'the hub'}/{name}/{revision}/{source.path}"
    try:
        if is_url or (base is None and source.repository):
            with urllib.request.urlopen(where, timeout=_SECONDS) as answer:  # noqa: S310 (http and https alone)
                data = answer.read(_MOST_BYTES)
        else:
            if base:
                place = Path(base) / source.path
            else:
                from huggingface_hub import hf_hub_download  # an HTTP client: not for planning a job

                place = Path(hf_hub_download(name, source.path, revision=revision))
            where, data = str(place), place.read_bytes()[:_MOST_BYTES]
        return where, data.decode("utf-8")
    except (OSError, HTTPException, ValueError) as error:  # the hub's errors are of these
        what = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{where}: cannot be read ({what}); give --from with a copy of {name}, or score with --question FILE"
        ) from error


class _Code:
    """Texts assigned to names in Python code or in a Markdown file's code blocks."""

    def __init__(self, text: str, *, where: str, after: str | None, is_code: bool) -> None:
        """Parse it; blocks that are no Python are skipped."""
        self._where = where
        start = 0
        if after is not None:
            start = text.find(after)
            if start < 0:
                raise UsageError(f"{where}: no line with {after!r}; it has changed since the card was written")
        self._nodes: list[ast.AST] = []
        for offset, block in [(0, text)] if is_code else [(m.start(), m[1]) for m in _BLOCK.finditer(text, start)]:
            try:
                tree = ast.parse(textwrap.dedent(block))
            except (SyntaxError, RecursionError, ValueError):
                continue
            first = text.count("\n", offset, start) if is_code else 0
            nodes = [node for node in ast.walk(tree) if getattr(node, "lineno", 0) > first]
            self._nodes += sorted(nodes, key=lambda node: (getattr(node, "lineno", 0), getattr(node, "col_offset", 0)))

    def text(self, name: str) -> str:
        """The text of a name; raises UsageError where there is none."""
        try:
            found = self._user_turn() if name == "chat" else self._walk(name)
        except RecursionError:  # a name made of itself
            found = None
        if not isinstance(found, str):
            raise UsageError(f"{self._where}: {name} is no text there; it has changed since the card was written")
        return found

    def _walk(self, dotted: str) -> object:
        name, *keys = dotted.split(".")
        node: ast.AST | None = self._assigned(name)
        for key in keys:
            node = self._inside(node, key)
        return None if node is None else self._value(node)

    def _assigned(self, name: str) -> ast.AST | None:
        for node in self._nodes:
            if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
                return node.value
        return None

    def _inside(self, node: ast.AST | None, key: str) -> ast.AST | None:
        """An entry of a dictionary or list that is written out."""
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            return next((value for one, value in pairs if isinstance(one, ast.Constant) and one.value == key), None)
        if isinstance(node, ast.List) and key.isdigit() and int(key) < len(node.elts):
            return node.elts[int(key)]
        return None

    def _value(self, node: ast.AST) -> object:
        """Text that is written out, added up, named, or formatted by name; else None."""
        match node:
            case ast.Constant(value=str(text)):
                return text
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                one, other = self._value(left), self._value(right)
                return one + other if isinstance(one, str) and isinstance(other, str) else None
            case ast.Name(id=name):
                found = self._assigned(name)
                return None if found is None else self._value(found)
            case ast.Call(func=ast.Attribute(value=template, attr="format"), args=[], keywords=keywords):
                filled = self._value(template)
                for keyword in keywords:
                    value = self._value(keyword.value)
                    if not isinstance(filled, str) or not isinstance(value, str):
                        return None
                    filled = filled.replace(f"{{{keyword.arg}}}", value)
                return filled
        return None

    def _user_turn(self) -> object:
        """The text of the first dictionary with the role `user`."""
        for node in self._nodes:
            if isinstance(node, ast.Dict) and self._entry(node, "role") == "user":
                content = self._inside(node, "content")
                parts = content.elts if isinstance(content, ast.List) else []
                texts = [self._entry(part, "text") for part in parts if self._entry(part, "type") == "text"]
                return texts[0] if len(texts) == 1 else None
        return None

    def _entry(self, node: ast.AST, key: str) -> object:
        inner = self._inside(node, key)
        return None if inner is None else self._value(inner)


def questions_of(card: ModelCard) -> Iterator[tuple[str, str]]:
    """What a card asks, by kind of words, as far as there are any."""
    for key in _WORDS:
        if text := getattr(card, key):
            yield key, text
