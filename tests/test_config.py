"""Configs: later sources win, unknown keys are refused by name, and no value slips through unread."""

import ast
from pathlib import Path
from typing import Literal, get_args

import pytest
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core.core_schema import ErrorType

from jobs.plan import read_hardware
from vqa import config
from vqa.config import Strict, configs_folder, load_config, merge_values, override
from vqa.errors import UsageError


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    k: int = 1
    name: str | None = None


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inner: Inner = Inner()
    maybe: Inner | None = None
    rate: float = 0.5


def written(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_later_sources_win_key_by_key(tmp_path: Path) -> None:
    path = written(tmp_path, "inner: {k: 2, name: file}\n")
    config = load_config(path, Outer, ["inner.k=3"], base={"inner": {"k": 9, "name": "base"}, "rate": 0.25})
    assert config == Outer(inner=Inner(k=3, name="file"), rate=0.25)


def test_no_file_and_an_empty_file_are_the_defaults(tmp_path: Path) -> None:
    assert load_config(None, Outer) == Outer() == load_config(written(tmp_path, "# only words\n"), Outer)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("iner: {}\n", ["unknown key 'iner'", "settings.yaml", "inner, maybe, rate"]),
        ("inner: {kk: 1}\n", ["unknown key 'inner.kk'", "Keys of inner: k, name"]),
        ("maybe: {kk: 1}\n", ["unknown key 'maybe.kk'", "Keys of maybe: k, name"]),
        ("rate: fast\n", ["rate = 'fast'"]),
        ("inner: {k: 1\n", ["not YAML"]),
        ("- a\n- b\n", ["list", "names as keys"]),
        ("inner: {k: 1}\nrate: 2\ninner: {name: x}\n", ["not YAML", "key 'inner' given twice", "line 3"]),
        (f"rate: {'[' * 5000}\n", ["settings.yaml: not YAML"]),
        (f"rate: {'9' * 5000}\n", ["settings.yaml: not YAML"]),
        ("rate: 2026-13-45\n", ["settings.yaml: not YAML"]),
        ("1: a\n", ["names as keys"]),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, says: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(written(tmp_path, text), Outer)
    for words in says:
        assert words in str(caught.value)


class Finite(Strict):
    rate: float = Field(0.5, gt=0)


@pytest.mark.parametrize("value", [".inf", ".nan"])
def test_a_setting_is_a_finite_number(tmp_path: Path, value: str) -> None:
    with pytest.raises(UsageError, match=rf"rate = {value[1:]}: Input should be a finite number"):
        load_config(written(tmp_path, f"rate: {value}\n"), Finite)


class Kinds(Strict):
    section: Inner = Inner()
    named: dict[str, float] = Field({})
    several: tuple[str, ...] = ()
    listed: list[int] = Field([])
    text: str = ""
    count: int = 0
    rate: float = 0.0
    switch: bool = False
    place: Path | None = None
    either: Literal["a", "b"] = "a"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("section=5", "section = 5: wanted a mapping of settings, key: value"),
        ("named=[1]", "named = [1]: wanted a mapping of settings, key: value"),
        ("several=5", "several = 5: wanted a list, such as [a, b]"),
        ("listed=a", "listed = 'a': wanted a list, such as [a, b]"),
        ("several=[5]", "several.0 = 5: wanted text"),
        ("text=[a]", "text = ['a']: wanted text"),
        ("count=many", "count = 'many': wanted a whole number"),
        ("count=1.5", "count = 1.5: wanted a whole number"),
        ("rate=fast", "rate = 'fast': wanted a number"),
        ("switch=maybe", "switch = 'maybe': wanted true or false"),
        ("place=5", "place = 5: wanted a path"),
        ("either=c", "either = 'c': wanted 'a' or 'b'"),
    ],
)
def test_a_value_of_another_kind_is_refused_in_plain_words(given: str, wanted: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(None, Kinds, [given])
    assert str(caught.value) == f"the settings: {wanted}"


def test_a_long_value_is_shown_in_part() -> None:
    with pytest.raises(UsageError) as caught:
        load_config(None, Kinds, [f"count={'x' * 10_000}"])
    assert len(str(caught.value)) < 300


def test_kinds_of_errors_are_named_as_pydantic_names_them() -> None:
    assert config._KIND_OF.keys() - {"path_type"} <= {*get_args(ErrorType)}


def test_the_option_of_an_assignment_is_named() -> None:
    with pytest.raises(
        UsageError, match=r"^--hardware-set 'cores' is no assignment\. Give key=value, as price_per_hour=25"
    ):
        read_hardware(None, ("cores",))
    with pytest.raises(UsageError, match=r"^--set 'k' is no assignment\. Give section\.key=value, as generation\.k=6"):
        override({}, ["k"])


def test_every_wrong_key_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(written(tmp_path, "a: 1\nb: 2\n"), Outer)
    assert "'a'" in str(caught.value)
    assert "'b'" in str(caught.value)


def test_a_missing_file_and_one_that_is_no_text_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.yaml"):
        load_config(tmp_path / "gone.yaml", Outer)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"bytes\.yaml"):
        load_config(tmp_path / "bytes.yaml", Outer)


@pytest.mark.parametrize(
    ("assignment", "value"),
    [("a.b=6", 6), ("a.b=true", True), ("a.b=[1, 2]", [1, 2]), ("a.b=null", None), ("a.b=x=y", "x=y"), ("a.b=", None)],
)
def test_assignments_are_read_as_yaml(assignment: str, value: object) -> None:
    assert override({"a": {"c": 1}}, [assignment]) == {"a": {"b": value, "c": 1}}


@pytest.mark.parametrize("assignment", ["a", "=1", "a..b=1", ".=1"])
def test_an_assignment_without_key_or_value_is_refused(assignment: str) -> None:
    with pytest.raises(UsageError, match=r"section\.key=value"):
        override({}, [assignment])


def test_merging_changes_neither_side() -> None:
    weak, strong = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert merge_values(weak, strong) == {"a": {"b": 1, "c": 2}}
    assert (weak, strong) == ({"a": {"b": 1}}, {"a": {"c": 2}})


def test_the_configs_folder_is_found() -> None:
    assert (configs_folder() / "models").is_dir()


# Schemas of files that we write, whose values are for readers: no settings.
WRITTEN = {"Calibration", "PartMetrics", "StudentCard"}
ROOT = Path(__file__).resolve().parent.parent


def source_trees() -> list[ast.Module]:
    files = (file for folder in ("vqa", "jobs", "samplers") for file in (ROOT / folder).rglob("*.py"))
    return [ast.parse(file.read_text(encoding="utf-8")) for file in files]


def settings_and_names_read(trees: list[ast.Module]) -> tuple[dict[str, list[str]], set[str]]:
    """The keys of each class of settings, and each name that code reads or hands on: attribute, text or parameter."""
    classes = {node.name: node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}

    def is_settings(name: str) -> bool:
        bases = [base.id for base in classes[name].bases if isinstance(base, ast.Name)] if name in classes else []
        return "Strict" in bases or any(map(is_settings, bases))

    schemas = {
        name: [
            one.target.id for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
        ]
        for name, node in classes.items()
        if is_settings(name) and name not in WRITTEN
    }
    read = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(node.attr)
            elif isinstance(node, ast.Tuple):  # lists of names that are handed on as they are (trl's settings)
                read |= {one.value for one in node.elts if isinstance(one, ast.Constant) and isinstance(one.value, str)}
            elif isinstance(node, ast.arguments):
                read |= {one.arg for one in node.kwonlyargs}
    return schemas, read


@pytest.mark.slow
def test_no_key_of_any_config_is_read_by_nobody() -> None:
    schemas, read = settings_and_names_read(source_trees())
    assert {"ScoreConfig", "Recipe", "GrpoSettings", "Write", "SetSpec", "EvalCard"} <= schemas.keys()
    assert [f"{name}.{key}" for name, keys in schemas.items() for key in keys if key not in read] == []


def test_a_key_that_nobody_reads_is_found() -> None:
    trees = [ast.parse("class A(Strict):\n    used: int\n    dead: int\n\n\ndef f(a):\n    return a.used\n")]
    schemas, read = settings_and_names_read(trees)
    assert schemas == {"A": ["used", "dead"]} and "used" in read and "dead" not in read
