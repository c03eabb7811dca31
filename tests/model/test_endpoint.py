"""Answers by servers: what passes is tried again, what does not is a failed clip, and no score is ever invented."""

import base64
import io
import math
import socket
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.chat_server import ChatServer, completion, serving
from tests.support.samples import random_views
from vqa.errors import ClipError, ModelError
from vqa.model.card import GenerationConfig, ModelCard
from vqa.model.engines.config import EngineConfig, meet
from vqa.model.engines.endpoint import EndpointEngine
from vqa.model.scorer import Scorer
from vqa.types import Score, Views

CARD = ModelCard(name="m", source="m")
GOOD = "<think>sharp</think><answer>\n4.00\n3.00\n</answer>"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(ChatServer()) as running:
        yield running


def engine_of(*servers: ChatServer | str, **more: Any) -> EngineConfig:
    addresses = tuple(one if isinstance(one, str) else one.url for one in servers)
    quick = {"first_wait_seconds": 0.01, "deadline_seconds": 5.0, "tries": 4}
    return EngineConfig(name="endpoint", endpoints=addresses, **quick | more)


def scored(engine: EngineConfig, *views: Views, card: ModelCard = CARD, **generation: Any) -> list[Score | ClipError]:
    settings = GenerationConfig(**{"max_new_tokens": 64} | generation)
    scorer = Scorer(EndpointEngine(engine, card=card, generation=settings), card=card, generation=settings)
    try:
        return scorer.try_score(views or [random_views("a")])
    finally:
        scorer.close()


def sent_as(views: Views) -> str:
    buffer = io.BytesIO()
    Image.fromarray(views.pictures[0]).save(buffer, "PNG", compress_level=1)
    return base64.b64encode(buffer.getvalue()).decode()


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


# --- what is sent and read --------------------------------------------------------------------------------------------


def test_a_clip_is_one_request_with_its_very_pixels_and_its_answer_is_read(server: ChatServer) -> None:
    views = random_views("a")
    (score,) = scored(engine_of(server), views)
    assert isinstance(score, Score)
    assert (score.score, score.score_global, score.score_local, score.reason) == (3.5, 4.0, 3.0, "sharp")
    (body,) = server.bodies
    assert (body["model"], body["temperature"], body["top_k"], body["repetition_penalty"]) == ("m", 0.0, -1, 1.0)
    parts = body["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    for url, picture in zip(urls, views.pictures, strict=True):
        sent = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))
        assert np.array_equal(sent, picture)


def test_pictures_above_the_cards_area_are_reduced(server: ChatServer) -> None:
    views = random_views("a", [np.zeros((200, 400, 3), np.uint8)])
    scored(engine_of(server), views, card=CARD.model_copy(update={"max_pixels": 20_000}))
    (part,) = [one for one in server.bodies[0]["messages"][-1]["content"] if one["type"] == "image_url"]
    width, height = Image.open(io.BytesIO(base64.b64decode(part["image_url"]["url"].partition(",")[2]))).size
    assert (width, height) == (200, 100)
    scored(engine_of(server), views, card=CARD.model_copy(update={"min_pixels": 200_000, "max_pixels": 80_000}))
    assert str(server.bodies[1]["messages"]).count(sent_as(views)) == 1


def test_many_answers_are_asked_for_at_once_with_a_seed_of_the_clip(server: ChatServer) -> None:
    server.say = lambda body: completion(*[GOOD] * (body["n"] - 1), "none")
    (score,) = scored(engine_of(server), k=4)
    assert isinstance(score, Score)
    assert (score.answers_parsed, len(score.answers), score.score) == (3, 4, 3.5)
    scored(engine_of(server), k=4)
    scored(engine_of(server), random_views("b"), k=4)
    seeds = [body["seed"] for body in server.bodies]
    assert seeds[0] == seeds[1] != seeds[2]
    assert all(0 <= seed < 2**31 for seed in seeds)
    scored(engine_of(server), k=2, temperature=0.7, top_p=0.8, top_k=30)
    drawn = {name: server.bodies[-1][name] for name in ("temperature", "top_p", "top_k")}
    assert drawn == {"temperature": 0.7, "top_p": 0.8, "top_k": 30}


@pytest.mark.parametrize(
    ("usage", "wanted"),
    [
        ({"prompt_tokens": 700, "completion_tokens": 30}, (700, 60)),
        ({"prompt_tokens": "many", "completion_tokens": -3}, (None, None)),
        ({"prompt_tokens": 10**30, "completion_tokens": True}, (None, None)),
        (None, (None, None)),
        ([7], (None, None)),
    ],
)
def test_tokens_are_those_that_the_server_counts(server: ChatServer, usage: object, wanted: tuple[object, ...]) -> None:
    server.say = lambda body: completion(GOOD) | {"usage": usage}
    (score,) = scored(engine_of(server), k=2)
    assert isinstance(score, Score)
    assert (score.prompt_tokens, score.answer_tokens, score.score) == (*wanted, 3.5)


def test_a_server_without_n_is_asked_once_for_each_answer(server: ChatServer) -> None:
    server.takes = frozenset({"top_k", "repetition_penalty"})
    (score,) = scored(engine_of(server), k=3)
    assert isinstance(score, Score)
    assert len(score.answers) == 3
    assert len({body["seed"] for body in server.bodies}) == 3


def test_a_server_that_overlooks_n_is_asked_on(server: ChatServer) -> None:
    (score,) = scored(engine_of(server), k=3)
    assert isinstance(score, Score)
    assert [body.get("n") for body in server.bodies] == [3, 2, None]


def test_reasoning_that_a_server_takes_out_is_put_back(server: ChatServer) -> None:
    server.say = lambda body: completion("<answer>4.5\n4.5</answer>", reasoning_content="soft")
    (score,) = scored(engine_of(server))
    assert isinstance(score, Score)
    assert (score.score, score.reason) == (4.5, "soft")


def test_an_answer_cut_off_or_empty_gives_no_number(server: ChatServer) -> None:
    for answer in (completion("3.4", finish="length"), completion(""), completion("no idea")):
        server.faults.append(answer)
        (score,) = scored(engine_of(server))
        assert isinstance(score, Score)
        assert (score.score, score.answers_parsed) == (None, 0)


def test_words_are_a_second_question(server: ChatServer) -> None:
    server.faults.extend([None, completion("<think>hm</think>Blocks in the sky.")])
    (score,) = scored(engine_of(server), describe=True)
    assert isinstance(score, Score)
    assert (score.score, score.description) == (3.5, "Blocks in the sky.")


# --- expected digits --------------------------------------------------------------------------------------------------

ONE = ModelCard(name="m", source="m", prompt="q_insight")


def alternatives(**chances: float) -> dict[str, float]:
    """Log-probabilities: `alternatives(d3=0.5, d4=0.5)`, with much that is less likely."""
    rest = {chr(ord("a") + i): -15.0 for i in range(10)}
    return {name.removeprefix("d"): math.log(chance) for name, chance in chances.items()} | rest


def test_digits_are_expected_from_the_listed_chances(server: ChatServer) -> None:
    server.say = lambda body: completion(
        "<think>2 of 9</think><answer>3</answer>", top={"3": alternatives(d3=0.5, d4=0.5)}
    )
    (score,) = scored(engine_of(server), card=ONE, readout="expected")
    assert isinstance(score, Score)
    assert (score.score, score.readout) == (pytest.approx(3.5), "expected")
    assert score.answers[0].values == (3.0,)
    assert server.bodies[0]["top_logprobs"] == 20


@pytest.mark.parametrize(
    "top",
    [
        None,
        {"3": {}},
        {"3": {"3": math.log(0.5), "4": math.log(0.3)}},  # eight digits may hold as much as the last one listed
        {"3": {"x": -0.1, "y": -3.0}},
    ],
)
def test_too_few_alternatives_are_read_as_written_and_said_so(server: ChatServer, top: Any) -> None:
    server.say = lambda body: completion("<answer>3</answer>", top=top)
    (score,) = scored(engine_of(server), card=ONE, readout="expected")
    assert isinstance(score, Score)
    assert (score.score, score.readout) == (3.0, "answer")


def test_tokens_that_are_not_the_text_are_not_believed(server: ChatServer) -> None:
    answer = completion("<answer>3</answer>", top={"3": alternatives(d3=0.5, d4=0.5)})
    answer["choices"][0]["message"]["content"] = "<answer>13</answer>"
    server.say = lambda body: answer
    (score,) = scored(engine_of(server), card=ONE, readout="expected")
    assert isinstance(score, Score)
    assert (score.score, score.readout) == (None, "answer")


def test_a_server_without_logprobs_is_asked_without(server: ChatServer) -> None:
    server.takes = frozenset({"top_k", "repetition_penalty"})
    (score,) = scored(engine_of(server), readout="expected")
    assert isinstance(score, Score)
    assert (score.score, score.readout) == (3.5, "answer")
    assert "logprobs" not in server.bodies[0]


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [429, 500, 502, 503, "close", "garbage", {"choices": []}, {"error": "no"}])
def test_what_passes_is_tried_again(server: ChatServer, fault: Any) -> None:
    server.faults.extend([fault] * 3)
    (score,) = scored(engine_of(server))
    assert isinstance(score, Score)
    assert (score.score, len(server.bodies)) == (3.5, 4)


@pytest.mark.parametrize("fault", [500, "close", "garbage"])
def test_after_the_last_try_the_clip_fails_and_no_other(server: ChatServer, fault: Any) -> None:
    server.faults.extend([fault] * 4)
    outcome, *_ = scored(engine_of(server, concurrency=1), random_views("a"), random_views("b"))
    assert isinstance(outcome, ClipError)
    assert outcome.kind == "model"
    assert str(outcome).startswith("a: no answer after 4 tries (http://127.0.0.1")
    assert len(server.bodies) == 5


def test_a_request_that_will_never_be_taken_is_sent_once(server: ChatServer) -> None:
    server.faults.append(400)
    outcomes = scored(engine_of(server, concurrency=1), random_views("a"), random_views("b"))
    assert isinstance(outcomes[0], ClipError)
    assert "answers 400: broken" in str(outcomes[0])
    assert isinstance(outcomes[1], Score)
    assert len(server.bodies) == 2


def test_a_server_that_hangs_costs_the_deadline_of_its_clip(server: ChatServer) -> None:
    server.faults.append("hang")
    outcomes = scored(engine_of(server, deadline_seconds=0.5, concurrency=2), random_views("a"), random_views("b"))
    assert sorted(type(one).__name__ for one in outcomes) == ["ClipError", "Score"]
    (failed,) = [one for one in outcomes if isinstance(one, ClipError)]
    assert "no answer within 0.5 s" in str(failed)


def test_waits_double_to_half_a_minute_and_half_of_each_is_drawn(server: ChatServer) -> None:
    engine = EndpointEngine(engine_of(server, first_wait_seconds=0.5), card=CARD, generation=GenerationConfig())
    engine.close()
    for attempt, longest in ((1, 0.5), (2, 1), (3, 2), (4, 4), (5, 8), (6, 16), (7, 30), (8, 30), (10**6, 30)):
        waits = [engine._backoff(attempt) for _ in range(400)]
        assert longest / 2 <= min(waits) < 0.55 * longest and 0.95 * longest < max(waits) <= longest, attempt
        assert len(set(waits)) > 390, "two workers wait alike"


def test_each_try_comes_after_a_longer_wait(server: ChatServer) -> None:
    server.faults.extend([429] * 3)
    assert isinstance(scored(engine_of(server, first_wait_seconds=0.2))[0], Score)
    waits = np.diff(server.times)
    assert np.all(waits >= [0.1, 0.2, 0.4]), waits


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(server: ChatServer, status: int) -> None:
    server.faults.append((status, {"Retry-After": "0.4"}))
    (score,) = scored(engine_of(server))
    assert isinstance(score, Score)
    assert server.times[1] - server.times[0] >= 0.4


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_left_alone_until_the_date_that_it_names(server: ChatServer, status: int) -> None:
    until = math.ceil(time.time()) + 1  # a date has whole seconds
    server.faults.append((status, {"Retry-After": formatdate(until, usegmt=True)}))
    (score,) = scored(engine_of(server))
    assert isinstance(score, Score)
    assert server.times[1] - time.monotonic() + time.time() >= until - 0.01


@pytest.mark.parametrize("asked", ["Mon, 01 Jan 2024 00:00:00 GMT", "-3", "soon", "", "nan"])
def test_a_wait_that_is_over_or_none_is_not_waited_for(server: ChatServer, asked: str) -> None:
    server.faults.append((503, {"Retry-After": asked}))
    assert isinstance(scored(engine_of(server))[0], Score)
    assert server.times[1] - server.times[0] < 1.0


@pytest.mark.parametrize("asked", ["86400", "inf"])
def test_a_wait_beyond_the_deadline_costs_the_clip_its_deadline(server: ChatServer, asked: str) -> None:
    server.faults.append((503, {"Retry-After": asked}))
    (failed,) = scored(engine_of(server, deadline_seconds=0.5))
    assert isinstance(failed, ClipError)
    assert "no answer within 0.5 s" in str(failed) and "answers 503: busy" in str(failed)


def test_clips_that_cannot_be_sent_cost_only_themselves(server: ChatServer) -> None:
    broken = random_views("broken", [np.zeros((0, 40, 3), np.uint8)])
    outcomes = scored(engine_of(server), broken, random_views("b"))
    assert isinstance(outcomes[0], ClipError)
    assert isinstance(outcomes[1], Score)


def test_closing_ends_what_is_under_way(server: ChatServer, caplog: pytest.LogCaptureFixture) -> None:
    server.faults.append("hang")
    settings = GenerationConfig(max_new_tokens=64)
    engine = EndpointEngine(engine_of(server, deadline_seconds=60), card=CARD, generation=settings)
    scorer = Scorer(engine, card=CARD, generation=settings)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(scorer.try_score, [random_views("a")])
        while not server.bodies:
            time.sleep(0.01)
        started = time.monotonic()
        scorer.close()
        assert isinstance(waiting.exception(), CancelledError)
    assert time.monotonic() - started < 30
    assert not [one for one in caplog.records if "destroyed" in one.message]


# --- several servers --------------------------------------------------------------------------------------------------


def test_clips_are_spread_and_no_more_at_once_than_may(server: ChatServer) -> None:
    views = [random_views(f"{i}") for i in range(12)]
    with serving(ChatServer()) as other:
        for one in (server, other):
            one.seconds = 0.05
        outcomes = scored(engine_of(server, other, concurrency=4), *views)
    assert all(isinstance(one, Score) for one in outcomes)
    assert len(server.bodies) + len(other.bodies) == 12
    assert min(len(server.bodies), len(other.bodies)) >= 4
    assert max(server.most_at_once, other.most_at_once) == 2
    assert len(server.peers | other.peers) <= 6  # connections are kept


def test_a_server_with_http2_has_all_clips_over_one_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its certificate is checked: one that nobody vouches for is not believed."""
    http2 = pytest.importorskip("tests.support.http2_server", reason="pip install 'vqa[dev]'")
    settings = GenerationConfig(max_new_tokens=64)
    with http2.serving(http2.Http2Server(completion(GOOD)), tmp_path / "certificate.pem") as server:
        with pytest.raises(ModelError, match="cannot be reached"):
            meet(engine_of(server.url), CARD, settings)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        server.protocols.clear()
        outcomes = scored(engine_of(server.url, concurrency=8), *(random_views(f"{i}") for i in range(8)))
    assert [one.score for one in outcomes if isinstance(one, Score)] == [3.5] * 8
    assert (server.chats, server.protocols) == (1 + 8, ["h2"])


def test_a_server_that_is_lost_is_left_aside_until_it_is_well_again(server: ChatServer) -> None:
    with serving(ChatServer()) as other:
        settings = GenerationConfig(max_new_tokens=64)
        engine = EndpointEngine(engine_of(server, other, concurrency=2), card=CARD, generation=settings)
        scorer = Scorer(engine, card=CARD, generation=settings)
        try:
            server.is_ill = True
            assert all(isinstance(one, Score) for one in scorer.try_score([random_views(f"{i}") for i in range(8)]))
            assert server.bodies == []
            server.is_ill = False
            other.seconds = server.seconds = 0.05
            for _ in range(5):
                scorer.try_score([random_views(f"{i}") for i in range(4)])
            assert server.checks
            assert server.bodies
        finally:
            scorer.close()


def test_a_server_that_ends_and_comes_back_loses_no_clip() -> None:
    settings = GenerationConfig(max_new_tokens=64)
    with serving(ChatServer()) as first:
        engine = EndpointEngine(engine_of(first, tries=8, first_wait_seconds=0.05), card=CARD, generation=settings)
        scorer = Scorer(engine, card=CARD, generation=settings)
        assert isinstance(scorer.try_score([random_views("a")])[0], Score)
    with serving(ChatServer(), port=int(first.url.split(":")[2].removesuffix("/v1"))):
        outcomes = scorer.try_score([random_views("b")])
    scorer.close()
    assert isinstance(outcomes[0], Score)


# --- before a job begins ----------------------------------------------------------------------------------------------


def test_an_address_where_nothing_listens_is_named_at_once(server: ChatServer) -> None:
    nobody = free_address()
    with pytest.raises(ModelError, match=rf"{nobody} cannot be reached .*correct the address"):
        meet(engine_of(server, nobody), CARD, GenerationConfig())
    (score,) = scored(engine_of(server, nobody))  # a worker that starts later does with the other
    assert isinstance(score, Score)


@pytest.mark.parametrize(
    ("fault", "wanted"),
    [
        (
            500,
            r"answers 500: .*\. It runs: look at its log, or correct the address, which most servers have end in /v1$",
        ),
        ("garbage", r"something else than a chat completion\. It runs: "),
        ({"choices": []}, r"without a choice\. It runs: "),
        (429, r"answers 429: .*\. It is busy: try again later$"),
    ],
)
def test_a_server_that_runs_is_not_to_be_started(server: ChatServer, fault: object, wanted: str) -> None:
    server.at_start = fault
    with pytest.raises(ModelError, match=wanted):
        meet(engine_of(server), CARD, GenerationConfig())


def test_a_model_that_is_not_served_is_named_with_those_that_are(server: ChatServer) -> None:
    server.models = ("qwen", "llava")
    with pytest.raises(ModelError, match=r"has no model 'm', but qwen, llava; name it by --served-model"):
        meet(engine_of(server), CARD, GenerationConfig())
    (score,) = scored(engine_of(server, served_model="qwen"))
    assert isinstance(score, Score)
    assert server.bodies[0]["model"] == "qwen"


def test_a_key_is_sent_and_never_shown(server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.key = "sk-right"
    with pytest.raises(ModelError, match=r"wants a key; set the environment variable VQA_API_KEY"):
        meet(engine_of(server), CARD, GenerationConfig())
    monkeypatch.setenv("VQA_API_KEY", "sk-wrong")
    with pytest.raises(ModelError, match=r"refuses the key") as caught:
        meet(engine_of(server), CARD, GenerationConfig())
    assert "sk-wrong" not in str(caught.value)
    (tmp_path / "key").write_text("sk-right\n")
    engine = engine_of(server, api_key_file=tmp_path / "key")
    assert isinstance(scored(engine)[0], Score)
    assert server.keys[-1] == "Bearer sk-right"
    assert "sk-right" not in engine.model_dump_json()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_takes_no_key_along(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("VQA_API_KEY", "sk-right")
    with serving(ChatServer()) as other:
        server.faults.append((status, {"Location": f"{other.url}/chat/completions"}))
        failed, scored_one = scored(engine_of(server, concurrency=1), random_views("a"), random_views("b"))
        assert isinstance(failed, ClipError) and isinstance(scored_one, Score)
        assert f"{server.url} answers {status}: a redirect to {other.url}/chat" in str(failed)
        assert server.keys[-1] == "Bearer sk-right" and len(server.bodies) == 2
        server.moved_to = other.url
        where = f"a redirect to {other.url}/chat/completions, which is not followed"
        with pytest.raises(ModelError, match=rf"{server.url} answers 307: {where}\. Correct the address"):
            meet(engine_of(server), CARD, GenerationConfig())
        assert (other.bodies, other.keys, other.checks) == ([], [], 0)


def test_an_address_without_its_path_is_said_to_be_one(server: ChatServer) -> None:
    with pytest.raises(ModelError, match=r"answers 404: .*\. Correct the address, which most servers have end in /v1"):
        meet(engine_of(server.url.removesuffix("/v1")), CARD, GenerationConfig())


def test_a_server_without_a_list_of_models_gets_clips_again_after_a_fault(server: ChatServer) -> None:
    server.has_list = False
    server.faults.append(500)
    (score,) = scored(engine_of(server))
    assert isinstance(score, Score) and server.checks


def zeros(size: int) -> bytes:
    packer, block = zlib.compressobj(1, wbits=31), bytes(2**20)
    return b"".join(packer.compress(block) for _ in range(size >> 20)) + packer.flush()


@pytest.mark.parametrize("is_packed", [True, False])
def test_an_answer_above_32_mib_costs_its_clip_alone_and_little_memory(server: ChatServer, is_packed: bool) -> None:
    if is_packed:
        answer = (200, {"Content-Encoding": "gzip"}, zeros(512 * 2**20))
        assert len(answer[2]) < 4 * 2**20, "the answer itself is as large as what it unpacks to"
    else:
        answer = (200, {}, bytes(64 * 2**20))
    server.faults.append(answer)
    tracemalloc.start()
    try:
        failed, scored_one = scored(engine_of(server, concurrency=1), random_views("a"), random_views("b"))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(failed, ClipError) and isinstance(scored_one, Score)
    assert f"{server.url} answers with more than 32 MiB" in str(failed)
    assert most < 160 * 2**20, f"{most >> 20} MiB"


def test_a_key_that_is_refused_later_stops_the_job(server: ChatServer) -> None:
    settings = GenerationConfig(max_new_tokens=64)
    engine = EndpointEngine(engine_of(server), card=CARD, generation=settings)
    server.key = "sk-new"
    with pytest.raises(ModelError, match="wants a key"):
        Scorer(engine, card=CARD, generation=settings).try_score([random_views("a")])
    engine.close()


def test_sampling_that_no_field_of_the_server_says_is_refused(server: ChatServer) -> None:
    server.takes = frozenset()
    with pytest.raises(ModelError, match=r"answers 422: .*generation_config"):
        meet(engine_of(server), CARD, GenerationConfig(generation="sample", top_k=5))
    meet(engine_of(server), CARD, GenerationConfig(generation="sample"))
