"""The page and its few addresses, on loopback only, behind a token in the URL."""

import json
import secrets
import socket
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vqa.errors import UsageError, VqaError
from vqa.rate.study import RefusedVoteError, Study, subject_name, task_values

ASSETS = Path(__file__).parent / "assets"
HOST = "127.0.0.1"
MOST_BYTES = 10_000  # of a vote
PAGES = {"": "page.html", "page.js": "page.js", "page.css": "page.css"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class _Headers:
    """Middleware that adds HEADERS to every response, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, with_headers)


def make_app(study: Study, token: str) -> Starlette:
    """The application: the page, the next task of a subject, its media, and votes.

    Requests with another token are answered 404; with a Host or Origin of another site, 400 or 403, so that no page of
    the web can reach it by a name that resolves to loopback.
    """

    def check(request: Request) -> None:
        if not secrets.compare_digest(request.path_params["token"].encode(), token.encode()):
            raise HTTPException(404)
        origin = request.headers.get("origin")
        if origin is not None and origin != f"http://{request.headers['host']}":
            raise HTTPException(403)

    def page(request: Request) -> Response:
        check(request)
        name = PAGES.get(request.path_params.get("page", ""))
        if name is None:
            raise HTTPException(404)
        return FileResponse(ASSETS / name)

    def task(request: Request) -> Response:
        check(request)
        try:
            subject = subject_name(request.query_params.get("subject"))
        except RefusedVoteError as error:
            return JSONResponse({"error": str(error)}, 400)
        chosen = study.next(subject)
        facts = {"mode": study.journal.mode, "done": study.done(subject), "goal": study.goal}
        return JSONResponse(facts | {"task": None if chosen is None else task_values(chosen, study.stimuli)})

    def media(request: Request) -> Response:
        check(request)
        at = request.path_params["at"]
        if at >= len(study.stimuli):
            raise HTTPException(404)
        return FileResponse(study.stimuli[at].path)

    async def vote(request: Request) -> Response:
        check(request)
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise HTTPException(415)
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MOST_BYTES:
                raise HTTPException(413)
        try:
            values = json.loads(bytes(body))
            if not isinstance(values, dict):
                raise RefusedVoteError("no object")
            recorded = await run_in_threadpool(study.vote, values)
        except ValueError as error:  # RefusedVoteError, JSONDecodeError, UnicodeDecodeError
            return JSONResponse({"error": str(error)}, 400)
        except VqaError as error:  # another process has begun to write the votes
            return JSONResponse({"error": str(error)}, 409)
        return JSONResponse({"recorded": recorded})

    routes = [
        Route("/{token}/", page),
        Route("/{token}/task", task),
        Route("/{token}/media/{at:int}", media),
        Route("/{token}/vote", vote, methods=["POST"]),
        Route("/{token}/{page}", page),
    ]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False)
    app = Starlette(routes=routes, middleware=[Middleware(_Headers), hosts])
    app.router.redirect_slashes = False
    return app


def bind(port: int) -> socket.socket:
    """Listen on loopback; port 0: a free one. Raises UsageError for a taken port."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
        bound.listen()  # who asks before the server runs waits
    except (OSError, OverflowError) as error:
        bound.close()
        raise UsageError(f"--port {port}: {error}. Give another, or 0 for a free one.") from error
    return bound


def serve(app: Starlette, bound: socket.socket) -> None:
    """Answer requests until SIGINT or SIGTERM."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2
    )
    uvicorn.Server(config).run(sockets=[bound])
