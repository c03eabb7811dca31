"""The commands in the head of each recipe and on each page prepare what they then train on, to the pixels of a clip."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from jobs.prepare import PrepareRequest, resolve_views
from tests.support.pages import PAGES, ROOT, blocks, command_lines, commands
from vqa.config import configs_folder
from vqa.data.public.specs import load_set
from vqa.light.config import student_config
from vqa.model.card import settle
from vqa.prompt import PROMPTS, messages
from vqa.train.recipe import GrpoStage, Recipe, Write, load_recipe, recipe_views
from vqa.types import Clip, Views
from vqa.views import ViewsConfig, look

FILES = [file for file in sorted((configs_folder() / "train").glob("*.yaml")) if student_config(file) is None]
LARGE = [file for file in FILES if not file.stem.endswith("_tiny") and file.stem != "embedded"]
CLIP = ROOT / "vqa" / "assets" / "clips" / "big_buck_bunny.mp4"
Command = tuple[str, dict[str, Any]]


def resolved(text: str) -> Iterator[Command]:
    """Each command line as its command's name and parameters."""
    known = commands()
    for words in command_lines(text):
        count = 2 if " ".join(words[:2]) in known else 1
        name = " ".join(words[:count])
        yield name, known[name].make_context(f"vqa {name}", list(words[count:])).params


def head(file: Path) -> str:
    """The comment at the start of a recipe, as shell lines."""
    lines = [line for line in file.read_text().split("\nstart:")[0].splitlines() if line.startswith("#")]
    return "\n".join(line.removeprefix("#").strip() for line in lines)


def check(found: list[Command], *, where: str) -> dict[str, ViewsConfig]:
    """Each folder that is trained on was prepared with the recipe's views; the views by folder."""
    views: dict[str, ViewsConfig] = {}
    for name, given in found:
        if name == "prepare":
            request = PrepareRequest(
                **{key: given[key] for key in ("manifest", "out", "model", "recipe", "config")},
                assignments=tuple(given["assignments"] or ()),
            )
            views[str(given["out"])] = resolve_views(request)
    for name, given in found:
        if name == "train" and student_config(Path(given["recipe"])) is None:
            recipe = load_recipe(Path(given["recipe"]), given["assignments"] or ())
            for folder in given["data"] or ():
                if str(folder) in views:
                    assert views[str(folder)].identity() == recipe_views(recipe).identity(), f"{where}: {folder}"
    return views


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_head_prepares_what_its_recipe_trains_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = list(resolved(head(file)))
    trains = [given for name, given in found if name == "train"]
    assert {Path(given["recipe"]).name for given in trains} == {file.name}
    views = check(found, where=file.name)
    if file in LARGE:
        assert {str(folder) for given in trains for folder in given["data"]} == set(views)
    imports = {given["name"]: given for name, given in found if name == "data import"}
    for name, given in imports.items():
        spec, lists = load_set(name), given["split_list"] or []
        parts = {one.partition("=")[0] for one in lists if "=" in one}
        published = [set(one.counts) for one in spec.lists.values()]
        assert spec.split or spec.lists, f"{name}: neither all of one part nor a published list"
        assert parts in published or (set(lists) <= set(spec.lists) and not parts), f"{name}: {lists}"
        assert parts or not spec.lists or any(one.is_here for one in spec.lists.values()), f"{name}: which clips?"
    prepared = {Path(given["manifest"]).stem for name, given in found if name == "prepare"}
    assert {given["out"].stem for given in imports.values()} <= prepared
    for stage in load_recipe(file).stages:
        assert set(stage.datasets) <= prepared, f"{file.name}, {stage.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_prepares_what_it_trains_on(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = "\n".join(block.text for block in blocks(page) if block.language in ("shell", ""))
    check([one for one in resolved(text) if one[0] in ("prepare", "train")], where=str(page))


def test_an_embedded_mosaic_for_a_large_recipe_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of before: without `--for` a 7B recipe got pictures of 224 pixels."""
    monkeypatch.chdir(ROOT)
    text = "vqa prepare m.parquet --out made/a\nvqa train configs/train/preresq_video.yaml --data made/a --out b"
    with pytest.raises(AssertionError, match="made/a"):
        check(list(resolved(text)), where="here")


def tokens(shown: Views, recipe: Recipe) -> int:
    """Visual tokens of Qwen2.5-VL's processor: one per 28 x 28 pixels, within its limits."""
    most = recipe.max_pixels or settle(recipe.card_name, {})[0].max_pixels
    sizes = [
        smart_resize(*picture.shape[:2], factor=28, min_pixels=3136, max_pixels=most) for picture in shown.pictures
    ]
    return sum(height * width // 28**2 for height, width in sizes)


# Of the bundled clip (1280 x 720, 5.28 s) or a still of 1024 x 768: pictures (width, height, how many), visual tokens.
SEEN = {
    "preresq_video": ([(1024, 576, 1), (1280, 720, 3)], 4365),
    "vqathinker": ([(448, 252, 6)], 864),
    "vq_insight": ([(1024, 576, 11)], 1320),
    "aes_r1": ([(1024, 768, 1)], 315),
    "q_hawkeye": ([(1024, 768, 1)], 999),
    "omniquality_r": ([(1024, 768, 1)], 999),
}
OF_VIDEOS = ("preresq_video", "vqathinker", "vq_insight")


@pytest.mark.parametrize("file", LARGE, ids=lambda file: file.stem)
def test_one_clip_is_seen_and_asked_as_the_recipe_says(file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(file)
    still = tmp_path / "still.png"
    Image.fromarray(np.full((768, 1024, 3), 128, np.uint8)).save(still)
    source = CLIP if file.stem in OF_VIDEOS else still
    shown = look(Clip(clip_id="a", uri=str(source)), recipe_views(recipe))
    pictures, most = SEEN.get(file.stem, SEEN["q_hawkeye"])
    assert [picture.shape[1::-1] for picture in shown.pictures] == [
        (w, h) for w, h, count in pictures for _ in range(count)
    ]
    assert tokens(shown, recipe) == most
    for stage in recipe.stages:
        asked = stage.prompt or recipe.prompt if isinstance(stage, GrpoStage | Write) else recipe.prompt
        assert asked in PROMPTS
        counts = {"global_count": len(shown.global_pictures), "local_count": len(shown.local_pictures)}
        (turn,) = messages(str(asked), **counts)
        assert sum(part["type"] == "image" for part in turn["content"]) == len(shown.pictures)
        if isinstance(stage, GrpoStage):  # Qwen2.5-VL has room for 32,768 tokens
            assert tokens(shown, recipe) + len(turn["content"][-1]["text"]) // 3 + stage.max_completion_length < 32_768
