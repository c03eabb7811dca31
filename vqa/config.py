"""YAML into a typed schema, unknown keys refused. Knows no part: each schema stands beside what it configures."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from vqa.errors import UsageError

Schema = TypeVar("Schema", bound=BaseModel)
Values = dict[str, Any]


class Strict(BaseModel):
    """What schemas are made of: frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def configs_folder() -> Path:
    """The folder of shipped configs: `configs/` of a checkout, or `vqa/configs/` of an installed wheel."""
    package = Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if folder.is_dir():
            return folder
    raise UsageError(f"no configs folder beside {package}; reinstall vqa")


def load(
    path: Path | str | None, schema: type[Schema], overrides: Sequence[str] = (), base: Mapping[str, Any] | None = None
) -> Schema:
    """A schema instance from, weakest first: its defaults, `base`, the YAML file, overrides (`"views.keyframes=8"`).

    Raises UsageError naming the key, where it came from and the keys there are.
    """
    values = merge(base or {}, read(path) if path is not None else {})
    return build(schema, override(values, overrides), where=str(path) if path is not None else "the settings")


def read(path: Path | str) -> Values:
    """The mapping in a YAML file; an empty file is an empty mapping. Raises UsageError naming file and line."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"config {path}: cannot be read ({error}); give a YAML file") from error
    return _mapping(text, str(path))


def _mapping(text: str, where: str) -> Values:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: not YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UsageError(f"{where}: holds {type(values).__name__}, wanted `key: value` lines with names as keys")
    return values


def merge(weak: Mapping[str, Any], strong: Mapping[str, Any]) -> Values:
    """Both mappings in one, sections merged key by key; where both have a value, the strong one's counts."""
    merged = dict(weak)
    for key, value in strong.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def override(values: Mapping[str, Any], assignments: Sequence[str]) -> Values:
    """The values with each `section.key=value` put over them; a value is read as YAML (`6`, `true`, `[1, 2]`)."""
    result = dict(values)
    for assignment in assignments:
        dotted, equals, text = assignment.partition("=")
        names = dotted.strip().split(".")
        if not equals or not all(names):
            raise UsageError(f"--set {assignment!r}: wanted section.key=value, e.g. generation.k=6")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text  # `--set model.source=a: b` means the plain text
        for name in reversed(names):
            value = {name: value}
        result = merge(result, value)
    return result


def build(schema: type[Schema], values: Mapping[str, Any], *, where: str) -> Schema:
    """The schema made from the values; raises UsageError with a line for each wrong key, saying which keys exist."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        lines = [_complaint(schema, dict(problem)) for problem in error.errors()]
        raise UsageError("\n".join(f"{where}: {line}" for line in lines)) from error


def _complaint(schema: type[BaseModel], problem: Values) -> str:
    names = [str(part) for part in problem["loc"]]
    key = ".".join(names) or "(the whole)"
    if problem["type"] == "extra_forbidden":
        known = _keys(schema, names[:-1])
        near = get_close_matches(names[-1], known, n=1)
        return (
            f"unknown key {key!r}{f' (did you mean {near[0]!r}?)' if near else ''}; "
            f"{'.'.join(names[:-1]) or 'this level'} knows: {', '.join(known) or 'nothing'}"
        )
    if problem["type"] == "missing":
        return f"key {key!r} is missing"
    if not names:  # a rule between keys: the whole input would hide it
        return str(problem["msg"]).removeprefix("Value error, ")
    return f"{key} = {problem.get('input')!r}: {problem['msg']}"


def _keys(schema: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The keys below a path, which may hold places in a list and tags of a union (`objectives.0.caption_kl`)."""
    current = [schema]
    for name in path:
        if name.isdigit():
            continue
        tagged = [one for one in current if "kind" in one.model_fields and name in get_args(_annotation(one, "kind"))]
        current = tagged or [
            inner for one in current if name in one.model_fields for inner in _sections(_annotation(one, name))
        ]
    return list(dict.fromkeys(key for one in current for key in one.model_fields))


def _annotation(schema: type[BaseModel], name: str) -> Any:
    return schema.model_fields[name].annotation


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The schemas inside an annotation such as `Limits`, `Limits | None` or `tuple[A | B, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [inner for option in get_args(annotation) for inner in _sections(option)]
