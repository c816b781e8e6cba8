"""The HTTP API: a bare ASGI application over the engine.

Ids may contain any visible character, `/` included, so that routes are found in `raw_path`, part
by part (docs/adr). What is answered is in `view`, what an error becomes in `answer`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

from msgspec.structs import replace

from rebound.adapters.api import answer, docs, incoming, openapi, view
from rebound.adapters.api.access import Access
from rebound.adapters.api.answer import Answer
from rebound.adapters.api.request import (
    Disconnected,
    Receive,
    Request,
    Scope,
    Send,
    segments,
    task_id,
)
from rebound.domain.drafts import Draft
from rebound.domain.errors import NotFound, ReboundError, StoreUnavailable, ValidationError
from rebound.engine import Engine

LOG = logging.getLogger("rebound")
SLACK: Final = 65_536
"""Bytes that a body may have beyond twice its message."""
PING_TIMEOUT: Final = 4.0
"""Seconds that the store has to answer a health check."""

Handler = Callable[[Request, str], Awaitable[Answer]]
Methods = Mapping[str, Handler]


class Config(Protocol):
    """The settings that the API goes by."""

    @property
    def max_payload_bytes(self) -> int: ...
    @property
    def max_batch_bytes(self) -> int: ...
    @property
    def call_over_http(self) -> bool: ...


def create_app(
    engine: Engine,
    *,
    config: Config,
    not_ready: Callable[[], str | None],
    access: Access | None = None,
) -> Api:
    """The ASGI application. `not_ready` says why requests are not welcome, or None.

    Without `access` everybody may call everything.
    """
    return Api(engine, config, not_ready, access)


class Api:
    """Every call of the HTTP API, by path and method."""

    def __init__(
        self,
        engine: Engine,
        config: Config,
        not_ready: Callable[[], str | None],
        access: Access | None,
    ) -> None:
        self._engine = engine
        self._access = access
        self._not_ready = not_ready
        self._calls = config.call_over_http
        self._max_payload = config.max_payload_bytes
        self._max_body = 2 * config.max_payload_bytes + SLACK
        self._max_batch = config.max_batch_bytes
        self._tasks: Methods = {"POST": self._create, "GET": self._find}
        self._task: Methods = {"GET": self._get, "DELETE": self._delete}
        # A task may be called `batch`.
        self._batch: Methods = {"POST": self._create_many, **self._task}
        self._replays: Methods = {"POST": self._replay}
        self._cancels: Methods = {"POST": self._cancel}
        self._fixed: Mapping[str, Methods] = {
            "tasks": self._tasks,
            "health": {"GET": self._health},
            "livez": {"GET": self._livez},
            "readyz": {"GET": self._readyz},
            "openapi.json": {"GET": self._openapi},
            "docs": {"GET": self._docs},
        }
        self._open = {self._health, self._livez, self._readyz}
        if access is not None and access.describes:
            self._open |= {self._openapi, self._docs}
        self._submits = {self._create, self._create_many, self._get}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _other(scope["type"], receive, send)
            return
        request = Request(scope, receive)
        try:
            status, headers, body = await self._answer(request, scope["raw_path"])
        except Disconnected:
            return
        if request.truncated:
            headers.append((b"connection", b"close"))
        if request.method == "HEAD":
            body = b""
        try:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        except RuntimeError:  # of uvloop: the next bytes were no HTTP, which ended the connection
            return

    async def _answer(self, request: Request, raw_path: bytes) -> Answer:
        try:
            try:
                methods, id_ = self._route(raw_path)
                method = "GET" if request.method == "HEAD" else request.method
                handler = methods.get(method)
                if handler is None:
                    raise answer.MethodNotAllowed(_allow(methods))
                if self._access is not None and handler not in self._open:
                    self._access.admit(request.key(), submits=handler in self._submits)
                request.require_same_site()
                return await handler(request, id_)
            except ReboundError as error:
                await request.drop()
                return answer.refusal(error)
        except Disconnected:
            raise
        except Exception:
            LOG.exception("a bug: %s %s failed", request.method, raw_path.decode("latin-1"))
            return answer.internal()

    def _route(self, raw_path: bytes) -> tuple[Methods, str]:
        """What the path takes, and the id in it. Raises NotFound."""
        if raw_path == b"/tasks":
            return self._tasks, ""
        match segments(raw_path):
            case [name] if name in self._fixed:
                return self._fixed[name], ""
            case ["tasks", "batch"]:
                return self._batch, "batch"
            case ["tasks", id_]:
                return self._task, task_id(id_)
            case ["tasks", id_, "replay"]:
                return self._replays, task_id(id_)
            case ["tasks", id_, "cancel"]:
                return self._cancels, task_id(id_)
            case _:
                raise NotFound("nothing is known by this path; see /docs")

    # -- tasks -------------------------------------------------------------------------------

    async def _create(self, request: Request, _: str) -> Answer:
        data = await request.json(self._max_body)
        try:
            draft = incoming.draft(data, calls=self._calls)
            if not draft.id and (key := request.idempotency_key()):
                draft = replace(draft, id=key)
            submitted = await self._engine.submit(draft)
        except ValidationError as error:
            raise incoming.too_large(data, error, max_payload=self._max_payload) from None
        return answer.json(view.scheduled(submitted), 201 if submitted.created else 200)

    async def _create_many(self, request: Request, _: str) -> Answer:
        texts = incoming.batch(await request.json(self._max_batch))
        outcomes = await self._engine.submit_many([self._parsed(text) for text in texts])
        results = [
            incoming.result(text, outcome, max_payload=self._max_payload)
            for text, outcome in zip(texts, outcomes, strict=True)
        ]
        return answer.json(view.BatchResults(results))

    def _parsed(self, text: bytes) -> Draft | ReboundError:
        try:
            return incoming.draft(text, calls=self._calls)
        except ReboundError as error:
            return error

    async def _get(self, request: Request, id_: str) -> Answer:
        return answer.json(view.whole(await self._engine.get(id_)))

    async def _find(self, request: Request, _: str) -> Answer:
        wanted, limit, cursor = request.wanted()
        found = await self._engine.find(wanted, limit=limit, cursor=cursor)
        return answer.json(view.Page([view.summary(t) for t in found.tasks], found.cursor))

    async def _replay(self, request: Request, id_: str) -> Answer:
        await request.json(self._max_body)
        return answer.json(view.whole(await self._engine.replay(id_)))

    async def _cancel(self, request: Request, id_: str) -> Answer:
        await request.json(self._max_body)
        return answer.json(view.whole(await self._engine.cancel(id_)))

    async def _delete(self, request: Request, id_: str) -> Answer:
        await self._engine.delete(id_)
        return Answer(204, [])

    # -- health ------------------------------------------------------------------------------

    async def _health(self, request: Request, _: str) -> Answer:
        name = self._engine.store.name
        if not await self._store_answers():
            return answer.json(view.Unhealthy("unhealthy", f"{name} connection failed"), 503)
        return answer.json({"status": "healthy", "checks": {name: "connected"}})

    async def _livez(self, request: Request, _: str) -> Answer:
        return answer.json(view.Alive("alive"))

    async def _readyz(self, request: Request, _: str) -> Answer:
        why = self._not_ready()
        if why is None and not await self._store_answers():
            why = f"{self._engine.store.name} connection failed"
        if why is not None:
            return answer.json(view.NotReady("not ready", why), 503)
        return answer.json(view.Ready("ready"))

    async def _store_answers(self) -> bool:
        try:
            async with asyncio.timeout(PING_TIMEOUT):
                await self._engine.ping()
        except (StoreUnavailable, TimeoutError):
            return False
        return True

    # -- description -------------------------------------------------------------------------

    async def _openapi(self, request: Request, _: str) -> Answer:
        return answer.raw(openapi.text())

    async def _docs(self, request: Request, _: str) -> Answer:
        page = docs.page()
        headers = [*docs.HEADERS, (b"content-length", b"%d" % len(page))]
        return Answer(200, headers, page)


def _allow(methods: Methods) -> str:
    return ", ".join(sorted({*methods, "HEAD"} if "GET" in methods else methods))


async def _other(kind: str, receive: Receive, send: Send) -> None:
    """What else ASGI asks: a start and end to confirm; WebSockets are not served."""
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1000})
    while kind == "lifespan":
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
