"""Reference pages made from the code: commands, settings, columns, errors, recipes, data sets, models.

`python docs/generate.py` writes docs/generated/*.md, which the pages of docs/reference include; so does every build.
"""

import re
import types
from collections.abc import Iterable, Iterator, Mapping
from itertools import dropwhile
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer.main
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from jobs.config import ScoreConfig
from vqa.cli import app
from vqa.config import configs_folder
from vqa.data.public.specs import DIALECTS, SetSpec
from vqa.data.score_table import SCHEMA, VIDEO_SCHEMA
from vqa.errors import ErrorKind
from vqa.evaluate.card import EvalCard
from vqa.rewards import REWARD_PRESETS
from vqa.train.recipe_stages import KINDS, Recipe

HERE = Path(__file__).resolve().parent
COMMANDS = ("vqa ", "accelerate ", " ", "Data first", "The labels")  # lines of a config's header that are no notes


def write(folder: Path) -> None:
    """Write every page into the folder, untouched where nothing changed, so that Sphinx reads it once."""
    folder.mkdir(exist_ok=True)
    pages = {
        "cli": cli(),
        "config": config(),
        "scores": scores(),
        "errors": errors(),
        "recipes": recipes(),
        "rewards": rewards(),
        "datasets": datasets(),
        "models": models(),
        "extras": extras(),
    }
    for name, lines in pages.items():
        path, text = folder / f"{name}.md", "\n".join(lines) + "\n"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    """A Markdown table."""
    head = list(head)
    yield "| " + " | ".join(head) + " |"
    yield "| " + " | ".join("---" for _ in head) + " |"
    for row in rows:
        yield "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in row) + " |"
    yield ""


def commands() -> dict[str, Any]:
    """Every command of `vqa` by its words: "score", "data import"."""
    found: dict[str, Any] = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {f"{name} {sub}": leaf for sub, leaf in inner.items()} if inner else {name: command}
    return found


def cli() -> Iterator[str]:
    """Arguments and options of each command."""
    for name, command in commands().items():
        yield f"## vqa {name}\n"
        yield f"{(command.help or '').strip()}\n"
        rows = []
        for one in command.params:
            names = ", ".join(f"`{flag}`" for flag in (*one.opts, *one.secondary_opts))
            shown = one.default
            is_set = shown not in (None, False, (), []) and one.param_type_name == "option"
            names = names if one.param_type_name == "option" else f"`{one.metavar or one.name.upper()}`"
            rows.append((names, f"`{_plain(shown)}`" if is_set else "", one.help or ""))
        yield from table(("argument or option", "default", "meaning"), rows)


def config() -> Iterator[str]:
    """Keys of each kind of config file."""
    folders = {"configs/score": ScoreConfig, "configs/train": Recipe, "configs/data": SetSpec, "configs/eval": EvalCard}
    seen: set[type[BaseModel]] = set()
    for folder, root in folders.items():
        yield f"## {folder}\n"
        yield from _schema(root, seen, "")
        if root is Recipe:
            for kind, stage in KINDS.items():
                yield from _schema(stage, seen, f"`stages[]` of kind `{kind}`: ")


def _schema(schema: type[BaseModel], seen: set[type[BaseModel]], where: str) -> Iterator[str]:
    if schema in seen:
        return
    seen.add(schema)
    fields = schema.model_fields
    yield f"### {schema.__name__}\n"
    yield f"{where}{_sentence(schema.__doc__)}\n"
    rows = [(f"`{name}`", f"`{_type(one.annotation)}`", _default(one), _meaning(one)) for name, one in fields.items()]
    yield from table(("key", "type", "default", "meaning"), rows)
    for name, one in fields.items():
        for inner in _schemas(one.annotation):
            if inner not in KINDS.values():
                yield from _schema(inner, seen, f"Section `{name}`: ")


def _schemas(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _schemas(inner)


def _sentence(docstring: str | None) -> str:
    return " ".join((docstring or "").split("\n\n")[0].split())


def _type(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if one is types.NoneType else _type(one) for one in inner)
    if origin is Literal:
        return " or ".join(map(str, inner))
    if inner and hasattr(annotation, "__metadata__"):
        return _type(inner[0])
    if origin in (tuple, list):
        return f"list of {_type(inner[0])}"
    if origin in (dict, Mapping):
        return "mapping"
    name = getattr(annotation, "__name__", str(annotation))
    return {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}.get(name, name)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is PydanticUndefined or isinstance(field.default, BaseModel):
        return ""
    return f"`{_plain(field.default)}`"


def _plain(value: object) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "[]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) or "empty"


def _meaning(field: FieldInfo) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "multiple_of": "a multiple of", "min_length": "at least"}
    bounds = [
        f"{sign} {getattr(one, key)}" for one in field.metadata for key, sign in signs.items() if hasattr(one, key)
    ]
    return ". ".join(filter(None, (field.description, ", ".join(bounds))))


def _described() -> dict[str, dict[str, str]]:
    read: dict[str, dict[str, str]] = yaml.safe_load((HERE / "reference" / "meanings.yaml").read_text(encoding="utf-8"))
    return read


def _checked(names: Iterable[str], meanings: Mapping[str, str], what: str) -> None:
    if set(names) != set(meanings):
        raise SystemExit(f"docs/reference/meanings.yaml, {what}: differs from the code in {set(names) ^ set(meanings)}")


def scores() -> Iterator[str]:
    """Columns of the scores table and of videos.parquet."""
    described = _described()
    for title, schema in (("scores/*.parquet", SCHEMA), ("videos.parquet", VIDEO_SCHEMA)):
        _checked(schema.names, described[title], title)
        yield f"## {title}\n"
        yield from table(
            ("column", "type", "meaning"), ((f"`{f.name}`", f"`{f.type}`", described[title][f.name]) for f in schema)
        )


def errors() -> Iterator[str]:
    """Kinds of errors of a clip."""
    meanings = _described()["errors"]
    _checked(get_args(ErrorKind), meanings, "errors")
    yield from table(("error_kind", "what happened"), ((f"`{kind}`", meanings[kind]) for kind in get_args(ErrorKind)))


def _header(path: Path) -> list[str]:
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    return lines


def _files(kind: str) -> Iterator[tuple[str, Path, list[str]]]:
    for path in sorted((configs_folder() / kind).glob("*.yaml")):
        lines = _header(path)
        yield path.stem, path, list(dropwhile(lambda line: line.startswith(COMMANDS), lines))


def recipes() -> Iterator[str]:
    """What the header of each recipe says, paper by paper."""
    for name, path, notes in _files("train"):
        if name.endswith("_tiny"):
            continue
        twin = f" Small twin: `configs/train/{name}_tiny.yaml`." if path.with_stem(f"{name}_tiny").is_file() else ""
        yield f"## {name}\n"
        yield f"```shell\n{_header(path)[0]}\n```\n"
        yield f"{_escaped(notes)}{twin}\n"


def rewards() -> Iterator[str]:
    """Terms, weights and source of each preset."""
    for name, preset in REWARD_PRESETS.items():
        terms = ", ".join(f"{term} {weight:.4g}" for term, weight in preset.weights.items())
        yield f"`{name}`\n: {preset.source} Terms and weights: {terms}.\n"


def datasets() -> Iterator[str]:
    """What is known of each public data set."""
    rows = []
    for name, path, notes in _files("data"):
        spec = SetSpec.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        scale = "give `--scale`"
        if spec.scale:
            scale = f"{spec.scale.low:g} to {spec.scale.high:g}" + (
                "" if spec.scale.higher_is_better else ", low is good"
            )
        counts = ", ".join(map(str, spec.counts)) or "-"
        rows.append((f"`{name}`", spec.kind, counts, scale, _escaped(notes)))
    yield from table(("set", "kind", "clips", "scale of its opinions", "notes"), rows)
    dialects = ", ".join(f"`{name}`" for name in DIALECTS)
    yield f"Dialects of label files, for any set (`--dataset` names it): {dialects}.\n"


def models() -> Iterator[str]:
    """The cards of configs/models."""
    rows = []
    for name, path, notes in _files("models"):
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        rows.append((f"`{name}`", f"`{values['source']}`", f"`{values['prompt']}`", _escaped(notes)))
    yield from table(("card", "weights", "prompt", "notes"), rows)


def extras() -> Iterator[str]:
    """Optional dependencies, with the comment beside each in pyproject.toml."""
    text = (HERE.parent / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    found = re.findall(r"^(\w+) = \[([^\]]*(?:\[\w+\][^\]]*)*)\](?:  # (.*))?$", section, re.MULTILINE)
    yield from table(("extra", "for"), ((f"`{name}`", note) for name, _, note in found if name != "dev"))


def _escaped(notes: list[str]) -> str:
    return " ".join(notes).replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_").replace("[", "\\[")


if __name__ == "__main__":
    write(HERE / "generated")
