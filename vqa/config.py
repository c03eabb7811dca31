"""Strict configs: YAML and `key=value` to pydantic models, unknown keys refused.

Each model is defined beside the package that it configures.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from vqa.errors import UsageError

Schema = TypeVar("Schema", bound=BaseModel)
Values = dict[str, Any]

LONGEST_VALUE = 200  # characters of a wrong value that are shown
EXAMPLE = "generation.k=6"  # of an assignment
# By the end of pydantic's names of errors: what to give where something of another kind was given.
_KINDS = {
    "a mapping of settings, key: value": ("model_type", "model_attributes_type", "dict_type", "mapping_type"),
    "a list, such as [a, b]": ("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"),
    "text": ("string_type", "bytes_type"),
    "a whole number": ("int_type", "int_parsing", "int_parsing_size", "int_from_float"),
    "a number": ("float_type", "float_parsing", "decimal_type", "decimal_parsing"),
    "true or false": ("bool_type", "bool_parsing"),
    "a path": ("path_type",),
    "a day and time": ("datetime_type", "datetime_parsing", "datetime_from_date_parsing"),
    "nothing (null)": ("none_required",),
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names}


# Beside its own: numbers of thousands of digits, dates that no calendar has, and brackets nested by the thousand.
_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)


class _Loader(yaml.SafeLoader):
    """Safe loader that refuses a key given twice, of which YAML keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class Strict(BaseModel):
    """Base of all settings: frozen; unknown keys, NaN and infinity refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def refuse_renamed(values: object, renamed: Mapping[str, str]) -> object:
    """The values as given. Raises ValueError for a key of `renamed` (old -> new)."""
    if isinstance(values, Mapping) and (
        old := [f"key {key!r} is now {renamed[key]}" for key in values if key in renamed]
    ):
        raise ValueError("; ".join(old))
    return values


def configs_folder() -> Path:
    """Folder of the shipped configs, in a checkout or in an installed wheel."""
    package = Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if folder.is_dir():
            return folder
    raise UsageError(f"no configs folder beside {package}. Reinstall vqa.")


def load_config(
    path: Path | str | None,
    schema: type[Schema],
    overrides: Sequence[str] = (),
    base: Mapping[str, object] | None = None,
    *,
    option: str = "--set",
    example: str = EXAMPLE,
) -> Schema:
    """Make settings: the schema's defaults < `base` < a YAML file < overrides.

    Args:
        path: YAML file, or None.
        schema: Class of the settings.
        overrides: Assignments such as `"views.keyframes=8"`.
        base: Values below those of the file.
        option: By which the overrides are given, for messages.
        example: Of an override.

    Raises:
        UsageError: Names each wrong key, where it came from, and the keys that exist.
    """
    values = merge_values(base or {}, read_yaml(path) if path is not None else {})
    given = override(values, overrides, option=option, example=example)
    return build(schema, given, where=str(path) if path is not None else "the settings")


def read_yaml(path: Path | str) -> Values:
    """Read the mapping in a YAML file, empty for an empty one. Raises UsageError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"config {path}: cannot be read ({error}). Give a YAML file.") from error
    return _mapping(text, str(path))


def _mapping(text: str, where: str) -> Values:
    try:
        values = yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
    except _NOT_YAML as error:
        raise UsageError(f"{where}: not YAML ({' '.join(str(error).split())}). Mend that line.") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UsageError(f"{where}: holds {type(values).__name__}. Give `key: value` lines with names as keys.")
    return values


def merge_values(weak: Mapping[str, object], strong: Mapping[str, object]) -> Values:
    """Merge two mappings, sections key by key; values of `strong` win."""
    merged = dict(weak)
    for key, value in strong.items():
        old = merged.get(key)
        merged[key] = merge_values(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def override(
    values: Mapping[str, object], assignments: Sequence[str], *, option: str = "--set", example: str = EXAMPLE
) -> Values:
    """Put each `section.key=value` over the values; the text after `=` is YAML.

    Raises:
        UsageError: An assignment of another form.
    """
    result = dict(values)
    for assignment in assignments:
        dotted, equals, text = assignment.partition("=")
        names = dotted.strip().split(".")
        if not equals or not all(names):
            form = "section.key=value" if "." in example else "key=value"
            raise UsageError(f"{option} {assignment!r} is no assignment. Give {form}, as {example}.")
        try:
            value = yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
        except _NOT_YAML:
            value = text  # `--set model.source=a: b` means the plain text
        for name in reversed(names):
            value = {name: value}
        result = merge_values(result, value)
    return result


def build(schema: type[Schema], values: Mapping[str, object], *, where: str) -> Schema:
    """Validate values. Raises UsageError with a line for each wrong key.

    A line names `where`, the file or option that the values come from, and for an unknown key those that exist.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        lines = [_complaint(schema, problem) for problem in error.errors()]
        raise UsageError("\n".join(f"{where}: {line}" for line in lines)) from error


def wanted(problem: ErrorDetails) -> str:
    """What pydantic found wrong with a value, in words for who wrote the setting."""
    if kind := _KIND_OF.get(problem["type"]):
        return f"wanted {kind}"
    if problem["type"] in ("literal_error", "enum"):
        return f"wanted {problem['ctx']['expected']}"
    return problem["msg"].removeprefix("Value error, ")


def _complaint(schema: type[BaseModel], problem: ErrorDetails) -> str:
    names = [str(part) for part in problem["loc"]]
    key = ".".join(names) or "(the whole)"
    if problem["type"] == "extra_forbidden":
        known = _keys(schema, names[:-1])
        near = get_close_matches(names[-1], known, n=1)
        return (
            f"unknown key {key!r}{f' (did you mean {near[0]!r}?)' if near else ''}. "
            f"Keys of {'.'.join(names[:-1]) or 'this level'}: {', '.join(known) or 'none'}."
        )
    if problem["type"] == "missing":
        return f"key {key!r} is missing"
    if not names:  # a rule between keys: the whole input would hide it
        return wanted(problem)
    return f"{key} = {_shortened(problem['input'])}: {wanted(problem)}"


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def _keys(schema: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Keys below a path with list indices and union tags (`objectives.0.caption_kl`)."""
    current = [schema]
    for name in path:
        if name.isdigit():
            continue
        tagged = [one for one in current if "kind" in one.model_fields and name in get_args(_annotation(one, "kind"))]
        current = tagged or [
            inner for one in current if name in one.model_fields for inner in _sections(_annotation(one, name))
        ]
    return list(dict.fromkeys(key for one in current for key in one.model_fields))


def _annotation(schema: type[BaseModel], name: str) -> object:
    return schema.model_fields[name].annotation


def _sections(annotation: object) -> list[type[BaseModel]]:
    """The models inside an annotation such as `A | None` or `tuple[A | B, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [inner for option in get_args(annotation) for inner in _sections(option)]
