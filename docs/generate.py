"""Reference pages made from the code: commands, settings, columns, errors, recipes, data sets, models, extras.

`python docs/generate.py` writes docs/generated/*.md, which pages of docs/reference include; so does every build.
"""

import tomllib
import types
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, metadata
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer.main
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from jobs.config import ScoreConfig
from jobs.plan import Hardware
from vqa.cli.app import app
from vqa.config import configs_folder
from vqa.data.people import PeopleSet
from vqa.data.public.specs import DIALECTS, SetSpec, load_set
from vqa.data.score_table import SCHEMA, VIDEO_SCHEMA
from vqa.errors import ErrorKind
from vqa.evaluate.card import EvalCard
from vqa.light.config import DistillConfig
from vqa.rewards import REWARD_PRESETS
from vqa.train.recipe import KINDS, Recipe

HERE = Path(__file__).resolve().parent
COMMANDS = ("vqa ", "accelerate ", " ", "Data first", "The labels")  # lines of a config's header that are no notes
BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "multiple_of": "a multiple of", "min_length": "at least"}
SCALARS = {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}


def write(folder: Path) -> None:
    """Write every page into the folder, untouched where nothing changed, so that Sphinx reads it once."""
    folder.mkdir(exist_ok=True)
    for make in (_cli, _config, _scores, _errors, _recipes, _rewards, _datasets, _models, _extras, _licences):
        path, text = folder / f"{make.__name__.removeprefix('_')}.md", "\n".join(make()) + "\n"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _table(head: str, rows: Iterable[Iterable[object]]) -> Iterator[str]:
    yield f"| {head} |"
    yield "|" + " --- |" * (head.count("|") + 1)
    for row in rows:
        yield "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in row) + " |"
    yield ""


def _cli() -> Iterator[str]:
    commands: dict[str, Any] = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        commands |= {f"{name} {sub}": leaf for sub, leaf in inner.items()} if inner else {name: command}
    for name, command in commands.items():
        yield f"## vqa {name}\n\n{(command.help or '').strip()}\n"
        rows = []
        for one in command.params:
            is_option = one.param_type_name == "option"
            flags = ", ".join(f"`{flag}`" for flag in (*one.opts, *one.secondary_opts))
            default = "required" if one.required else ""
            if is_option and one.default not in (None, False, (), []):
                default = f"`{_plain(one.default)}`"
            rows.append((flags if is_option else f"`{one.metavar or one.name.upper()}`", default, one.help or ""))
        yield from _table("argument or option | default | meaning", rows)


def _config() -> Iterator[str]:
    folders: dict[str, type[BaseModel]] = {
        "configs/score": ScoreConfig,
        "configs/train": Recipe,
        "configs/light": DistillConfig,
        "configs/people": PeopleSet,
        "configs/data": SetSpec,
        "configs/eval": EvalCard,
        "configs/hardware": Hardware,
    }
    seen: set[type[BaseModel]] = set()
    for folder, root in folders.items():
        yield f"## {folder}\n"
        yield from _schema(root, seen, "")
        for kind, stage in KINDS.items() if root is Recipe else ():
            yield from _schema(stage, seen, f"A stage of kind `{kind}`: ")


def _schema(schema: type[BaseModel], seen: set[type[BaseModel]], where: str) -> Iterator[str]:
    if schema in seen:
        return
    seen.add(schema)
    summary = " ".join((schema.__doc__ or "").split("\n\n")[0].split())
    yield f"### {schema.__name__}\n\n{where}{summary}\n"
    fields = schema.model_fields
    rows = [(f"`{name}`", f"`{_type(one.annotation)}`", _default(one), _meaning(one)) for name, one in fields.items()]
    yield from _table("key | type | default | meaning", rows)
    for name, one in fields.items():
        for inner in _schemas(one.annotation):
            if inner not in KINDS.values():
                yield from _schema(inner, seen, f"Section `{name}`: ")


def _schemas(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _schemas(inner)


def _type(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if one is types.NoneType else _type(one) for one in inner)
    if origin is Literal:
        return " or ".join(map(str, inner))
    if hasattr(annotation, "__metadata__"):
        return _type(inner[0])
    if origin in (tuple, list):
        return f"list of {_type(inner[0])}"
    name = "mapping" if origin else getattr(annotation, "__name__", str(annotation))
    return SCALARS.get(name, name)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    is_plain = field.default is not PydanticUndefined and not isinstance(field.default, BaseModel)
    return f"`{_plain(field.default)}`" if is_plain else ""


def _plain(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return ", ".join(map(str, value)) or "[]" if isinstance(value, tuple | list) else str(value) or "empty"


def _meaning(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(one, key)}" for one in field.metadata for key, sign in BOUNDS.items() if hasattr(one, key)
    ]
    return ". ".join(filter(None, (field.description, ", ".join(bounds))))


def _meanings(section: str, names: Sequence[str]) -> list[tuple[str, str]]:
    said = yaml.safe_load((HERE / "reference" / "meanings.yaml").read_text(encoding="utf-8"))[section]
    if missing := [name for name in names if name not in said]:
        raise SystemExit(f"docs/reference/meanings.yaml, {section}: no line for {', '.join(missing)}")
    return [(name, said[name]) for name in names]


def _scores() -> Iterator[str]:
    for title, schema in (("scores/*.parquet", SCHEMA), ("videos.parquet", VIDEO_SCHEMA)):
        yield f"## {title}\n"
        rows = [(f"`{one}`", f"`{schema.field(one).type}`", said) for one, said in _meanings(title, schema.names)]
        yield from _table("column | type | meaning", rows)


def _errors() -> Iterator[str]:
    rows = [(f"`{one}`", said) for one, said in _meanings("errors", get_args(ErrorKind))]
    yield from _table("error_kind | what happened", rows)


def _extras() -> Iterator[str]:
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [name for name in project["optional-dependencies"] if name != "dev"]
    yield from _table("extra | for", ((f"`{one}`", said) for one, said in _meanings("extras", names)))


def _licences() -> Iterator[str]:
    pinned = (line.partition("==") for line in (HERE.parent / "constraints.txt").read_text().splitlines())
    yield from _table("package | version | licence", ((n, v, _licence(n)) for n, mark, v in pinned if mark))


def _licence(package: str) -> str:
    """As the installed package states it: an SPDX expression, else classifiers, else the first line of its text."""
    try:
        facts = metadata(package)
    except PackageNotFoundError:
        return "not installed where this page was made"
    kinds = [one.rpartition(" :: ")[2] for one in facts.get_all("Classifier") or () if one.startswith("License ::")]
    lines = (facts.get("License") or "").strip().splitlines()
    return facts.get("License-Expression") or ", ".join(kinds) or (lines[0][:80] if lines else "not stated")


def _files(kind: str) -> Iterator[tuple[str, str, str]]:
    for path in sorted((configs_folder() / kind).glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        head = [line.removeprefix("#").removeprefix(" ") for line in takewhile(lambda line: line[:1] == "#", lines)]
        notes = " ".join(dropwhile(lambda line: line.startswith(COMMANDS), head))
        yield path.stem, head[0], notes.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_").replace("[", "\\[")


def _recipes() -> Iterator[str]:
    names = {name for name, _, _ in _files("train")}
    for name, command, notes in _files("train"):
        if not name.endswith("_tiny"):
            twin = f" Small twin: `configs/train/{name}_tiny.yaml`." * (f"{name}_tiny" in names)
            yield f"## {name}\n\n```shell\n{command}\n```\n\n{notes}{twin}\n"


def _rewards() -> Iterator[str]:
    for name, preset in REWARD_PRESETS.items():
        terms = ", ".join(f"{term} {weight:.4g}" for term, weight in preset.weights.items())
        modes = f" Modes: {preset.modes}" * bool(preset.modes)
        yield f"`{name}`\n: {preset.source} Terms and weights: {terms}. Format: {preset.demand}.{modes}\n"


def _datasets() -> Iterator[str]:
    rows = []
    for name, _, notes in _files("data"):
        spec = load_set(name)
        scale = f"{spec.scale.low:g} to {spec.scale.high:g}" if spec.scale else "give `--scale`"
        scale += ", low is good" * bool(spec.scale and not spec.scale.higher_is_better)
        rows.append((f"`{name}`", spec.kind, ", ".join(map(str, spec.counts)) or "-", scale, notes))
    yield from _table("set | kind | clips | scale of its opinions | notes", rows)
    dialects = ", ".join(f"`{name}`" for name in DIALECTS)
    yield f"Dialects of label files, for any set (`--dataset` names it): {dialects}.\n"


def _models() -> Iterator[str]:
    yield from _table("card | notes", ((f"`{name}`", notes) for name, _, notes in _files("models")))


if __name__ == "__main__":
    write(HERE / "generated")
