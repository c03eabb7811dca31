"""Each study of configs/studies builds, and a table of results says how many seeds it rests on."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.bench import studies
from tests.bench.studies import Study, mapped, recipe_of, results, stages_of, table
from vqa.config import configs_folder, load_config
from vqa.train.grpo.build import check_settings
from vqa.train.recipe import GrpoStage, Write

FILES = sorted((configs_folder() / "studies").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_variant_is_a_recipe_that_can_be_paid(file: Path, tmp_path: Path) -> None:
    assert file.read_text().startswith(f"# python -m tests.bench.studies configs/studies/{file.name}")
    study = load_config(file, Study)
    made = []
    for name, variant in study.variants.items():
        recipe = recipe_of(start="embedded", stages=stages_of(study, variant), seed=1, path=tmp_path / f"{name}.yaml")
        made.append((variant.labels, recipe.stages))
        for stage in recipe.stages:
            if isinstance(stage, GrpoStage):
                check_settings(stage.settings("preresq_video", 1), ())
                assert stage.seed is None  # the recipe's, which is that of the start too
        assert not isinstance(recipe.stages[-1], Write)
    assert all(one not in made[:place] for place, one in enumerate(made))  # no two variants are the same


def test_both_ways_of_the_stages_study_write_as_many_answers() -> None:
    study = load_config(configs_folder() / "studies" / "stages.yaml", Study)
    answers = [
        sum(stage["max_steps"] * stage["clips_per_step"] * stage["num_generations"] for stage in stages_of(study, one))
        for one in study.variants.values()
    ]
    assert answers[0] == answers[1]


def test_opinions_are_mapped_as_said() -> None:
    values = np.array([20.0, 40.0, 80.0])
    assert mapped(values, low=0, high=100, how="given").tolist() == pytest.approx([1.8, 2.6, 4.2])
    assert mapped(values, low=0, high=100, how="minmax").tolist() == pytest.approx([1, 1 + 4 / 3, 5])
    assert mapped(values, low=0, high=100, how="zscore").tolist() == pytest.approx([1.931, 2.733, 4.336], abs=1e-3)


def judged(scores: list[float | None]) -> dict[str, list[object]]:
    return {f"pcuid:{place}": [score, 1.0 + place, str(place)] for place, score in enumerate(scores)}


def test_the_table_counts_seeds_and_compares_the_same_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "DRAWS", 20)
    study = load_config(FILES[0], Study).model_copy(update={"sets": ["pcuid"], "judged": []})
    first, second, *rest = study.variants
    right, wrong = judged([1.0, 2, 3, 4, 5, 6]), judged([1.0, 2, 3, 4, 6, 5])
    rows = [
        {"variant": first, "seed": 0, "judged": right},
        {"variant": first, "seed": 1, "judged": right},
        {"variant": first, "seed": 2, "judged": judged([None] * 6)},
        {"variant": second, "seed": 0, "judged": wrong},
        {"variant": second, "seed": 1, "judged": right},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"variant": "torn')
    assert len(results(path)) == 5  # a killed study runs the torn one again
    table(study, "a", seeds=3, out=tmp_path)
    lines = {line.split(" | ")[0][2:]: line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")}
    assert lines[first].startswith(f"| {first} | pcuid | 3 of 3 | 0.667 | ")  # unparsed answers agree with nobody
    assert lines[second].startswith(f"| {second} | pcuid | 2 of 3 | 0.971 | ") and " | -0.029 | " in lines[second]
    assert lines[second].endswith(" | 1.71 | 0.29 |")  # of the two seeds that both have
    assert all(lines[name] == f"| {name} | pcuid | 0 of 3 | | | | | | |" for name in ["before", *rest])
