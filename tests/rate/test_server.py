"""What the server answers, and to whom: token, host, origin, headers, wrong votes."""

import socket
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from jobs import signals
from tests.rate.conftest import Make
from tests.support import clips
from vqa.cli.rate import rate
from vqa.errors import UsageError
from vqa.rate.server import HEADERS, bind, make_app

TOKEN = "secret-token"


@pytest.fixture
def client(make: Make, tmp_path: Path) -> TestClient:
    for at in range(6):
        (tmp_path / f"{at}.png").write_bytes(b"\x89PNG")
    return TestClient(make_app(make(training=0), TOKEN), base_url="http://127.0.0.1:8765", follow_redirects=False)


def test_only_the_token_opens_and_every_answer_has_the_headers(client: TestClient) -> None:
    for path in ("", "page.js", "page.css", "task?subject=ann", "media/0"):
        answer = client.get(f"/{TOKEN}/{path}")
        assert answer.status_code == 200, path
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        refused = client.get(f"/other/{path}")
        assert refused.status_code == 404
        assert refused.headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]
    for path in (
        "/",
        f"/{TOKEN}",
        f"/{TOKEN}/media/6",
        f"/{TOKEN}/media/-1",
        f"/{TOKEN}/..%2fserver.py",
        f"/{TOKEN}/x",
    ):
        assert client.get(path).status_code == 404, path
    assert client.get("/other/vote").status_code in (404, 405)


def test_another_host_or_origin_is_refused(client: TestClient) -> None:
    assert client.get(f"/{TOKEN}/", headers={"Host": "evil.example"}).status_code == 400
    assert client.get(f"/{TOKEN}/", headers={"Origin": "http://evil.example"}).status_code == 403
    vote = client.post(f"/{TOKEN}/vote", json={}, headers={"Origin": "http://evil.example"})
    assert vote.status_code == 403


def test_a_vote_needs_json_of_the_right_shape_and_size(client: TestClient) -> None:
    task = client.get(f"/{TOKEN}/task", params={"subject": "ann"}).json()["task"]
    assert set(task) == {"number", "first", "second", "training", "repeat", "media"}  # no names: they tell
    vote = {"subject": "ann", "value": 5, "seconds": 1, "scale": 0.5} | task
    assert client.post(f"/{TOKEN}/vote", content="value=5").status_code == 415
    assert client.post(f"/{TOKEN}/vote", json=[vote]).status_code == 400
    assert client.post(f"/{TOKEN}/vote", json=vote | {"value": 7}).json()["error"].startswith("value 7")
    assert client.post(f"/{TOKEN}/vote", json=vote | {"more": "x" * 20_000}).status_code == 413
    assert [client.post(f"/{TOKEN}/vote", json=vote).json() for _ in range(2)] == [
        {"recorded": True},
        {"recorded": False},
    ]
    assert client.get(f"/{TOKEN}/task", params={"subject": "\x07"}).status_code == 400


def test_the_socket_is_on_loopback_and_a_taken_port_is_refused() -> None:
    first = bind(0)
    host, port = first.getsockname()
    assert host == "127.0.0.1"
    with pytest.raises(UsageError, match=f"--port {port}: .*Give another"):
        bind(port)
    first.close()


def test_a_study_that_another_process_took_over_takes_no_more_votes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a file system that several machines see, one of which slept; and a second `vqa rate` is refused."""
    out, answers = tmp_path / "votes.csv", []
    pictures = [str(clips.write_image(tmp_path / f"{number}.png", number=number)) for number in range(3)]
    held = tmp_path / ".votes.lock.held"

    def served(app: Any, bound: socket.socket) -> None:
        url = "/" + capsys.readouterr().out.strip().split("/")[-2] + "/"
        client = TestClient(app, base_url=f"http://127.0.0.1:{bound.getsockname()[1]}")
        with pytest.raises(
            UsageError, match=rf"--out {out}: another run .* is writing there\. Wait, or give another --out"
        ):
            rate(pictures, out, port=0)
        for taken in (False, True):
            if taken:
                held.write_text("process 1 on elsewhere\nits token 1")
            task = client.get(f"{url}task", params={"subject": "ann"}).json()["task"]
            vote = {"subject": "ann", "value": 5, "seconds": 1, "scale": 0.5} | task
            answers.append(client.post(f"{url}vote", json=vote))
        bound.close()

    monkeypatch.setattr(signals, "is_shared", lambda _: True)
    monkeypatch.setattr("vqa.rate.server.serve", served)
    rate(pictures, out, port=0, training=0)
    assert [one.status_code for one in answers] == [200, 409]
    assert "another run has taken over" in answers[1].json()["error"]
    assert len(out.read_text().splitlines()) == 2
    assert held.read_text().endswith("its token 1")
