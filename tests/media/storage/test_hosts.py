"""Addresses in private networks are refused however a URL leads there, unless they are allowed."""

import contextlib
import gzip
import http.server
import re
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from jobs.config import ClipLimits, make_guard
from tests.support import clips, web
from vqa.errors import ClipError
from vqa.media import probe
from vqa.media.storage import hosts
from vqa.media.storage.hosts import ALLOWED, PrivateHostError, is_private
from vqa.media.storage.stores import remote_stamp

pytest.importorskip("aiohttp", reason="pip install 'vqa[http]'")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[web.Server]:
    """Refused as in a user's shell, where nothing is set."""
    monkeypatch.delenv(ALLOWED)
    clips.write_video(tmp_path / "clip.mp4", frames=4)
    with web.serve(tmp_path) as server:
        yield server


class _Redirect(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.path.removeprefix("/to="))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def redirecting() -> Iterator[str]:
    """The address of a server that sends everybody where the path says."""
    with http.server.ThreadingHTTPServer(("127.0.0.2", 0), _Redirect) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.2:{server.server_port}/to="
        server.shutdown()


REFUSED = "in a private network, which is refused. Give --allow-private-hosts"


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("127.0.0.1", REFUSED),
        ("localhost", REFUSED),
        ("[::1]", REFUSED),
        ("2130706433", "not a canonical IPv4 address"),
    ],
)
def test_every_spelling_of_loopback_is_refused_before_a_byte_is_sent(server: web.Server, host: str, said: str) -> None:
    with pytest.raises(ClipError, match=re.escape(said)) as caught:
        probe(f"http://{host}:{server.server_port}/fine/clip.mp4")
    assert caught.value.kind == "not_readable"
    assert remote_stamp(server.url("clip.mp4")) is None
    assert server.requests == []


def test_a_redirect_into_a_private_network_is_refused(
    server: web.Server, redirecting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "is_private", lambda address: address != "127.0.0.2")
    with pytest.raises(ClipError, match="in a private network"):
        probe(redirecting + server.url("clip.mp4"))
    with pytest.raises(ClipError, match=r"reading it failed|cannot be read"):
        probe(f"{redirecting}file:///etc/passwd")
    assert server.requests == []


@pytest.mark.parametrize("uri", ["ftp://127.0.0.1:9/a.mp4", "ftp://localhost/a.mp4", "ftp://[::1]/a.mp4"])
def test_other_schemes_that_name_a_host_are_checked_too(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOWED)
    with pytest.raises(ClipError, match="in a private network"):
        probe(uri)


def test_a_literal_ipv6_host_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips.write_video(tmp_path / "clip.mp4", frames=4, width=64, height=48)

    class Six(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6

    serve = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    try:
        server = Six(("::1", 0), serve)
    except OSError:
        pytest.skip("no IPv6 here")
    with server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        monkeypatch.setenv(ALLOWED, "1")
        assert probe(f"http://[::1]:{server.server_port}/clip.mp4")[0].width == 64
        with pytest.raises(ClipError, match="chains"):
            probe(f"http://[::1]:{server.server_port}/a::http://b/clip.mp4")
        server.shutdown()


@pytest.mark.parametrize("uri", ["http:///x.mp4", "https://:443/x.mp4", "ftp:///x.mp4"])
def test_a_url_without_a_host_is_refused_at_once(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqa.media.storage.stores.time.sleep", lambda _: pytest.fail("tried again"))
    with pytest.raises(ClipError, match=rf"^{uri}: names no host\. Give {uri.partition(':')[0]}://HOST/PATH\.$"):
        probe(uri)


def test_where_it_is_allowed_the_guarded_child_reads_it(server: web.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with make_guard(ClipLimits()) as guard, pytest.raises(ClipError, match="private network"):
        guard.run(probe, server.url("clip.mp4"))
    monkeypatch.setenv(ALLOWED, "0")
    assert not ClipLimits().private_hosts
    with make_guard(ClipLimits(private_hosts=True)) as guard:
        assert hosts.is_allowed()
        assert guard.run(probe, server.url("clip.mp4"))[0].width > 0


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("8.8.8.8", False),
        ("2001:4860:4860::8888", False),
        ("64:ff9b::808:808", False),
        ("10.1.2.3", True),
        ("172.16.0.1", True),
        ("192.168.1.1", True),
        ("169.254.169.254", True),  # the metadata service of a cloud
        ("100.64.0.1", True),
        ("0.0.0.0", True),
        ("224.0.0.1", True),
        ("255.255.255.255", True),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("fd00::1", True),
        ("::ffff:10.0.0.1", True),
        ("64:ff9b::a00:1", True),
        ("2002:a00:1::", True),
    ],
)
def test_which_addresses_are_private(address: str, private: bool) -> None:
    assert is_private(address) is private


def test_the_error_says_the_same_for_every_address() -> None:
    assert str(PrivateHostError()) == str(PrivateHostError())  # or aiohttp joins them into an error of another class


class _Bomb(_Redirect):
    """Answers any range with 256 MiB of zeros in 256 KiB of gzip."""

    body = gzip.compress(bytes(1 << 28), compresslevel=1)

    def do_HEAD(self) -> None:
        self.send_response(206 if self.command == "GET" else 200)
        self.send_header("Accept-Ranges", "bytes")
        if self.command == "GET":
            self.send_header("Content-Range", "bytes 0-65535/1000000")
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(self.body)) if self.command == "GET" else "1000000")
        self.end_headers()
        if self.command == "GET":
            with contextlib.suppress(OSError):
                self.wfile.write(self.body)


def test_an_answer_that_unpacks_to_much_more_costs_the_clip_alone() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Bomb) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        with make_guard(ClipLimits(memory_mb=96)) as guard:
            with pytest.raises(ClipError) as caught:
                guard.run(probe, f"http://127.0.0.1:{server.server_port}/a.mp4")
            assert caught.value.kind in ("too_large", "not_readable", "crashed")
            assert guard.run(len, "the child, or a new one, works") == 30
        server.shutdown()
