"""Clients of a running service: the methods of `Rebound`, over HTTP.

A task gets its id before the first try, so that one whose answer was lost is sent again safely: the
service answers a known id with what is stored.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from msgspec.structs import replace
from yarl import URL

from rebound.client import answers
from rebound.domain import validation
from rebound.domain.attempt import State
from rebound.domain.errors import (
    Closed,
    NotFound,
    ReboundError,
    StoreUnavailable,
    ValidationError,
)
from rebound.domain.task import Task
from rebound.ids import uuid7
from rebound.ports import Found
from rebound.settings.addresses import without_secrets

Result = TypeVar("Result")
MAX_TASKS: Final = 1000
MAX_CHUNK: Final = 4 * 1024 * 1024
"""Tasks and bytes of one batch."""
PAUSE: Final = 0.2
"""Seconds before the first repetition; each further one waits twice as long."""
AGAIN: Final = (429, 502, 503, 504)
"""Statuses after which the same request may succeed."""


class AsyncClient:
    """Talks to the service at `url`. Use it with `async with`, or call `close`.

    Creating and reading are repeated up to `retries` times while the service cannot be reached or
    has no store; what changes a task is not. Every call raises StoreUnavailable where that did not
    help, and ReboundError for answers that are none of Rebound.
    """

    def __init__(
        self,
        url: str = "http://localhost:8080",
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        """`timeout` in seconds for one try; a `session` of the caller's own is not closed.

        Raises ValidationError for a malformed URL.
        """
        self._url = answers.base(url)
        # Not Authorization: that may be the URL's, for a proxy before the service.
        self._headers = {"X-API-Key": api_key} if api_key else {}
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._retries = retries
        self._given = session
        self._own: aiohttp.ClientSession | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Can be repeated."""
        self._closed = True
        if self._own is not None:
            await self._own.close()

    # -- tasks -------------------------------------------------------------------------------

    async def create_task(self, task: Task) -> Task:
        """Hand a task over; it is safe when this returns. Answers it with `state` and `due_at`.

        Raises ValidationError, or DuplicateTask where the id is known with other content.
        """
        task, body = _ready(task)
        answer = await self._call("POST", "/tasks", body)
        due = answer["next_attempt_at"]
        return replace(task, state=State(answer["state"]), due_at=due and answers.seconds_of(due))

    async def create_tasks(self, tasks: Iterable[Task]) -> list[Task]:
        """Hand many over, in few requests; answers them with their ids, in order.

        Raises the first error; the valid ones are stored all the same.
        """
        stored: list[Task] = []
        failed: ReboundError | None = None
        ready: list[tuple[Task, bytes]] = []
        for task in tasks:
            try:
                ready.append(_ready(task))
            except ValidationError as error:
                failed = failed or error
        for chunk in _chunks(ready):
            body = b'{"tasks":[' + b",".join(text for _, text in chunk) + b"]}"
            answer = await self._call("POST", "/tasks/batch", body)
            for (task, _), result in zip(chunk, answer["results"], strict=True):
                if result["status"] >= 300:
                    failed = failed or answers.error(result["status"], result)
                stored.append(task)
        if failed is not None:
            raise failed
        return stored

    async def get_task(self, id_: str) -> Task | None:
        """The task, or None where the id is unknown."""
        try:
            return answers.task(await self._call("GET", _path(id_)))
        except NotFound:
            return None

    async def find(
        self,
        *,
        state: State | str | None = None,
        leg: str | None = None,
        source: str | None = None,
        client_id: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Found:
        """A page of tasks, newest first, without messages and attempts. Raises ValidationError."""
        wanted = {
            "state": state, "leg": leg, "source": source, "client_id": client_id, "limit": limit,
            "cursor": cursor,
        }  # fmt: skip
        query = urlencode({name: value for name, value in wanted.items() if value is not None})
        page = await self._call("GET", f"/tasks?{query}")
        return Found([answers.task(one) for one in page["tasks"]], page["next_cursor"])

    async def replay(self, id_: str) -> Task:
        """Start a dead or cancelled task afresh. Raises NotFound or WrongState."""
        return answers.task(await self._call("POST", f"{_path(id_)}/replay", retries=0))

    async def cancel(self, id_: str) -> Task:
        """Give up a scheduled task. Raises NotFound, or WrongState (TaskBusy while delivering)."""
        return answers.task(await self._call("POST", f"{_path(id_)}/cancel", retries=0))

    async def delete(self, id_: str) -> None:
        """Forget a finished task. Raises NotFound or WrongState."""
        await self._call("DELETE", _path(id_), retries=0)

    # -- requests ----------------------------------------------------------------------------

    async def _call(
        self, method: str, path: str, body: bytes = b"", retries: int | None = None
    ) -> Any:
        left = self._retries if retries is None else retries
        pause = PAUSE
        while True:
            try:
                status, answer, wait = await self._request(method, path, body)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if not left:
                    why = str(error) or type(error).__name__
                    at = without_secrets(self._url) if "@" in self._url else self._url
                    raise StoreUnavailable(f"no answer from {at}: {why}") from None
                wait = 0.0
            else:
                if status < 300:
                    return msgspec.json.decode(answer) if answer else None
                if status not in AGAIN or not left:
                    raise answers.error(status, answer)
            await asyncio.sleep(max(wait, pause * random.uniform(0.5, 1.5)))
            left, pause = left - 1, pause * 2

    async def _request(self, method: str, path: str, body: bytes) -> tuple[int, bytes, float]:
        """Status, body, and the seconds that the service asks to wait."""
        if self._closed:
            raise Closed
        headers = {**self._headers, **({"Content-Type": "application/json"} if body else {})}
        url = URL(self._url + path, encoded=True)
        async with self._session().request(
            method, url, data=body or None, headers=headers, allow_redirects=False,
            timeout=self._timeout,
        ) as answer:  # fmt: skip
            after = answer.headers.get("Retry-After", "")
            return answer.status, await answer.read(), float(after) if after.isdigit() else 0.0

    def _session(self) -> aiohttp.ClientSession:
        if self._given is not None:
            return self._given
        if self._own is None:
            self._own = aiohttp.ClientSession()
        return self._own


def _ready(task: Task) -> tuple[Task, bytes]:
    """The task with its id, and its JSON. Raises ValidationError."""
    if isinstance(task, Task) and not task.id:
        task = replace(task, id=uuid7())
    return task, msgspec.json.encode(validation.from_python(task))


def _chunks(ready: Sequence[tuple[Task, bytes]]) -> list[list[tuple[Task, bytes]]]:
    chunks: list[list[tuple[Task, bytes]]] = []
    room = 0
    for one in ready:
        if not chunks or room < len(one[1]) or len(chunks[-1]) == MAX_TASKS:
            chunks.append([])
            room = MAX_CHUNK
        chunks[-1].append(one)
        room -= len(one[1]) + 1
    return chunks


def _path(id_: str) -> str:
    return f"/tasks/{quote(id_, safe='')}"
