"""What `vqa push` writes: plain transformers loads it without us, nothing pickled, a card that tells its origin."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from tests.support import children
from vqa.errors import ModelError, UsageError
from vqa.model.card import settle
from vqa.train.publish import make_folder
from vqa.train.stage_record import finish_stage

pytestmark = pytest.mark.slow

EMBEDDED = Path(__file__).parents[2] / "vqa" / "assets" / "embedded"
CARD = {"min_pixels": 3136, "max_pixels": 112896, "views": {"keyframes": 4}}
COLD: dict[str, Any] = {
    "kind": "coldstart",
    "max_steps": 7,
    "learning_rate": 1e-4,
    "asked": "preresq_video",
    "card": CARD,
}
COLD |= {"from": "qwen2.5-vl-3b-instruct", "clips": "20 clips (abc)"}
GRPO = COLD | {"kind": "grpo", "max_steps": 9, "reward": "visualquality_r1", "prompt": "visualquality_r1", "from": "1f"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """As `vqa train` leaves it: the stages' folders are not in the order in which they ran."""
    for name, settings in (("settle", COLD), ("explore", GRPO)):
        (tmp_path / name).mkdir()
        finish_stage(tmp_path / name, settings)
    shutil.copytree(EMBEDDED, tmp_path / "model")
    (tmp_path / "model" / "training_args.bin").write_bytes(b"\x80\x04N.")
    lines = [
        {"stage": "settle", "step": 3, "loss": 1.0, "srcc": 0.1},
        {"stage": "settle", "step": 7, "srcc": 0.5, "plcc": 0.25, "parsed": 1.0},
        {"stage": "explore", "step": 9, "held_out/srcc": 0.625, "held_out/plcc": float("nan"), "held_out/parsed": None},
    ]
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"torn": ')
    return tmp_path


def forked(code: str, folder: Path) -> str:
    """What a fork of this process prints that runs the code; what it would import is there already."""

    def child() -> None:
        with (folder.parent / "printed").open("w") as sys.stdout:
            sys.argv[1:] = [str(folder)]
            exec(code, {})
            sys.stdout.flush()

    process = children.forked().Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == 0
    return (folder.parent / "printed").read_text()


def fresh(code: str, folder: Path) -> str:
    """The same of a new interpreter."""
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("run_code", [forked, pytest.param(fresh, marks=pytest.mark.full)])
def test_plain_transformers_loads_and_asks_it_and_nothing_in_it_is_pickled(
    run: Path, run_code: Callable[[str, Path], str]
) -> None:
    folder = make_folder(run, "someone/judge", licence="apache-2.0")
    wanted = {path.name for path in EMBEDDED.iterdir()} | {"vqa.yaml", "stages.json"}
    assert folder == run / "hub" and {path.name for path in folder.iterdir()} == wanted
    code = """
import sys
ours = ("vqa", "jobs", "samplers")  # cannot be imported
sys.modules.update(dict.fromkeys([*ours, *(name for name in sys.modules if name.split(".")[0] in ours)]))
import numpy, torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
model = AutoModelForImageTextToText.from_pretrained(sys.argv[1], use_safetensors=True, dtype=torch.float32)
processor = AutoProcessor.from_pretrained(sys.argv[1])
chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How good?"}]}]
text = processor.apply_chat_template(chat, add_generation_prompt=True)
picture = Image.fromarray(numpy.zeros((56, 56, 3), dtype=numpy.uint8))
inputs = processor(text=[text], images=[picture], return_tensors="pt")
print(model.generate(**inputs, max_new_tokens=2, min_new_tokens=2).shape[1] - inputs["input_ids"].shape[1])
"""
    assert run_code(code, folder).strip() == "2"


def test_the_card_tells_figures_recipe_licence_and_how_to_ask(run: Path, tmp_path: Path) -> None:
    statistics = {name: {"value": value} for name, value in (("srcc", 0.75), ("plcc", None))}
    (tmp_path / "evaluated").mkdir()
    metrics = {"datasets": {"konvid-1k": {"used": 240, "statistics": statistics}}}
    (tmp_path / "evaluated" / "metrics.json").write_text(json.dumps(metrics))
    out = tmp_path / "away"
    folder = make_folder(run, "someone/judge", licence="mit", evaluation=tmp_path / "evaluated", out=out)
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.library_name) == ("mit", "transformers")
    assert card.data.base_model == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert [(one.dataset_name, one.metric_type, one.metric_value) for one in card.data.eval_results] == [
        ("konvid-1k", "srcc", 0.75)
    ]
    for line in (
        "| konvid-1k | 240 | 0.7500 |  |",
        "| settle | 7 | 0.5000 | 0.2500 | 1.0000 |",
        "| explore | 9 | 0.6250 |  |  |",
        "| explore | grpo | 9 | 0.0001 | visualquality_r1 | 20 clips (abc) |",
    ):
        assert line in card.text
    assert card.text.index("| settle | coldstart") < card.text.index("| explore | grpo"), "in the order they ran"
    assert str(tmp_path) not in (folder / "README.md").read_text(), "no paths of this machine"
    found, _ = settle(str(folder / "vqa.yaml"), {})
    assert (found.source, found.prompt, found.views, found.max_pixels) == (
        "someone/judge",
        "visualquality_r1",
        {"keyframes": 4},
        112896,
    )
    assert [one["name"] for one in json.loads((folder / "stages.json").read_text())["stages"]] == ["settle", "explore"]
    assert make_folder(run, "someone/judge", licence="mit", out=out) == out, "made again in its place"


def test_what_will_not_do_is_refused_before_anything_is_written(run: Path, tmp_path: Path) -> None:
    for repo in ("judge", "a/b/c", "some one/judge", "someone/judge.git", "/judge", "someone/--"):
        with pytest.raises(UsageError, match="REPO"):
            make_folder(run, repo, licence="mit")
    with pytest.raises(UsageError, match="--licence is empty"):
        make_folder(run, "someone/judge", licence=" ")
    with pytest.raises(UsageError, match="holds no model folder"):
        make_folder(tmp_path / "model", "someone/judge", licence="mit")
    with pytest.raises(UsageError, match="was not made by `vqa push`"):
        make_folder(run, "someone/judge", licence="mit", out=run / "settle")
    with pytest.raises(UsageError, match="not written by `vqa evaluate`"):
        make_folder(run, "someone/judge", licence="mit", evaluation=run)
    (run / "settle" / "stage.json").write_text(json.dumps({"settings": COLD, "is_finished": False}))
    with pytest.raises(UsageError, match="not finished"):
        make_folder(run, "someone/judge", licence="mit")
    (run / "model" / "model.safetensors").unlink()
    with pytest.raises(ModelError):
        make_folder(run, "someone/judge", licence="mit")
    assert not (run / "hub").exists()


def test_an_upload_that_cannot_be_says_so_and_keeps_the_folder(run: Path) -> None:
    folder = make_folder(run, "someone/judge", licence="mit")
    code = """
import os, sys
from pathlib import Path
from vqa.train.publish import upload
for token in ({}, {"HF_TOKEN": "hf_none"}):
    os.environ.update(token)
    try:
        upload(Path(sys.argv[1]), "a/b")
    except Exception as error:
        print(" ".join(str(error).split()))
"""
    environment = {"HF_HOME": str(run / "hf"), "HF_ENDPOINT": "http://127.0.0.1:9", "PATH": "/usr/bin"}
    done = subprocess.run([sys.executable, "-c", code, str(folder)], env=environment, capture_output=True, text=True)
    without, refused = done.stdout.splitlines()
    assert "push: no token. Set HF_TOKEN" in without and "could not be uploaded" in refused, done.stderr
    assert (folder / "README.md").is_file()
