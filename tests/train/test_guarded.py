"""A damaged checkpoint is named and the one before it resumed from; the log of a run is strict JSON."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vqa.errors import ModelError
from vqa.train.guarded import last_checkpoint, resume_from
from vqa.train.metrics_log import MetricsLog


def whole(folder: Path, step: int) -> Path:
    """A checkpoint with the files that transformers' Trainer writes."""
    made = folder / f"checkpoint-{step}"
    made.mkdir()
    (made / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    save_file({"weight": torch.ones(400)}, made / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"state": torch.ones(400)}, made / name)
    return made


def cut(name: str) -> Callable[[Path], None]:
    return lambda made: (made / name).write_bytes((made / name).read_bytes()[:1000])


def lose(name: str) -> Callable[[Path], None]:
    return lambda made: (made / name).unlink()


DAMAGES = [
    (lambda made: (made / "trainer_state.json").write_text(""), "trainer_state.json: Expecting value"),
    (cut("model.safetensors"), "weights: .*"),
    (lose("model.safetensors"), "no weights"),
    (
        lambda made: (made / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-2.safetensors"}}'),
        "model-2.safetensors",
    ),
    (lose("optimizer.pt"), "optimizer.pt is missing"),
    (cut("optimizer.pt"), "optimizer.pt is cut off"),
    (lose("scheduler.pt"), "scheduler.pt is missing"),
    (cut("rng_state.pth"), "rng_state.pth is cut off"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_resumed_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object], words: str
) -> None:
    assert resume_from(tmp_path) is None
    older, newest = whole(tmp_path, 9), whole(tmp_path, 10)
    assert last_checkpoint(tmp_path) == newest
    damage(newest)
    with caplog.at_level(logging.WARNING):
        assert resume_from(tmp_path) == str(older)
    assert f"{newest} is damaged" in caplog.text
    with pytest.raises(ModelError, match=rf"1 checkpoints can be read; of checkpoint-10, .*{words}"):
        older.rename(tmp_path / "elsewhere")
        resume_from(tmp_path)
    assert last_checkpoint(tmp_path) is None  # messages about other faults ask this, and must not fail


def test_a_figure_that_is_not_defined_is_null_in_the_log(tmp_path: Path) -> None:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    MetricsLog(tmp_path / "log.jsonl", "rank").write(1, 2, srcc=float("nan"), loss=float("inf"), lr=0.5)
    line = json.loads((tmp_path / "log.jsonl").read_text(), parse_constant=refuse)
    assert (line["srcc"], line["loss"], line["lr"]) == (None, None, 0.5)
