"""What the server answers, and to whom: token, host, origin, headers, wrong votes."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.rate.conftest import Make
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
