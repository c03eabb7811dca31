"""A recipe file: a list of stages run by one command, each into its folder, and what a stopped run goes on from.

OUT/log.jsonl          a line now and then
OUT/STAGE/stage.json   its settings, and whether it is finished
OUT/STAGE/checkpoint-* to go on from, the last two; of a warm-up warmup.pt
OUT/STAGE/model        what it made, in float32
OUT/model              what the last one made, as it is shipped
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vqa.config import build, override, read
from vqa.errors import UsageError
from vqa.train.recipe_stages import KINDS, Recipe, named

__all__ = ["Recipe", "load_recipe", "run"]


def load_recipe(path: Path, assignments: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, with each `stages.NAME.key=value` or `key=value` put over it.

    Raises UsageError naming the file, the stage and the key, with the keys there are.
    """
    values = read(path)
    listed = values.get("stages")
    if not isinstance(listed, list) or not listed or not all(isinstance(stage, dict) for stage in listed):
        raise UsageError(f"{path}: no stages; give a list of them, each with kind ({', '.join(KINDS)}) and name")
    names = [stage.get("name") for stage in listed]
    if len({str(name) for name in names}) < len(names):
        raise UsageError(f"{path}: stages need different names, these are {', '.join(map(str, names))}")
    values = override(named(values), assignments)
    stages = values["stages"]
    for name in stages if isinstance(stages, dict) else [stages]:
        if name not in names:
            raise UsageError(
                f"--set stages.{name}: no stage of that name in {path}; there are {', '.join(map(str, names))}"
            )
    made = [_stage(name, stage, str(path)) for name, stage in stages.items()]
    return build(Recipe, values | {"stages": made}, where=str(path))


def _stage(name: object, values: Any, path: str) -> Any:
    kind = values.get("kind") if isinstance(values, dict) else None
    if kind not in KINDS:
        raise UsageError(f"{path}: stage {name!r}: kind is {kind!r}; there are {', '.join(KINDS)}")
    return build(KINDS[kind], values, where=f"{path}: stage {name!r}")


def run(recipe: Recipe, *, out: Path, data: Sequence[Path | str] = (), until: str | None = None) -> Path:
    """All stages, or those `until` one; returns OUT/model. See `runner`, only imported here: it brings torch."""
    from vqa.train.runner import run_stages

    return run_stages(recipe, out=out, data=data, until=until)
