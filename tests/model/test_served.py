"""Scores by a real `transformers serve` on loopback."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.samples import random_views
from tests.support.served import running
from vqa.model.engines.config import EngineConfig
from vqa.model.resolve import EMBEDDED
from vqa.model.scorer import Scorer

SERVE = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(EMBEDDED), "--device", "cpu"]
SERVE += ["--dtype", "float32"]  # as here; it is stored in float16


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.skipif(
    not (find_spec("fastapi") and find_spec("openai")), reason="without what `transformers serve` needs"
)
def test_greedy_answers_of_a_server_are_those_of_this_process(tmp_path: Path) -> None:
    views = [random_views(f"{i}", seed=i) for i in range(3)]
    here = Scorer.load("embedded", k=1, device_map="cpu")
    with running(SERVE, tmp_path / "log") as url:
        engine = EngineConfig(name="endpoint", endpoints=(url,), served_model=str(EMBEDDED))
        served = Scorer.load("embedded", k=1, readout="expected", engine=engine)
        scores = served.score(views)
        many = Scorer.load("embedded", k=3, temperature=1.0, engine=engine.model_copy(update={"concurrency": 1}))
        (sampled,) = many.score(views[:1])
        assert [score.answers[0].text for score in scores] == [score.answers[0].text for score in here.score(views)]
        assert {score.readout for score in scores} == {"answer"}  # this server has no logprobs
        assert len({answer.text for answer in sampled.answers}) > 1  # it draws only where its own field says so
        for scorer in (served, many):
            scorer.close()
