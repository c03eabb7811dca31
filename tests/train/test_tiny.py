"""The model made from nothing: real classes, cosines first, and a recipe that runs, stops and goes on to the same
weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from vqa.config import configs_folder, load
from vqa.errors import UsageError
from vqa.prompt import dimensions, parse
from vqa.train.ladder import NAMES, Lesson, look_at, read_ladder
from vqa.train.recipe import Recipe, run
from vqa.train.tiny import cosine_patches
from vqa.views import ViewsConfig


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ladder")
    rows: list[dict[str, Any]] = []
    for index in range(6):
        clips.write_video(folder / f"{index}.mp4", width=160, height=96, frames=10)
        rows.append(
            {
                "clip_id": f"{index}",
                "uri": f"{index}.mp4",
                "split": "validation" if index < 2 else "train",
                "opinion": 1.5 + 0.5 * index,
                "distortions": ["noise"][: index % 2],
                "severities": [0.5][: index % 2],
                "seed": index,
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), folder / "ladder.parquet")
    return folder


def recipe(**more: Any) -> Recipe:
    small = {"vocabulary": 300, "vision_width": 48, "vision_layers": 1, "text_width": 64, "text_layers": 1}
    stages = {"warmup": {"steps": 2, "batch": 4, "rate": 1e-3, "frames": 2, "crops": 2}}
    stages["coldstart"] = {"steps": 2, "batch": 2, "rate": 1e-3, "every": 1}
    return Recipe(**{"views_per_clip": 1, "validation_clips": 2, "threads": 1, "model": small} | stages | more)


def test_cosine_patches_are_orthogonal_and_equally_long() -> None:
    filters = cosine_patches(96).reshape(96, -1)
    norms = np.linalg.norm(filters, axis=1)
    cosines = filters @ filters.T / np.outer(norms, norms)
    grey = slice(0, 96 - 96 // 4)
    assert np.allclose(cosines[grey, grey], np.eye(grey.stop), atol=1e-5)
    assert np.allclose(norms[grey], norms[0])


def test_an_answer_states_facts_and_reads_back(ladder: Path) -> None:
    lessons = look_at(read_ladder(ladder), ladder, settings=ViewsConfig(), seed=0, threads=1)
    assert len(lessons) == 6
    for lesson in lessons:
        text = lesson.answer(np.random.default_rng(0))
        assert parse(text, dimensions("preresq_video")) == (lesson.opinion, lesson.opinion)
        words = [word for name, synonyms in NAMES.items() for word in synonyms if name not in lesson.distortions]
        assert ("no damage" in text) == (not lesson.distortions)
        if lesson.distortions:
            assert any(word in text for word in NAMES["noise"])
            assert not any(f" {word}" in text for word in words if word not in "noise grain")


def test_grades_follow_the_opinion_scale(ladder: Path) -> None:
    seen = look_at(read_ladder(ladder)[:1], ladder, settings=ViewsConfig(), seed=0, threads=1)[0]
    for opinion, grade in [
        (1.0, "bad"),
        (1.49, "bad"),
        (1.5, "poor"),
        (3.0, "fair"),
        (4.49, "good"),
        (5.0, "excellent"),
    ]:
        lesson = Lesson(views=seen.views, opinion=opinion, distortions=(), severities=())
        assert grade in lesson.answer(np.random.default_rng(0))


def test_a_recipe_trains_and_a_stopped_one_ends_with_the_same_weights(ladder: Path, tmp_path: Path) -> None:
    whole = run(recipe(), ladder=ladder, out=tmp_path / "whole")
    weights = load_file(whole / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {np.dtype("float16")}
    assert {"config.json", "tokenizer.json", "chat_template.jinja"} <= {path.name for path in whole.iterdir()}
    # Stopped after the warm-up: what it left is all that the second run may build on.
    resumed = tmp_path / "resumed"
    resumed.mkdir()
    shutil.copy(tmp_path / "whole" / "warmup.pt", resumed)
    again = load_file(run(recipe(), ladder=ladder, out=resumed) / "model.safetensors")
    stages = [json.loads(line)["stage"] for line in (resumed / "log.jsonl").read_text().splitlines()]
    assert set(stages) == {"coldstart"}
    assert weights.keys() == again.keys()
    assert all((weights[name] == again[name]).all() for name in weights)


def test_a_ladder_that_cannot_teach_is_refused(ladder: Path, tmp_path: Path) -> None:
    table = pq.read_table(ladder / "ladder.parquet")
    flat = table.set_column(table.column_names.index("opinion"), "opinion", pa.array([3.0] * len(table)))
    pq.write_table(flat, tmp_path / "ladder.parquet")
    with pytest.raises(UsageError, match="two different opinions"):
        run(recipe(), ladder=tmp_path, out=tmp_path / "out")
    with pytest.raises(UsageError, match="make a ladder first"):
        run(recipe(), ladder=tmp_path / "nowhere", out=tmp_path / "out")
    with pytest.raises(UsageError, match="multiple"):
        run(recipe(warmup={"steps": 1, "batch": 3, "rate": 1e-3}), ladder=ladder, out=tmp_path / "out")


def test_every_training_recipe_is_valid() -> None:
    files = sorted((configs_folder() / "train").glob("*.yaml"))
    assert files
    for file in files:
        assert load(file, Recipe)
        assert file.read_text().startswith("# vqa train ")
