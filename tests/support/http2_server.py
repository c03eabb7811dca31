"""A chat server that speaks HTTP/2 over TLS, on loopback, with a certificate of its own."""

import asyncio
import contextlib
import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded

HOST = "127.0.0.1"


@dataclass
class Http2Server:
    """What it says to each chat, and what it was asked over how many connections."""

    answer: dict[str, object]
    protocols: list[str | None] = field(default_factory=list)  # of each connection
    chats: int = 0
    url: str = ""

    def reply(self, path: str) -> dict[str, object]:
        if path.endswith("/models"):
            return {"data": [{"id": "m"}]}
        self.chats += 1
        return self.answer


class _Connection(asyncio.Protocol):
    def __init__(self, server: Http2Server) -> None:
        self._server, self._paths = server, dict[int, str]()
        self._http = H2Connection(H2Configuration(client_side=False))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.protocols.append(transport.get_extra_info("ssl_object").selected_alpn_protocol())
        self._http.initiate_connection()
        transport.write(self._http.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self._http.receive_data(data):
            if isinstance(event, RequestReceived):
                self._paths[event.stream_id] = dict(event.headers)[b":path"].decode()
            elif isinstance(event, DataReceived):
                self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                body = json.dumps(self._server.reply(self._paths[event.stream_id])).encode()
                head = [(":status", "200"), ("content-type", "application/json"), ("content-length", str(len(body)))]
                self._http.send_headers(event.stream_id, head)
                self._http.send_data(event.stream_id, body, end_stream=True)
        self._transport.write(self._http.data_to_send())


@contextlib.contextmanager
def serving(server: Http2Server, certificate: Path) -> Iterator[Http2Server]:
    """The server, reachable at `server.url` while the block runs; writes its certificate, with its key."""
    _certify(certificate)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    tls.set_alpn_protocols(["h2"])
    loop = asyncio.new_event_loop()
    running = loop.run_until_complete(loop.create_server(lambda: _Connection(server), HOST, 0, ssl=tls))
    server.url = f"https://{HOST}:{running.sockets[0].getsockname()[1]}/v1"
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        running.close()
        loop.close()


def _certify(path: Path) -> None:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))])
    request = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    request = request.not_valid_before(now - day).not_valid_after(now + day)
    signed = request.add_extension(names, critical=True).sign(key, hashes.SHA256())
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
