"""Scores by vLLM itself, where it is installed: the answers of transformers, and K of them from one request."""

import importlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tests.support.samples import random_views
from vqa.errors import ClipError
from vqa.model.engines.config import EngineConfig
from vqa.model.scorer import Scorer
from vqa.types import Score, Views

pytest.importorskip("vllm")
if not torch.cuda.is_available() and not importlib.import_module("vllm.platforms").current_platform.is_cpu():
    pytest.skip("vLLM's build for GPUs, and no GPU", allow_module_level=True)

ENGINE = EngineConfig(name="vllm", max_model_len=1536, compile=False, gpu_memory=0.3)


@pytest.fixture(scope="module")
def by_vllm() -> Iterator[Scorer]:
    with pytest.MonkeyPatch.context() as patch:
        # Cache of a CPU machine in GiB, and the engine in this process: both are read from the environment alone.
        for name, value in {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}.items():
            patch.setenv(name, value)
        scorer = Scorer.load("embedded", k=1, readout="expected", engine=ENGINE)
        yield scorer
        scorer.close()


def clips(count: int) -> list[Views]:
    return [random_views(f"{i}", seed=i) for i in range(count)]


@pytest.mark.slow
def test_greedy_answers_are_those_of_transformers(by_vllm: Scorer) -> None:
    here = Scorer.load("embedded", k=1, readout="expected", device_map="cpu")
    ours, theirs = here.score(clips(6)), by_vllm.score(clips(6))
    assert by_vllm.model_revision == here.model_revision
    for one, other in zip(ours, theirs, strict=True):
        assert one.answers[0].text == other.answers[0].text
        assert (one.readout, other.readout) == ("expected", "expected")
        assert one.score == pytest.approx(other.score, abs=1e-3)


@pytest.mark.slow
def test_many_answers_follow_from_the_clip_and_a_bad_clip_costs_only_itself(by_vllm: Scorer) -> None:
    settings = by_vllm.generation.model_copy(update={"k": 4, "readout": "answer"})
    by_vllm.engine._generation = settings
    scorer = Scorer(by_vllm.engine, card=by_vllm.card, generation=settings)
    too_long = random_views("long", [np.zeros((336, 336, 3), np.uint8)] * 20)
    empty = random_views("empty", [np.zeros((0, 40, 3), np.uint8)])
    outcomes = scorer.try_score([*clips(2), too_long, empty])
    assert [type(one) for one in outcomes] == [Score, Score, ClipError, ClipError]
    assert "1536" in str(outcomes[2])
    drawn = [[answer.text for answer in one.answers] for one in outcomes if isinstance(one, Score)]
    assert [len(texts) for texts in drawn] == [4, 4]
    assert len({*drawn[0], *drawn[1]}) > 2
    (again,) = scorer.score(clips(2)[1:])
    assert [answer.text for answer in again.answers] == drawn[1]
