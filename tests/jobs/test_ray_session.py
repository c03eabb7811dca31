"""Connecting to Ray, without one: what listens at an address, and whether this machine allows a Ray of its own."""

import http.server
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs import _compat, ray_session
from vqa import machine
from vqa.errors import MachineError, VqaError


@contextmanager
def listener(answer: bytes | None) -> Iterator[int]:
    """A port where somebody answers with these bytes, or with nothing and an open line."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def serve() -> None:
            line, _ = server.accept()
            held.append(line)
            if answer is not None:
                line.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            for line in held:
                line.close()


def test_a_web_server_at_the_address_is_told_from_ray() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(VqaError, match="something else than Ray listens there"):
            ray_session._knock("127.0.0.1", server.server_port)
    finally:
        server.shutdown()
        server.server_close()


def test_a_listener_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session, "KNOCK_SECONDS", 0.3)
    with listener(None) as port, pytest.raises(VqaError, match=r"did not answer within 0\.3 s"):
        ray_session._knock("127.0.0.1", port)


def test_a_grpc_server_is_let_in() -> None:
    with listener(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])) as port:
        ray_session._knock("127.0.0.1", port)


def test_a_closed_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(VqaError, match=rf"127\.0\.0\.1:{port}' cannot be reached .*Check the address"):
        ray_session._knock("127.0.0.1", port)


def test_a_token_that_ray_left_is_sent_to_this_machine_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _compat.token_file() is None
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 32)
    assert _compat.token_file() == tmp_path / ".ray" / "auth_token"
    assert ray_session._is_here("127.0.0.1")
    assert not ray_session._is_here("192.0.2.77")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert _compat.token_file() is None


def test_a_ray_of_our_own_leaves_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with _compat.private_token():
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert "RAY_AUTH_MODE" not in os.environ
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert not list(tmp_path.iterdir())


def test_sizes_of_our_own_ray_keep_to_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gibibyte = 2**30
    monkeypatch.setattr(machine, "cores", lambda: 1)
    monkeypatch.setattr(machine, "memory_bytes", lambda: 10 * gibibyte)
    monkeypatch.setattr(machine, "shared_memory_bytes", lambda: gibibyte)
    options = ray_session._local_options(tmp_path, least_cpus=2)
    assert options["num_cpus"] == 2, "one for each stage"
    assert options["object_store_memory"] == int(0.95 * gibibyte)
    assert options["_memory"] + options["object_store_memory"] == 10 * gibibyte


def test_a_session_ends_after_what_fetches_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread of Ray Data that asked a Ray that had gone ended the command, with code 1 and without a word."""
    fetcher, seen = threading.Thread(name=_compat.FETCHER, target=time.sleep, args=(0.3,)), []
    # Ray itself, which this lane of the gate has not, is only told to shut down: when is what counts
    there = SimpleNamespace(shutdown=lambda: seen.append(fetcher.is_alive()))
    monkeypatch.setitem(sys.modules, "ray", there)
    fetcher.start()
    ray_session._shut_down(KeyboardInterrupt)
    assert seen == [False]


@pytest.mark.parametrize(("kind", "is_kept"), [(None, False), (KeyboardInterrupt, False), (VqaError, True)])
def test_logs_of_a_ray_of_our_own_are_kept_where_something_failed(
    kind: type[BaseException] | None, is_kept: bool, tmp_path: Path
) -> None:
    """Each Ctrl-C had left a folder."""
    (tmp_path / "ray" / "logs").mkdir(parents=True)
    ray_session._clear(tmp_path / "ray", kind, kind and kind(), None)
    assert (tmp_path / "ray").exists() is is_kept


def test_what_ray_spills_goes_where_it_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "short"
    for wished, used in ((tmp_path / "wished", tmp_path / "wished"), (tmp_path / "gone", own), (tmp_path, own)):
        (tmp_path / "wished").mkdir(exist_ok=True)
        monkeypatch.setenv("RAY_TMPDIR", str(wished))
        assert ray_session._local_options(own, least_cpus=2)["object_spilling_directory"] == str(used)


def test_few_open_files_are_refused_before_ray_ends_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (64, 64) if kind == resource.RLIMIT_NOFILE else (-1, -1))
    with pytest.raises(MachineError, match=r"needs 128 open files \(ulimit -n\), this process may have 64"):
        ray_session._check_limits()
