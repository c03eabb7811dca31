"""Every file of configs/train says what it does, builds, and can be planned without weights and network."""

import re
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from vqa.config import configs_folder
from vqa.errors import UsageError
from vqa.rewards import REWARD_PRESETS
from vqa.train.dry_run import estimate
from vqa.train.grpo.reward import UNFED
from vqa.train.recipe import GrpoStage, load_recipe

FOLDER = configs_folder() / "train"
FILES = sorted(FOLDER.glob("*.yaml"))
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
        assert re.search(r"arXiv \d{4}\.\d{5}", text) and "NOT FOUND" in text
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


def test_a_header_names_the_term_that_its_data_do_not_feed_and_no_other() -> None:
    for name in REWARD_PRESETS:
        header = [line for line in (FOLDER / f"{name}.yaml").read_text().splitlines() if line.startswith("#")]
        said = [line for line in header if re.search(r"\bis 0\b", line)]
        term = UNFED.get(name, "").partition(":")[0]
        assert len(said) == (name in UNFED) and all(f"`{term}` is 0" in line for line in said), name
