"""Where the command line finds its tasks: the API of a running service, or of a store in place.

Both answer the same calls; a store in place is asked through the API too, without a socket.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from urllib.parse import quote, urlencode

import msgspec

from rebound.domain.destination import place
from rebound.domain.errors import NotFound, ReboundError, StoreUnavailable, ValidationError
from rebound.settings.addresses import without_secrets

if TYPE_CHECKING:
    import aiohttp

    from rebound.adapters.api.app import Api
    from rebound.settings import Config

TIMEOUT: Final = 60.0
"""Seconds that a running service has for one answer."""
JSON: Final = "application/json"
AS_GIVEN: Final = "surrogateescape"
"""How arguments come back to bytes, which need not be UTF-8; the API says what is wrong."""
MAX_TASKS: Final = 1000
MAX_CHUNK: Final = 4 * 1024 * 1024
"""Bytes of one batch, unless a single task has more."""


class Refused(ReboundError):
    """The API answered with an error."""


class Result(NamedTuple):
    """What became of one task of `submit`."""

    id: str
    status: int
    error: str | None


class Line(Protocol):
    """A way to the API."""

    async def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of the answer."""
        ...


class Desk:
    """What people do with tasks. Every call raises NotFound, Refused or StoreUnavailable."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def submit(self, texts: Sequence[bytes]) -> AsyncIterator[Result]:
        """Hand in tasks, given as JSON; yields what became of each, in order."""
        for chunk in _chunks(texts):
            body = b'{"tasks":[' + b",".join(chunk) + b"]}"
            answer = await self._call("POST", "/tasks/batch", body)
            for result in answer["results"]:
                yield Result(result["id"] or "-", result["status"], result.get("error"))

    async def show(self, id_: str) -> bytes:
        """The task as JSON."""
        return await self._raw("GET", f"/tasks/{_part(id_)}")

    async def page(self, wanted: Mapping[str, object]) -> tuple[list[dict[str, Any]], str | None]:
        """Tasks, newest first, and the cursor of the next page."""
        answer = await self._call("GET", f"/tasks?{urlencode(wanted, errors=AS_GIVEN)}")
        return answer["tasks"], answer["next_cursor"]

    async def replay(self, id_: str) -> str:
        """Start the task afresh; answers its state."""
        return str((await self._call("POST", f"/tasks/{_part(id_)}/replay"))["state"])

    async def cancel(self, id_: str) -> str:
        """Give the task up; answers its state."""
        return str((await self._call("POST", f"/tasks/{_part(id_)}/cancel"))["state"])

    async def delete(self, id_: str) -> str:
        """Forget the task."""
        await self._raw("DELETE", f"/tasks/{_part(id_)}")
        return "deleted"

    async def _call(self, method: str, path: str, body: bytes = b"") -> Any:
        return msgspec.json.decode(await self._raw(method, path, body))

    async def _raw(self, method: str, path: str, body: bytes = b"") -> bytes:
        status, answer = await self._line.request(method, path, body)
        if status < 300:
            return answer
        try:
            why = msgspec.json.decode(answer, type=_Error)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise Refused(f"the answer is HTTP {status}, and not one of Rebound") from None
        known = {404: NotFound, 400: ValidationError, 503: StoreUnavailable}
        raise known.get(status, Refused)(why.error)


class _Error(msgspec.Struct):
    error: str


class RemoteLine:
    """To a running service, over HTTP."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")

    async def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of the answer. Raises Refused where there is none."""
        import aiohttp
        from yarl import URL

        url = URL(self._url + path, encoded=True)
        headers = {"Content-Type": JSON} if body else {}
        try:
            async with self._session.request(
                method, url, data=body or None, headers=headers, allow_redirects=False
            ) as answer:
                return answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Refused(f"no answer from {_shown(self._url)}: {reason}") from None


class LocalLine:
    """To the API of a store in place."""

    def __init__(self, app: Api) -> None:
        self._app = app

    async def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of the answer."""
        raw_path, _, query = path.encode().partition(b"?")
        scope = {
            "type": "http", "method": method, "path": path, "raw_path": raw_path,
            "query_string": query, "scheme": "http", "http_version": "1.1",
            "headers": [(b"host", b"localhost"), (b"content-length", b"%d" % len(body))],
        }  # fmt: skip
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        return sent[0]["status"], b"".join(part.get("body", b"") for part in sent[1:])


@asynccontextmanager
async def remote(url: str, key: str = "") -> AsyncIterator[Desk]:
    """The desk of the running service at `url`. Raises ValidationError for a malformed one."""
    import aiohttp

    if not _is_base(url):
        raise ValidationError("--url: must be http://host:port or https://host", field="url")
    if not re.fullmatch(r"[!-~]*", key):
        raise ValidationError("--api-key: must be visible ASCII characters", field="api_key")
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    # Not Authorization: that may be the URL's, for a proxy before the service.
    headers = {"X-API-Key": key} if key else {}
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        yield Desk(RemoteLine(session, url))


@asynccontextmanager
async def local(config: Config) -> AsyncIterator[Desk]:
    """The desk of the store that the settings name. Logs no events: what is asked is printed."""
    from rebound.adapters.api.app import create_app
    from rebound.embedded import Rebound

    quiet = logging.getLogger("rebound.cli.desk")
    quiet.disabled = True
    async with Rebound(replace(config, logger=quiet), worker=False) as rebound:
        yield Desk(LocalLine(create_app(rebound.engine, config=config, not_ready=lambda: None)))


def _chunks(texts: Sequence[bytes]) -> list[list[bytes]]:
    chunks: list[list[bytes]] = []
    room = 0
    for text in texts:
        if not chunks or room < len(text) or len(chunks[-1]) == MAX_TASKS:
            chunks.append([])
            room = MAX_CHUNK
        chunks[-1].append(text)
        room -= len(text) + 1
    return chunks


def _is_base(url: str) -> bool:
    try:
        return place(url).kind == "http"
    except ValidationError:
        return False


def _part(id_: str) -> str:
    return quote(id_, safe="", errors=AS_GIVEN)


def _shown(url: str) -> str:
    return without_secrets(url) if "@" in url else url
