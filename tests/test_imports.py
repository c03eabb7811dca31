"""Importing a module changes nothing in the process, `vqa --help` loads nothing heavy, missing extras are named."""

import ast
import gc
import json
import os
import re
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from vqa import imports
from vqa.errors import UsageError
from vqa.imports import kept, require, uncollected

ROOT = Path(__file__).parents[1]
PACKAGES = ("vqa", "jobs", "samplers")
OURS = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.stem != "__main__"
]

# By what a process has loaded already: modules, and what they do without. Each is imported in a fork of that process.
WITHOUT: dict[str, dict[str, set[str]]] = {
    "sys": {
        "vqa": {"torch", "numpy", "pydantic", "av"},
        "vqa.model.resolve, vqa.model.card, vqa.prompt": {"torch", "transformers", "ray", "av"},
        "vqa.cli": {"torch", "numpy", "pydantic", "av", "pyarrow", "ray", "yaml", "importlib.metadata"},
        "jobs.summary": {"torch", "ray", "av", "scipy", "pandas", "pyarrow.dataset"},
        "vqa.model.scorer; from vqa.model.card import settle; from vqa.model.engines.config import *; "
        "start(EngineConfig(), *settle('embedded', {}), alone=True); import vqa": {
            *("ray", "trl", "accelerate", "pyarrow", "datasets", "scipy.stats", "scipy.optimize", "torch._dynamo"),
            *(
                "torch.distributed.tensor",
                "torch.distributed.fsdp",
                "torchvision.datasets",
                "torchvision.models",
                "sympy",
            ),
        },
        "vqa.imports as own; own.arrow_without_pandas(); import vqa.data.score_table as table; "
        "table.to_table([table.ScoreRow(clip_id='a', uri='a', run_key='0')]); table.no_rows(); import vqa": {
            *("pandas", "pyarrow.dataset", "torch", "ray"),
        },
        "os, sys, tempfile, pathlib; sys.stdout = open(os.devnull, 'w'); out = pathlib.Path(tempfile.mkdtemp()); "
        "(out / 'scores').mkdir(); from vqa.cli.show import show; show(out, None, None); import vqa": {
            "pandas",
            "torch",
        },
    },
    "numpy, pydantic, av": {
        "vqa.media.sandbox": {"torch", "pyarrow", "ray", "scipy"},
        "vqa.evaluate.calibrate": {"torch", "ray", "scipy.stats", "scipy.optimize"},
        "vqa.light.config": {"torch", "ray", "pyarrow", "transformers"},
        "jobs.child": {"torch", "ray", "pyarrow", "scipy", "huggingface_hub"},
        "jobs.score": {"torch", "ray", "transformers", "scipy.stats", "scipy.optimize", "huggingface_hub", "pandas"},
    },
}
# Says which modules those forks have loaded. Then it runs import statements, those of third parties and then those of
# our modules, and says after each of the two what the process looks like and which modules are loaded.
STATE = """
import gc, json, os, sys
gc.set_threshold(10**6)  # what is imported stays
def modules_with(name):
    read, write = os.pipe()
    if not (child := os.fork()):
        exec(f"import {name}", {})
        with open(write, "w") as told:
            json.dump(list(sys.modules), told)
        os._exit(0)
    os.close(write)
    with open(read) as told:
        loaded = told.read()
    os.waitpid(child, 0)
    return json.loads(loaded)

asked, (others, ours) = json.load(sys.stdin)
forks = {}
registered = []
register = os.register_at_fork
def note(**callbacks):
    registered.extend(str(getattr(callback, "__module__", None)) for callback in callbacks.values())
    register(**callbacks)
os.register_at_fork = note
for base, names in asked.items():
    exec(f"import {base}")
    forks |= {name: modules_with(name) for name in names}
import av, gc, logging, signal, threading, torch, warnings

def state():
    return {
        "environment": dict(os.environ),
        "warning filters": sorted({str(one) for one in warnings.filters}),
        "FFmpeg's log level": av.logging.get_level(),
        "signal handlers": {one.name: str(signal.getsignal(one)).split(" at ")[0] for one in signal.Signals},
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "log": [logging.root.level, len(logging.root.handlers)],
        "collects garbage": gc.isenabled(),
        "torch": [torch.get_num_threads(), str(torch.get_default_dtype()), torch.is_grad_enabled()],
        "folder": os.getcwd(),
        "hooks": [sys.excepthook is sys.__excepthook__, sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__],
        "at fork": list(registered),
    }

found = []
for statements in (others, ours):
    for one in statements:
        try:
            exec(one, {})
        except ImportError:
            if one.split()[1].split(".")[0] in ("vqa", "jobs", "samplers"):
                raise
    found.append({"state": state(), "loaded": list(sys.modules)})
print(json.dumps([forks, found]))
"""


def imports_of_others() -> list[str]:
    """Every statement of our modules that imports a third party while the module is imported."""
    found: dict[str, None] = {}

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.update((f"import {one.name}", None) for one in child.names)
            elif isinstance(child, ast.ImportFrom):
                found[ast.unparse(child)] = None
            elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                visit(child)

    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            visit(ast.parse(path.read_text(encoding="utf-8")))
    return [one for one in found if one.split()[1].split(".")[0] not in PACKAGES]


@pytest.fixture(scope="module")
def told() -> Any:
    """What STATE says."""
    asked = {base: list(names) for base, names in WITHOUT.items()}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STATE],
        input=json.dumps([asked, [imports_of_others(), [f"import {name}" for name in OURS]]]),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_importing_every_module_leaves_the_process_as_the_third_parties_alone_do(told: Any) -> None:
    others, ours = told[1]
    assert {"torch", "trl", "av", "pebble"} <= set(others["loaded"])  # Ray is imported by the functions that start it
    assert not [name for name in others["loaded"] if name.split(".")[0] in PACKAGES]
    assert set(OURS) <= set(ours["loaded"])
    assert ours["state"] == others["state"]


@pytest.mark.slow
@pytest.mark.parametrize(("module", "without"), [case for names in WITHOUT.values() for case in names.items()])
def test_what_a_module_does_without(module: str, without: set[str], told: Any) -> None:
    loaded = told[0][module]
    assert "vqa" in loaded
    assert not without & set(loaded)


def test_arrow_without_pandas_still_makes_tables_of_pandas() -> None:
    pytest.importorskip("pandas")
    code = (
        "import sys; from vqa.imports import arrow_without_pandas; arrow_without_pandas(); import pyarrow as pa\n"
        "table = pa.table({'a': [1, 2]}); assert 'pandas' not in sys.modules; print(table.to_pandas()['a'].tolist())"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[1, 2]"


def test_the_collector_is_back_after_an_import_even_if_that_fails() -> None:
    with pytest.raises(ImportError), uncollected():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_a_worker_keeps_is_visited_by_no_collection() -> None:
    gc.unfreeze()  # what tests/conftest.py has frozen
    gc.collect()
    before = gc.get_stats()[0]["collections"]
    with kept():
        assert not gc.isenabled()
        model: list[list[int]] = [[] for _ in range(2000)]
    collections = gc.get_stats()[0]["collections"] - before
    assert gc.isenabled()
    assert collections == 0
    frozen = gc.get_freeze_count()
    assert frozen >= len(model)
    with kept():
        second: list[list[int]] = [[] for _ in range(1000)]
    assert len(second) == 1000
    assert gc.get_freeze_count() <= frozen


def test_at_its_exit_a_command_has_nothing_to_collect() -> None:
    code = "import atexit, gc; atexit.register(lambda: print(len(gc.get_objects()) < 1000)); from vqa.cli import main"
    command = [sys.executable, "-c", f"{code}; main()", "--version"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True"


@pytest.mark.parametrize(
    ("command", "missing", "said"),
    [
        (["data", "synth", "x.png"], "imageio_ffmpeg", r"vqa data synth needs imageio-ffmpeg, .*'vqa\[synth\]'`"),
        (["data", "demo"], "imageio_ffmpeg", r"vqa data demo needs imageio-ffmpeg, .*'vqa\[synth\]'`"),
        (["train", "recipe.yaml"], "trl", r"vqa train needs trl, .*'vqa\[train\]'`"),
        (["train", "recipe.yaml"], "accelerate", r"vqa train needs accelerate, .*'vqa\[train\]'`"),
    ],
)
def test_a_command_names_the_extra_it_lacks(
    command: list[str], missing: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vqa: Any
) -> None:
    found = imports.find_spec

    def without(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == missing else found(name, package)

    monkeypatch.setattr(imports, "find_spec", without)
    code, _, error = vqa(*command, "--out", str(tmp_path / "out"))
    assert code == 2
    assert len(error.splitlines()) == 1
    assert re.search(said, error)
    assert not (tmp_path / "out").exists()


def test_what_is_installed_is_not_missing() -> None:
    require("train", "numpy", "av", doing="this test")
    with pytest.raises(UsageError, match=r"^this test needs no-such-thing, which is not installed\. Install it with"):
        require("train", "numpy", "no_such_thing", doing="this test")
