"""`vqa doctor`: what it finds here, and that it says what is wrong."""

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from vqa.errors import ModelError

pytestmark = pytest.mark.model


def test_it_scores_a_clip_and_names_what_there_is(vqa: Callable[..., tuple[int, str, str]]) -> None:
    import torch  # not to collect tests

    code, said, _ = vqa("doctor", "--json")
    found = json.loads(said)
    assert code == 0
    assert found["self_test"]["passed"]
    assert 1 <= found["self_test"]["score"] <= 5
    assert found["versions"]["torch"] == version("torch")
    assert len(found["gpus"]) == torch.cuda.device_count()
    assert found["decoders"]["pyav"]


def test_what_is_wrong_is_said(
    vqa: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The embedded weights cannot be damaged for a test, nor what is installed: other tests use them.
    def load(*_: object, **__: object) -> None:
        raise ModelError("model embedded: its weights cannot be read")

    monkeypatch.setattr("vqa.model.scorer.Scorer.load", load)
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path))  # where nothing has been compiled
    monkeypatch.setenv("COLUMNS", "1000")  # so that no sentence is broken into lines
    code, said, _ = vqa("doctor")
    assert code == 1
    assert "FAILED: ModelError: model embedded: its weights cannot be read" in said
    assert "every process compiles torch" in said
