"""Every file of configs/train says what it does, builds, and can be planned without weights and network."""

import re
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from vqa.config import configs_folder
from vqa.errors import UsageError
from vqa.light.config import student_config
from vqa.rewards import REWARD_PRESETS
from vqa.train.dry_run import estimate
from vqa.train.recipe import GrpoStage, load_recipe

FOLDER = configs_folder() / "train"
FILES = [file for file in sorted(FOLDER.glob("*.yaml")) if student_config(file) is None]
RELEASED = yaml.safe_load((Path(__file__).parents[1] / "references" / "released_settings.yaml").read_text())
LAUNCH = re.compile(r"accelerate launch --config_file configs/(train/accelerate/\w+\.yaml)")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_builds_and_is_planned(file: Path, ladder: Path) -> None:
    recipe = load_recipe(file)
    text = file.read_text()
    assert text.startswith(f"# vqa train configs/train/{file.name} ")
    is_small = file.stem.endswith("_tiny") or file.stem == "embedded"
    if not is_small:
        (launch,) = LAUNCH.findall(text)
        assert (configs_folder() / launch).is_file()
        assert f"-m vqa.cli train configs/train/{file.name}" in text
        assert re.search(r"arXiv \d{4}\.\d{5}", text)
        assert {"views", "prompt"} <= recipe.model_fields_set  # not those of whatever card is at hand
    lines = list(estimate(recipe, data=[ladder] if is_small else ["prepared/not-there"]))
    for stage in recipe.stages:
        assert any(stage.name in line and stage.kind in line for line in lines)
    memory = [line for line in lines if line.strip().startswith("memory per process")]
    assert len(memory) == len(recipe.stages) and all("GB" in line for line in memory)
    assert not is_small or "  4 clips to learn from, 2 held out" in lines


def test_a_plan_refuses_a_folder_without_a_model(tmp_path: Path) -> None:
    recipe = load_recipe(FOLDER / "preresq_video_tiny.yaml", [f"start={tmp_path}", "card=embedded"])
    with pytest.raises(
        UsageError, match=r"no config\.json in it of a model that takes pictures and writes text\. Give"
    ):
        list(estimate(recipe))


def test_every_preset_has_a_recipe_and_every_recipe_a_small_one() -> None:
    large = {file.stem for file in FILES if not file.stem.endswith("_tiny")} - {"embedded"}
    assert large == {*REWARD_PRESETS, "ract"}
    assert {file.stem for file in FILES if file.stem.endswith("_tiny")} == {f"{name}_tiny" for name in large}
    for name in REWARD_PRESETS:
        for file in (f"{name}.yaml", f"{name}_tiny.yaml"):
            stages = load_recipe(FOLDER / file).stages
            assert {stage.reward for stage in stages if isinstance(stage, GrpoStage)} == {name}


@pytest.mark.parametrize("name", sorted(set(RELEASED) - {"defaults"}))
def test_a_recipe_has_the_released_settings(name: str) -> None:
    """Of every stage each key that was found; those of trainers' defaults where a script says nothing."""
    recipe, table = load_recipe(FOLDER / f"{name}.yaml"), dict(RELEASED[name])
    run = table.pop("run", None)
    stages = {stage.name: stage for stage in recipe.stages}
    for stage, wanted in table.items():
        defaults = RELEASED["defaults"] if isinstance(stages[stage], GrpoStage) else {}
        found = {key: getattr(stages[stage], key) for key in defaults | wanted}
        assert found == defaults | wanted, f"{name}, {stage}"
    if run:
        steps = sum(stage.max_steps for stage in recipe.stages if isinstance(stage, GrpoStage))
        batches = run["epochs"] * run["clips"] / run["batch"]
        assert steps / run.get("updates", 1) == pytest.approx(batches, abs=1.01)


def test_sequences_of_objectives_are_the_released_ones() -> None:
    """Q-Hawkeye's regulariser is off in its trainer; OmniQuality-R's filter and gate are of stage 2 alone."""
    kinds = {
        (name, stage.name): [one.kind for one in stage.objectives]
        for name in ("q_hawkeye", "omniquality_r", "refine_iqa")
        for stage in load_recipe(FOLDER / f"{name}.yaml").stages
        if isinstance(stage, GrpoStage)
    }
    assert kinds == {
        ("q_hawkeye", "see"): ["uncertainty_weight", "perception_kl"],
        ("omniquality_r", "wide"): [],
        ("omniquality_r", "narrow"): ["spread_filter"],
        ("refine_iqa", "score"): ["zero_negative_advantages"],
    }


@pytest.mark.parametrize("name", ["ddp", "fsdp", "zero3"])
def test_a_launch_file_is_one_of_accelerate(name: str) -> None:
    config = load_config_from_file(str(FOLDER / "accelerate" / f"{name}.yaml"))
    assert config.num_processes == 8
    assert config.mixed_precision == "bf16"


def test_explore_asks_in_many_words_and_settle_in_one() -> None:
    explore, settle = load_recipe(FOLDER / "preresq_video.yaml").stages
    assert isinstance(explore, GrpoStage) and isinstance(settle, GrpoStage)
    assert (explore.num_generations, len(explore.questions), explore.reward_stage) == (12, 5, 1)
    assert (settle.num_generations, len(settle.questions), settle.reward_stage) == (6, 0, 2)
