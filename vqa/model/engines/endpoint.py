"""Answers by OpenAI-style servers: vLLM, SGLang, TGI, `transformers serve`.

Each clip is one request with its pictures as data URLs, sent to the least busy server that is well. What may pass (no
connection, 429, 5xx, an answer that is none) is tried again after a growing, jittered wait; a server that failed is
asked for its models before it gets clips again. Servers take different optional fields; a request with a grey picture
finds out which (`_learn`).
"""

import asyncio
import json
import random
import threading
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, TypeVar

import httpx2
import numpy as np
from pydantic import ValidationError

from vqa.errors import ClipError, ModelError, first_few
from vqa.model.card import GenerationConfig, ModelCard
from vqa.model.engines.chat import (
    Completion,
    Fields,
    OptionalFields,
    body_of,
    chat_of,
    image_part,
    optional_fields,
    said_in,
)
from vqa.model.engines.config import SERVED, EngineConfig, api_key
from vqa.model.engines.protocol import Answered, Question
from vqa.model.readout import Said

T = TypeVar("T")

LONGEST_WAIT_SECONDS = 30.0
CONNECT_SECONDS = 10.0
MOST_BYTES = 32 * 2**20  # of a server's answer
AGAIN = frozenset({408, 425, 429})  # statuses that may pass, beside all from 500 on
REFUSED = frozenset({400, 422})  # statuses of a request with a field that the server does not take


# Ways out for a server that runs, and for one that does not.
LOOK = "It runs: look at its log, or correct the address, which most servers have end in /v1"
START = "Start it, or correct the address"
WAIT = "It may still be loading its model: wait, or raise model_engine.deadline_seconds"
BUSY = "It is busy: try again later"


class _PassingError(Exception):
    """Failure that may pass: retry the same request after `wait` seconds or more."""

    def __init__(self, message: str, *, wait: float = 0.0, is_well: bool = False, way: str = LOOK) -> None:
        super().__init__(message)
        self.wait, self.is_well = wait, is_well  # well: busy, not broken
        self.way = way  # out, at the start of a job


class _RejectedError(Exception):
    """A request that this server will not take, however often it is sent."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(kw_only=True, eq=False)
class _Server:
    """A server and how it has been."""

    url: str
    takes: OptionalFields | None = None  # None: not met yet
    in_flight: int = 0
    is_well: bool = False
    misses: int = 0  # checks in a row that failed
    free_at: float = 0.0  # in the loop's time: not asked before
    problem: str = "not asked yet"
    is_refused: bool = False  # the problem is one that waiting does not mend
    checking: "asyncio.Task[None] | None" = field(default=None, repr=False)


class EndpointEngine:
    """Servers that have the model, asked by one HTTP client in a thread of its own."""

    def __init__(
        self, engine: EngineConfig, *, card: ModelCard, generation: GenerationConfig, needs_all: bool = False
    ) -> None:
        """Meet the servers; those that do not answer are asked again later.

        Args:
            engine: addresses, key, tries and deadlines.
            card: names the question and, unless `engine.served_model` does, the model.
            generation: how answers are drawn.
            needs_all: refuse the first server that does not answer at once, as at a job's start an address may be
                mistyped; else it takes one that answers after as many tries as a clip has.

        Raises:
            UsageError: the key is missing.
            ModelError: servers do not answer, refuse the key or a setting, or do not have the model.
        """
        self._engine, self._card, self._generation = engine, card, generation
        self.model_id, self.model_revision = engine.served_model or card.source, SERVED
        self._key = api_key(engine)
        self._servers = [_Server(url=url.rstrip("/")) for url in engine.endpoints]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()
        self._random = random.Random()  # noqa: S311 (jitter; no two workers may wait alike)
        self._down_since: float | None = None
        self._client: httpx2.AsyncClient | None = None
        try:
            self._run(self._connect())
            self._run(self._meet(needs_all=needs_all))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End what is under way, close the connections and end the thread."""
        if not self._loop.is_running():
            return
        self._run(self._wound_up())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def ask(self, questions: Sequence[Question]) -> list[Answered | ClipError]:
        """Answer each question, in order; a ClipError for each that got no answer.

        Raises:
            ModelError: a server refuses the key.
        """
        return self._run(self._ask_all(questions))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _wound_up(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._client:
            await self._client.aclose()

    async def _connect(self) -> None:
        headers = {"User-Agent": f"vqa/{version('vqa')}"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        most = self._engine.concurrency + len(self._servers)  # and a check of each
        self._client = httpx2.AsyncClient(
            headers=headers,
            verify=any(server.url.startswith("https:") for server in self._servers),  # reads all certificates there are
            http2=find_spec("h2") is not None,  # where a server offers it, which takes TLS
            timeout=httpx2.Timeout(self._engine.deadline_seconds, connect=CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=most, max_keepalive_connections=most),
        )

    # --- clips ------------------------------------------------------------------------------------------------------

    async def _ask_all(self, questions: Sequence[Question]) -> list[Answered | ClipError]:
        room = asyncio.Semaphore(self._engine.concurrency)
        outcomes = await asyncio.gather(*(self._ask(one, room) for one in questions), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, ClipError):
                raise outcome
        return [outcome for outcome in outcomes if isinstance(outcome, Answered | ClipError)]

    async def _ask(self, question: Question, room: asyncio.Semaphore) -> Answered | ClipError:
        clip = question.views.clip.clip_id
        async with room:
            started = time.perf_counter()
            try:
                chat = await asyncio.to_thread(partial(chat_of, self._card, question.views, question.words))
            except Exception as error:  # whatever pictures raise must cost their clip only
                return ClipError("model", f"{clip}: cannot be sent ({type(error).__name__}: {error})")
            completions: list[Completion] = []
            said: list[Said] = []
            seeds = question.seeds(self._generation)
            last = ["no server is well"]
            try:
                async with asyncio.timeout(self._engine.deadline_seconds):
                    while len(said) < question.k:
                        completions.append(await self._some(chat, seeds[len(said) :], last))
                        said += map(said_in, completions[-1].choices)
            except TimeoutError:
                limit = f"{self._engine.deadline_seconds:g} s"
                way = "Look at the servers, or raise model_engine.deadline_seconds."
                return ClipError("model", f"{clip}: no answer within {limit} ({last[0]}). {way}")
            except _PassingError as error:
                way = "Look at the servers; the same command tries again."
                return ClipError("model", f"{clip}: no answer after {self._engine.tries} tries ({error}). {way}")
            except _RejectedError as error:
                return ClipError("model", f"{clip}: {error}. Correct the server's or the model's settings.")
            written = [one.tokens("completion") for one in completions]
            return Answered(
                said=tuple(said[: question.k]),
                seconds=time.perf_counter() - started,
                prompt_tokens=completions[0].tokens("prompt"),
                answer_tokens=None if None in written else sum(one or 0 for one in written),
            )

    async def _some(self, chat: Sequence[Fields], seeds: Sequence[int], last: list[str]) -> Completion:
        """At least one of the answers wanted, with retries; notes the last failure."""
        for attempt in range(1, self._engine.tries + 1):
            server = await self._pick()
            server.in_flight += 1
            try:
                return await self._complete(server, body_of(server.takes, self._generation, self.model_id, chat, seeds))
            except _PassingError as error:
                last[0] = str(error)
                self._note(server, error)
                if attempt == self._engine.tries:
                    raise
            finally:
                server.in_flight -= 1
            await asyncio.sleep(self._backoff(attempt))
        raise AssertionError("unreachable: the last try returns or raises")

    def _backoff(self, attempt: int) -> float:
        """Seconds before the next try: doubled with each, half of it drawn."""
        longest = min(LONGEST_WAIT_SECONDS, self._engine.first_wait_seconds * 2.0 ** min(attempt - 1, 16))
        return longest * (0.5 + 0.5 * self._random.random())

    # --- servers ----------------------------------------------------------------------------------------------------

    async def _pick(self) -> _Server:
        """Least busy server that is well; waits for one, and has the others checked."""
        while True:
            now = self._loop.time()
            for server in self._servers:
                if not server.is_well and server.checking is None and server.free_at <= now:
                    server.checking = asyncio.create_task(self._check(server))
            well = [server for server in self._servers if server.is_well]
            free = [server for server in well if server.free_at <= now]
            if free:
                self._down_since = None
                return min(free, key=lambda server: server.in_flight)
            if not well:
                self._down_since = self._down_since or now
                if now - self._down_since > self._engine.deadline_seconds:
                    raise _PassingError(f"no server has answered for {now - self._down_since:.0f} s")
            checks = [server.checking for server in self._servers if server.checking]
            sleep = max(0.01, min(server.free_at for server in self._servers) - now)
            if checks:
                await asyncio.wait(checks, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(min(sleep, 1.0))

    def _note(self, server: _Server, error: _PassingError) -> None:
        """Set a failed server aside until it is checked, a busy one as long as it asks."""
        now = self._loop.time()
        server.problem = str(error)
        server.free_at = max(server.free_at, now + error.wait)
        if not error.is_well:
            server.is_well = False
            server.free_at = max(server.free_at, now + min(1.0, self._engine.first_wait_seconds))

    async def _check(self, server: _Server) -> None:
        """Find out whether a server is well, and, the first time, what it takes."""
        try:
            if server.takes is None:
                server.takes = await self._learn(server)
            else:
                await self._models(server)
            server.is_well, server.misses = True, 0
        except (_PassingError, ModelError) as error:
            server.is_refused = isinstance(error, ModelError)
            server.problem = f"{error}. {error.way}" if isinstance(error, _PassingError) else str(error)
            server.misses += 1
            wait = error.wait if isinstance(error, _PassingError) else 0.0
            server.free_at = self._loop.time() + max(wait, self._backoff(server.misses))
        finally:
            server.checking = None

    async def _meet(self, *, needs_all: bool) -> None:
        """Check every server; raise ModelError where none, or not each, is well."""
        for attempt in range(1, self._engine.tries + 1):
            await asyncio.gather(*(self._check(server) for server in self._servers))
            ill = [server for server in self._servers if not server.is_well]
            if not ill or (not needs_all and len(ill) < len(self._servers)):
                return
            if needs_all or all(server.is_refused for server in ill) or attempt == self._engine.tries:
                break
            await asyncio.sleep(self._backoff(attempt))
        raise ModelError(f"--endpoint: {ill[0].problem}")

    async def _learn(self, server: _Server) -> OptionalFields:
        """Find the fields a server takes, by a grey picture; ModelError if it takes none."""
        picture = np.full((56, 56, 3), 127, np.uint8)
        text = {"type": "text", "text": "How good does this look?"}
        chat = [{"role": "user", "content": [image_part(picture), text]}]
        refusal, way = "", "Serve a model that takes pictures, and name it by --served-model."
        for takes in optional_fields(self._generation):
            server.takes = takes
            body = body_of(takes, self._generation, self.model_id, chat, [0] * min(2, self._generation.k))
            body |= {"max_tokens": 1}
            try:
                await self._complete(server, body)
                return takes
            except _RejectedError as error:
                refusal = str(error)
                if error.status not in REFUSED:
                    way = (
                        "Correct the address, which most servers have end in /v1, or name the model by --served-model."
                    )
                    break
            finally:
                server.takes = None
        names = await self._models(server)
        if names and self.model_id not in names:
            raise ModelError(
                f"{server.url} has no model {self.model_id!r}, but {first_few(names)}; name it by --served-model"
            )
        raise ModelError(f"{refusal}. {way}")

    # --- requests ---------------------------------------------------------------------------------------------------

    async def _models(self, server: _Server) -> list[str]:
        """Names of the models that a server lists; none where it has no list."""
        with suppress(_RejectedError, ValueError, TypeError, KeyError, AttributeError):
            text = await self._send(server, "GET", "models", None, timeout=CONNECT_SECONDS)
            return [str(one["id"]) for one in json.loads(text)["data"]]
        return []

    async def _complete(self, server: _Server, body: Fields) -> Completion:
        text = await self._send(server, "POST", "chat/completions", body)
        try:
            completion = Completion.model_validate_json(text)
        except ValidationError as error:
            raise _PassingError(f"{server.url} answers with something else than a chat completion") from error
        if not completion.choices:
            raise _PassingError(f"{server.url} answers without a choice")
        return completion

    async def _send(
        self, server: _Server, method: str, path: str, body: Fields | None, *, timeout: float | None = None
    ) -> bytes:
        """Body of a good reply. Raises _PassingError, _RejectedError, ModelError (key)."""
        timeout = timeout or self._engine.deadline_seconds
        assert self._client is not None, "closed"
        try:
            async with (
                asyncio.timeout(timeout),
                self._client.stream(method, f"{server.url}/{path}", json=body) as reply,
            ):
                content = bytearray()
                async for chunk in reply.aiter_bytes():
                    content += chunk
                    if len(content) > MOST_BYTES:
                        raise _RejectedError(f"{server.url} answers with more than {MOST_BYTES >> 20} MiB", status=200)
        except TimeoutError as error:
            raise _PassingError(f"{server.url}: no answer within {timeout:g} s", way=WAIT) from error
        except httpx2.RequestError as error:
            what = self._clean(f"{type(error).__name__}: {error}")
            raise _PassingError(f"{server.url} cannot be reached ({what})", way=START) from error
        if reply.is_success:
            return bytes(content)
        said = content.decode("utf-8", "replace")
        if reply.is_redirect:  # not followed: what is behind it was not named by the user, who would send it the key
            said = f"a redirect to {reply.headers.get('Location')}, which is not followed"
        what = f"{server.url} answers {reply.status_code}: {self._clean(said)}"
        if reply.status_code in (401, 403):
            key = "refuses the key" if self._key else "wants a key"
            raise ModelError(
                f"{what}. It {key}; set the environment variable {self._engine.api_key_env}, or "
                "model_engine.api_key_file."
            )
        if reply.status_code in AGAIN or reply.status_code >= 500:
            is_busy = reply.status_code == 429
            wait = _retry_after(reply.headers.get("Retry-After"))
            raise _PassingError(what, wait=wait, is_well=is_busy, way=BUSY if is_busy else LOOK)
        raise _RejectedError(what, status=reply.status_code)

    def _clean(self, text: str) -> str:
        """A server's words on one line, short, without the key."""
        text = text.replace(self._key, "***") if self._key else text
        return " ".join(text.split())[:300]


def _retry_after(value: str | None) -> float:
    """Seconds that a server asks for, as a number or a date."""
    if value is None:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        with suppress(ValueError, TypeError):
            return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    return 0.0
