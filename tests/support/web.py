"""A real HTTP server on loopback that counts what it sends, and misbehaves on demand: the first part of the path."""

import http.server
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class _Handler(http.server.BaseHTTPRequestHandler):
    """GET and HEAD of /FAULT/NAME, with ranges. FAULT is `fine`, a status, or one of the names below."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        fault, name = self.path.strip("/").split("/", 1)
        self.server.requests.append((self.command, self.path))
        if fault.isdigit() or (fault == "getonly" and not with_body):
            self.send_response(int(fault) if fault.isdigit() else 405)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault.startswith("busy") and with_body and self.failed_before(fault) < int(fault[4:]):
            self.send_response(503)  # busyN: the first N bodies are refused
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        path = self.server.folder / name
        if not path.exists():
            self.send_error(404)
            return
        data = path.read_bytes()
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        is_part = found is not None and not fault.startswith("whole")
        start, stop = (int(found[1]), min(int(found[2]) + 1, len(data))) if is_part else (0, len(data))
        self.send_response(206 if is_part else 200)
        if is_part:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        if fault == "wholesaid":
            self.send_header("Accept-Ranges", "none")
        if fault != "stateless":
            self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if with_body:
            self.send(data[start:stop], fault, is_first=start == 0)

    def send(self, body: bytes, fault: str, *, is_first: bool) -> None:
        """Faults of the body spare the first one, so that they strike while the file is read, not at its door."""
        if fault == "stall" and not is_first:
            self.wfile.write(body[: len(body) // 2])
            self.server.ending.wait(30.0)
        elif (fault == "cut" and not is_first) or (fault == "cutonce" and self.failed_before(fault) < 1):
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif fault == "reset" and not is_first:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()  # with unsent data and no linger: RST
            self.close_connection = True
        else:
            self.wfile.write(body)
            self.server.sent_bytes += len(body)

    def failed_before(self, fault: str) -> int:
        """How often this was asked before."""
        self.server.failed[fault] = self.server.failed.get(fault, -1) + 1
        return self.server.failed[fault]

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder; `sent_bytes` counts bodies."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.sent_bytes = 0
        self.requests: list[tuple[str, str]] = []
        self.failed: dict[str, int] = {}
        self.ending = threading.Event()

    def url(self, name: str, fault: str = "fine") -> str:
        """Where a file of the folder is."""
        return f"http://127.0.0.1:{self.server_port}/{fault}/{name}"

    def handle_error(self, request: object, address: object) -> None:
        """A client that hangs up is none of ours."""


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """The server, while the block runs."""
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.ending.set()
            server.shutdown()
