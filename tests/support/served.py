"""A real model server on loopback, while a block runs."""

import contextlib
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

PATIENCE_SECONDS = 600.0


@contextlib.contextmanager
def running(command: Sequence[str], log: Path, more: Mapping[str, str] | None = None) -> Iterator[str]:
    """The base address of a server that `command --host HOST --port PORT` starts.

    It writes to `log`, and has `more` in its environment.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"} | dict(more or {})
    with log.open("w") as said:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", port], stdout=said, stderr=said, env=environment
        )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"no server: {log.read_text()[-2000:]}")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)
