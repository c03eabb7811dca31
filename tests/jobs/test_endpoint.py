"""Whole runs whose model is on a server."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.config import resolve, settings_digest
from jobs.request import ScoreRequest
from jobs.score import score
from tests.support import clips
from tests.support.chat_server import ChatServer, serving
from tests.support.job_runs import table
from vqa.console import Engine
from vqa.errors import ModelError, UsageError

QUICK = ("model_engine.tries=2", "model_engine.first_wait_seconds=0.01")


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(ChatServer()) as running:
        yield running


@pytest.fixture
def request_(tmp_path: Path, server: ChatServer) -> ScoreRequest:
    (tmp_path / "in").mkdir()
    for n in range(2):
        clips.write_image(tmp_path / f"in/{n}.png", seed=n)
    return ScoreRequest(
        sources=(str(tmp_path / "in"),),
        out=tmp_path / "out",
        endpoint=server.url,
        served_model="m",
        k=1,
        engine=Engine.LOCAL,
        assignments=QUICK,
        json_summary=True,
    )


def test_a_run_leaves_rows_that_say_where_they_are_from_and_no_key(
    request_: ScoreRequest, server: ChatServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    server.key = "sk-never-shown"
    monkeypatch.setenv("VQA_API_KEY", server.key)
    assert score(request_) == 0
    rows = table(request_.out)
    assert set(rows) == {"0.png", "1.png"}
    for row in rows.values():
        assert (row["status"], row["score"], row["readout"]) == ("ok", 3.5, "answer")
        assert (row["model_id"], row["model_revision"], row["answers_total"]) == ("m", "served", 1)
    captured = capfd.readouterr()
    written = (request_.out / "run.json").read_text() + captured.out + captured.err + str(rows)
    assert "never-shown" not in written
    assert json.loads(captured.out)["config"]["model_engine"]["endpoints"] == [server.url]
    assert score(request_) == 0
    assert json.loads(capfd.readouterr().out)["rows_new"] == 0
    server.models = ("m", "m2")
    assert score(replace(request_, served_model="m2")) == 0
    assert json.loads(capfd.readouterr().out)["rows_new"] == 2


def test_what_a_server_does_not_answer_is_a_failed_row_that_the_next_run_scores(
    request_: ScoreRequest, server: ChatServer
) -> None:
    server.faults.extend([500] * 4)
    assert score(request_) == 3
    for row in table(request_.out).values():
        assert (row["status"], row["error_kind"], row["score"], row["readout"]) == ("failed", "model", None, None)
        assert "no answer after 2 tries" in row["error"]
    assert score(request_) == 0
    assert [row["score"] for row in table(request_.out).values()] == [3.5, 3.5]


def test_what_cannot_run_is_said_before_anything_is_decoded(request_: ScoreRequest, server: ChatServer) -> None:
    with pytest.raises(ModelError, match="has no model 'embedded', but m; name it by --served-model"):
        score(replace(request_, served_model=None))
    with pytest.raises(UsageError, match=r"model_engine\.endpoints = http.*: not used by model_engine\.name = vllm"):
        score(replace(request_, model_engine="vllm"))
    with pytest.raises(UsageError, match=r"--endpoint http.*: not used by --tier light"):
        score(replace(request_, tier="light", k=None))
    assert not request_.out.exists()
    assert server.bodies == []


def test_an_engine_is_in_the_run_key_and_its_addresses_are_not() -> None:
    def digest(**engine: object) -> str:
        config = resolve(flags={"model_engine": engine} if engine else {})
        return settings_digest(config, model_id="m", model_revision="r")

    one = digest(name="endpoint", endpoints=["http://a/v1"])
    assert one == digest(name="endpoint", endpoints=["http://b/v1"], concurrency=2, tries=1)
    assert len({one, digest(name="vllm"), digest()}) == 3
    assert digest() == digest(name="transformers")
