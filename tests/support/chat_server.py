"""A real HTTP server with OpenAI's chat interface, on loopback, that misbehaves as it is told."""

import asyncio
import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

Say = Callable[[dict[str, Any]], dict[str, Any]]


def completion(
    *texts: str, top: dict[str, dict[str, float]] | None = None, finish: str = "stop", **message: Any
) -> dict[str, Any]:
    """A chat completion; `top`: log-probabilities of the alternatives of each character that has some."""
    choices = []
    for index, text in enumerate(texts):
        tokens = (
            [
                {
                    "token": char,
                    "logprob": top.get(char, {}).get(char, 0.0),
                    "top_logprobs": [{"token": one, "logprob": chance} for one, chance in top.get(char, {}).items()],
                }
                for char in text
            ]
            if top is not None
            else None
        )
        choices.append(
            {
                "index": index,
                "message": {"role": "assistant", "content": text} | message,
                "finish_reason": finish,
                "logprobs": tokens and {"content": tokens},
            }
        )
    return {"id": "x", "object": "chat.completion", "choices": choices}


@dataclass
class ChatServer:
    """What it has been asked and what it says next."""

    say: Say = lambda body: completion("<think>sharp</think><answer>\n4.00\n3.00\n</answer>")
    key: str | None = None
    models: tuple[str, ...] = ("m",)
    takes: frozenset[str] | None = None  # optional fields; None: all
    faults: deque[Any] = field(default_factory=deque)  # of the next clips: a status, "hang", "close", "garbage", bytes
    bodies: list[dict[str, Any]] = field(default_factory=list)  # of clips
    times: list[float] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    peers: set[Any] = field(default_factory=set)
    checks: int = 0
    most_at_once: int = 0
    seconds: float = 0.0  # that an answer takes
    has_list: bool = True  # of models
    at_start: Any = None  # a fault in answer to who finds out what is taken
    is_ill: bool = False  # answers everything with 503
    moved_to: str | None = None  # answers everything with a redirect to the same path of this address
    url: str = ""
    _at_once: int = 0

    async def list_models(self, request: Request) -> Response:
        self.checks += 1
        self.keys.append(request.headers.get("authorization"))
        if self.moved_to:
            return RedirectResponse(f"{self.moved_to}/models")
        if self.is_ill:
            return Response("down", 503)
        if not self.has_list:
            return Response("no such path", 404)
        return JSONResponse({"object": "list", "data": [{"id": name} for name in self.models]})

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        self.keys.append(request.headers.get("authorization"))
        self.peers.add(request.client)
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            said = request.headers.get("authorization")
            return JSONResponse({"error": {"message": f"Incorrect API key provided: {said}"}}, 401)
        if self.is_ill:
            return Response("down", 503)
        if self.moved_to:
            return RedirectResponse(f"{self.moved_to}/chat/completions")
        if body["model"] not in self.models:
            return JSONResponse({"error": {"message": f"The model `{body['model']}` does not exist."}}, 404)
        usual = {"model", "messages", "max_tokens", "temperature", "top_p", "seed", "stream"}
        if self.takes is not None and (unknown := set(body) - usual - self.takes):
            return JSONResponse({"detail": f"Unexpected fields: {sorted(unknown)}"}, 422)
        if body["max_tokens"] == 1:  # finding out what is taken
            return await self._answer(self.at_start or completion("<"), body)
        self.bodies.append(body)
        self.times.append(time.monotonic())
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await asyncio.sleep(self.seconds)
            return await self._answer(self.faults.popleft() if self.faults else None, body)
        finally:
            self._at_once -= 1

    async def _answer(self, fault: Any, body: dict[str, Any]) -> Response:
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "close":
            return _Cut()
        if fault == "garbage":
            return Response('{"choices": [{"mess', media_type="application/json")
        if isinstance(fault, tuple):
            status, headers, *content = fault
            return Response(content[0] if content else "busy", status, headers)
        if isinstance(fault, int):
            return Response("broken", fault)
        return JSONResponse(fault if fault is not None else self.say(body))


class _Cut(Response):
    """A response that ends, with its connection, before its announced length."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        head = [(b"content-length", b"1000"), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b'{"choices"', "more_body": False})


@contextlib.contextmanager
def serving(server: ChatServer, *, port: int = 0) -> Iterator[ChatServer]:
    """The server, reachable at `server.url` while the block runs."""
    routes = [
        Route("/v1/models", server.list_models),
        Route("/v1/chat/completions", server.complete, methods=["POST"]),
    ]
    config = uvicorn.Config(Starlette(routes=routes), host="127.0.0.1", port=port, log_level="critical", lifespan="off",
                            timeout_graceful_shutdown=0)  # fmt: skip
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.005)
    server.url = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        running.should_exit = True
        thread.join(10)


def body_text(body: dict[str, Any]) -> str:
    """Everything that a request holds, to look for what may not be in it."""
    return json.dumps(body)
